"""The manifest of a run: everything that decides its result, written before anything is trained.

Each part of it is sealed by its SHA-256, recomputed on reading, and every record names the seal of the
manifest it was written under. So a changed label, subject, fold or setting is told by name, and a record of
another run is refused. Seals find damage and slips; whoever rewrites all of a run's files can forge them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from mer_bench.errors import ProtocolError, RunError, UsageError
from mer_bench.models.registry import Registered
from mer_bench.protocols.composite import composite_deviations
from mer_bench.protocols.folds import Fold, FoldSet, Population
from mer_bench.recipe import Recipe
from mer_bench.resolve import Resolved
from mer_bench.runs.data import BenchData
from mer_bench.runs.origin import source_commit, versions
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_flow.work.files import size_of

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
#: A manifest of more bytes than this is none of ours: 500 subjects of 20 clips each, nested, make 200 MB.
MOST_BYTES = 2**28
#: What may change after a run began, and the seal itself.
_UNSEALED = ("seeds", "seal")
#: Columns of samples and of populations.
PEOPLE = ("sample_ids", "subjects", "databases", "labels")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Identity(_Part):
    """What decides a result; a run is named after its digest.

    Attributes:
        options: Keyword arguments of the model's builder.
        recipe: None for a classifier.
        shuffle_labels: Seed of the label-shuffle control; None for the true labels.
        data: Digest of ids, labels and maps.
        folds: Digest of the fold set.
    """

    model: str
    options: dict[str, Any]
    recipe: Recipe | None
    protocol: str
    scheme: str
    view: str
    normalisation: str
    shuffle_labels: int | None
    data: str
    folds: str

    @property
    def input(self) -> str:
        """What the model reads, as in `whole-28:scaled`."""
        return f"{self.view}:{self.normalisation}"

    def digest(self) -> str:
        """Return the SHA-256, in hex, of all of it."""
        return _sha256(self.model_dump(mode="json"))


class DefaultVariant(_Part):
    """The variant that the model has by default, and its number of trainable parameters."""

    name: str
    parameters: int | None


class Samples(_Part):
    """Who the samples are, a row each, and what identifies their maps (`runs.data.input_digest`)."""

    sample_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    databases: tuple[str, ...]
    labels: tuple[int, ...]
    inputs: tuple[str, ...] = ()


class FoldRows(_Part):
    """One fold: rows of `Samples`, ascending."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    inner: tuple[int, ...]


class Member(_Part):
    """A run, or one seed of it, that another run is made of.

    Attributes:
        name: Of its directory, and with pooled seeds the seed.
        title: As a table has it.
        digest: Of its identity.
        input: What it reads, as in `whole-28:scaled`.
        seeds: Seed of the whole to the member's seed that goes into it; a member of one seed goes into every
            one.
    """

    name: str
    title: str
    digest: str
    input: str
    seeds: dict[int, int]


class Derived(_Part):
    """How a run was made of others; nothing of it was trained.

    Attributes:
        how: `ensemble`, `jackknife` or `nested`; the latter two choose one member per fold.
        selection: Which epochs of a member count.
        mean: What an ensemble averages, `log-probability` or `probability`; empty for a choice.
        weights: `equal`, or `fitted` in each fold on the other folds' subjects; `one` for a choice.
        inner_k: Inner folds of `nested`; None otherwise.
    """

    how: Literal["ensemble", "jackknife", "nested"]
    members: tuple[Member, ...]
    selection: str
    mean: str = ""
    weights: Literal["equal", "fitted", "one"] = "one"
    inner_k: int | None = None


class RunManifest(_Part):
    """A run as it is written down.

    Attributes:
        digest: Of the identity.
        seeds: Every seed asked for so far, ascending; the only thing that changes later.
        package: The distribution that brings the model, with its version.
        parameters: Trainable parameters as built; None for a classifier.
        changes: What was set apart from the named variant and recipe.
        settings: What was asked for.
        training: How its first start was told to train.
        joined_stores: Path and content digest of further stores, whose maps stand behind those of `store`.
        passed_over: Inputs that the model would rather have had, as `(view:normalisation, why not)`.
        dropped: Why samples have no label, with counts.
        warnings: What a reader of the scores should know.
        deviations: How a composite differs from the official one.
        commit: Git commit of the source tree, with `+` where it had changes; empty outside a checkout.
        derived: The runs that it was made of, and how; None for a run that was trained.
        seal: Part to its SHA-256, in hex; the columns of `samples` are parts of their own.
    """

    schema_version: int = SCHEMA_VERSION
    digest: str
    model: str
    protocol: str
    identity: Identity
    seeds: tuple[int, ...]
    title: str
    package: str
    citation: str
    exactness: str
    filled_in: tuple[str, ...]
    selects_on_test: bool | None
    parameters: int | None
    variant: str
    default_variant: DefaultVariant
    changes: dict[str, Any]
    settings: RunSettings
    training: TrainingSettings
    classes: tuple[str, ...]
    store: str
    store_digest: str
    joined_stores: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[tuple[str, str], ...]
    dropped: dict[str, int]
    warnings: tuple[str, ...]
    deviations: tuple[str, ...]
    versions: dict[str, str]
    commit: str
    created: str
    samples: Samples
    folds: tuple[FoldRows, ...]
    derived: Derived | None = None
    seal: dict[str, str] = {}

    @field_validator("seeds")
    @classmethod
    def _ascending(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or seeds[0] < 0 or any(a >= b for a, b in pairwise(seeds)):
            raise ValueError(f"expected different seeds, ascending, none negative, got {list(seeds)}")
        return seeds

    @property
    def seal_digest(self) -> str:
        """What a record names: the SHA-256, in hex, of the seal; empty where there is none."""
        return _sha256(self.seal) if self.seal else ""

    def sealed(self) -> RunManifest:
        """Return the same run with its seal."""
        return self.model_copy(update={"seal": _seal(self.model_dump(mode="json"))})

    @property
    def is_choice(self) -> bool:
        """Whether each of its folds is that of a member chosen for it."""
        return self.derived is not None and self.derived.how != "ensemble"

    @property
    def epochs(self) -> int:
        """Epochs recorded per fold; a classifier is fitted once."""
        return 1 if self.identity.recipe is None else self.identity.recipe.epochs

    def path(self, out: Path) -> Path:
        """Return the run's directory below `out`."""
        return out / f"{self.model}-{self.protocol}-{self.digest[:12]}"

    def fold_set(self, covers: bool = False) -> FoldSet:
        """Return samples and folds, checked as new ones are.

        Args:
            covers: Whether every sample must be tested exactly once.

        Raises:
            ProtocolError: A subject is on two sides, or rows are not those of the samples.
        """
        rows = self.samples
        columns = {name: np.array(getattr(rows, name), str) for name in PEOPLE[:3]}
        labels = np.array(rows.labels, np.int64)
        people = Population(**columns, labels=labels, classes=self.classes, scheme=self.identity.scheme)
        folds = tuple(
            Fold(f.name, *(np.array(side, np.int64) for side in (f.train, f.test, f.inner)))
            for f in self.folds
        )
        return FoldSet(self.protocol, people, folds, covers, self.warnings)

    def with_seeds(self, seeds: tuple[int, ...]) -> RunManifest:
        """Return the same run with more seeds."""
        return self.model_copy(update={"seeds": tuple(sorted({*self.seeds, *seeds}))})

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return _text(self.model_dump(mode="json"))


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def grown(folder: Path, seeds: Sequence[int]) -> bytes:
    """Return a manifest's file with other seeds, and all else as it is, whatever settings there are today."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return _text({**content, "seeds": list(seeds)})


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _seal(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of every part of a manifest's content that may not change."""
    parts = {key: value for key, value in content.items() if key not in (*_UNSEALED, "samples")}
    parts |= {f"samples.{column}": rows for column, rows in content["samples"].items()}
    return {name: _sha256(part) for name, part in sorted(parts.items())}


def read_manifest(folder: Path) -> RunManifest:
    """Read a run directory's manifest.

    Raises:
        RunError: There is none, or it is unreadable, not whole, or changed since it was written.
    """
    file = folder / MANIFEST
    try:
        if (size := size_of(file)) > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, expected at most {MOST_BYTES:,}")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} is no run directory: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise RunError(f"{file} has schema version {found}, this mer-bench reads {SCHEMA_VERSION}")
    try:
        manifest = RunManifest(**content)
        manifest.fold_set()
        changed = _changed(content, manifest.seal)
    except RecursionError as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors()]
        lacking = [key for key, fault in faults if fault["type"] == "missing"]
        what = (
            f"lacks {', '.join(lacking)}" if lacking else f"has a wrong {faults[0][0]}: {faults[0][1]['msg']}"
        )
        raise RunError(f"{file} {what}; it was not written whole by mer-bench") from None
    except (UsageError, ProtocolError) as error:
        raise RunError(f"{file}: {error}") from None
    if changed:
        raise RunError(
            f"{file} was changed after it was written: its digests are not those of {', '.join(changed)}. "
            "Restore the file from a copy, or move the run away and train it anew"
        )
    return manifest


def _changed(content: Mapping[str, Any], seal: Mapping[str, str]) -> list[str]:
    """Return the parts of a manifest that are not what they were when the run began."""
    found = _seal(content)
    changed = [name for name in sorted({*found, *seal}) if seal and found.get(name) != seal.get(name)]
    same = _sha256(content["identity"]) == content["digest"]
    return changed if same or "identity" in changed or "digest" in changed else [*changed, "identity"]


def build_manifest(
    registered: Registered,
    request: Request,
    resolved: Resolved,
    data: BenchData,
    folds: FoldSet,
    parameters: int | None,
) -> RunManifest:
    """Write a run down; `parameters` are the trainable ones, None for a classifier."""
    spec, run, population = registered.spec, request.run, data.population
    identity = Identity(
        model=spec.name,
        options=_plain(resolved.options),
        recipe=resolved.recipe,
        protocol=run.protocol,
        scheme=population.scheme,
        view=data.view,
        normalisation=data.normalisation,
        shuffle_labels=data.shuffle_seed,
        data=data.digest(),
        folds=folds.digest(),
    )
    people = {name: getattr(population, name).tolist() for name in PEOPLE}
    of_spec = ("title", "citation", "exactness", "filled_in", "selects_on_test")
    return RunManifest(
        **{name: getattr(spec, name) for name in of_spec},
        digest=identity.digest(),
        model=spec.name,
        protocol=run.protocol,
        identity=identity,
        seeds=tuple(sorted(run.seeds)),
        package=registered.package,
        parameters=parameters,
        variant=resolved.variant,
        default_variant=DefaultVariant(name=spec.default_variant, parameters=spec.parameters),
        changes=_plain(resolved.changes),
        settings=run,
        training=request.training,
        classes=population.classes,
        store=data.store,
        store_digest=data.store_digest,
        joined_stores=data.joined,
        passed_over=data.passed_over,
        dropped=dict(data.dropped),
        warnings=folds.warnings,
        deviations=tuple(composite_deviations(population)) if run.protocol == "cde" else (),
        versions=versions(registered.package),
        commit=source_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        samples=Samples(**people, inputs=data.inputs()),
        folds=tuple(
            FoldRows(name=f.name, train=f.train.tolist(), test=f.test.tolist(), inner=f.inner.tolist())
            for f in folds.folds
        ),
    ).sealed()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found
