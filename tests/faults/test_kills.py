"""Builds, imports and exports killed where they write and at random times: nothing lost, nothing left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.faults.kills import Campaign, command
from tests.faults.trials import PARTS, Trials
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.databases import clips
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.synthetic import make_tree
from mer_flow.work.executor import InThisProcess
from mer_flow.work.libraries import load_cv2

SETTINGS = (
    "align.size=64",
    "regions.backend=dlib",
    "flow.scale_step=0.5",
    "flow.warps=1",
    "flow.epsilon=0.1",
)


def digest(folder: Path) -> str:
    """The bytes of every file below a folder but for its temporary ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = hashlib.sha256()
    for path in files:
        told.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return told.hexdigest()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_cv2().setNumThreads(1)  # its pool of threads would be missing in forked children
    root = tmp_path_factory.mktemp("tree") / "casme2"
    make_tree(root, "casme2", subjects=1, clips_per_subject=3, seed=1)
    return root


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A flat folder of three maps as STSTNet publishes them, and its list."""
    folder = tmp_path_factory.mktemp("maps") / "flat"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = folder.parent / "labels.csv"
    labels.write_text("".join(f"samm,{n:03},{n:03}_1_1,{n}\n" for n in range(3)))
    for n in range(3):
        pixels = rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:03}_{n:03}_1_1 .png")
    return folder, labels


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "flows.h5"
    rng = np.random.default_rng(0)
    emotions = ("happiness", "anger", "surprise")
    rows = [
        (sample_of("samm", f"00{n}", f"c_{n}", e), rng.uniform(0, 1, (3, 28, 28)))
        for n, e in enumerate(emotions)
    ]
    write_store(path, rows).close()
    return path


def readable(folder: Path) -> None:
    """A reader sees a whole store or none, whenever the writer was killed."""
    path = folder / "flows.h5"
    if path.exists():
        with FlowStore(path) as found:
            for database in found.databases:
                assert len(found.flow(database)[:]) == len(found.samples(database))


def one_build(tree: Path) -> Callable[[Path], Callable[[], int]]:
    words = [word for setting in SETTINGS for word in ("--set", setting)]

    def prepare(folder: Path) -> Callable[[], int]:
        return command(
            "mer-flow", "build", "--db", "casme2", "--root", tree, "--store", folder / "flows.h5", "--quiet",
            "--workers", 1, *words,
        )  # fmt: skip

    return prepare


def store_bytes(folder: Path) -> bytes:
    assert verify_store(folder / "flows.h5") == []
    return (folder / "flows.h5").read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_builds(
    part: int,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    # Samples are computed where the store is written: a spawned worker takes seconds to begin.
    monkeypatch.setattr(clips, "LocalProcesses", lambda workers: InThisProcess())
    one_build(tree)(tmp_path / "first")()  # loads what every child then has
    trials = Trials(record_property, "build killed", few=4, many=200, share=0.22, part=part)
    Campaign(one_build(tree), store_bytes).run(tmp_path, trials, again=readable)


def test_imports(
    maps: tuple[Path, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, labels = maps

    def prepare(into: Path) -> Callable[[], int]:
        return command(
            "mer-flow", "import", "ststnet", folder, "--store", into / "flows.h5", "--labels", labels
        )

    trials = Trials(record_property, "import killed", few=8, many=60, share=0.04)
    Campaign(prepare, store_bytes).run(tmp_path, trials, again=readable)


@pytest.mark.parametrize("layout", ["ststnet-loso", "flat", "npz", "parquet"])
def test_exports(
    layout: str, store: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow.parquet")  # loaded here, not in every child
        pytest.importorskip("pandas")

    def prepare(into: Path) -> Callable[[], int]:
        out = into / ("maps" if layout in ("ststnet-loso", "flat") else f"maps.{layout}")

        def work() -> int:
            there = out.exists()  # killed after the last step: the export refuses to write over it
            code = command("mer-flow", "export", layout, store, "--out", out)()
            return 0 if there and code == 2 else code

        return work

    trials = Trials(record_property, "export killed", few=4, many=20, share=0.015)
    Campaign(prepare, digest).run(tmp_path, trials)
