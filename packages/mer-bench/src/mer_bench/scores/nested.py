"""The choice among candidates by inner folds: trained where that is missing, made, and written as a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.runs.derived import check_name, derived_manifest, write_missing
from mer_bench.runs.directory import RunDirectory, writing
from mer_bench.runs.manifest import Derived, RunManifest
from mer_bench.runs.many import Finished, Leaderboard
from mer_bench.runs.nested import prepare_inner
from mer_bench.runs.train import OnProgress, execute, prepare
from mer_bench.scores.choice import inner_scores, one_of, take
from mer_bench.scores.members import member_of, pair_seeds, read_members

#: Gives what shows the progress of a training of some label.
Show = Callable[[str], AbstractContextManager[OnProgress]]


def choose_nested(board: Leaderboard, name: str, k: int, show: Show) -> RunDirectory:
    """Take for each held-out subject the candidate that is best in inner folds of the others.

    Every candidate is trained on the outer folds, as a run of its own, and on `k` inner folds of the training
    subjects of each, in the folder `inner` of the result. What is recorded already is kept.

    Args:
        board: The candidates.
        name: What tables call the result.
        k: Inner folds of each outer one.
        show: Shows progress.

    Returns:
        The finished run.

    Raises:
        UsageError: There are fewer than two candidates.
        RunError: A candidate cannot be trained, or fails in a fold; each is named.
    """
    manifest = _manifest(board, name, k)
    assert manifest.derived is not None
    selection, folds = manifest.derived.selection, [fold.name for fold in manifest.folds]
    with writing(board.out, manifest) as run:
        trained, inner = [], []
        for place, planned in enumerate(board.planned, 1):
            with show(f"candidate {place} of {len(board.planned)}, {planned.entry}") as progress:
                trained.append(board.train(planned, on_progress=progress))
        _require_whole(trained)
        for place, planned in enumerate(board.planned, 1):
            what = planned.registered, planned.request
            prepared = prepare_inner(prepare(*what, board.stores, board.cache), *what, k)
            with show(f"inner folds {place} of {len(board.planned)}, {planned.entry}") as progress:
                outcome = execute(prepared, run.path / "inner", on_progress=progress)
            inner.append(Finished(planned, outcome, outcome.failures))
        _require_whole(inner)
        members = read_members([planned.path for planned in board.planned], selection, manifest.seeds)
        scores = {
            seed: np.stack(
                [
                    _inner_column(one, member.seeds[seed], selection, folds)
                    for one, member in zip(inner, members.members, strict=True)
                ],
                axis=1,
            )
            for seed in members.scores
        }
        weights = {seed: one_of(each) for seed, each in scores.items()}
        write_missing(run, members.results("nested", take, weights, scores))
        return run


def _manifest(board: Leaderboard, name: str, k: int) -> RunManifest:
    check_name(name)
    if board.refused:
        refused = "; ".join(f"{one.entry}: {one.reason}" for one in board.refused)
        raise RunError(f"{len(board.refused)} candidate(s) cannot run. {refused}")
    if len(board.planned) < 2:
        raise UsageError(f"{len(board.planned)} candidate is given; a choice takes at least two")
    pairs = pair_seeds({str(one.entry): one.request.run.seeds for one in board.planned})
    members = [
        member_of(one.manifest, one.path, pair) for one, pair in zip(board.planned, pairs, strict=True)
    ]
    run = board.planned[0].request.run
    digest = hashlib.sha256(f"{k} {run.fold_seed} {[m.digest for m in members]}".encode()).hexdigest()
    derived = Derived(how="nested", members=tuple(members), selection=run.headline, inner_k=k)
    manifests = [one.manifest for one in board.planned]
    return derived_manifest(name, derived, manifests, tuple(pairs[0]), digest)


def _inner_column(one: Finished, seed: int, selection: str, folds: Sequence[str]) -> np.ndarray:
    assert one.outcome is not None
    run, tail = one.outcome.run, one.planned.request.run.tail_epochs
    found = inner_scores(run.records(seed), run.column("labels"), selection, tail)
    return np.array([found[fold] for fold in folds])


def _require_whole(trained: list[Finished]) -> None:
    failed = [one for one in trained if not one.complete]
    if failed:
        told = []
        for one in failed:
            gaps = f" ({one.outcome.status.describe_gaps()})" if one.outcome else ""
            told.append(f"{one.planned.entry}{gaps}: {'; '.join(one.failures)}")
        raise RunError(
            f"{len(failed)} of {len(trained)} candidates failed, so nothing can be chosen; finished folds "
            f"are kept. Mend or leave out: {' | '.join(told)}"
        )
