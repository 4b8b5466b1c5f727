"""A run on disk: a manifest first, then one record per (seed, fold), each committed whole or not at all.

```
runs/<model>-<protocol>-<digest>/
    manifest.json              the whole fold set, resolved configuration, digests, versions, seeds
    records/seed-<s>/<fold>.npz    logits of every epoch; the fold's name is percent-encoded
    .lock                      while a process writes: its name; shards have each their own, `.lock-1-of-3`
```
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mer_bench.errors import RunError
from mer_bench.protocols.folds import absent_class_note
from mer_bench.runs.manifest import MANIFEST, RunManifest, grown, read_manifest
from mer_bench.runs.part import Shard
from mer_bench.training.result import FoldResult
from mer_flow.work import lock
from mer_flow.work.arrays import plain_array
from mer_flow.work.errors import LockHeldError
from mer_flow.work.files import size_of, write_whole

_MEMBERS = "members"
_ARRAYS = ("test_index", "logits", "inner_index", "inner_logits", "train_loss", "train_accuracy")
_LOCK = ".lock"


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file of a run whole or not at all; RunError where it cannot, and what was there is kept."""
    with _writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, payload)


@contextlib.contextmanager
def _writing_to(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space" if full else "Mend that, or name another place"
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. {remedy}; every record written before is kept, "
            "and the same command continues the run"
        ) from error


@dataclass(frozen=True)
class RunStatus:
    """How far a run has come.

    Attributes:
        total: Folds per seed.
        done: Seed to the names of finished folds.
        missing: Seed to the names of folds without a record.
        damaged: Seed to `(fold, reason)` of records that cannot be used.
        notes: Seed to `(fold, note)` of what training noted, such as a class absent from a fold.
        writer: Who is writing now, as in `pid 4711 on host`; None where nobody is.
    """

    total: int
    done: dict[int, tuple[str, ...]]
    missing: dict[int, tuple[str, ...]]
    damaged: dict[int, tuple[tuple[str, str], ...]]
    notes: dict[int, tuple[tuple[str, str], ...]]
    writer: str | None

    @property
    def complete(self) -> bool:
        """Whether every fold of every seed has a sound record."""
        return not any(self.missing.values()) and not any(self.damaged.values())

    def describe_gaps(self, limit: int = 8) -> str:
        """Name what is missing or damaged, seed by seed; at most `limit` folds each."""
        parts = []
        for seed in self.missing:
            for kind, names in (
                ("missing", list(self.missing[seed])),
                ("damaged", [f"{fold} ({why})" for fold, why in self.damaged[seed]]),
            ):
                if names:
                    more = f" and {len(names) - limit} more" if len(names) > limit else ""
                    named = ", ".join(names[:limit])
                    parts.append(f"seed {seed}: {len(names)} of {self.total} {kind}: {named}{more}")
        return "; ".join(parts)


class RunDirectory:
    """One run on disk; without a sound manifest it raises RunError.

    Attributes:
        versions: What new records are stamped with; a resumed run has its own.
    """

    def __init__(self, path: Path):
        self.path = path
        self.manifest: RunManifest = read_manifest(path)
        self.versions: Mapping[str, str] = self.manifest.versions
        self._folds = {fold.name: fold for fold in self.manifest.folds}

    @classmethod
    def create_or_resume(cls, out: Path, manifest: RunManifest) -> RunDirectory:
        """Open the run of a configuration below `out`, creating it where it does not exist.

        Its manifest then lists every seed asked for so far.

        Raises:
            RunError: The directory holds a run of another configuration.
        """
        path = manifest.path(out)
        if (path / MANIFEST).exists():
            kept = cls(path).manifest
            _require_same(path, kept, manifest)
            seeds = kept.with_seeds(manifest.seeds).seeds
            if seeds != kept.seeds:
                write_atomically(path / MANIFEST, grown(path, seeds))
        elif any((path / "records").glob("*/*.npz")):
            raise RunError(f"{path} holds records but no {MANIFEST}; move it away or restore its manifest")
        else:
            write_atomically(path / MANIFEST, manifest.to_json())
        run = cls(path)
        run.versions = manifest.versions
        return run

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Every fold, in the manifest's order."""
        return tuple(self._folds)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed asked for so far."""
        return self.manifest.seeds

    def column(self, name: str) -> np.ndarray:
        """Return a column of the samples: `sample_ids`, `subjects`, `databases` (str), `labels` (int64)."""
        return np.array(getattr(self.manifest.samples, name), np.int64 if name == "labels" else str)

    def record_path(self, seed: int, fold: str) -> Path:
        """Return where a fold's record lies."""
        return self.path / "records" / f"seed-{seed}" / f"{quote(fold, safe='')}.npz"

    def write(self, result: FoldResult) -> None:
        """Commit one record; RunError where it is not of this run, or the disk is full."""
        self._check(result)
        meta = {
            "fold": result.fold,
            "seed": int(result.seed),
            "digest": self.manifest.digest,
            "manifest": self.manifest.seal_digest,
            "seconds": float(result.seconds),
            "engine": result.engine,
            "device": result.device,
            "notes": list(result.notes),
            "decided": result.decided,
            "versions": dict(self.versions),
        }
        buffer = io.BytesIO()
        names = (*_ARRAYS, *[_MEMBERS] * bool(len(result.members)))
        arrays = {name: getattr(result, name) for name in names}
        np.savez(buffer, meta=np.array(json.dumps(meta)), **arrays)
        write_atomically(self.record_path(result.seed, result.fold), buffer.getvalue())

    def read(self, seed: int, fold: str) -> FoldResult:
        """Read one record; RunError names it where it is missing, damaged or of another run."""
        path, digest = self.record_path(seed, fold), self.manifest.digest
        try:
            meta, arrays = _read_record(path)
            found = meta["fold"], meta["seed"], meta["digest"]
            rest = {name: meta[name] for name in ("seconds", "engine", "device")}
            rest["decided"] = meta.get("decided", {})
            result = FoldResult(fold=fold, seed=seed, notes=tuple(meta["notes"]), **rest, **arrays)
        except FileNotFoundError:
            raise RunError(f"record of fold '{fold}', seed {seed} is missing: {path}") from None
        except Exception as error:  # a damaged archive, or a stranger's, may raise anything
            raise RunError(f"record {path} is damaged: {error}") from None
        if found != (fold, seed, digest):
            raise RunError(
                f"record {path} is of fold '{found[0]}', seed {found[1]}, configuration {found[2][:12]}; "
                f"expected fold '{fold}', seed {seed}, {digest[:12]}"
            )
        if meta.get("manifest", "") != self.manifest.seal_digest:
            raise RunError(
                f"record {path} was written under another {MANIFEST} than this run's, whose labels, "
                "subjects, folds or settings are others. Restore the one that the record was written under"
            )
        self._check(result)
        return result

    def _check(self, result: FoldResult) -> None:
        where = f"record of fold '{result.fold}', seed {result.seed} in {self.path}"
        if result.fold not in self._folds:
            raise RunError(f"{where}: the run has no such fold")
        fold, classes = self._folds[result.fold], len(self.manifest.classes)
        for side, wanted, index, logits in (
            ("test", fold.test, result.test_index, result.logits),
            ("inner", fold.inner, result.inner_index, result.inner_logits),
        ):
            if tuple(index.tolist()) != wanted:
                raise RunError(f"{where}: it holds other {side} samples than the manifest's fold")
            if (side == "test" or index.size) and (
                logits.ndim != 3 or not logits.shape[0] or logits.shape[1:] != (len(index), classes)
            ):
                expected = f"(epochs, {len(index)}, {classes})"
                raise RunError(f"{where}: {side} logits have shape {logits.shape}, expected {expected}")
            if not np.isfinite(logits).all():
                raise RunError(f"{where}: {side} logits are not finite")
        members = result.members
        if len(members) and (members.shape[1:] != result.logits.shape[1:] or not np.isfinite(members).all()):
            raise RunError(f"{where}: its members are of shape {members.shape}, or not finite")

    def records(self, seed: int) -> list[FoldResult]:
        """Read every record of a seed, in the order of folds; errors as `read`."""
        return [self.read(seed, fold) for fold in self.fold_names]

    def status(self, seeds: Sequence[int] | None = None) -> RunStatus:
        """Read every record of some seeds, all by default, and say which are done, missing or damaged."""
        status = RunStatus(len(self._folds), {}, {}, {}, {}, _writers(self.path))
        for seed in self.seeds if seeds is None else seeds:
            present = [fold for fold in self.fold_names if self.record_path(seed, fold).exists()]
            damaged, notes = {}, []
            for fold in present:
                try:
                    notes += [(fold, note) for note in self.read(seed, fold).notes]
                except RunError as error:
                    damaged[fold] = str(error)
            status.done[seed] = tuple(fold for fold in present if fold not in damaged)
            status.missing[seed] = tuple(fold for fold in self.fold_names if fold not in present)
            status.damaged[seed], status.notes[seed] = tuple(damaged.items()), tuple(notes)
        return status

    def describe_notes(self, notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """Word notes, as in `RunStatus.notes`, each once with its folds.

        A class without any sample is left out; the manifest warns of it.
        """
        present = set(self.manifest.samples.labels)
        known = {absent_class_note(c) for k, c in enumerate(self.manifest.classes) if k not in present}
        folds: dict[str, list[str]] = {}
        for fold, note in notes:
            if note not in known and fold not in folds.setdefault(note, []):
                folds[note].append(fold)
        return tuple(f"fold {_few(names)}: {note}" for note, names in folds.items())

    def set_aside(self, seed: int, fold: str) -> Path:
        """Rename a damaged record, so that its fold is trained again; return where the evidence is."""
        path = self.record_path(seed, fold)
        return path.replace(path.with_name(f"{path.name}.damaged"))


def _read_record(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a record's metadata and arrays in no more memory than its file has bytes.

    Raises:
        Exception: Of any kind, where it is damaged.
    """
    size_of(path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if {*members} - {_MEMBERS} != {"meta", *_ARRAYS}:
            raise ValueError(f"it holds {', '.join(sorted(members))}")
        found = {}
        for name, info in members.items():
            if info.compress_type != zipfile.ZIP_STORED:  # what is stored is no larger than the file
                raise ValueError(f"{name} is compressed")
            found[name] = plain_array(archive.read(info))  # whose checksum is compared first
    return json.loads(str(found.pop("meta"))), found


def runs_below(folder: Path) -> list[Path]:
    """Return the run directories in a folder, or the folder itself where it is one."""
    if (folder / MANIFEST).exists():
        return [folder]
    return sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}"))


@contextlib.contextmanager
def writing(out: Path, manifest: RunManifest, shard: Shard | None = None) -> Iterator[RunDirectory]:
    """Open the run of a configuration below `out` for this process alone; it is created where it is not.

    Left-overs of a killed process are removed. Shards of one count write beside one another.

    Raises:
        RunError: Another process writes it, it is of another configuration, or the disk is full.
    """
    path = manifest.path(out)
    with contextlib.ExitStack() as stack:
        with _writing_to(path):
            path.mkdir(parents=True, exist_ok=True)
            own = shard.lock if shard else _LOCK
            try:
                try:
                    stack.enter_context(lock.hold(path / own))
                except LockHeldError as error:
                    raise LockHeldError(f"{error}{_named_shard(own)}") from None
                # Held before others are looked for: of two that begin at once, one at least sees the other.
                for other in _locks(path):
                    beside = shard is not None and other.name.endswith(f"-of-{shard.count}")
                    if other.name != own and not beside and (holder := lock.holder(other)):
                        raise LockHeldError(f"{holder}{_named_shard(other.name)}")
            except LockHeldError as error:
                raise RunError(
                    f"{path} is being written by {error}; wait for it, or look with `mer-bench status {path}`"
                ) from None
        if shard is None:  # another shard may be writing
            for leftover in path.glob("records/*/*.tmp"):
                leftover.unlink()
        yield RunDirectory.create_or_resume(out, manifest)


def _locks(path: Path) -> list[Path]:
    """Return the lock files of the run and of its shards."""
    return [path / _LOCK, *sorted(path.glob(f"{_LOCK}-*-of-*"))]


def _named_shard(name: str) -> str:
    """Say which shard a lock is of, as in ` (shard 1/3)`."""
    number, _, count = name.removeprefix(f"{_LOCK}-").partition("-of-")
    return f" (shard {number}/{count})" if count else ""


def _writers(path: Path) -> str | None:
    found = [f"{holder}{_named_shard(one.name)}" for one in _locks(path) if (holder := lock.holder(one))]
    return ", ".join(found) or None


def _require_same(path: Path, there: RunManifest, asked: RunManifest) -> None:
    if there.digest == asked.digest:
        return _require_fixed(path, there, asked)
    from mer_flow.store.schema import differing_keys

    both = (manifest.identity.model_dump(mode="json") for manifest in (there, asked))
    differing = [f"{key}: {_short(a)} there, {_short(b)} asked for" for key, a, b in differing_keys(*both)]
    raise RunError(
        f"{path} holds a run of another configuration ({'; '.join(differing) or 'digests differ'}); "
        "give another --out, or move it away"
    )


def _require_fixed(path: Path, there: RunManifest, asked: RunManifest) -> None:
    """Refuse another headline than a run began with: once its scores are known that would be a choice."""
    for name in ("headline", "tail_epochs"):
        fixed, wish = (getattr(manifest.settings, name) for manifest in (there, asked))
        if fixed != wish:
            flag = f"--{name.replace('_', '-')}"
            remedy = f"leave {flag} out" if fixed is None else f"give {flag} {fixed}"
            raise RunError(
                f"{path} began with {name} {fixed or 'left open'}, asked for is {wish or 'none'}; it is "
                f"fixed before a run: {remedy} to continue this one, or another --out to begin anew. Tables "
                "have last and tail both"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more
