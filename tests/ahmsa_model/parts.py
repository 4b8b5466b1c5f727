"""What several tests of prediction need."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ahmsa_model import AHMSANet, CheckpointMetadata
from mer_flow.store.reader import FlowStore

CLASSES = ("negative", "positive", "surprise")


@dataclasses.dataclass
class Built:
    """A store of two synthetic clips, the frames of the first, and an untrained checkpoint."""

    store: FlowStore
    folder: Path
    onset: Path
    apex: Path
    checkpoint: Path


def build(root: Path) -> Built:
    from mer_flow.databases import get_database
    from mer_flow.databases.frames import FrameIndex
    from mer_flow.databases.source import Source
    from mer_flow.extraction.build import BuildOptions, build_store
    from mer_flow.synthetic import make_tree

    tree = make_tree(root / "tree", "casme2", subjects=1, clips_per_subject=2)
    build_store(Source("casme2", tree), root / "store.h5", options=BuildOptions(workers=1))
    store = FlowStore(root / "store.h5")
    sample = next(iter(store.samples("casme2")))
    folder = get_database("casme2").locate(tree).folder(sample)
    index = FrameIndex.scan(folder)
    torch.manual_seed(0)
    metadata = {"classes": CLASSES, "scheme": "megc3", "view": "regions-28", "normalisation": "scaled"}
    made = {"pipeline": store.pipeline, "pipeline_hash": store.pipeline_hash, "training": {"epochs": 0}}
    network = AHMSANet.from_variant("tiny")
    network.metadata = CheckpointMetadata(**metadata, **made)
    network.save_pretrained(root / "checkpoint")
    return Built(store, folder, index.path(sample.onset), index.path(sample.apex), root / "checkpoint")
