"""What a store holds, counted: samples, subjects, classes, fallbacks, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mer_flow.labels import SCHEMES, apply_scheme, get_scheme
from mer_flow.samples import SampleTable
from mer_flow.store.reader import FlowStore, unfinished
from mer_flow.store.schema import INGREDIENTS


def summarise(store: FlowStore, scheme: str | None = None) -> dict[str, Any]:
    """Count a store's content, classes by one label scheme or by every fitting one.

    Returns:
        JSON-able, with the keys that docs/store-format.md lists under `mer-flow info --json`.
    """
    if scheme is not None:
        get_scheme(scheme)
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
        "builds": store.builds,
        **store.map_kind.model_dump(),
        "samples": len(table),
        "subjects": len(table.subjects),
        "failed": sum(item["failed"] for item in databases.values()),
        "unfinished": unfinished(store.path),
        "schemes": _schemes(databases),
        "databases": databases,
    }


def _database(store: FlowStore, database: str, scheme: str | None) -> dict[str, Any]:
    table, failures = store.samples(database), store.failures(database)
    return {
        "samples": len(table),
        "subjects": len(table.subjects),
        "holds": [name for name in INGREDIENTS if store.has(database, name)],
        "apex_sources": _counted(sample.apex_source for sample in table),
        "schemes": {name: _classes(table, name) for name in ([scheme] if scheme else _fitting(table))},
        "fallbacks": _counted(name for note in store.notes(database) for name in note.get("fallbacks", ())),
        "failed": len(failures),
        "failed_by_stage": _counted(failure.stage for failure in failures),
        "failures": [
            {"sample_id": item.sample_id, "stage": item.stage, "reason": item.reason} for item in failures
        ],
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _fitting(table: SampleTable) -> list[str]:
    """Return the label schemes that tell two classes apart, or in a small table one.

    A scheme that shares a single emotion word with a database (`surprise`) is not meant for it.
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
    """Add each scheme up over the databases it fits; subjects are unique across databases."""
    totals: dict[str, Any] = {}
    for database, item in databases.items():
        for name, counted in item["schemes"].items():
            total = totals.setdefault(
                name, {"databases": [], "samples": 0, "subjects": 0, "classes": {}, "dropped": {}}
            )
            total["databases"].append(database)
            for key in ("samples", "subjects"):
                total[key] += counted[key]
            for key in ("classes", "dropped"):
                for label, count in counted[key].items():
                    total[key][label] = total[key].get(label, 0) + count
    return totals
