"""RunSummary: every figure of a complete run, computed from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.bootstrap import bootstrap_interval, subject_confusions
from mer_bench.scores.metrics import METRICS, Scores, pools
from mer_bench.scores.published import PublishedScore, scores_beside
from mer_bench.scores.selection import Selected, select
from mer_bench.training.result import FoldResult


@dataclass(frozen=True)
class Figure:
    """One metric over seeds.

    Attributes:
        mean: Over seeds.
        sd: Over seeds (n-1); None for one seed.
        low: Lower end of the 95 % bootstrap interval over subjects.
        high: Upper end.
        per_seed: In the order of seeds.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class PoolSummary:
    """One pool of predictions under one selection.

    Attributes:
        figures: Metric name (`uf1`, `uar`, `accuracy`) to its figure.
        scores: Per seed.
        confusion: `(C, C)` int64, rows true, summed over seeds.
        absent: Indices of classes without a sample here; they count as 0.
    """

    figures: dict[str, Figure]
    scores: tuple[Scores, ...]
    confusion: np.ndarray
    absent: tuple[int, ...]

    def per_class(self, name: str) -> np.ndarray:
        """Returns `(C,)`: `f1`, `recall` or `precision` per class, averaged over seeds."""
        mean: np.ndarray = np.mean([getattr(score, name) for score in self.scores], axis=0)
        return mean


@dataclass(frozen=True)
class RunSummary:
    """A complete run.

    Attributes:
        manifest: The run's manifest.
        path: Its directory.
        seeds: The seeds summarised.
        selections: Selection (`last`, then `inner` and `oracle` where they say more) to pool to summary.
        epochs: Epochs recorded per fold.
        chosen_epochs: Selection to the median chosen epoch over folds and seeds.
        train_accuracy: Accuracy on the training samples after the last epoch, averaged over folds and seeds.
        seconds: Training time, summed over folds and seeds.
        devices: Every device and engine that trained a fold.
        samples: Number of tested samples.
        subjects: Number of tested subjects.
        notes: What training noted of folds, beyond the manifest's warnings, and a change of device.
    """

    manifest: dict[str, Any]
    path: str
    seeds: tuple[int, ...]
    selections: dict[str, dict[str, PoolSummary]]
    epochs: int
    chosen_epochs: dict[str, float]
    train_accuracy: float
    seconds: float
    devices: tuple[str, ...]
    samples: int
    subjects: int
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The model's title, with what sets this run apart from its default."""
        return run_title(self.manifest)

    @property
    def is_control(self) -> bool:
        """Whether the labels were shuffled."""
        return self.manifest["identity"]["shuffle_labels"] is not None

    @property
    def comparable(self) -> bool:
        """Whether published scores may stand beside this run; a composite must be the official one."""
        return bool(self.beside) and not self.manifest["deviations"] and not self.is_control

    @property
    def beside(self) -> tuple[PublishedScore, ...]:
        """The published scores of this protocol, these databases and as many classes."""
        databases = set(self.manifest["samples"]["databases"])
        return scores_beside(self.manifest["protocol"], databases, len(self.manifest["classes"]))

    @property
    def group(self) -> tuple[str, str, str, int, int]:
        """Runs of one group were tested on the same samples in as many folds and share a table."""
        identity = self.manifest["identity"]
        databases = "+".join(sorted(set(self.manifest["samples"]["databases"])))
        folds = len(self.manifest["folds"])
        return identity["protocol"], identity["scheme"], databases, self.samples, folds

    def gap(self, selection: str, pool: str, metric: str) -> float:
        """Returns how much a selection gains over `last`; for `oracle` that is the leakage gap."""
        chosen = self.selections[selection][pool].figures[metric].mean
        return chosen - self.selections["last"][pool].figures[metric].mean

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers, lists and text."""
        return {
            "path": self.path,
            "model": self.manifest["model"],
            "title": self.title,
            "protocol": self.manifest["protocol"],
            "scheme": self.manifest["identity"]["scheme"],
            "classes": self.manifest["classes"],
            "seeds": list(self.seeds),
            "samples": self.samples,
            "subjects": self.subjects,
            "folds": len(self.manifest["folds"]),
            "epochs": self.epochs,
            "view": f"{self.manifest['identity']['view']}:{self.manifest['identity']['normalisation']}",
            "parameters": self.manifest["parameters"],
            "train_accuracy": self.train_accuracy,
            "training_seconds": self.seconds,
            "devices": list(self.devices),
            "control": self.is_control,
            "comparable_with_published": self.comparable,
            "deviations": self.manifest["deviations"],
            "warnings": self.manifest["warnings"],
            "notes": list(self.notes),
            "chosen_epochs": self.chosen_epochs,
            "selections": {
                selection: {
                    pool: {
                        "figures": {
                            name: {
                                "mean": figure.mean,
                                "sd": figure.sd,
                                "interval": [figure.low, figure.high],
                                "per_seed": list(figure.per_seed),
                                "gap": self.gap(selection, pool, name),
                            }
                            for name, figure in summary.figures.items()
                        },
                        "per_class": {
                            name: summary.per_class(name).tolist() for name in ("f1", "recall", "precision")
                        },
                        "confusion": summary.confusion.tolist(),
                        "absent_classes": [self.manifest["classes"][c] for c in summary.absent],
                    }
                    for pool, summary in by_pool.items()
                }
                for selection, by_pool in self.selections.items()
            },
        }


def run_title(manifest: Mapping[str, Any], named: bool = True) -> str:
    """Returns the model's title, with what sets a run apart from its default.

    Args:
        manifest: The run's manifest.
        named: Name variant and recipe too.
    """
    aside = [] if manifest["variant"] == "default" or not named else [manifest["variant"]]
    recipe, control = manifest["identity"]["recipe"], manifest["identity"]["shuffle_labels"]
    if recipe is not None and named:
        aside.append(recipe["name"])
    aside += [f"{key}={value}" for key, value in manifest.get("changes", {}).items()]
    if manifest["settings"]["inner"]:
        aside.append("inner subjects reserved")
    parts = [manifest["title"]]
    if aside:
        parts.append(f"({', '.join(aside)})")
    if control is not None:
        parts.append(f"[CONTROL: labels shuffled, seed {control}]")
    return " ".join(parts)


def complete_records(run: RunDirectory, seeds: Sequence[int] | None = None) -> dict[int, list[FoldResult]]:
    """Reads every record of a run, or refuses.

    Args:
        run: The run.
        seeds: Seeds to read; all of the manifest by default.

    Returns:
        Seed to records, in the order of folds.

    Raises:
        UsageError: A seed was never asked for.
        RunError: Folds are missing or damaged; they are named.
    """
    wanted = tuple(run.seeds if seeds is None else seeds)
    strange = [seed for seed in wanted if seed not in run.seeds]
    if strange:
        raise UsageError(f"{run.path} has seeds {list(run.seeds)}, not {strange}")
    status = run.status(wanted)
    if not status.complete:
        raise RunError(
            f"{run.path} is incomplete and cannot be tabulated. {status.describe_gaps()}. "
            "Run the same `mer-bench run` command again to train what is missing"
        )
    return {seed: run.records(seed) for seed in wanted}


def selections_of(records: dict[int, list[FoldResult]]) -> tuple[str, ...]:
    """Returns `last`, `inner` where subjects were reserved, `oracle` where there are several epochs."""
    first = next(iter(records.values()))
    names = ["last"]
    if all(record.inner_index.size for record in first):
        names.append("inner")
    if any(len(record.logits) > 1 for record in first):
        names.append("oracle")
    return tuple(names)


def summarise(run: RunDirectory, seeds: Sequence[int] | None = None, draws: int = 2000) -> RunSummary:
    """Computes every figure of a complete run.

    Args:
        run: The run.
        seeds: Seeds to summarise; all by default.
        draws: Resamples of the bootstrap.

    Returns:
        The summary.

    Raises:
        RunError: The run is incomplete.
    """
    records = complete_records(run, seeds)
    labels, subjects, databases = run.column("labels"), run.column("subjects"), run.column("databases")
    num_classes = len(run.manifest["classes"])
    selections: dict[str, dict[str, PoolSummary]] = {}
    chosen: dict[str, float] = {}
    for rule in selections_of(records):
        picked = [select(folds, labels, rule) for folds in records.values()]
        chosen[rule] = float(np.median([epoch for one in picked for epoch in one.epochs.values()]))
        selections[rule] = _pool_summaries(picked, labels, subjects, databases, num_classes, draws)
    every = [record for folds in records.values() for record in folds]
    tested = np.unique(np.concatenate([record.test_index for record in every]))
    return RunSummary(
        manifest=run.manifest,
        path=str(run.path),
        seeds=tuple(records),
        selections=selections,
        epochs=max(len(record.logits) for record in every),
        chosen_epochs=chosen,
        train_accuracy=float(np.mean([record.train_accuracy[-1] for record in every])),
        seconds=float(sum(record.seconds for record in every)),
        devices=tuple(sorted({f"{record.device} ({record.engine})" for record in every})),
        samples=len(tested),
        subjects=len(set(subjects[tested].tolist())),
        notes=(
            *_mixed_devices(every),
            *run.describe_notes(
                (record.fold, note)
                for record in every
                for note in record.notes
                if f"fold '{record.fold}': {note}" not in run.manifest["warnings"]
            ),
        ),
    )


def _mixed_devices(records: Sequence[FoldResult]) -> tuple[str, ...]:
    """Says that a run was resumed on another device or with another precision."""
    counts = Counter(record.device for record in records)
    if len(counts) < 2:
        return ()
    named = ", ".join(f"{count} on {device}" for device, count in sorted(counts.items()))
    return (f"folds were trained on more than one device or precision ({named}), which agree up to rounding",)


def _pool_summaries(
    picked: Sequence[Selected],
    labels: np.ndarray,
    subjects: np.ndarray,
    databases: np.ndarray,
    num_classes: int,
    draws: int,
) -> dict[str, PoolSummary]:
    index = picked[0].index
    predicted = np.stack([one.predicted for one in picked])
    found = {}
    for name, mask in pools(databases[index]).items():
        rows = index[mask]
        confusions = subject_confusions(labels[rows], predicted[:, mask], subjects[rows], num_classes)
        scores = tuple(Scores.of(pooled) for pooled in confusions.sum(1))
        figures = {}
        for metric, function in METRICS.items():
            values = [getattr(score, metric) for score in scores]
            low, high = bootstrap_interval(function, confusions, draws=draws)
            figures[metric] = Figure(
                float(np.mean(values)),
                float(np.std(values, ddof=1)) if len(values) > 1 else None,
                low,
                high,
                tuple(values),
            )
        confusion = confusions.sum((0, 1))
        absent = tuple(np.flatnonzero(confusion.sum(1) == 0).tolist())
        found[name] = PoolSummary(figures, scores, confusion, absent)
    return found
