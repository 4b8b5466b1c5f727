"""RunSummary: every figure of a complete run, computed from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import RunManifest
from mer_bench.scores.bootstrap import bootstrap_interval, subject_confusions
from mer_bench.scores.metrics import CLASS_METRICS, METRICS, Metric, confusion_matrix, pools, uar, uf1
from mer_bench.scores.published import PublishedScore, scores_beside
from mer_bench.scores.selection import HEADLINES, Selected, select
from mer_bench.training.result import FoldResult


@dataclass(frozen=True)
class Figure:
    """One metric over seeds.

    Attributes:
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
        confusions: `(K, C, C)` int64, one per seed, rows true.
    """

    figures: dict[str, Figure]
    confusions: np.ndarray

    @property
    def confusion(self) -> np.ndarray:
        """`(C, C)` int64, rows true, summed over seeds."""
        return self.confusions.sum(0)

    @property
    def absent(self) -> tuple[int, ...]:
        """Indices of classes without a sample here; they count as 0."""
        return tuple(np.flatnonzero(self.confusion.sum(1) == 0).tolist())

    def per_class(self, name: str) -> np.ndarray:
        """Return `(C,)`: `f1`, `recall` or `precision` per class, averaged over seeds."""
        return CLASS_METRICS[name](self.confusions).mean(0)


@dataclass(frozen=True)
class MemberSummary:
    """A member of a run that is made of others.

    Attributes:
        input: What it reads, as in `whole-28:scaled`.
        weight: Mean over folds and seeds; of a choice, the share of folds for which it was chosen.
        uf1: On its own, over all samples, mean over seeds.
        uar: Likewise.
    """

    name: str
    title: str
    input: str
    weight: float
    uf1: float
    uar: float


@dataclass(frozen=True)
class RunSummary:
    """A complete run.

    Attributes:
        path: Its directory.
        seeds: The seeds summarised.
        selections: Selection to pool to summary: the headline, the other of `last` and `tail`, then `inner`,
            `oracle` and `naive` where they say more.
        epochs: Epochs recorded per fold.
        chosen_epochs: Selection to the median chosen epoch over folds and seeds; the first of those of
            `tail`.
        train_accuracy: Accuracy on the training samples after the last epoch, averaged over folds and seeds.
        seconds: Training time, summed over folds and seeds.
        devices: Every device and engine that trained a fold.
        samples: Number of tested samples.
        subjects: Number of tested subjects.
        notes: What training noted of folds, beyond the manifest's warnings, and a change of device.
        members: Of a run that is made of others, those.
    """

    manifest: RunManifest
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
    members: tuple[MemberSummary, ...] = ()

    @property
    def title(self) -> str:
        """The model's title, with what sets this run apart from its default."""
        return run_title(self.manifest)

    @property
    def headline(self) -> str:
        """The selection that was fixed before the run, `last` or `tail`."""
        return self.manifest.settings.headline

    @property
    def shown(self) -> tuple[str, ...]:
        """The selections that a table shows: one of `last` and `tail` where they are the same epoch."""
        return tuple(
            n for n in self.selections if self.epochs > 1 or n not in HEADLINES or n == self.headline
        )

    @property
    def recipe(self) -> str:
        """Name of the recipe; empty for a classifier."""
        recipe = self.manifest.identity.recipe
        return recipe.name if recipe else ""

    @property
    def is_control(self) -> bool:
        """Whether the labels were shuffled."""
        return self.manifest.identity.shuffle_labels is not None

    @property
    def comparable(self) -> bool:
        """Whether published scores may stand beside this run; a composite must be the official one."""
        return bool(self.beside) and not self.manifest.deviations and not self.is_control

    @property
    def beside(self) -> tuple[PublishedScore, ...]:
        """The published scores of this protocol, these databases and as many classes."""
        manifest = self.manifest
        return scores_beside(manifest.protocol, manifest.samples.databases, len(manifest.classes))

    @property
    def group(self) -> tuple[str, str, tuple[str, ...], int, int]:
        """Runs of one group were tested on the same samples in as many folds and share a table."""
        identity, databases = self.manifest.identity, tuple(sorted(set(self.manifest.samples.databases)))
        return identity.protocol, identity.scheme, databases, self.samples, len(self.manifest.folds)

    def gap(self, selection: str, pool: str, metric: str) -> float:
        """Return how much a selection gains over the headline; for `oracle` that is the leakage gap."""
        pair = selection, self.headline
        chosen, honest = (self.selections[name][pool].figures[metric].mean for name in pair)
        return chosen - honest

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and text."""
        told = ("model", "protocol", "classes", "parameters", "deviations", "warnings")
        mine = ("path", "title", "headline", "seeds", "epochs", "samples", "subjects", "devices", "notes")
        return {
            **{name: getattr(self.manifest, name) for name in told},
            **{name: getattr(self, name) for name in (*mine, "train_accuracy", "chosen_epochs")},
            "scheme": self.manifest.identity.scheme,
            "folds": len(self.manifest.folds),
            "view": self.manifest.identity.input,
            "training_seconds": self.seconds,
            "derived": self.manifest.derived and self.manifest.derived.model_dump(mode="json"),
            "members": [asdict(member) for member in self.members],
            "control": self.is_control,
            "comparable_with_published": self.comparable,
            "selections": {
                selection: {pool: self._pool_fields(selection, pool) for pool in by_pool}
                for selection, by_pool in self.selections.items()
            },
        }

    def _pool_fields(self, selection: str, pool: str) -> dict[str, Any]:
        found = self.selections[selection][pool]
        figures = {
            name: {
                "mean": figure.mean,
                "sd": figure.sd,
                "interval": [figure.low, figure.high],
                "per_seed": figure.per_seed,
                "gap": self.gap(selection, pool, name),
            }
            for name, figure in found.figures.items()
        }
        return {
            "figures": figures,
            "per_class": {name: found.per_class(name).tolist() for name in CLASS_METRICS},
            "confusion": found.confusion.tolist(),
            "absent_classes": [self.manifest.classes[c] for c in found.absent],
        }


def run_title(manifest: RunManifest, named: bool = True) -> str:
    """Return the model's title, with what sets a run apart; `named`: variant and recipe too."""
    recipe, control = manifest.identity.recipe, manifest.identity.shuffle_labels
    subjects = manifest.settings.train_subjects
    aside = [manifest.variant] if named and manifest.variant != "default" else []
    aside += [recipe.name] if named and recipe is not None else []
    aside += [f"{key}={value}" for key, value in manifest.changes.items()]
    aside += ["inner subjects reserved"] if manifest.settings.inner else []
    aside += [f"{subjects} training subjects"] if subjects is not None else []
    shuffled = "" if control is None else f" [CONTROL: labels shuffled, seed {control}]"
    return manifest.title + (f" ({', '.join(aside)})" if aside else "") + shuffled


def complete_records(
    run: RunDirectory, seeds: Sequence[int] | None = None, purpose: str = "cannot be tabulated"
) -> dict[int, list[FoldResult]]:
    """Read every record of some seeds of a run, by default all, in the order of folds.

    Args:
        run: The run.
        seeds: Its seeds; all by default.
        purpose: What an error says an incomplete run is not good for.

    Raises:
        UsageError: A seed was never asked for.
        RunError: Folds are missing or damaged; they are named.
    """
    wanted = tuple(run.seeds if seeds is None else seeds)
    strange = [seed for seed in wanted if seed not in run.seeds]
    if strange:
        raise UsageError(f"{run.path} has seeds {list(run.seeds)}, not {strange}")
    try:
        return {seed: run.records(seed) for seed in wanted}
    except RunError:
        gaps = run.status(wanted).describe_gaps()
    raise RunError(
        f"{run.path} is incomplete and {purpose}. {gaps}. Run the same command again to train what is missing"
    )


def summarise(run: RunDirectory, seeds: Sequence[int] | None = None, draws: int = 2000) -> RunSummary:
    """Compute every figure of a complete run; errors as `complete_records`.

    Args:
        run: The run.
        seeds: Seeds to summarise; all by default.
        draws: Resamples of the bootstrap.
    """
    return summarise_records(run, complete_records(run, seeds), draws)


def summarise_records(
    run: RunDirectory, records: dict[int, list[FoldResult]], draws: int = 2000
) -> RunSummary:
    """Compute every figure from a run's records by seed, as `complete_records` reads them."""
    labels = run.column("labels")
    every = [record for folds in records.values() for record in folds]
    tail = run.manifest.settings.tail_epochs
    picked = {
        rule: [select(folds, labels, rule, tail) for folds in records.values()]
        for rule in _selections_of(run.manifest, every)
    }
    tested = picked["last"][0].index
    known, noted = run.manifest.warnings, [(record.fold, note) for record in every for note in record.notes]
    fresh = [(fold, note) for fold, note in noted if f"fold '{fold}': {note}" not in known]
    return RunSummary(
        manifest=run.manifest,
        path=str(run.path),
        seeds=tuple(records),
        selections=_summarised(run, picked, draws),
        epochs=max(len(record.logits) for record in every),
        chosen_epochs={
            rule: float(np.median([[*one.epochs.values()] for one in each])) for rule, each in picked.items()
        },
        train_accuracy=float(np.mean([record.train_accuracy[-1] for record in every])),
        seconds=float(sum(record.seconds for record in every)),
        devices=tuple(sorted({f"{record.device} ({record.engine})" for record in every})),
        samples=len(tested),
        subjects=len(np.unique(run.column("subjects")[tested])),
        notes=(*_mixed_devices(every), *run.describe_notes(fresh)),
        members=_members(run, records) if run.manifest.derived else (),
    )


def _members(run: RunDirectory, records: dict[int, list[FoldResult]]) -> tuple[MemberSummary, ...]:
    assert run.manifest.derived is not None
    labels, classes, found = run.column("labels"), len(run.manifest.classes), []
    for place, member in enumerate(run.manifest.derived.members):
        confusions = np.array(
            [
                sum(
                    confusion_matrix(labels[record.test_index], record.members[place].argmax(1), classes)
                    for record in each
                )
                for each in records.values()
            ]
        )
        weights = [r.decided["weights"][member.name] for each in records.values() for r in each]
        means = float(uf1(confusions).mean()), float(uar(confusions).mean())
        who = member.name, member.title, member.input
        found.append(MemberSummary(*who, float(np.mean(weights)), *means))
    return tuple(found)


def _selections_of(manifest: RunManifest, records: Sequence[FoldResult]) -> list[str]:
    """Return the headline and its like, `inner` where subjects were reserved, `oracle` of several epochs."""
    inner = all(record.inner_index.size for record in records)
    oracle = any(len(record.logits) > 1 for record in records)
    honest = sorted(HEADLINES, key=lambda name: name != manifest.settings.headline)
    return [*honest, *["inner"] * inner, *["oracle"] * oracle, *["naive"] * manifest.is_choice]


def _mixed_devices(records: Sequence[FoldResult]) -> tuple[str, ...]:
    """Say that a run was resumed on another device or with another precision."""
    counts = Counter(record.device for record in records)
    if len(counts) < 2:
        return ()
    named = ", ".join(f"{count} on {device}" for device, count in sorted(counts.items()))
    return (f"folds were trained on more than one device or precision ({named}), which agree up to rounding",)


def _summarised(
    run: RunDirectory, picked: dict[str, list[Selected]], draws: int
) -> dict[str, dict[str, PoolSummary]]:
    """Summarise each selection; those that predict the same, as `last` and `tail` of one epoch, but once."""
    done: dict[bytes, dict[str, PoolSummary]] = {}
    found = {}
    for rule, each in picked.items():
        key = b"".join(one.predicted.tobytes() for one in each)
        done[key] = found[rule] = done.get(key) or _pool_summaries(run, each, draws)
    return found


def _pool_summaries(run: RunDirectory, picked: Sequence[Selected], draws: int) -> dict[str, PoolSummary]:
    index = picked[0].index
    labels, subjects, databases = (run.column(name)[index] for name in ("labels", "subjects", "databases"))
    predicted = np.stack([one.predicted for one in picked])
    return pool_summaries(labels, predicted, subjects, databases, len(run.manifest.classes), draws)


def pool_summaries(
    labels: np.ndarray,
    predicted: np.ndarray,
    subjects: np.ndarray,
    databases: np.ndarray,
    classes: int,
    draws: int = 2000,
) -> dict[str, PoolSummary]:
    """Score predictions pooled over folds, all of them and those of each database.

    Args:
        labels: `(N,)` int64, true classes.
        predicted: `(K, N)` int64, predictions of K seeds.
        subjects: `(N,)` str.
        databases: `(N,)` str.
        classes: Number of classes.
        draws: Resamples of the bootstrap.
    """
    found = {}
    for name, mask in pools(databases).items():
        each = subject_confusions(labels[mask], predicted[:, mask], subjects[mask], classes)
        figures = {metric: _figure(function, each, draws) for metric, function in METRICS.items()}
        found[name] = PoolSummary(figures, each.sum(1))
    return found


def _figure(metric: Metric, confusions: np.ndarray, draws: int) -> Figure:
    values = metric(confusions.sum(1))
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    interval = bootstrap_interval(metric, confusions, draws=draws)
    return Figure(float(values.mean()), sd, *interval, tuple(values.tolist()))
