"""A run on disk: a manifest first, then one record per (seed, fold), each committed whole or not at all.

```
runs/<model>-<protocol>-<digest>/
    manifest.json              the whole fold set, resolved configuration, digests, versions, seeds
    records/seed-<s>/<fold>.npz    logits of every epoch; the fold's name is percent-encoded
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
from mer_bench.runs import lock as run_lock
from mer_bench.training.result import FoldResult
from mer_flow.work.files import write_whole

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_ARRAYS = ("test_index", "logits", "inner_index", "inner_logits", "train_loss", "train_accuracy")
_REQUIRED = ("digest", "model", "protocol", "identity", "seeds", "classes", "samples", "folds")


def write_atomically(path: Path, payload: bytes, of_a_run: bool = True) -> None:
    """Writes a file whole or not at all.

    Args:
        path: The file.
        payload: Its content.
        of_a_run: Whether it is part of a run, so that the message may say what becomes of that.

    Raises:
        RunError: The disk is full or the file cannot be written; what was there before is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, payload)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space" if full else "Mend that, or name another place"
        kept = "; every record written before is kept, and the same command continues the run"
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. {remedy}{kept if of_a_run else ''}"
        ) from error


@dataclass(frozen=True)
class RunStatus:
    """How far a run has come.

    Attributes:
        path: The run directory.
        total: Folds per seed.
        done: Seed to the names of finished folds.
        missing: Seed to the names of folds without a record.
        damaged: Seed to `(fold, reason)` of records that cannot be used.
        notes: Seed to `(fold, note)` of what training noted, such as a class absent from a fold.
        writer: Process id that is writing now; None where nobody is.
    """

    path: Path
    total: int
    done: Mapping[int, tuple[str, ...]]
    missing: Mapping[int, tuple[str, ...]]
    damaged: Mapping[int, tuple[tuple[str, str], ...]]
    notes: Mapping[int, tuple[tuple[str, str], ...]]
    writer: int | None

    @property
    def complete(self) -> bool:
        """Whether every fold of every seed has a sound record."""
        return not any(self.missing.values()) and not any(self.damaged.values())

    def describe_gaps(self, limit: int = 8) -> str:
        """Names what is missing or damaged, seed by seed; at most `limit` folds each."""
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
    """One run on disk.

    Args:
        path: The directory, holding a manifest.

    Raises:
        RunError: There is no manifest, or it cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        file = path / MANIFEST
        try:
            self.manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{path} is no run directory: it has no {MANIFEST}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunError(f"{file} cannot be read: {error}") from None
        version = self.manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(f"{file} has schema version {version}, this mer-bench reads {SCHEMA_VERSION}")
        lacking = [key for key in _REQUIRED if key not in self.manifest]
        if lacking:
            raise RunError(f"{file} lacks {', '.join(lacking)}; it was not written whole by mer-bench")
        self.digest: str = self.manifest["digest"]
        #: Versions that new records are stamped with; a resumed run sets its own.
        self.versions: Mapping[str, str] = self.manifest.get("versions", {})
        self._folds = {fold["name"]: fold for fold in self.manifest["folds"]}

    @classmethod
    def create_or_resume(cls, root: Path, manifest: Mapping[str, Any]) -> RunDirectory:
        """Opens the run of a configuration below `root`, creating it where it does not exist.

        Args:
            root: Folder of all runs.
            manifest: The run's manifest; `digest` identifies its configuration, `seeds` may grow from call to
                call.

        Returns:
            The run directory, its manifest listing every seed asked for so far.

        Raises:
            RunError: The directory holds a run of another configuration.
        """
        path = root / f"{manifest['model']}-{manifest['protocol']}-{manifest['digest'][:12]}"
        if (path / MANIFEST).exists():
            run = cls(path)
            run.require(manifest)
            seeds = sorted({*run.manifest["seeds"], *manifest["seeds"]})
            if seeds != run.manifest["seeds"]:
                write_atomically(path / MANIFEST, _json({**run.manifest, "seeds": seeds}))
                return cls(path)
            return run
        if path.is_dir() and any((path / "records").glob("*/*.npz")):
            raise RunError(f"{path} holds records but no {MANIFEST}; move it away or restore its manifest")
        write_atomically(path / MANIFEST, _json(manifest))
        return cls(path)

    def require(self, manifest: Mapping[str, Any]) -> None:
        """Checks that this run is of a configuration.

        Raises:
            RunError: It is of another; the settings that differ are named.
        """
        if self.digest == manifest["digest"]:
            return
        from mer_flow.store.schema import differing_keys

        differing = [
            f"{key}: {_short(there)} there, {_short(asked)} asked for"
            for key, there, asked in differing_keys(
                self.manifest.get("identity", {}), manifest.get("identity", {})
            )
        ]
        raise RunError(
            f"{self.path} holds a run of another configuration ({'; '.join(differing) or 'digests differ'}); "
            "give another --out, or move it away"
        )

    def pin(self, key: str, value: str) -> str:
        """Writes a decision of the first start into the manifest, unless one is there.

        Args:
            key: Its name.
            value: What was decided.

        Returns:
            What the manifest says now.
        """
        if key not in self.manifest:
            # Read anew: seeds may have been added since.
            now = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            self.manifest = {key: value, **now}
            write_atomically(self.path / MANIFEST, _json(self.manifest))
        return str(self.manifest[key])

    def describe_notes(self, notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """Words what training noted, each note once with its folds.

        A class without any sample is left out; the manifest warns of it.

        Args:
            notes: `(fold, note)`, as in `RunStatus.notes`.
        """
        present = set(self.manifest["samples"]["labels"])
        known = {
            absent_class_note(name)
            for number, name in enumerate(self.manifest["classes"])
            if number not in present
        }
        folds: dict[str, list[str]] = {}
        for fold, note in notes:
            if note not in known and fold not in folds.setdefault(note, []):
                folds[note].append(fold)
        return tuple(f"fold {_few(names)}: {note}" for note, names in folds.items())

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Every fold, in the manifest's order."""
        return tuple(self._folds)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed asked for so far."""
        return tuple(self.manifest["seeds"])

    def column(self, name: str) -> np.ndarray:
        """Returns a column of the samples: `sample_ids`, `subjects`, `databases` (str), `labels` (int64)."""
        return np.array(self.manifest["samples"][name], np.int64 if name == "labels" else str)

    def record_path(self, seed: int, fold: str) -> Path:
        """Returns where a fold's record lies."""
        return self.path / "records" / f"seed-{seed}" / f"{quote(fold, safe='')}.npz"

    def write(self, result: FoldResult) -> None:
        """Commits one record.

        Raises:
            RunError: The record is not of this run, or the disk is full.
        """
        self._check(result)
        meta = {
            "fold": result.fold,
            "seed": int(result.seed),
            "digest": self.digest,
            "seconds": float(result.seconds),
            "engine": result.engine,
            "device": result.device,
            "notes": list(result.notes),
            "versions": dict(self.versions),
        }
        buffer = io.BytesIO()
        arrays = {name: getattr(result, name) for name in _ARRAYS}
        np.savez(buffer, meta=np.array(json.dumps(meta)), **arrays)
        write_atomically(self.record_path(result.seed, result.fold), buffer.getvalue())

    def read(self, seed: int, fold: str) -> FoldResult:
        """Reads one record.

        Raises:
            RunError: It is missing, damaged or of another run; the message names it.
        """
        path = self.record_path(seed, fold)
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                arrays = {name: file[name] for name in _ARRAYS}
        except FileNotFoundError:
            raise RunError(f"record of fold '{fold}', seed {seed} is missing: {path}") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(f"record {path} is damaged: {error}") from None
        if (meta.get("fold"), meta.get("seed"), meta.get("digest")) != (fold, seed, self.digest):
            raise RunError(
                f"record {path} is of fold '{meta.get('fold')}', seed {meta.get('seed')}, configuration "
                f"{str(meta.get('digest'))[:12]}; expected fold '{fold}', seed {seed}, {self.digest[:12]}"
            )
        result = FoldResult(
            fold=fold,
            seed=seed,
            seconds=meta["seconds"],
            engine=meta["engine"],
            device=meta["device"],
            notes=tuple(meta.get("notes", ())),
            **arrays,
        )
        self._check(result)
        return result

    def _check(self, result: FoldResult) -> None:
        where = f"record of fold '{result.fold}', seed {result.seed} in {self.path}"
        if result.fold not in self._folds:
            raise RunError(f"{where}: the run has no such fold")
        fold = self._folds[result.fold]
        classes = len(self.manifest["classes"])
        for side, index, logits in (
            ("test", result.test_index, result.logits),
            ("inner", result.inner_index, result.inner_logits),
        ):
            if index.tolist() != fold[side]:
                raise RunError(f"{where}: it holds other {side} samples than the manifest's fold")
            if (side == "test" or index.size) and (
                logits.ndim != 3 or not logits.shape[0] or logits.shape[1:] != (len(index), classes)
            ):
                expected = f"(epochs, {len(index)}, {classes})"
                raise RunError(f"{where}: {side} logits have shape {logits.shape}, expected {expected}")
            if not np.isfinite(logits).all():
                raise RunError(f"{where}: {side} logits are not finite")

    def records(self, seed: int) -> list[FoldResult]:
        """Reads every record of a seed, in the order of folds; errors as `read`."""
        return [self.read(seed, fold) for fold in self.fold_names]

    def status(self, seeds: Sequence[int] | None = None) -> RunStatus:
        """Reads every record and says which are done, missing or damaged.

        Args:
            seeds: Seeds to look at; all of the manifest by default.
        """
        done: dict[int, tuple[str, ...]] = {}
        missing: dict[int, tuple[str, ...]] = {}
        damaged: dict[int, tuple[tuple[str, str], ...]] = {}
        notes: dict[int, tuple[tuple[str, str], ...]] = {}
        for seed in self.seeds if seeds is None else seeds:
            good, bad, noted = [], [], []
            for fold in self.fold_names:
                if not self.record_path(seed, fold).exists():
                    continue
                try:
                    noted += [(fold, note) for note in self.read(seed, fold).notes]
                    good.append(fold)
                except RunError as error:
                    bad.append((fold, str(error)))
            seen = {*good, *(fold for fold, _ in bad)}
            done[seed], damaged[seed], notes[seed] = tuple(good), tuple(bad), tuple(noted)
            missing[seed] = tuple(fold for fold in self.fold_names if fold not in seen)
        return RunStatus(
            self.path, len(self._folds), done, missing, damaged, notes, run_lock.writer(self.path)
        )

    def set_aside(self, seed: int, fold: str) -> Path:
        """Renames a damaged record, so that its fold is trained again and the evidence is kept.

        Returns:
            The new path.
        """
        path = self.record_path(seed, fold)
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        return aside

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for one writing process; left-overs of a killed one are removed.

        Raises:
            RunError: Another process is writing it.
        """
        with run_lock.hold(self.path):
            for leftover in self.path.glob("records/*/*.tmp"):
                leftover.unlink()
            yield


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
