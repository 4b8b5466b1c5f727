"""Published scores, each with its source and whether the authors' code selects on the test subject."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mer_bench.errors import DataError

#: What `selects_on_test` may say, and how a table puts it.
SELECTS_ON_TEST = {
    "yes": "as published; its code LEAKS (test subject chooses)",
    "no": "as published; its code does not select on test",
    "unknown": "as published; selection unknown",
    "none": "as published; nothing to select",
}
_DATABASES = ("smic", "samm", "casme2")


@dataclass(frozen=True)
class PublishedScore:
    """One published result.

    Attributes:
        method: The name a table prints.
        protocol: As in `mer-bench run --protocol`.
        scores: Pool (`Full` or a database) to `(UF1, UAR)`.
        selects_on_test: A key of `SELECTS_ON_TEST`.
        source: Where the figures were read.
        model: Registry name of our implementation; empty where there is none.
        note: What a reader should know.
    """

    method: str
    protocol: str
    scores: dict[str, tuple[float, float]]
    selects_on_test: str
    source: str
    model: str = ""
    note: str = ""


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Returns every published score, in the file's order.

    Raises:
        DataError: The packaged file is not as documented.

    >>> [s.scores["Full"] for s in published_scores() if s.method == "AHMSA-Net"]
    [(0.804, 0.7821)]
    """
    entries = tomllib.loads(files("mer_bench").joinpath("published.toml").read_text(encoding="utf-8"))[
        "score"
    ]
    found = []
    for entry in entries:
        if entry["selects_on_test"] not in SELECTS_ON_TEST or not entry["source"]:
            raise DataError(f"published.toml: '{entry['method']}' lacks a source or a valid selects_on_test")
        scores = {
            name: (float(entry[key][0]), float(entry[key][1]))
            for name, key in (("Full", "full"), *((d, d) for d in _DATABASES))
            if key in entry
        }
        found.append(
            PublishedScore(
                entry["method"],
                entry["protocol"],
                scores,
                entry["selects_on_test"],
                entry["source"],
                entry.get("model", ""),
                entry.get("note", ""),
            )
        )
    return tuple(found)
