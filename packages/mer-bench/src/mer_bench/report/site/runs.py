"""What the page of a run prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.report.entries import Entry
from mer_bench.report.site.board import Board
from mer_bench.report.tables import SHOWN, notes_of_run, notes_of_samples
from mer_bench.scores.metrics import FULL
from mer_bench.scores.selection import LEAKING, SELECTION_TITLES
from mer_flow.databases.registry import database_title
from mer_flow.work.progress import duration

#: Samples that a run's page shows as its hardest.
HARDEST = 12


def run_values(entry: Entry, board: Board) -> dict[str, Any]:
    """Return what the template of a run's page prints, but for paired tests and maps."""
    summary = entry.summary
    return {
        "entry": entry,
        "summary": summary,
        "manifest": summary.manifest,
        "board": board,
        "full": summary.selections[summary.headline][FULL].figures,
        "selections": [_selection(entry, name) for name in summary.shown],
        "metrics": SHOWN,
        "pools": {pool: database_title(pool) for pool in summary.selections[summary.headline]},
        "confusions": _confusions(entry),
        "subjects": subject_rates(entry),
        "seeds": _seeds(entry),
        "facts": _facts(entry),
        "notes": [*notes_of_run(summary), *notes_of_samples(summary)],
        "settings": _settings(entry),
        "curve_said": _curve_values(entry),
        "hardest": _hardest(entry, board.entries),
    }


def _selection(entry: Entry, name: str) -> dict[str, Any]:
    summary = entry.summary
    return {
        "name": name,
        "title": SELECTION_TITLES[name],
        "leaks": name in LEAKING,
        "headline": name == summary.headline,
        "figures": {pool: found.figures for pool, found in summary.selections[name].items()},
        "gap": summary.gap(name, FULL, "uf1"),
    }


def _confusions(entry: Entry) -> list[dict[str, Any]]:
    """Return the headline's confusion matrices, all samples first, with the share of each row."""
    summary = entry.summary
    found = []
    for pool, of in summary.selections[summary.headline].items():
        counts = of.confusion
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        found.append(
            {
                "title": "All samples" if pool == FULL else database_title(pool),
                "counts": counts.tolist(),
                "shares": shares.tolist(),
                "f1": of.per_class("f1").tolist(),
                "recall": of.per_class("recall").tolist(),
            }
        )
    return found


def subject_rates(entry: Entry) -> list[dict[str, Any]]:
    """Return each subject's samples and the share that a run has right, the best first."""
    samples = entry.run.manifest.samples
    subjects = np.array(samples.subjects)[entry.tested]
    hits = (entry.predicted == entry.labels[entry.tested]).mean(0)
    found = []
    for subject in np.unique(subjects):
        own = hits[subjects == subject]
        found.append({"subject": str(subject), "samples": len(own), "right": float(own.mean())})
    return sorted(found, key=lambda row: (-row["right"], -row["samples"], row["subject"]))


def _seeds(entry: Entry) -> list[dict[str, Any]]:
    summary = entry.summary
    picked = summary.selections.get("oracle")
    rows = []
    for place, seed in enumerate(summary.seeds):
        row: dict[str, Any] = {"seed": seed}
        for name, found in (("headline", summary.selections[summary.headline]), ("picked", picked)):
            for metric in ("uf1", "uar"):
                row[f"{name}_{metric}"] = found and found[FULL].figures[metric].per_seed[place]
        rows.append(row)
    return rows


def _facts(entry: Entry) -> dict[str, str]:
    summary, manifest = entry.summary, entry.run.manifest
    parameters = f"{manifest.parameters:,}" if manifest.parameters else ""
    leaks = {True: "yes", False: "no", None: "unknown"}[manifest.selects_on_test]
    facts = {
        "model": f"{manifest.title} ({manifest.package})",
        "source": manifest.citation,
        "specification": manifest.exactness,
        "trainable parameters": parameters,
        "reads": manifest.identity.input,
        "protocol": f"{manifest.protocol}, {len(manifest.folds)} folds",
        "classes": f"{', '.join(manifest.classes)} (scheme {manifest.identity.scheme})",
        "samples": f"{summary.samples} of {summary.subjects} subjects",
        "seeds": ", ".join(map(str, summary.seeds)),
        "epochs": str(summary.epochs),
        "train accuracy": f"{summary.train_accuracy:.3f} after the last epoch",
        "training": f"{duration(summary.seconds)} on {', '.join(summary.devices)}",
        "authors' code picks on test": "" if manifest.derived else leaks,
        "store": f"{_file_name(manifest.store)} (content {manifest.store_digest[:12]})",
        "commit": manifest.commit,
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "begun": manifest.created,
        "run": f"{entry.run.path.name} (digest {manifest.digest[:12]})",
    }
    return {name: text for name, text in facts.items() if text}


def _file_name(store: str) -> str:
    """Return the stores' names; their folders are nobody's business where a site is published."""
    return " + ".join(Path(path).name for path in store.split(" + "))


def _settings(entry: Entry) -> dict[str, dict[str, str]]:
    manifest = entry.run.manifest
    recipe = manifest.identity.recipe
    sections = {
        "Model options": manifest.identity.options,
        "Recipe": recipe.model_dump(mode="json") if recipe else {},
        "Run": manifest.settings.model_dump(mode="json"),
    }
    return {
        title: {key: str(value) for key, value in values.items() if value not in (None, "", (), [], {})}
        for title, values in sections.items()
        if values
    }


def _curve_values(entry: Entry) -> dict[str, Any] | None:
    """Return what is said of the training curve; None where there is no epoch to pick."""
    course, summary = entry.course, entry.summary
    if course is None:
        return None
    fixed = course.fixed.mean(0)
    return {
        "epochs": course.epochs,
        "last": float(fixed[-1]),
        "picked": float(course.picked.mean(0)[-1]),
        "headline": summary.selections[summary.headline][FULL].figures["uf1"].mean,
        "best": float(fixed.max()),
        "chosen": [int(q) for q in np.quantile(course.chosen, (0.1, 0.5, 0.9))],
    }


def _hardest(entry: Entry, others: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the samples whose true class the run believes least, with what every run said of them."""
    order = sorted(entry.answers.items(), key=lambda item: item[1].shares[item[1].truth])
    return [
        {"sample_id": sample, "answer": answer, "others": answers_of(sample, others)}
        for sample, answer in order[:HARDEST]
    ]


def answers_of(sample: str, entries: Sequence[Entry]) -> list[tuple[Entry, Any]]:
    """Return what each run said of a sample, controls left out."""
    return [(e, e.answers[sample]) for e in entries if not e.is_control and sample in e.answers]
