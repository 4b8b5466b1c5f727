"""The page of a store: every sample with its maps, to be browsed by what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_flow import __version__
from mer_flow.databases.registry import database_title
from mer_flow.labels import get_scheme
from mer_flow.pictures.web.pages import Pages
from mer_flow.pictures.web.sprites import Ends, write_sprites
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.reader import FlowStore

NO_CLASS = "no class"


@dataclass(frozen=True)
class Look:
    """How a store's page shows its samples.

    Attributes:
        scheme: Label scheme of the classes.
        scale: `shared`, `sample` or fixed ends, as `write_sprites` takes it.
        faces: Show onset and apex faces, where the store keeps them.
    """

    scheme: str = "megc3"
    scale: Ends | str = "shared"
    faces: bool = False


def write_store_page(store: FlowStore, sample_ids: Sequence[str], folder: Path, look: Look) -> Path:
    """Write the page of some samples of a store, `index.html` in a folder of its own.

    Raises:
        UsageError: No sample, or one that is not in the store, or a folder that holds something else.
    """
    table = store.table().select(list(sample_ids))
    scheme = get_scheme(look.scheme)
    classes = {s.sample_id: _class(scheme.classes, scheme.label(s)) for s in table}
    fallbacks = fallbacks_of(store)
    shown = [*scheme.classes, *[NO_CLASS] * (NO_CLASS in classes.values())]
    with Pages(folder, __package__, f"mer-flow {__version__}") as pages:
        sprites = write_sprites(pages, store, table.sample_ids, look.scale, look.faces)
        pages.write(
            "index.html",
            "store.html",
            name=store.path.name,
            store=store,
            table=table,
            total=len(store.table()),
            sprites=sprites,
            scheme=look.scheme,
            classes=classes,
            counts=_counts(table, classes, shown),
            shown=shown,
            facts={s.sample_id: facts_of(s) for s in table},
            fallbacks=fallbacks,
            failures={d: store.failures(d) for d in store.databases if store.failures(d)},
            choices={
                "database": _counted(s.database for s in table),
                "class": _counted(classes.values()),
                "subject": _counted(s.subject for s in table),
                "apex source": _counted(s.apex_source for s in table),
                "fallback": _counted(
                    name for s in table for name in fallbacks.get(s.sample_id, ()) or ["none"]
                ),
            },
            kept_faces=[d for d in store.databases if store.has(d, "faces")],
            title_of=database_title,
        )
    return folder / "index.html"


def fallbacks_of(store: FlowStore) -> dict[str, list[str]]:
    """Return what stood in for what of each sample that has any fallback."""
    return {
        sample.sample_id: list(map(str, note["fallbacks"]))
        for database in store.databases
        for sample, note in zip(store.samples(database), store.notes(database), strict=True)
        if note.get("fallbacks")
    }


def facts_of(sample: Sample) -> dict[str, str]:
    """Return what is known of a sample, in words; what is not known is left out."""
    frames = [(name, getattr(sample, name)) for name in ("onset", "apex", "offset")]
    told = {
        "emotion": sample.emotion,
        "action units": sample.action_units,
        "objective class": str(sample.objective_class or ""),
        "frames": ", ".join(f"{name} {number}" for name, number in frames if number != UNKNOWN_FRAME),
        "apex source": sample.apex_source if sample.apex_source != "none" else "",
        "frame rate": f"{sample.fps:g} per second" if sample.fps > 0 else "",
    }
    return {name: text for name, text in told.items() if text}


def _class(classes: Sequence[str], label: Any) -> str:
    return classes[label] if isinstance(label, int) else NO_CLASS


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _counts(table: Any, classes: dict[str, str], shown: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return database to class to number of samples, with the number of subjects."""
    counts: dict[str, dict[str, int]] = {}
    for database in table.databases:
        own = [s for s in table if s.database == database]
        found = Counter(classes[s.sample_id] for s in own)
        subjects = len({s.subject for s in own})
        counts[database] = {"subjects": subjects, "samples": len(own), **{n: found[n] for n in shown}}
    return counts
