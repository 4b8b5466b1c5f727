"""Populations, records and a small real store for the tests of mer-bench."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench import cli
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Population
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared, prepare_data
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_bench.training.result import FoldResult

CLASSES = ("negative", "positive", "surprise")
DATABASES = ("casme2", "samm", "smic")

Call = Callable[..., tuple[int, str, str]]


def separable_maps(labels: np.ndarray, seed: int = 0, size: int = 28) -> np.ndarray:
    """One bright block per class in u, on noise: a class can be read off a map."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, 0.1, (len(labels), 3, size, size)).astype(np.float32)
    for i, label in enumerate(labels):
        maps[i, 0, 2 + 8 * label : 8 + 8 * label, 4:24] += 1.0
    return maps


def make_population(
    subjects: int = 4, clips: int = 5, databases: Sequence[str] = DATABASES, seed: int = 0
) -> Population:
    """Every database with so many subjects, each with `clips` samples; the classes are dealt at random."""
    rng = np.random.default_rng(seed)
    rows = [
        (d, f"{d}/s{s:02d}", f"{d}/s{s:02d}/c{c}")
        for d in databases
        for s in range(subjects)
        for c in range(clips)
    ]
    labels = rng.permutation(np.arange(len(rows)) % len(CLASSES))
    return Population(
        np.array([row[2] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[0] for row in rows]),
        labels.astype(np.int64),
        CLASSES,
        "megc3",
    )


@pytest.fixture(scope="module")
def population() -> Population:
    return make_population()


@pytest.fixture(scope="session")
def populate() -> Callable[..., Population]:
    return make_population


@pytest.fixture(scope="module")
def bench_data(population: Population) -> BenchData:
    return BenchData(separable_maps(population.labels), population, "whole-28", "scaled")


@pytest.fixture(scope="session")
def record() -> Callable[..., FoldResult]:
    """Builds a record from its argmax per epoch: `record("s1", test=[0, 1], picks=[[0, 1], [0, 0]])`."""

    def build(
        fold: str,
        test: Sequence[int],
        picks: Sequence[Sequence[int]],
        inner: Sequence[int] = (),
        inner_picks: Sequence[Sequence[int]] = (),
        seed: int = 0,
        classes: int = 3,
    ) -> FoldResult:
        one_hot, epochs = np.eye(classes, dtype=np.float32), len(picks)
        inner_logits = (
            one_hot[np.array(inner_picks)] if len(inner) else np.zeros((epochs, 0, classes), np.float32)
        )
        return FoldResult(
            fold, seed, np.array(test, np.int64), one_hot[np.array(picks)], np.array(inner, np.int64),
            inner_logits, np.linspace(1, 0.5, epochs, dtype=np.float32),
            np.linspace(0.5, 1, epochs, dtype=np.float32), 0.25, "local", "cpu",
        )  # fmt: skip

    return build


@pytest.fixture
def prepared_with(bench_data: BenchData) -> Callable[..., Prepared]:
    """Prepares a run of a model on the separable data: `prepared_with(spec, protocol="cde", seeds=(0,))`."""

    def build(spec: ModelSpec, overrides: dict[str, object] | None = None, **settings: object) -> Prepared:
        names = [name for name in TrainingSettings.model_fields if name in settings]
        how = {"device": "cpu", "workers": 1, **{name: settings.pop(name) for name in names}}
        run = RunSettings(**{"model": spec.name, "protocol": "cde", **settings})
        request = Request(run, overrides or {}, TrainingSettings(**how))
        return prepare_data(Registered(spec, "test 1.0"), request, bench_data)

    return build


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real store: three databases of 3 subjects with 6 clips each, maps in pixels, a class visible in u."""
    return write_small_store(tmp_path_factory.mktemp("store") / "small.h5")


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Path]:
    """Writes a store as `small_store` is: `write_store(path, seed=7, leave_out=("smic/s00/c1",), clips=6)`.

    `import_of` is what its pipeline says of an import.
    """
    return write_small_store


def write_small_store(
    path: Path,
    seed: int = 0,
    leave_out: Sequence[str] = (),
    import_of: dict[str, object] | None = None,
    clips: int = 6,
) -> Path:
    from mer_flow.samples import Sample, SampleTable
    from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample

    pipeline: dict[str, object] = {"map_kind": {"kind": "computed", "map_size": 28, "values": "px"}}
    if import_of:
        pipeline["import"] = import_of
    with StoreWriter(path, pipeline) as writer:
        for number, database in enumerate(DATABASES):
            samples = [
                Sample(
                    f"{database}/s{s:02d}/c{c}", database, f"{database}/s{s:02d}", f"c{c}", 1, 5, 9, "sheet",
                    CLASSES[(c + s) % 3], "", 0, 200.0,
                )
                for s in range(3) for c in range(clips)
            ]  # fmt: skip
            samples = [sample for sample in samples if sample.sample_id not in leave_out]
            if not samples:
                continue
            writer.begin(database, SampleTable(samples))
            labels = np.array([CLASSES.index(sample.emotion) for sample in samples])
            for sample, flow in zip(samples, separable_maps(labels, number + seed), strict=True):
                flow[2] = np.abs(flow[2])
                writer.commit(
                    sample.sample_id, encode_sample(SampleRecord(sample, flow, notes={"fallbacks": []}))
                )
        writer.finish()
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `mer-bench` in this process; returns exit code, standard output and standard error."""
    monkeypatch.delenv("MER_BENCH_STORE", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mer-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def with_records(record: Callable[..., FoldResult]) -> Callable[..., RunDirectory]:
    """Writes a run by hand: random picks, alike for the same seed and fold, a share `right` of them true."""

    def build(prepared: Prepared, out: Path, epochs: int = 3, right: float = 0.0) -> RunDirectory:
        run = RunDirectory.create_or_resume(out, prepared.manifest)
        labels = prepared.data.population.labels
        for seed in run.seeds:
            for number, fold in enumerate(prepared.folds.folds):
                rng = np.random.default_rng([seed, number])
                picks = rng.integers(0, 3, (epochs, len(fold.test)))
                inner = rng.integers(0, 3, (epochs, len(fold.inner)))
                picks = np.where(rng.random(picks.shape) < right, labels[fold.test], picks)
                run.write(record(fold.name, fold.test, picks, fold.inner, inner, seed))
        return run

    return build


@pytest.fixture(scope="module")
def official_data(bench_data: BenchData) -> BenchData:
    """The composition of the MEGC2019 composite, on empty maps."""
    from mer_bench.protocols.composite import MEGC2019

    rows = [
        (f"{d}/s{i % count:02d}", d, label)
        for d, (count, classes) in MEGC2019.items()
        for i, label in enumerate([c for c, n in enumerate(classes) for _ in range(n)])
    ]
    ids = np.array([f"{subject}/c{i:03d}" for i, (subject, _, _) in enumerate(rows)])
    subjects, databases, labels = (np.array(column) for column in zip(*rows, strict=True))
    population = Population(ids, subjects, databases, labels, bench_data.population.classes, "megc3")
    return replace(bench_data, maps=np.zeros((len(rows), 3, 4, 4), np.float32), population=population)
