"""How a model is spelled on the command line: `name:variant@recipe/view:normalisation` or less of it.

`#label` behind it tells apart entries of one configuration file that differ in what their sections set.

An import path, `package.module.Class` or `package.module:Class`, names an estimator, and
`path/to/file.py:function` what makes a network or an estimator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mer_bench.errors import UsageError

_PART = r"[^:@/#\s]+"
_FILE = r".+\.py:\w+"
_SPELLING = re.compile(
    rf"(?P<model>{_FILE}|{_PART})(?::(?P<variant>{_PART}))?(?:@(?P<recipe>{_PART}))?"
    rf"(?:/(?P<view>{_PART})(?::(?P<normalisation>{_PART}))?)?(?:#(?P<label>\S+))?"
)


@dataclass(frozen=True)
class Entry:
    """One model as asked for.

    Attributes:
        model: Registry name, import path or file.
        variant: Its named option set; empty for the default.
        recipe: Its named recipe; empty for the default.
        view: What it reads, as in `whole-28`; empty for what it likes best.
        normalisation: How that is scaled, as in `scaled`; empty likewise.
        label: Tells it from others that are spelled alike; no part of the run.
    """

    model: str
    variant: str = ""
    recipe: str = ""
    view: str = ""
    normalisation: str = ""
    label: str = ""

    def __str__(self) -> str:
        variant = f":{self.variant}" if self.variant else ""
        normalisation = f":{self.normalisation}" if self.normalisation else ""
        view = f"/{self.view}{normalisation}" if self.view else ""
        recipe, label = (
            f"{sign}{text}" if text else "" for sign, text in (("@", self.recipe), ("#", self.label))
        )
        return f"{self.model}{variant}{recipe}{view}{label}"


def is_file(model: str) -> bool:
    """Return whether a model's name is `path/to/file.py:function`."""
    return model.rpartition(":")[0].endswith(".py")


def parse_entry(text: str) -> Entry:
    """Read one spelling; whether there is such a model is not looked at.

    Raises:
        UsageError: The spelling is another.

    >>> parse_entry("ahmsa:tiny@lineage")
    Entry(model='ahmsa', variant='tiny', recipe='lineage', view='', normalisation='', label='')
    >>> str(parse_entry("htnet@authors/whole-28:scaled"))
    'htnet@authors/whole-28:scaled'
    >>> str(parse_entry("sklearn.svm:SVC"))
    'sklearn.svm.SVC'
    >>> parse_entry("my models/net.py:small@plain").model
    'my models/net.py:small'
    """
    match = _SPELLING.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text}' names no model; write NAME, NAME:VARIANT, NAME@RECIPE or NAME:VARIANT@RECIPE, "
            "as in ahmsa:tiny@lineage, with /VIEW:NORMALISATION behind it for an input"
        )
    found = match.groupdict(default="")
    if "." in found["model"] and found["variant"] and not is_file(found["model"]):
        found["model"], found["variant"] = f"{found['model']}.{found['variant']}", ""
    return Entry(**found)
