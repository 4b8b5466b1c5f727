"""Ground-truth lists `database,subject,clip,label`, as the MEGC2019 organisers publish theirs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mer_flow.labels import SCHEMES, megc_key, megc_sample_id
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.work.errors import ExchangeError, UsageError

#: Columns of a list, in order; the organisers' file has no header.
LIST_COLUMNS = ("database", "subject", "clip", "label")
#: What the labels of such a list mean, and the databases whose names it spells in its own way.
MEGC_CLASSES = SCHEMES["megc3"].classes
_RESPELT = SCHEMES["megc3"].databases


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list.

    Attributes:
        line: Line of the file, from 1.
        sample: The sample it names; the list says nothing of frames, action units or frame rate.
        label: Class number.
    """

    line: int
    sample: Sample
    label: int

    @property
    def sample_id(self) -> str:
        """The sample's id, as in `smic/s01/s1_ne_01`."""
        return self.sample.sample_id


def listed_sample(database: str, subject: str, clip: str, label: int) -> Sample:
    """Returns the sample that a list's row names.

    Raises:
        UsageError: The subject is not spelt as this database's are.

    >>> listed_sample("smic", "s01", "s01_ne_01", 0).sample_id
    'smic/s01/s1_ne_01'
    """
    plain = f"{database}/{subject}/{clip}"
    sample_id = megc_sample_id(database, subject, clip) if database in _RESPELT else plain
    _, own_subject, own_clip = sample_id.split("/", 2)
    unknown = UNKNOWN_FRAME
    return Sample(
        sample_id, database, f"{database}/{own_subject}", own_clip, unknown, unknown, unknown, "none",
        MEGC_CLASSES[label], "", 0, 0.0,
    )  # fmt: skip


def bare_subject(sample: Sample) -> str:
    """Returns the subject without its database: `006` of `samm/006`."""
    return sample.subject.removeprefix(f"{sample.database}/")


def map_stem(sample: Sample) -> str:
    """Returns the name, without ending, that STSTNet's folders give a sample.

    >>> map_stem(listed_sample("samm", "6", "006_1_2", 0))
    '006_006_1_2'
    >>> map_stem(listed_sample("smic", "s01", "s01_ne_01", 0))
    's01_s01_ne_01'
    """
    return f"{bare_subject(sample)}_{megc_key(sample)[2]}"


def stem_key(stem: str) -> str:
    """Returns what two spellings of one name share: no blanks around, no case, no zeros before numbers.

    >>> stem_key("006_006_1_2 ") == stem_key("6_006_1_2")
    True
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", stem.strip().lower())


def read_label_list(path: Path, databases: Sequence[str]) -> tuple[ListRow, ...]:
    """Reads a list; a first line with the column names is skipped.

    Args:
        path: A CSV file of `database,subject,clip,label`; 0 negative, 1 positive, 2 surprise, or these words.
        databases: Names that the first column may hold.

    Returns:
        The rows, in order.

    Raises:
        ExchangeError: The file is missing or unreadable, or rows are malformed or duplicate; all are listed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExchangeError(
            f"cannot read the label list {path}: {error}. Expected a CSV file of {','.join(LIST_COLUMNS)}; "
            "pass it with --labels, or leave --labels out to use the shipped MEGC2019 list."
        ) from error
    rows: list[ListRow] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    for line, raw in enumerate(lines, start=1):
        cells = [cell.strip() for cell in raw]
        if not any(cells) or (line == 1 and tuple(cell.lower() for cell in cells) == LIST_COLUMNS):
            continue
        try:
            row = _parse_row(line, cells, databases)
        except UsageError as error:
            faults.append(f"line {line}: {error}")
            continue
        key = f"{row.sample.database}/{stem_key(map_stem(row.sample))}"
        if key in first_line:
            faults.append(f"line {line}: {row.sample_id} stands on line {first_line[key]} already")
            continue
        first_line[key] = line
        rows.append(row)
    if not rows and not faults:
        faults.append("the file holds no row")
    if faults:
        listed = "\n  ".join(faults)
        raise ExchangeError(
            f"{len(faults)} fault(s) in the label list {path}:\n  {listed}\n"
            f"Expected rows of {','.join(LIST_COLUMNS)} with each (subject, clip) once; mend these lines."
        )
    return tuple(rows)


def _parse_row(line: int, cells: list[str], databases: Sequence[str]) -> ListRow:
    """Parses one line.

    Raises:
        UsageError: A cell is missing or not what its column holds.
    """
    if len(cells) != len(LIST_COLUMNS) or not all(cells):
        raise UsageError(f"expected {len(LIST_COLUMNS)} filled cells, got {cells}")
    database, subject, clip, word = cells[0].lower(), cells[1], cells[2], cells[3].lower()
    if database not in databases:
        raise UsageError(f"unknown database '{cells[0]}', known: {', '.join(sorted(databases))}")
    if word in MEGC_CLASSES:
        label = MEGC_CLASSES.index(word)
    elif word in {"0", "1", "2"}:
        label = int(word)
    else:
        raise UsageError(f"label '{cells[3]}', expected 0 (negative), 1 (positive) or 2 (surprise)")
    return ListRow(line, listed_sample(database, subject, clip, label), label)


def list_lines(samples: Iterable[Sample], labels: Iterable[int], classes: Sequence[str]) -> Iterator[str]:
    """Renders samples as lines of a list, in the organisers' spelling.

    Args:
        samples: The samples, in order.
        labels: Their class numbers.
        classes: Class names of the scheme; numbers are written only where they mean what the organisers mean.

    Yields:
        One line per sample, without line end.
    """
    numbered = tuple(classes) == MEGC_CLASSES
    for sample, label in zip(samples, labels, strict=True):
        yield ",".join([*megc_key(sample), str(label) if numbered else classes[label]])
