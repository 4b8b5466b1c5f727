"""What a complete copy of each database gives, and where a reading deviates from it.

The data lie in `datasets/manifests/` of the workspace and are installed as `mer_flow/manifests/`.
"""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.databases.reading import SheetReading

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class SchemeCounts:
    """What a label scheme must give: samples per class in class order, and subjects."""

    counts: tuple[int, ...]
    subjects: int


@dataclass(frozen=True, slots=True)
class SheetVersion:
    """One published version of a database's annotations.

    Attributes:
        name: As in `v2`.
        form: The column form it has (`mer_flow.databases.sheets.Form.name`), or `folders`.
        rows: Rows with a filename; with the form it identifies the version.
        samples: Samples it gives.
        subjects: Subjects it gives.
        emotions: Samples per emotion; empty where not known.
        objective: Samples per objective class (`"1"` to `"7"`); empty where not known.
        per_subject: Samples per subject, keyed by the subject's own name; empty where not known.
        schemes: What each label scheme gives.
        rank: The higher, the rather it is taken where several lie in one folder.
        note: What a user of this version should know.
    """

    name: str
    form: str
    rows: int
    samples: int | None = None
    subjects: int | None = None
    emotions: Mapping[str, int] = field(default_factory=dict)
    objective: Mapping[str, int] = field(default_factory=dict)
    per_subject: Mapping[str, int] = field(default_factory=dict)
    schemes: Mapping[str, SchemeCounts] = field(default_factory=dict)
    rank: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class KnownGap:
    """Frames that official copies lack.

    Attributes:
        sample_id: The clip.
        release: In which release; empty for every one.
        missing: How many frames are missing between onset and offset.
        note: Which ones, and who reported it.
    """

    sample_id: str
    release: str
    missing: int
    note: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of one database.

    Attributes:
        database: Its name.
        title: Its full name.
        fps: Frames per second.
        versions: The published versions of its annotations.
        folders_without_rows: Clip folders of official copies without a row, as `sub09/EP02_02f`.
        gaps: Frames that official copies lack.
        long_clips: SMIC-E: clip -> the clip whose long recording contains it.
        problem_faces: Samples whose apex face the authors report as occluded.
        notes: Other facts to know.
    """

    database: str
    title: str
    fps: float
    versions: tuple[SheetVersion, ...]
    folders_without_rows: tuple[str, ...] = ()
    gaps: tuple[KnownGap, ...] = ()
    long_clips: Mapping[str, str] = field(default_factory=dict)
    problem_faces: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def version(self, form: str, rows: int) -> SheetVersion | None:
        """Returns the version with this form and row count, `None` if none is known."""
        return next((v for v in self.versions if v.form == form and v.rows == rows), None)


@dataclass(frozen=True, slots=True)
class Deviation:
    """One way in which a reading differs from a complete copy.

    Attributes:
        kind: `version`, `samples`, `subjects`, `emotions`, `objective`, `per-subject`, `scheme`, `megc2019`.
        message: Expected against got, in words.
        names: The samples or subjects it is about; may be empty.
        remedy: What to do; may be empty.
    """

    kind: str
    message: str
    names: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        return self.message + (f". {self.remedy}" if self.remedy else "")


def directory() -> Path:
    """Returns the folder with the manifests: the installed copy, else the workspace's.

    Raises:
        UsageError: Neither exists; the installation is incomplete.
    """
    installed = Path(str(resources.files("mer_flow").joinpath("manifests")))
    if installed.is_dir():
        return installed
    for parent in Path(__file__).resolve().parents:
        candidate = parent / "datasets" / "manifests"
        if candidate.is_dir():
            return candidate
    raise UsageError(
        f"mer-flow's manifests are missing: neither {installed} nor datasets/manifests above "
        f"{Path(__file__).parent} exists. Reinstall mer-flow from a complete wheel or checkout."
    )


@cache
def read_toml(name: str) -> dict[str, Any]:
    """Returns one TOML file of the manifests.

    Raises:
        UsageError: It is missing or not valid TOML.
    """
    path = directory() / name
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise UsageError(f"the manifest {path} is missing; reinstall mer-flow from a complete copy") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the manifest {path} is not valid TOML: {error}") from error


@cache
def load(database: str) -> Manifest:
    """Returns the manifest of a database.

    Raises:
        UsageError: The database is unknown, or its manifest is broken.

    >>> load("casme3").version("jpgindex", 860).schemes["casme3-3"].counts
    (457, 55, 187)
    """
    from mer_flow.databases import DATABASES

    if database not in DATABASES:
        raise unknown("database", database, DATABASES)
    data = read_toml(f"{database}.toml")
    try:
        versions = tuple(
            SheetVersion(
                **{
                    **entry,
                    "schemes": {
                        name: SchemeCounts(tuple(scheme["counts"]), scheme["subjects"])
                        for name, scheme in entry.get("schemes", {}).items()
                    },
                }
            )
            for entry in data["versions"]
        )
        return Manifest(
            database=data["database"],
            title=data["title"],
            fps=float(data["fps"]),
            versions=versions,
            folders_without_rows=tuple(data.get("folders_without_rows", ())),
            gaps=tuple(KnownGap(**gap) for gap in data.get("gaps", ())),
            long_clips=data.get("long_clips", {}),
            problem_faces=tuple(data.get("problem_faces", ())),
            notes=tuple(data.get("notes", ())),
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"the manifest {database}.toml is broken: {error}") from error


@cache
def megc2019() -> Mapping[tuple[str, str, str], int]:
    """Returns the MEGC2019 organisers' composite ground truth.

    Returns:
        (database, subject, clip) as they spell them -> 0 negative, 1 positive, 2 surprise; 442 clips in
        their order. `mer_flow.labels.megc_key` gives a sample's key.

    >>> len(megc2019()), megc2019()[("samm", "6", "006_1_2")]
    (442, 0)
    """
    with (directory() / "megc2019.csv").open(encoding="utf-8", newline="") as stream:
        return {(r["database"], r["subject"], r["clip"]): int(r["label"]) for r in csv.DictReader(stream)}


def compare(reading: SheetReading) -> tuple[Deviation, ...]:
    """Compares what a sheet or its folders gave with what a complete copy gives.

    Args:
        reading: What a database's `read` returned.

    Returns:
        Every deviation; empty means complete.
    """
    manifest = load(reading.database)
    version = manifest.version(reading.form, reading.rows)
    if version is None and reading.form == "folders":
        # Folders come in one version: with fewer of them it is an incomplete copy, not another version.
        version = next((v for v in manifest.versions if v.form == "folders"), None)
    deviations: list[Deviation] = []
    if version is None:
        known = ", ".join(f"{v.name} ({v.rows} rows, {v.form})" for v in manifest.versions)
        deviations.append(
            Deviation(
                "version",
                f"{reading.rows} rows of the form '{reading.form}' are no known version; known: {known}",
                remedy="Compare it with the authors' current sheet; its counts cannot be checked.",
            )
        )
    else:
        deviations.extend(_compare_version(reading, version))
    deviations.extend(_compare_megc(reading))
    return tuple(deviations)


def _compare_version(reading: SheetReading, version: SheetVersion) -> list[Deviation]:
    from mer_flow.labels import apply_scheme, get_scheme

    table = reading.table
    found: list[Deviation] = []
    dropped = tuple(row.key for row in reading.dropped)
    if version.samples is not None and len(table) != version.samples:
        found.append(Deviation("samples", f"expected {version.samples} samples, got {len(table)}", dropped))
    if version.subjects is not None and len(table.subjects) != version.subjects:
        found.append(
            Deviation("subjects", f"expected {version.subjects} subjects, got {len(table.subjects)}")
        )
    emotions = Counter(row.emotion for row in table)
    if version.emotions and emotions != Counter(version.emotions):
        found.append(Deviation("emotions", _differences("emotion", version.emotions, emotions)))
    objective = Counter(str(row.objective_class) for row in table if row.objective_class)
    if version.objective and not objective:
        found.append(
            Deviation(
                "objective",
                "the sheet has no objective classes",
                remedy=f"Lay the file with {reading.database}'s objective classes next to the sheet."
                if reading.database == "casme2"
                else "Use the authors' original sheet.",
            )
        )
    elif version.objective and objective != Counter(version.objective):
        found.append(Deviation("objective", _differences("objective class", version.objective, objective)))
    per_subject = Counter(row.subject.partition("/")[2] for row in table)
    if version.per_subject and per_subject != Counter(version.per_subject):
        wrong = tuple(
            sorted(
                name
                for name in {*per_subject, *version.per_subject}
                if per_subject[name] != version.per_subject.get(name, 0)
            )
        )
        found.append(
            Deviation("per-subject", _differences("subject", version.per_subject, per_subject), wrong)
        )
    for name, expected in version.schemes.items():
        if name == "objective-5" and not objective:
            continue  # already said once
        scheme = get_scheme(name)
        labels = apply_scheme(table, scheme).labels
        counts = tuple(Counter(labels.values())[i] for i in range(len(scheme.classes)))
        subjects = len({table[sample_id].subject for sample_id in labels})
        if (counts, subjects) != (expected.counts, expected.subjects):
            found.append(
                Deviation(
                    "scheme",
                    f"{name}: expected {_slashed(expected.counts)} from {expected.subjects} subjects, "
                    f"got {_slashed(counts)} from {subjects}",
                )
            )
    return found


def _compare_megc(reading: SheetReading) -> list[Deviation]:
    from mer_flow.labels import SCHEMES, apply_scheme, megc_key

    if reading.database not in SCHEMES["megc3"].databases:
        return []
    official = {key: label for key, label in megc2019().items() if key[0] == reading.database}
    ours = {
        megc_key(reading.table[i]): label for i, label in apply_scheme(reading.table, "megc3").labels.items()
    }
    kinds = {
        "are missing": sorted(official.keys() - ours.keys()),
        "are not in it": sorted(ours.keys() - official.keys()),
        "have another label": sorted(k for k in official.keys() & ours.keys() if official[k] != ours[k]),
    }
    return [
        Deviation(
            "megc2019",
            f"MEGC2019's list of {len(official)} {reading.database} clips: {len(keys)} of ours {what}"
            if what != "are missing"
            else f"MEGC2019's list of {len(official)} {reading.database} clips: {len(keys)} {what}",
            tuple(f"{subject}/{clip}" for _, subject, clip in keys),
        )
        for what, keys in kinds.items()
        if keys
    ]


def _differences(what: str, expected: Mapping[str, int], got: Mapping[str, int]) -> str:
    parts = [
        f"{name}: expected {expected.get(name, 0)}, got {got.get(name, 0)}"
        for name in sorted({*expected, *got})
        if expected.get(name, 0) != got.get(name, 0)
    ]
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"samples per {what} differ: {'; '.join(parts[:_SHOWN])}{more}"


def _slashed(counts: tuple[int, ...]) -> str:
    return f"{sum(counts)} = {'/'.join(map(str, counts))}"
