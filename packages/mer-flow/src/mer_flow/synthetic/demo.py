"""The demonstration: trees, one store of all, pictures, and how near the flow comes to the truth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.databases.source import Source
from mer_flow.extraction.build import BuildOptions, BuildSummary, build_store
from mer_flow.extraction.sample import Keep
from mer_flow.labels import SCHEMES, apply_scheme
from mer_flow.pictures import contact_sheet
from mer_flow.store.reader import FlowStore
from mer_flow.synthetic.evaluate import ApexErrors, EndpointErrors, apex_errors, endpoint_errors
from mer_flow.synthetic.tree import find_tree, make_tree, synthetic_databases, twin_of
from mer_flow.synthetic.truth import load_truth
from mer_flow.work.progress import Progress

STORE = "flows.h5"
PICTURES = "pictures"

_SHOWN_PER_DATABASE = 6
_SHOWN_IN_OVERVIEW = 2


@dataclass
class DemoSummary:
    """What a demonstration made and measured.

    Attributes:
        roots: Database -> root of its tree.
        tree_seconds: Database -> seconds its tree took; 0 where it was there already.
        classes: Database -> class -> samples, with the scheme's name under `scheme`.
        endpoint: Flow against the truth.
        apex: Spotting method -> spotted apexes against the truth.
    """

    out: Path
    roots: dict[str, Path]
    tree_seconds: dict[str, float] = field(default_factory=dict)
    builds: list[BuildSummary] = field(default_factory=list)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: int = 0
    subjects: int = 0
    endpoint: EndpointErrors | None = None
    apex: dict[str, ApexErrors] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Samples that have no flow."""
        return sum(len(build.failed) for build in self.builds)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for `--json`."""
        content: dict[str, Any] = {
            "out": str(self.out),
            "trees": {
                name: {"root": str(root), "seconds": round(self.tree_seconds[name], 3)}
                for name, root in self.roots.items()
            },
            "seconds": round(self.seconds, 3),
        }
        if self.endpoint is None:
            return content
        return content | {
            "store": str(self.out / STORE),
            "samples": self.samples,
            "subjects": self.subjects,
            "classes": self.classes,
            "builds": [build.to_dict() for build in self.builds],
            "endpoint_error": [
                {"amplitude_px": list(band), "samples": count}
                | dict(zip(("epe_px", "zero_px", "gain"), means if count else [None] * 3, strict=True))
                for band, count, means in self.endpoint.bands()
            ],
            "endpoint_skipped": self.endpoint.skipped,
            "apex_error": {
                method: {
                    "samples": len(found.errors),
                    "mean_absolute_frames": found.mean_absolute,
                    "within_one_frame": found.within(1),
                }
                for method, found in self.apex.items()
            },
            "pictures": [str(path) for path in self.pictures],
        }


def make_trees(
    out: Path,
    databases: Sequence[str],
    *,
    subjects: int,
    clips_per_subject: int,
    seed: int,
    workers: int,
    quiet: bool = False,
) -> DemoSummary:
    """Make the trees that are not there yet, `<out>/<database>` each.

    Args:
        out: Folder of the demonstration.
        databases: Which ones; all that have a synthetic twin where none is named.
        subjects: As for `make_tree`, and so the next ones.
        clips_per_subject: Micro-expressions of each.
        seed: Of every choice.
        workers: Processes that render.
        quiet: Show no progress.

    Raises:
        UsageError: A database is unknown, or a folder holds something else or another tree.
    """
    start = time.monotonic()
    databases = databases or synthetic_databases()
    for name in databases:
        twin_of(name)  # before anything is made
    summary = DemoSummary(out, {name: out / name for name in databases})
    for name, root in summary.roots.items():
        began = time.monotonic()
        there = find_tree(root) is not None
        with Progress(f"make {name}", subjects * clips_per_subject, quiet=quiet) as progress:
            make_tree(
                root,
                name,
                subjects=subjects,
                clips_per_subject=clips_per_subject,
                seed=seed,
                lifelike=True,
                workers=min(workers, subjects),
                progress=lambda done, _, progress=progress: progress.reach(done),  # type: ignore[misc]
            )
        summary.tree_seconds[name] = 0.0 if there else time.monotonic() - began
    summary.seconds = time.monotonic() - start
    return summary


def build_demo(summary: DemoSummary, *, workers: int, quiet: bool = False) -> DemoSummary:
    """Build the trees into one store, draw pictures and measure the flow against the truth.

    Faces are kept in the store, unlike those of real people: they are nobody's private data here.

    Args:
        summary: What `make_trees` returned; it is completed in place.
        workers: Worker processes.
        quiet: Show no progress.

    Raises:
        StoreMismatchError: The store in the folder was built with other parameters.
    """
    start = time.monotonic()
    path = summary.out / STORE
    for name, root in summary.roots.items():
        with Progress(f"build {name}", quiet=quiet) as progress:
            built = build_store(
                Source(name, root),
                path,
                keep=Keep(faces=True),
                options=BuildOptions(workers=workers),
                progress=progress,
            )
        summary.builds.append(built)
    with FlowStore(path) as store:
        for name in summary.roots:
            table = store.samples(name)
            summary.samples += len(table)
            summary.subjects += len(table.subjects)
            labelled = apply_scheme(table, _scheme_of(name))
            counts = dict(zip(labelled.classes, labelled.counts(), strict=True))
            dropped = len(labelled.dropped)
            summary.classes[name] = {"scheme": labelled.scheme, **counts, "dropped": dropped}
        summary.endpoint = endpoint_errors(store, summary.roots)
        summary.apex = _spotted_apexes(store, summary.roots)
        summary.pictures = _draw(store, summary.roots, summary.endpoint, summary.out / PICTURES)
    summary.seconds += time.monotonic() - start
    return summary


def _scheme_of(database: str) -> str:
    """Return the first scheme that covers a database."""
    return next((name for name, scheme in SCHEMES.usable() if database in scheme.databases), "megc3")


def _spotted_apexes(store: FlowStore, roots: Mapping[str, Path]) -> dict[str, ApexErrors]:
    """Compare every apex that no sheet gave with the true one, by method."""
    spotted: dict[str, dict[str, int]] = {}
    truth: dict[str, int] = {}
    for name, root in roots.items():
        truth |= load_truth(root).apexes()
        for sample in store.samples(name):
            if sample.apex_source not in ("sheet", "corrected"):
                method = sample.apex_source.removeprefix("spotted:")
                spotted.setdefault(method, {})[sample.sample_id] = sample.apex
    return {method: apex_errors(found, truth) for method, found in sorted(spotted.items())}


def _draw(store: FlowStore, roots: Mapping[str, Path], errors: EndpointErrors, folder: Path) -> list[Path]:
    """Draw one contact sheet per database, and one of a few samples of each."""
    strength = {error.sample_id: error.amplitude for error in errors.samples}
    overview: list[str] = []
    written = []
    for name, root in roots.items():
        truth = load_truth(root)
        chosen: dict[str, str] = {}
        # The strongest sample of each movement; a person can judge these.
        for sample in sorted(store.samples(name), key=lambda s: -strength.get(s.sample_id, 0.0)):
            if sample.sample_id in strength:
                chosen.setdefault(truth[sample.sample_id].movement, sample.sample_id)
        ids = list(chosen.values())[:_SHOWN_PER_DATABASE]
        if ids:
            overview += ids[:_SHOWN_IN_OVERVIEW]
            title = f"Synthetic {name}: known movements as flow"
            written.append(contact_sheet(store, ids, folder / f"{name}.png", title=title))
    if overview:
        title = "Synthetic micro-expressions in four layouts, one store"
        written.insert(0, contact_sheet(store, overview, folder / "overview.png", title=title))
    return written
