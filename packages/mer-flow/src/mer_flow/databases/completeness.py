"""What a complete copy of each database gives, and where a reading deviates from it.

The facts are data, one TOML file per database: ours in `datasets/manifests/` of the workspace, installed as
`mer_flow/manifests/`; that of another package's database beside its module, `<module>.toml`.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from mer_flow.databases.corrections import Correction
from mer_flow.databases.reading import SheetReading
from mer_flow.databases.registry import get_database
from mer_flow.labels import SCHEMES, apply_scheme, get_scheme, megc_key
from mer_flow.samples import SampleTable
from mer_flow.work.errors import UsageError
from mer_flow.work.settings import Settings, read_toml

_SHOWN = 6


class SchemeCounts(Settings):
    """What a label scheme must give: samples per class in class order, and subjects."""

    counts: tuple[int, ...]
    subjects: int


class SheetVersion(Settings):
    """One published version of a database's annotations.

    Attributes:
        form: The name of its column form, or `folders`.
        rows: Rows with a filename; with the form it identifies the version.
        samples: What it gives, where that is known, as for the next ones.
        objective: Samples per objective class (`"1"` to `"7"`).
        per_subject: Samples per subject, keyed by the subject's own name.
        rank: The higher, the rather it is taken where several lie in one folder.
        note: What a user of this version should know.
    """

    where = "versions"
    what = "key"

    name: str
    form: str
    rows: int
    samples: int | None = None
    subjects: int | None = None
    emotions: dict[str, int] = Field(default_factory=dict)
    objective: dict[str, int] = Field(default_factory=dict)
    per_subject: dict[str, int] = Field(default_factory=dict)
    schemes: dict[str, SchemeCounts] = Field(default_factory=dict)
    rank: int = 0
    note: str = ""


class Manifest(Settings):
    """What is known of one database.

    Attributes:
        versions: The published versions of its annotations.
        corrections: Reviewed fixes of errors in them.
        folders_without_rows: Clip folders of official copies without a row, as `sub09/EP02_02f`.
        long_clips: SMIC-E: clip -> the clip whose long recording contains it.
        gaps: For readers: frames that official copies lack.
        problem_faces: For readers: samples whose apex face the authors report as occluded.
        notes: For readers: other facts to know.
    """

    where = "manifest"
    what = "key"

    versions: tuple[SheetVersion, ...] = ()
    corrections: tuple[Correction, ...] = ()
    folders_without_rows: tuple[str, ...] = ()
    long_clips: dict[str, str] = Field(default_factory=dict)
    gaps: tuple[dict[str, Any], ...] = ()
    problem_faces: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def version(self, form: str, rows: int) -> SheetVersion | None:
        """Return the version with this form and row count, `None` if none is known."""
        return next((v for v in self.versions if v.form == form and v.rows == rows), None)


@dataclass(frozen=True, slots=True)
class Deviation:
    """One way in which a reading differs from a complete copy.

    Attributes:
        kind: `version`, `samples`, `subjects`, `emotions`, `objective`, `per-subject`, `scheme`, `megc2019`.
        message: Expected against got, in words.
        names: The samples or subjects it is about, if any.
        remedy: What to do, if anything.
    """

    kind: str
    message: str
    names: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        return self.message + (f". {self.remedy}" if self.remedy else "")


def directory() -> Path:
    """Return the folder with our manifests: the installed copy, else the workspace's.

    Raises:
        UsageError: Neither exists; the installation is incomplete.
    """
    installed = Path(str(resources.files("mer_flow").joinpath("manifests")))
    above = (parent / "datasets" / "manifests" for parent in Path(__file__).resolve().parents)
    found = next((folder for folder in (installed, *above) if folder.is_dir()), None)
    if found is None:
        raise UsageError(
            f"mer-flow's manifests are missing: neither {installed} nor datasets/manifests above "
            f"{Path(__file__).parent} exists. Reinstall mer-flow from a complete wheel or checkout."
        )
    return found


@cache
def load(database: str) -> Manifest:
    """Return the manifest of a database; an empty one where another package gives none.

    Raises:
        UsageError: The database is unknown, or its manifest is missing or broken.

    >>> load("casme3").version("jpgindex", 860).schemes["casme3-3"].counts
    (457, 55, 187)
    """
    module = sys.modules[type(get_database(database)).__module__]
    if module.__name__.startswith("mer_flow."):
        path = directory() / f"{database}.toml"
    else:
        path = Path(str(module.__file__)).with_suffix(".toml")
        if not path.is_file():
            return Manifest()
    return read_manifest(path)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UsageError: It is missing, not TOML, or has a key or value that no manifest has.
    """
    if not path.is_file():
        raise UsageError(f"the manifest {path} is missing; reinstall its package from a complete copy")
    try:
        return Manifest(**read_toml(path))
    except UsageError as error:
        raise UsageError(f"the manifest {path} is broken: {error}") from error


@cache
def megc2019() -> Mapping[tuple[str, str, str], int]:
    """Return the MEGC2019 organisers' composite ground truth.

    Returns:
        (database, subject, clip) as they spell them -> 0 negative, 1 positive, 2 surprise; 442 clips in
        their order. `mer_flow.labels.megc_key` gives a sample's key.

    >>> len(megc2019()), megc2019()[("samm", "6", "006_1_2")]
    (442, 0)
    """
    with (directory() / "megc2019.csv").open(encoding="utf-8", newline="") as stream:
        return {(r["database"], r["subject"], r["clip"]): int(r["label"]) for r in csv.DictReader(stream)}


def compare(reading: SheetReading) -> tuple[Deviation, ...]:
    """Return every deviation of what a sheet or its folders gave from what a complete copy gives."""
    manifest = load(reading.database)
    version = manifest.version(reading.form, reading.rows)
    if version is None and reading.form == "folders":
        # Folders come in one version: with fewer of them it is an incomplete copy, not another version.
        version = next((v for v in manifest.versions if v.form == "folders"), None)
    if version is not None:
        found = list(_of_version(reading, version))
    else:
        known = ", ".join(f"{v.name} ({v.rows} rows, {v.form})" for v in manifest.versions) or "none"
        message = f"{reading.rows} rows of the form '{reading.form}' are no known version; known: {known}"
        remedy = "Compare it with the authors' current sheet; its counts cannot be checked."
        found = [Deviation("version", message, remedy=remedy)]
    return (*found, *_of_megc(reading))


def _of_version(reading: SheetReading, version: SheetVersion) -> Iterator[Deviation]:
    table = reading.table
    if version.samples not in (None, len(table)):
        dropped = tuple(row.key for row in reading.dropped)
        yield Deviation("samples", f"expected {version.samples} samples, got {len(table)}", dropped)
    if version.subjects not in (None, len(table.subjects)):
        yield Deviation("subjects", f"expected {version.subjects} subjects, got {len(table.subjects)}")
    yield from _of_counts("emotions", "emotion", version.emotions, Counter(row.emotion for row in table))
    objective = Counter(str(row.objective_class) for row in table if row.objective_class)
    if version.objective and not objective:
        remedy = "Lay the authors' file of objective classes next to the sheet, or use their original sheet."
        yield Deviation("objective", "the sheet has no objective classes", remedy=remedy)
    else:
        yield from _of_counts("objective", "objective class", version.objective, objective)
    per_subject = Counter(row.subject.partition("/")[2] for row in table)
    yield from _of_counts("per-subject", "subject", version.per_subject, per_subject)
    for name, expected in version.schemes.items():
        if name == "objective-5" and not objective:
            continue  # already said once
        counts, subjects = _scheme_counts(table, name)
        if (counts, subjects) != (expected.counts, expected.subjects):
            wanted = f"expected {_slashed(expected.counts)} from {expected.subjects} subjects"
            yield Deviation("scheme", f"{name}: {wanted}, got {_slashed(counts)} from {subjects}")


def _scheme_counts(table: SampleTable, scheme: str) -> tuple[tuple[int, ...], int]:
    labelled = apply_scheme(table, get_scheme(scheme))
    return labelled.counts(), len({table[sample_id].subject for sample_id in labelled.labels})


def _of_counts(
    kind: str, what: str, expected: Mapping[str, int], got: Mapping[str, int]
) -> Iterator[Deviation]:
    if not expected or expected == got:
        return
    wrong = [name for name in sorted({*expected, *got}) if expected.get(name, 0) != got.get(name, 0)]
    parts = [f"{name}: expected {expected.get(name, 0)}, got {got.get(name, 0)}" for name in wrong]
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    message = f"samples per {what} differ: {'; '.join(parts[:_SHOWN])}{more}"
    yield Deviation(kind, message, tuple(wrong) if kind == "per-subject" else ())


def _of_megc(reading: SheetReading) -> Iterator[Deviation]:
    if reading.database not in SCHEMES["megc3"].databases:
        return
    official = {key: label for key, label in megc2019().items() if key[0] == reading.database}
    labels = apply_scheme(reading.table, "megc3").labels
    ours = {megc_key(reading.table[sample_id]): label for sample_id, label in labels.items()}
    for what, keys in (
        ("are missing", official.keys() - ours.keys()),
        ("of ours are not in it", ours.keys() - official.keys()),
        ("of ours have another label", {k for k in official.keys() & ours.keys() if official[k] != ours[k]}),
    ):
        if keys:
            names = tuple(f"{subject}/{clip}" for _, subject, clip in sorted(keys))
            listed = f"MEGC2019's list of {len(official)} {reading.database} clips"
            yield Deviation("megc2019", f"{listed}: {len(keys)} {what}", names)


def _slashed(counts: tuple[int, ...]) -> str:
    return f"{sum(counts)} = {'/'.join(map(str, counts))}"
