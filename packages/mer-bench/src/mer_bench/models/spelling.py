"""How a model is spelled on the command line: `name`, `name:variant`, `name@recipe` or both.

An import path, `package.module.Class` or `package.module:Class`, names an estimator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mer_bench.errors import UsageError

_SPELLING = re.compile(r"(?P<model>[^:@\s]+)(?::(?P<variant>[^:@\s]+))?(?:@(?P<recipe>[^:@\s]+))?")


@dataclass(frozen=True)
class Entry:
    """One model as asked for; variant and recipe are empty for the default ones."""

    model: str
    variant: str = ""
    recipe: str = ""

    def __str__(self) -> str:
        variant = f":{self.variant}" if self.variant else ""
        return f"{self.model}{variant}{f'@{self.recipe}' if self.recipe else ''}"


def parse_entry(text: str) -> Entry:
    """Read one spelling; whether there is such a model is not looked at.

    Raises:
        UsageError: The spelling is another.

    >>> parse_entry("ahmsa:tiny@lineage")
    Entry(model='ahmsa', variant='tiny', recipe='lineage')
    >>> str(parse_entry("htnet@authors"))
    'htnet@authors'
    >>> str(parse_entry("sklearn.svm:SVC"))
    'sklearn.svm.SVC'
    """
    match = _SPELLING.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text}' names no model; write NAME, NAME:VARIANT, NAME@RECIPE or NAME:VARIANT@RECIPE, "
            "as in ahmsa:tiny@lineage"
        )
    found = match.groupdict(default="")
    if "." in found["model"] and found["variant"]:
        found["model"], found["variant"] = f"{found['model']}.{found['variant']}", ""
    return Entry(**found)
