"""Figures and tables of a study's runs: honest and picked reading side by side.

    python benchmarks/study_figures.py ablations RUNS --out DIR
    python benchmarks/study_figures.py curve RUNS --out DIR

`ablations` draws what `benchmarks/ablations.toml` trained, one row per run; `curve` draws scores against the
number of training subjects, from runs that differ in `--train-subjects` alone. Each writes a picture and a
Markdown table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import MANIFEST
from mer_bench.scores.compare import compare_runs
from mer_bench.scores.metrics import FULL
from mer_bench.scores.summary import Figure, RunSummary, summarise

READINGS = {
    "last": ("last epoch", "#1b6ca8", "o"),
    "oracle": ("picked by the test subject (leaks)", "#c0392b", "x"),
}


def read_runs(folder: Path) -> list[RunSummary]:
    """Summaries of the complete runs under a folder."""
    found = []
    for path in sorted(file.parent for file in folder.glob(f"*/{MANIFEST}")):
        run = RunDirectory(path)
        if run.status(run.seeds).complete:
            found.append(summarise(run))
        else:
            print(f"left out, incomplete: {path}")
    if not found:
        raise SystemExit(f"{folder} holds no complete run")
    return found


def figure_of(summary: RunSummary, reading: str, metric: str) -> Figure | None:
    """A figure over all databases; None where the run has no such reading."""
    pools = summary.selections.get(reading)
    return pools[FULL].figures[metric] if pools else None


def cell(figure: Figure | None) -> str:
    """Mean, and its spread over seeds."""
    if figure is None:
        return "–"
    return f"{figure.mean:.4f}" + (f" ± {figure.sd:.4f}" if figure.sd is not None else "")


def ablations(summaries: list[RunSummary], out: Path) -> None:
    """A panel per question; a table with each setting's difference from the network as it is."""
    base = next((one for one in summaries if not one.manifest.changes), None)
    if base is None:
        raise SystemExit("none of the runs is the network as it is; train `ahmsa#base` of ablations.toml too")
    panels: dict[str, list[RunSummary]] = defaultdict(list)
    for summary in summaries:
        if summary is not base:
            panels[next(iter(summary.manifest.changes))].append(summary)
    panels = {question: _by_setting(group, question) for question, group in sorted(panels.items())}
    heights = [len(each) + 1 for each in panels.values()]
    picture, grid = plt.subplots(
        len(panels), sharex=True, figsize=(8, 1 + 0.4 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for axes, (question, group) in zip(grid[:, 0], panels.items(), strict=True):
        _panel(axes, question, _by_setting([*group, base], question))
    grid[0, 0].legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False)
    grid[-1, 0].set_xlabel("UF1; pale: seeds, and the 95 % interval over subjects")
    _save(picture, out / "ablations.svg")
    heads = ["network", "parameters", "seeds", "last UF1", "last UAR", "last UF1 minus as it is, 95 %, p"]
    heads += ["oracle UF1 (leaks)", "oracle minus as it is, 95 %, p"]
    rows = []
    for summary in [base, *(one for group in panels.values() for one in group)]:
        cells = [_named(summary), f"{summary.manifest.parameters:,}", str(len(summary.seeds))]
        cells += [cell(figure_of(summary, "last", metric)) for metric in ("uf1", "uar")]
        against = {rule: "–" if summary is base else _against(summary, base, rule) for rule in READINGS}
        rows.append([*cells, against["last"], cell(figure_of(summary, "oracle", "uf1")), against["oracle"]])
    _table(heads, rows, out / "ablations.md")


def _panel(axes: plt.Axes, question: str, group: list[RunSummary]) -> None:
    for reading, (title, colour, marker) in READINGS.items():
        for row, summary in enumerate(group):
            figure = figure_of(summary, reading, "uf1")
            if figure is not None:
                seeds = figure.per_seed
                axes.plot([figure.low, figure.high], [row, row], color=colour, alpha=0.3)
                axes.plot(seeds, [row] * len(seeds), marker, color=colour, alpha=0.4, ms=4)
                axes.plot(figure.mean, row, marker, color=colour, label=title if row == 0 else None)
    axes.set_yticks(range(len(group)), [_label(summary, question) for summary in group])
    axes.set_ylim(len(group) - 0.5, -0.5)
    axes.set_ylabel(question.replace("_", "\n"), rotation=0, va="center")
    axes.yaxis.set_label_coords(-0.3, 0.5)
    axes.grid(axis="x", alpha=0.3)


def _setting(summary: RunSummary, question: str) -> Any:
    """What a run's recipe or options have for a question; None where the network's own default holds."""
    recipe, options = summary.manifest.identity.recipe, summary.manifest.identity.options
    return {**(recipe.model_dump() if recipe else {}), **options}.get(question)


def _by_setting(group: list[RunSummary], question: str) -> list[RunSummary]:
    """Sort by the setting: the network's own default first, then numbers by size, or names."""
    return sorted(group, key=lambda s: [] if (v := _setting(s, question)) is None else np.ravel(v).tolist())


def _label(summary: RunSummary, question: str) -> str:
    value = _setting(summary, question)
    text = ", ".join(map(str, np.ravel(value))) if value is not None else "as it is"
    return text if summary.manifest.changes or value is None else f"{text} (as it is)"


def _named(summary: RunSummary) -> str:
    changes = summary.manifest.changes
    return ", ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"


def _against(summary: RunSummary, base: RunSummary, reading: str) -> str:
    """The paired difference of UF1 over all databases."""
    runs = (RunDirectory(Path(one.path)) for one in (summary, base))
    test = compare_runs(*runs, selection=reading).tests[FULL]["uf1"]
    return f"{test.difference:+.4f}, {test.low:+.3f} to {test.high:+.3f}, {test.p_value:.3f}"


def curve(summaries: list[RunSummary], out: Path) -> None:
    """Scores against the number of training subjects, a line per model and reading."""
    lines: dict[str, dict[int, RunSummary]] = defaultdict(dict)
    for summary in summaries:
        kept = summary.manifest.settings.train_subjects
        lines[summary.manifest.title][summary.subjects - 1 if kept is None else kept] = summary
    picture, axes = plt.subplots(figsize=(7, 4.5))
    styles = iter(("-", "--", "-.", ":"))
    rows = []
    for title, by_size in lines.items():
        style = next(styles)
        for reading, (said, colour, marker) in READINGS.items():
            points = [(n, figure_of(s, reading, "uf1")) for n, s in sorted(by_size.items())]
            drawn = [(n, f) for n, f in points if f is not None]
            if drawn:
                sizes, means = [n for n, _ in drawn], [f.mean for _, f in drawn]
                axes.plot(sizes, means, style + marker, color=colour, label=f"{title}, {said}")
                if reading == "last":
                    lows, highs = [f.low for _, f in drawn], [f.high for _, f in drawn]
                    axes.fill_between(sizes, lows, highs, color=colour, alpha=0.08)
        for n, summary in sorted(by_size.items()):
            figures = (cell(figure_of(summary, r, m)) for r in READINGS for m in ("uf1", "uar"))
            rows.append([title, str(n), str(len(summary.seeds)), *figures])
    axes.set_xscale("log", base=2)
    sizes = sorted({n for by_size in lines.values() for n in by_size})
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.set_xlabel("training subjects of a fold")
    axes.set_ylabel("UF1")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    _save(picture, out / "learning-curve.svg")
    heads = [
        "model",
        "training subjects",
        "seeds",
        "last UF1",
        "last UAR",
        "oracle UF1 (leaks)",
        "oracle UAR (leaks)",
    ]
    _table(heads, rows, out / "learning-curve.md")


def _save(picture: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, bbox_inches="tight")
    picture.savefig(path.with_suffix(".png"), bbox_inches="tight", dpi=110)
    print(path)


def _table(heads: list[str], rows: list[list[str]], path: Path) -> None:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("ablations", "curve"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"ablations": ablations, "curve": curve}[options.what](read_runs(options.runs), options.out)


if __name__ == "__main__":
    main()
