"""Published scores, each with its source and whether the authors' code selects on the test subject."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mer_bench.scores.metrics import FULL

#: What `selects_on_test` may say: how a table puts it, and the same in one word or two for a column.
SELECTS_ON_TEST = {
    "yes": ("as published; its code LEAKS (test subject chooses)", "yes (LEAKS)"),
    "no": ("as published; not selected on test", "no"),
    "unknown": ("as published; selection unknown", "unknown"),
    "none": ("as published; nothing to select", "no epochs"),
}
_COMPOSITE = ("casme2", "samm", "smic")

#: What a reader must know of all published figures of a database.
DATABASE_NOTES = {
    "casme3": "Published CAS(ME)^3 figures are for orientation only: they come of 699 to 773 clips, some by "
    "leave one subject out, some by five folds."
}


@dataclass(frozen=True)
class PublishedScore:
    """One published result.

    Attributes:
        method: The name a table prints.
        protocol: As in `mer-bench run --protocol`.
        databases: What was scored, sorted.
        classes: Number of classes.
        scores: Pool (`Full` or a database) to `(UF1, UAR)`; UAR is None where it was not to be read.
        selects_on_test: A key of `SELECTS_ON_TEST`.
        source: Where the figures were read.
        model: Registry name of our implementation; empty where there is none.
        variant: The one variant of it that the figures belong to; empty for any.
        recipe: The one recipe of it that they belong to; empty for any.
        note: What a reader should know.
    """

    method: str
    protocol: str
    databases: tuple[str, ...]
    classes: int
    scores: dict[str, tuple[float, float | None]]
    selects_on_test: str
    source: str
    model: str = ""
    variant: str = ""
    recipe: str = ""
    note: str = ""


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Return every published score, in the file's order.

    >>> [s.scores["Full"] for s in published_scores() if s.method == "AHMSA-Net" and s.protocol == "cde"]
    [(0.804, 0.7821)]
    """
    content = tomllib.loads(files("mer_bench.scores").joinpath("published.toml").read_text(encoding="utf-8"))
    found = []
    for entry in content["score"]:
        read = {pool: entry.pop(pool.lower(), None) for pool in (FULL, *_COMPOSITE)}
        entry |= {
            "protocol": entry.get("protocol", "cde"),
            "databases": tuple(sorted(entry.get("databases", _COMPOSITE))),
            "classes": entry.get("classes", 3),
            "scores": {pool: (*pair, None)[:2] for pool, pair in read.items() if pair},
            "source": "; ".join(content["sources"][key] for key in entry.pop("sources")),
        }
        found.append(PublishedScore(**entry))
    return tuple(found)


def scores_beside(protocol: str, databases: Collection[str], classes: int) -> tuple[PublishedScore, ...]:
    """Return the published scores of a protocol on databases with so many classes, in the file's order.

    >>> {s.method for s in scores_beside("loso", ["casme3"], 4)}
    {'MER-CLIP'}
    """
    wanted = (protocol, tuple(sorted(set(databases))), classes)
    return tuple(s for s in published_scores() if (s.protocol, s.databases, s.classes) == wanted)


def scores_of(
    model: str, variant: str, recipe: str, beside: Collection[PublishedScore]
) -> tuple[PublishedScore, ...]:
    """Return the scores of one model among those `beside`, those of just this variant and recipe first.

    Those that belong to another variant or recipe are left out; a classifier's recipe is empty.
    """
    ours = [s for s in beside if s.model == model and s.variant in ("", variant) and s.recipe in ("", recipe)]
    return tuple(sorted(ours, key=lambda s: (s.variant != variant, s.recipe != recipe)))
