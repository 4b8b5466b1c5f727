"""What a store holds, counted: samples, subjects, classes, fallbacks, failures."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mer_flow.labels import SCHEMES, apply_scheme, get_scheme
from mer_flow.samples import SampleTable
from mer_flow.store.parts import PartsFolder
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import INGREDIENTS


def summarise(store: FlowStore, scheme: str | None = None) -> dict[str, Any]:
    """Counts a store's content.

    Args:
        store: The store.
        scheme: Count the classes of this label scheme only; every fitting one unless given.

    Returns:
        JSON-able, with the keys that docs/store-format.md lists under `mer-flow info --json`.

    Raises:
        UsageError: There is no such scheme.
    """
    if scheme is not None:
        get_scheme(scheme)
    kind = store.map_kind
    databases = {database: _database(store, database, scheme) for database in store.databases}
    table = store.table()
    return {
        "path": str(store.path),
        "schema_version": store.schema_version,
        "created_with": store.created_with,
        "size_bytes": store.path.stat().st_size,
        "digest": store.digest(),
        "pipeline_hash": store.pipeline_hash,
        "pipeline": store.pipeline,
        "kind": kind.kind,
        "map_size": kind.map_size,
        "values": kind.values,
        "samples": len(table),
        "subjects": len(table.subjects),
        "failed": sum(item["failed"] for item in databases.values()),
        "unfinished": unfinished(store),
        "schemes": _schemes(databases),
        "databases": databases,
    }


def unfinished(store: FlowStore) -> int:
    """Returns how many samples an unfinished build beside the store has committed."""
    return sum(1 for _ in PartsFolder(store.path).path.rglob("*.h5"))


def _database(store: FlowStore, database: str, scheme: str | None) -> dict[str, Any]:
    table = store.samples(database)
    failures = store.failures(database)
    fallbacks: Counter[str] = Counter()
    for note in store.notes(database):
        fallbacks.update(note.get("fallbacks", ()))
    return {
        "samples": len(table),
        "subjects": len(table.subjects),
        "holds": [name for name in INGREDIENTS if store.has(database, name)],
        "apex_sources": dict(sorted(Counter(sample.apex_source for sample in table).items())),
        "schemes": {name: _classes(table, name) for name in ([scheme] if scheme else fitting_schemes(table))},
        "fallbacks": dict(sorted(fallbacks.items())),
        "failed": len(failures),
        "failed_by_stage": dict(sorted(Counter(failure.stage for failure in failures).items())),
        "failures": [
            {"sample_id": item.sample_id, "stage": item.stage, "reason": item.reason} for item in failures
        ],
    }


def fitting_schemes(table: SampleTable) -> list[str]:
    """Returns the label schemes that tell at least two classes apart in a table.

    A scheme that shares a single emotion word with a database (`surprise`) is not meant for it; where a table
    is so small that no scheme finds two classes, those that find one are returned.

    Args:
        table: Samples of one database.
    """
    present = {
        name: sum(count > 0 for count in apply_scheme(table, name).counts()) for name, _ in SCHEMES.usable()
    }
    enough = min(2, max(present.values(), default=0))
    return [name for name, classes in present.items() if classes >= max(1, enough)]


def _classes(table: SampleTable, scheme: str) -> dict[str, Any]:
    labelled = apply_scheme(table, scheme)
    return {
        "samples": len(labelled.labels),
        "subjects": len({table[sample_id].subject for sample_id in labelled.labels}),
        "classes": dict(zip(labelled.classes, labelled.counts(), strict=True)),
        "dropped": labelled.dropped_by_reason(),
    }


def _schemes(databases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds each scheme up over the databases it fits."""
    totals: dict[str, Any] = {}
    for database, item in databases.items():
        for name, counted in item["schemes"].items():
            total = totals.setdefault(
                name,
                {"databases": [], "samples": 0, "subjects": 0, "classes": Counter(), "dropped": Counter()},
            )
            total["databases"].append(database)
            total["samples"] += counted["samples"]
            total["subjects"] += counted["subjects"]  # subjects are unique across databases
            for key in ("classes", "dropped"):
                for label, count in counted[key].items():
                    total[key][label] += count
    return {
        name: {**total, "classes": dict(total["classes"]), "dropped": dict(total["dropped"])}
        for name, total in totals.items()
    }
