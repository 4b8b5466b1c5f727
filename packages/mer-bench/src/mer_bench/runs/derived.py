"""Runs made of other runs: their manifest, and how they are written; in tables they are like any other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mer_bench import __version__
from mer_bench.errors import UsageError
from mer_bench.runs.directory import RunDirectory, writing
from mer_bench.runs.manifest import (
    DefaultVariant,
    Derived,
    FoldRows,
    Identity,
    RunManifest,
)
from mer_bench.runs.origin import source_commit, versions
from mer_bench.settings import TrainingSettings
from mer_bench.training.result import FoldResult

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_name(name: str) -> None:
    """Raise UsageError where a run cannot be called so."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"--name '{name}': use small letters, digits, '-', '_' and '.', as in six-averaged")


def derived_manifest(
    name: str, derived: Derived, members: Sequence[RunManifest], seeds: Sequence[int], data: str
) -> RunManifest:
    """Write down a run that is made of others.

    Args:
        name: What stands for the model's name.
        derived: How it was made.
        members: Their manifests, one per member; samples, labels and folds are alike.
        seeds: Seeds of the whole.
        data: Digest of what was taken from the members.
    """
    check_name(name)
    first = members[0]
    how = derived.model_dump(mode="json", exclude={"members"})
    options = {**how, "members": [[m.digest, sorted(m.seeds.items())] for m in derived.members]}
    taken_over = first.identity.model_dump(include={"protocol", "scheme", "shuffle_labels", "folds"})
    identity = Identity(
        **taken_over,
        model=name,
        options=options,
        recipe=None,
        view=_joined(manifest.identity.view for manifest in members),
        normalisation=_joined(manifest.identity.normalisation for manifest in members),
        data=data,
    )
    sizes = {manifest.digest: manifest.parameters or 0 for manifest in members}
    reset = {
        "variant": "",
        "recipe": "",
        "view": "",
        "normalisation": "",
        "inner": False,
        "tail_epochs": None,
    }
    plain = (
        {"mean": "log-probability", "weights": "equal"} if derived.how == "ensemble" else {"weights": "one"}
    )
    changes = {key: how[key] for key, value in plain.items() if how[key] != value}
    changes |= {"selection": derived.selection} if derived.selection != "last" else {}
    package = f"mer-bench {__version__}"
    return RunManifest(
        digest=identity.digest(),
        model=name,
        protocol=first.protocol,
        identity=identity,
        seeds=tuple(sorted(seeds)),
        title=name,
        package=package,
        citation="",
        exactness="derived",
        filled_in=(),
        selects_on_test=False,
        parameters=(sum(sizes.values()) or None) if derived.how == "ensemble" else None,
        variant=derived.how,
        default_variant=DefaultVariant(name=derived.how, parameters=None),
        changes=changes,
        settings=first.settings.changed(model=name, seeds=tuple(seeds), headline="last", **reset),
        training=TrainingSettings(),
        classes=first.classes,
        store=_joined(manifest.store for manifest in members),
        store_digest=_joined(manifest.store_digest for manifest in members),
        passed_over=(),
        dropped=first.dropped,
        warnings=tuple(dict.fromkeys(text for manifest in members for text in manifest.warnings)),
        deviations=first.deviations,
        versions=versions(package),
        commit=source_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        samples=first.samples,
        folds=_folds(members),
        derived=derived,
    ).sealed()


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))


def _folds(members: Sequence[RunManifest]) -> tuple[FoldRows, ...]:
    """Return the folds in the first member's rows; training is what any member has looked at."""
    row = {name: i for i, name in enumerate(members[0].samples.sample_ids)}
    seen: dict[str, set[int]] = {}
    for manifest in members:
        ids = manifest.samples.sample_ids
        for fold in manifest.folds:
            seen.setdefault(fold.name, set()).update(row[ids[i]] for i in (*fold.train, *fold.inner))
    return tuple(
        FoldRows(name=fold.name, train=tuple(sorted(seen[fold.name])), test=fold.test, inner=())
        for fold in members[0].folds
    )


def write_missing(run: RunDirectory, results: Iterable[FoldResult]) -> int:
    """Write the records that a run lacks, in place of damaged ones too; return how many."""
    status, written = run.status(), 0
    for seed, damaged in status.damaged.items():
        for fold, _ in damaged:
            run.set_aside(seed, fold)
    for result in results:
        if result.fold not in status.done[result.seed]:
            run.write(result)
            written += 1
    return written


def write_derived(out: Path, manifest: RunManifest, results: Iterable[FoldResult]) -> RunDirectory:
    """Write a run that is made of others, or what is missing of it.

    Raises:
        RunError: Another process writes it, or the disk is full.
    """
    with writing(out, manifest) as run:
        write_missing(run, results)
        return run
