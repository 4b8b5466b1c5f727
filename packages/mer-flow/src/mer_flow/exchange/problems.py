"""What is wrong with foreign data: gathered first, reported all at once, each with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or only worth knowing.

    Attributes:
        kind: Short name of the fault, as in `unreadable`, `no-file`, `no-label`.
        where: The file, list row or sample it concerns.
        detail: What was expected and what was found.
        remedy: What to do.
        sample_id: The sample that cannot be imported because of it; empty where none is lost.
        harmless: True for a note that takes nothing away, as a skipped `Thumbs.db`.
    """

    kind: str
    where: str
    detail: str
    remedy: str
    sample_id: str = ""
    harmless: bool = False

    def __str__(self) -> str:
        return f"[{self.kind}] {self.where}: {self.detail}"


def report(problems: Iterable[Problem], limit: int | None = None) -> str:
    """Renders problems grouped by kind, each group with its count, its cases and its remedy.

    Args:
        problems: What was found, in any order.
        limit: Most cases to print per kind; None prints all.

    Returns:
        Lines of text; empty where there is no problem.

    >>> print(report([Problem("no-file", "samm/006/006_1_2", "no map of this row", "add the file")]))
    no-file: 1
      samm/006/006_1_2: no map of this row
      -> add the file
    """
    found = list(problems)
    lines = []
    for kind, count in Counter(problem.kind for problem in found).items():
        cases = [problem for problem in found if problem.kind == kind]
        lines.append(f"{kind}: {count}")
        lines += [f"  {case.where}: {case.detail}" for case in cases[:limit]]
        if limit is not None and count > limit:
            lines.append(f"  ... and {count - limit} more")
        lines += [f"  -> {remedy}" for remedy in dict.fromkeys(case.remedy for case in cases)]
    return "\n".join(lines)
