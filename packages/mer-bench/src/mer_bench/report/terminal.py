"""The table at the end of a run, honest figures first, leaking ones marked, then the confusion."""

from __future__ import annotations

from collections.abc import Sequence

from mer_bench.report.summary import Figure, RunSummary
from mer_bench.report.tables import database_title
from mer_bench.scores.metrics import FULL
from mer_flow.work.progress import duration

_HEADS = {"last": "last epoch", "inner": "inner", "oracle": "oracle (LEAKS)"}
_METRICS = {"uf1": "UF1", "uar": "UAR", "accuracy": "acc"}


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Sets columns to equal width; the first `left` columns flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _figure(figure: Figure) -> str:
    return f"{figure.mean:.4f}" + (f" ±{figure.sd:.4f}" if figure.sd is not None else "")


def render_run(summary: RunSummary) -> str:
    """Writes a run's scores, Full and per database, with the confusion of the honest selection.

    Args:
        summary: A complete run.

    Returns:
        Plain text of several lines.
    """
    manifest = summary.manifest
    identity = manifest["identity"]
    parameters = f", {manifest['parameters']:,} parameters" if manifest["parameters"] else ""
    lines = [
        f"{summary.title}: {manifest['protocol']}, {identity['scheme']}, {summary.samples} samples of "
        f"{summary.subjects} subjects, {len(manifest['folds'])} folds, "
        f"{len(summary.seeds)} seed{'s' if len(summary.seeds) > 1 else ''}{parameters}",
        f"input {identity['view']}:{identity['normalisation']}; {summary.epochs} epoch"
        f"{'s' if summary.epochs > 1 else ''}; train accuracy {summary.train_accuracy:.3f}; "
        f"trained {duration(summary.seconds)} on {', '.join(summary.devices)}",
        "",
    ]
    selections = list(summary.selections)
    header = ["", "", *(_HEADS[name] for name in selections)]
    if "oracle" in selections:
        header.append("leakage gap")
    rows = [[*header, "last, 95 %"]]
    for pool, found in summary.selections["last"].items():
        for metric, shown in _METRICS.items():
            row = [database_title(pool) if metric == "uf1" else "", shown]
            row += [_figure(summary.selections[name][pool].figures[metric]) for name in selections]
            if "oracle" in selections:
                row.append(f"{summary.gap('oracle', pool, metric):+.4f}")
            figure = found.figures[metric]
            rows.append([*row, f"{figure.low:.3f} to {figure.high:.3f}"])
    lines += align(rows, left=2)
    lines += ["", *_confusion(summary)]
    lines += [f"note: {note}" for note in _warnings(summary)]
    return "\n".join(lines)


def _confusion(summary: RunSummary) -> list[str]:
    classes = summary.manifest["classes"]
    full = summary.selections["last"][FULL]
    f1, recall = full.per_class("f1"), full.per_class("recall")
    over = f", {len(summary.seeds)} seeds summed" if len(summary.seeds) > 1 else ""
    rows = [["true \\ predicted", *classes, "F1", "recall"]]
    for c, name in enumerate(classes):
        rows.append([name, *map(str, full.confusion[c].tolist()), f"{f1[c]:.3f}", f"{recall[c]:.3f}"])
    return [f"confusion, last epoch, Full{over}", *align(rows)]


def _warnings(summary: RunSummary) -> list[str]:
    manifest = summary.manifest
    found = list(manifest["warnings"][:10])
    if len(manifest["warnings"]) > 10:
        found.append(f"{len(manifest['warnings']) - 10} more warnings in {summary.path}/manifest.json")
    found += summary.notes
    if summary.is_control:
        found.insert(0, "this is a sanity control on permuted labels, not a score")
    for pool, pooled in summary.selections["last"].items():
        for c in pooled.absent:
            if pool == FULL:
                continue  # the manifest warns of a class without any sample
            found.append(
                f"{database_title(pool)} has no sample of '{manifest['classes'][c]}'; it counts as 0"
            )
    found += [f"its better input was passed over: {why}" for _, why in manifest["passed_over"]]
    if manifest["deviations"]:
        found.append(
            "not the MEGC2019 composite, so not to be read beside its published scores: "
            + "; ".join(manifest["deviations"])
        )
    return found
