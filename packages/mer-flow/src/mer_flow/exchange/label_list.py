"""Ground-truth lists: the MEGC2019 organisers' `database,subject,clip,label`, and HTNet's."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mer_flow.labels import SCHEMES, megc_key, megc_sample_id
from mer_flow.samples import UNKNOWN_FRAME, Sample, row_fault
from mer_flow.work.errors import ExchangeError, UsageError

#: Columns of a list, in order; the organisers' file has no header.
LIST_COLUMNS = ("database", "subject", "clip", "label")
#: Header of the list that HTNet's and CausalNet's code reads; the first four are those of `LIST_COLUMNS`.
HTNET_COLUMNS = ("dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename")
#: What the labels of such a list mean.
MEGC_CLASSES = SCHEMES["megc3"].classes


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list.

    Attributes:
        line: Line of the file, from 1.
        sample: The sample it names; the list says nothing of frames, action units or frame rate.
    """

    line: int
    sample: Sample
    label: int


def listed_sample(database: str, subject: str, clip: str, label: int) -> Sample:
    """Return the sample that a list's row names.

    Raises:
        UsageError: The subject is not spelt as this database's are.

    >>> listed_sample("smic", "s01", "s01_ne_01", 0).sample_id
    'smic/s01/s1_ne_01'
    """
    sample_id = f"{database}/{subject}/{clip}"
    if database in SCHEMES["megc3"].databases:  # whose names the organisers spell in their own way
        sample_id = megc_sample_id(database, subject, clip)
    _, own_subject, own_clip = sample_id.split("/", 2)
    unknown = UNKNOWN_FRAME
    return Sample(
        sample_id, database, f"{database}/{own_subject}", own_clip, unknown, unknown, unknown, "none",
        MEGC_CLASSES[label], "", 0, 0.0,
    )  # fmt: skip


def bare_subject(sample: Sample) -> str:
    """Return the subject without its database: `006` of `samm/006`."""
    return sample.subject.removeprefix(f"{sample.database}/")


def map_stem(sample: Sample) -> str:
    """Return the name, without ending, that STSTNet's folders give a sample.

    >>> map_stem(listed_sample("samm", "6", "006_1_2", 0))
    '006_006_1_2'
    >>> map_stem(listed_sample("smic", "s01", "s01_ne_01", 0))
    's01_s01_ne_01'
    """
    return f"{bare_subject(sample)}_{megc_key(sample)[2]}"


def stem_key(stem: str) -> str:
    """Return what two spellings of one name share: no blanks around, no case, no zeros before numbers.

    >>> stem_key("006_006_1_2 ") == stem_key("6_006_1_2")
    True
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", stem.strip().lower())


def list_line(sample: Sample, label: int, classes: Sequence[str]) -> str:
    """Return a sample's line of a list, in the organisers' spelling, without line end.

    The label is a number only where the classes are theirs.
    """
    return ",".join([*megc_key(sample), str(label) if tuple(classes) == MEGC_CLASSES else classes[label]])


def read_label_list(path: Path, databases: Sequence[str]) -> tuple[ListRow, ...]:
    """Read a list, with the header `LIST_COLUMNS`, `HTNET_COLUMNS` or none.

    Args:
        path: A CSV file of `database,subject,clip,label`, in HTNet's columns where it has their header;
            0 negative, 1 positive, 2 surprise, or these words.
        databases: Names that the first column may hold.

    Raises:
        ExchangeError: The file is missing or unreadable, has another header, or rows are malformed or
            duplicate; all are listed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExchangeError(
            f"cannot read the label list {path}: {error}. Expected a CSV file of {','.join(LIST_COLUMNS)}; "
            "pass it with --labels, or leave --labels out to use the shipped MEGC2019 list."
        ) from error
    rows: dict[str, ListRow] = {}
    faults: list[str] = []
    header = _header(path, lines[0]) if lines else ()
    for line, raw in enumerate(lines, start=1):
        cells = [cell.strip() for cell in raw]
        if not any(cells) or (line == 1 and header):
            continue
        try:
            if header == HTNET_COLUMNS:
                if len(cells) != len(header):
                    raise UsageError(f"expected {len(header)} cells, got {cells}")
                cells = cells[: len(LIST_COLUMNS)]
            row = _parse_row(line, cells, databases)
        except UsageError as error:
            faults.append(f"line {line}: {error}")
            continue
        first = rows.setdefault(f"{row.sample.database}/{stem_key(map_stem(row.sample))}", row)
        if first is not row:
            faults.append(f"line {line}: {row.sample.sample_id} stands on line {first.line} already")
    if not rows and not faults:
        faults.append("the file holds no row")
    if faults:
        listed = "\n  ".join(faults)
        raise ExchangeError(
            f"{len(faults)} fault(s) in the label list {path}:\n  {listed}\n"
            f"Expected rows of {','.join(LIST_COLUMNS)} with each (subject, clip) once; mend these lines."
        )
    return tuple(rows.values())


def _header(path: Path, first: Sequence[str]) -> tuple[str, ...]:
    """Return a list's header, none where its first line is a row: every clip has a number in its name."""
    cells = tuple(cell.strip().lower() for cell in first)
    if cells in (LIST_COLUMNS, HTNET_COLUMNS):
        return cells
    if any(cells) and not any(character.isdigit() for character in "".join(cells)):
        raise ExchangeError(
            f"the label list {path} has the header '{','.join(cells)}'; expected "
            f"'{','.join(LIST_COLUMNS)}', HTNet's '{','.join(HTNET_COLUMNS)}', or rows without a header"
        )
    return ()


def _parse_row(line: int, cells: list[str], databases: Sequence[str]) -> ListRow:
    if len(cells) != len(LIST_COLUMNS) or not all(cells):
        raise UsageError(f"expected {len(LIST_COLUMNS)} filled cells, got {cells}")
    database, subject, clip, word = cells[0].lower(), cells[1], cells[2], cells[3].lower()
    if database not in databases:
        raise UsageError(f"unknown database '{cells[0]}', known: {', '.join(sorted(databases))}")
    words = {name: label for label, name in enumerate(MEGC_CLASSES)} | {"0": 0, "1": 1, "2": 2}
    if word not in words:
        raise UsageError(f"label '{cells[3]}', expected 0 (negative), 1 (positive) or 2 (surprise)")
    sample = listed_sample(database, subject, clip, words[word])
    if fault := row_fault(sample):
        raise UsageError(fault)
    return ListRow(line, sample, words[word])
