"""What a kept network says of the samples of a store, labelled or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mer_bench.errors import CheckpointError, DataError
from mer_bench.scores.metrics import METRICS, confusion_matrix
from mer_bench.training.reading import Reading
from mer_bench.weights.checkpoint import Checkpoint
from mer_flow.labels import LabelScheme, apply_scheme
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import deciding, differing_keys
from mer_flow.views.read import ViewReader

if TYPE_CHECKING:
    import pandas as pd

#: Samples that are read and predicted at once.
BATCH = 64
#: Differing parameters that a message lists.
SHOWN = 6
#: Takes every sample, whatever its label.
_EVERY = LabelScheme("every sample", ("any",), "", {}, otherwise=lambda sample: "any")


@dataclass(frozen=True)
class Predicted:
    """Predictions, a row per sample, in the order of sample ids.

    Attributes:
        sample_ids: `(N,)` str.
        subjects: `(N,)` str.
        databases: `(N,)` str.
        labels: `(N,)` int64, index into `classes`; -1 where the scheme gives the sample no class.
        trained_on: `(N,)` bool, whether the network was trained on samples of the subject.
        probabilities: `(N, C)` float64.
        classes: Names of the classes.
        notes: What a reader should know.
    """

    sample_ids: np.ndarray
    subjects: np.ndarray
    databases: np.ndarray
    labels: np.ndarray
    trained_on: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return a row per sample, as `mer-bench score` reads it.

        Columns `sample`, `subject`, `database`, `trained_on`, `label` (empty where the scheme gives no
        class), `predicted`, and `p_<class>` for each class.
        """
        import pandas as pd

        names = np.array([*self.classes, ""], object)
        shares = {f"p_{name}": self.probabilities[:, c] for c, name in enumerate(self.classes)}
        return pd.DataFrame(
            {
                "sample": self.sample_ids,
                "subject": self.subjects,
                "database": self.databases,
                "trained_on": self.trained_on,
                "label": names[self.labels],
                "predicted": names[self.probabilities.argmax(1)],
                **shares,
            }
        )

    def scores(self) -> dict[str, dict[str, Any]]:
        """Score the labelled samples, apart by whether the network was trained on their subjects.

        Returns:
            `new subjects` and `trained on`, those that there are, each with `samples`, `subjects`, `uf1`,
            `uar` and `accuracy`. What is said of subjects that were trained on is no score.
        """
        found = {}
        for name, mask in (("new subjects", ~self.trained_on), ("trained on", self.trained_on)):
            rows = mask & (self.labels >= 0)
            if rows.any():
                predicted = self.probabilities[rows].argmax(1)
                confusion = confusion_matrix(self.labels[rows], predicted, len(self.classes))
                figures = {metric: float(function(confusion)) for metric, function in METRICS.items()}
                counts = {"samples": int(rows.sum()), "subjects": len(np.unique(self.subjects[rows]))}
                found[name] = {**counts, **figures}
        return found


def predict(
    checkpoint: Checkpoint, store: Path, db: Sequence[str] = (), other_pipeline: bool = False
) -> Predicted:
    """Predict the samples of a store as folds are predicted: flips and prior as the recipe has them.

    Args:
        checkpoint: The network.
        store: Path of the store.
        db: Databases; all unless given.
        other_pipeline: Take maps of another pipeline than those of the training; a note says so.

    Raises:
        CheckpointError: The checkpoint does not say what the network reads.
        DataError: The store was made by another pipeline.
        ViewError: It cannot give the network's input.
    """
    about = checkpoint.metadata
    with FlowStore(store) as opened:
        reader = _reader(checkpoint, opened, db)
        notes = _compared(checkpoint, opened, other_pipeline)
        order = np.argsort(reader.sample_ids, kind="stable")
        labels: dict[str, int] = {}
        for database in reader.chosen:
            labels |= apply_scheme(opened.samples(database), about.scheme).labels if about.scheme else {}
        read = _reading(checkpoint)
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        logits = torch.cat([read(torch.from_numpy(reader.read(batch))) for batch in batches])
        subjects = reader.subjects[order]
        return Predicted(
            reader.sample_ids[order],
            subjects,
            reader.databases[order],
            np.array([labels.get(name, -1) for name in reader.sample_ids[order]], np.int64),
            np.isin(subjects, about.training.get("subject_names", [])),
            torch.softmax(logits.double(), -1).numpy(),
            about.classes,
            (*checkpoint.notes, *notes),
        )


def read_inputs(checkpoint: Checkpoint, store: Path, count: int) -> np.ndarray:
    """Read the network's input of at most `count` samples, spread over a store: `(M, C, H, W)` float32."""
    with FlowStore(store) as opened:
        reader = _reader(checkpoint, opened)
        return reader.read(np.unique(np.linspace(0, len(reader) - 1, count).astype(np.int64)))


def _reader(checkpoint: Checkpoint, store: FlowStore, db: Sequence[str] = ()) -> ViewReader:
    """Return what reads every sample of some databases in the network's input."""
    about = checkpoint.metadata
    if not (about.view and about.normalisation and about.classes):
        raise CheckpointError(
            f"checkpoint {checkpoint.folder} does not name its view, normalisation and classes, so no input "
            "can be made for it; train it with `mer-bench fit`, or save it with metadata"
        )
    # Maps that are pictures go by a view's other name.
    view = about.view.replace("colours-", "whole-")
    reader = ViewReader(store, view, about.normalisation, scheme=_EVERY, databases=list(db) or None)
    if reader.shape != checkpoint.shape:
        raise DataError(
            f"store {store.path} gives {view} as maps of {reader.shape}, and the network reads "
            f"{checkpoint.shape}; build it with as many frames as the training's store"
        )
    return reader


def _compared(checkpoint: Checkpoint, store: FlowStore, other_pipeline: bool) -> list[str]:
    """Return what is to be said of another pipeline, or refuse it by the names of what differs."""
    ours, theirs = checkpoint.metadata.pipeline, store.pipeline
    if checkpoint.metadata.pipeline_hash == store.pipeline_hash:
        return []
    differing = differing_keys(deciding(ours), deciding(theirs))
    if not differing:
        return ["lesser versions of the pipeline's libraries differ from those of the training"]
    listed = "; ".join(f"{name}: {old!r} in training, {new!r} here" for name, old, new in differing[:SHOWN])
    more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    said = f"maps of {store.path} were made otherwise than those of the training ({listed}{more})"
    if not other_pipeline:
        raise DataError(
            f"{said}; predict a store of the same pipeline, or take this one with --other-pipeline"
        )
    return [said]


def _reading(checkpoint: Checkpoint) -> Any:
    """Return what reads maps `(M, C, H, W)` into `(M, classes)` logits on the CPU, as the recipe asks."""
    about, network = checkpoint.metadata, checkpoint.network
    like = next(network.parameters())

    def logits(maps: Tensor) -> Tensor:
        found: Tensor = network(maps.squeeze(0))
        return found.unsqueeze(0)

    reading = None
    if checkpoint.recipe is not None and "per_class" in about.training:
        counts = torch.tensor([[about.training["per_class"][name] for name in about.classes]])
        view = f"{about.view}:{about.normalisation}"
        reading = Reading.of_recipe(checkpoint.recipe, view, counts.to(like.device))

    @torch.inference_mode()
    def read(maps: Tensor) -> Tensor:
        batch = maps.to(like).unsqueeze(0)
        found = logits(batch) if reading is None else reading(logits, batch)
        return found.squeeze(0).float().cpu()

    return read
