"""Members: finished runs read side by side, sample by sample, to be averaged or chosen from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import FoldRows, Member, RunManifest
from mer_bench.scores.compare import refuse_incomparable
from mer_bench.scores.selection import HEADLINES, select
from mer_bench.scores.summary import complete_records, run_title
from mer_bench.training.result import FoldResult
from mer_flow.work.suggest import unknown

#: From the members' `(M, n, C)` scores and their `(M,)` weights to `(n, C)` scores.
Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Members:
    """Runs that tested the same samples, with the same labels, in the same folds.

    Attributes:
        members: What they are, in the order of the weights.
        manifests: Their manifests.
        labels: `(N,)` int64, in the rows of the first member's samples.
        folds: The folds, in the same rows.
        scores: Seed of the whole to `(M, N, C)` float64: logits of one epoch, or log probabilities; NaN where
            a sample is not tested.
        records: Seed of the whole to each member's records by fold.
    """

    members: tuple[Member, ...]
    manifests: tuple[RunManifest, ...]
    labels: np.ndarray
    folds: tuple[FoldRows, ...]
    scores: dict[int, np.ndarray]
    records: dict[int, tuple[dict[str, FoldResult], ...]]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.manifests[0].classes)

    def tests(self) -> list[np.ndarray]:
        """Return the rows that each fold holds out."""
        return [np.array(fold.test, np.int64) for fold in self.folds]

    def digest(self) -> str:
        """Return the SHA-256, in hex, of all that is taken from the members' records."""
        digest = hashlib.sha256()
        for seed, scores in sorted(self.scores.items()):
            digest.update(f"{seed} {scores.shape}".encode())
            digest.update(scores.astype(np.float32).tobytes())
        return digest.hexdigest()

    def results(
        self,
        how: str,
        combine: Combine,
        weights: Mapping[int, np.ndarray],
        chosen_by: Mapping[int, np.ndarray] | None = None,
    ) -> Iterator[FoldResult]:
        """Yield the records of the whole.

        Their training loss and accuracy are the members' in the last epoch, by weight; their time is that of
        all members together.

        Args:
            how: As in `ensemble`.
            combine: Makes the scores of a fold.
            weights: Seed to `(F, M)`, weights of the members in each fold.
            chosen_by: Seed to `(F, M)`, the scores that members were chosen by; None where none was.
        """
        names = [member.name for member in self.members]
        classes = self.num_classes
        for seed, scores in self.scores.items():
            for place, (fold, test) in enumerate(zip(self.folds, self.tests(), strict=True)):
                records = [of_member[fold.name] for of_member in self.records[seed]]
                share, parts = weights[seed][place], scores[:, test]
                decided = {"weights": dict(zip(names, share.tolist(), strict=True))}
                if chosen_by is not None:
                    decided["scores"] = dict(zip(names, chosen_by[seed][place].tolist(), strict=True))
                course = {
                    name: np.array([np.dot(share, [getattr(r, name)[-1] for r in records])], np.float32)
                    for name in ("train_loss", "train_accuracy")
                }
                yield FoldResult(
                    fold=fold.name,
                    seed=seed,
                    test_index=test,
                    logits=combine(parts, share)[None].astype(np.float32),
                    inner_index=np.empty(0, np.int64),
                    inner_logits=np.empty((1, 0, classes), np.float32),
                    **course,
                    seconds=sum(record.seconds for record in records),
                    engine=how,
                    device=", ".join(sorted({record.device for record in records})),
                    notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
                    members=parts.astype(np.float32),
                    decided=decided,
                )


def read_members(
    paths: Sequence[Path], selection: str, seeds: Sequence[int] | None = None, pool_seeds: bool = False
) -> Members:
    """Read finished runs side by side.

    Seed k of the whole takes seed k of every run that has several seeds; a run of one seed, as a
    classifier's, goes into every seed of the whole.

    Args:
        paths: Their directories.
        selection: Which epochs of each count, `last` or `tail`.
        seeds: Seeds to take of the runs that have several; all by default.
        pool_seeds: Let every seed of every run be a member of its own, of a whole with one seed, 0.

    Raises:
        UsageError: A run is given twice, there are too few, or no such selection.
        RunError: They were tested on other samples, labels or folds, one is incomplete, or their seeds do not
            pair; each is named.
    """
    if selection not in HEADLINES:
        raise UsageError(str(unknown("selection of members", selection, HEADLINES)))
    runs = [RunDirectory(path) for path in paths]
    for i, run in enumerate(runs):
        for other in runs[:i]:
            if run.manifest.digest == other.manifest.digest:
                raise UsageError(f"{other.path} and {run.path} are the same run; give each member once")
            refuse_incomparable(other, run, "cannot be members of one run")
    taken = {str(run.path): _seeds(run, seeds) for run in runs}
    if pool_seeds:
        pairs = [(run, {0: seed}) for run in runs for seed in taken[str(run.path)]]
    else:
        pairs = list(zip(runs, pair_seeds(taken), strict=True))
    if len(pairs) < 2:
        raise UsageError(
            f"{len(pairs)} member is given, at least two finished runs are needed "
            "(`mer-bench ensemble --pool-seeds` averages the seeds of one)"
        )
    found = {
        run.path: complete_records(
            run, sorted({seed for r, of in pairs if r is run for seed in of.values()}), "cannot be a member"
        )
        for run in runs
    }
    row = {name: i for i, name in enumerate(runs[0].manifest.samples.sample_ids)}
    scores: dict[int, np.ndarray] = {}
    records: dict[int, tuple[dict[str, FoldResult], ...]] = {}
    for whole in pairs[0][1]:
        read = [(run, found[run.path][of[whole]]) for run, of in pairs]
        scores[whole] = np.stack([_scores(run, each, selection, row) for run, each in read])
        records[whole] = tuple({record.fold: record for record in each} for _, each in read)
    return Members(
        tuple(member_of(run.manifest, run.path, of, pool_seeds) for run, of in pairs),
        tuple(run.manifest for run, _ in pairs),
        runs[0].column("labels"),
        runs[0].manifest.folds,
        scores,
        records,
    )


def _seeds(run: RunDirectory, wanted: Sequence[int] | None) -> tuple[int, ...]:
    return run.seeds if wanted is None or len(run.seeds) == 1 else tuple(wanted)


def pair_seeds(seeds: Mapping[str, Sequence[int]]) -> list[dict[int, int]]:
    """Pair the seeds of members: seed k of the whole takes seed k of those with several, else the only one.

    Args:
        seeds: Member to its seeds.

    Returns:
        For each member the seed of the whole to its own.

    Raises:
        RunError: Members with several seeds have different ones.

    >>> pair_seeds({"network": (0, 1), "classifier": (7,)})
    [{0: 0, 1: 1}, {0: 7, 1: 7}]
    """
    several = {name: own for name, own in seeds.items() if len(own) > 1} or dict([*seeds.items()][:1])
    first = next(iter(several), "")
    for name, own in several.items():
        if set(own) != set(several[first]):
            shared = sorted(set(own) & set(several[first]))
            remedy = f", or take those of both with --seeds {','.join(map(str, shared))}," if shared else ""
            raise RunError(
                f"seeds do not pair: {first} has {list(several[first])}, {name} has {list(own)}, "
                f"{len(shared)} in common; train what is missing{remedy}"
            )
    whole = several.get(first, ())
    return [{seed: seed if len(own) > 1 else own[0] for seed in whole} for own in seeds.values()]


def member_of(manifest: RunManifest, path: Path, seeds: dict[int, int], pooled: bool = False) -> Member:
    """Return what a manifest says of a member; `pooled` where its seed is part of its name."""
    seed = f" seed {seeds[0]}" if pooled and len(manifest.seeds) > 1 else ""
    return Member(
        name=f"{path.name}{seed}",
        title=f"{run_title(manifest)}{seed and f',{seed}'}",
        digest=manifest.digest,
        input=manifest.identity.input,
        seeds=seeds,
    )


def _scores(
    run: RunDirectory, records: Sequence[FoldResult], selection: str, row: Mapping[str, int]
) -> np.ndarray:
    """Return `(N, C)` float64 in the rows of another run, by sample id."""
    chosen = select(records, run.column("labels"), selection, run.manifest.settings.tail_epochs)
    ids = run.manifest.samples.sample_ids
    scores = np.full((len(row), chosen.scores.shape[1]), np.nan)
    scores[[row[ids[i]] for i in chosen.index]] = chosen.scores
    return scores
