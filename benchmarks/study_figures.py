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

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import MANIFEST
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
    """One row per run, in the order of the honest score; dots with intervals over subjects."""
    summaries = sorted(summaries, key=lambda s: figure_of(s, "last", "uf1").mean)  # type: ignore[union-attr]
    names = [_aside(summary) for summary in summaries]
    picture, axes = plt.subplots(figsize=(8, 1.2 + 0.32 * len(names)))
    for reading, (title, colour, marker) in READINGS.items():
        for row, summary in enumerate(summaries):
            figure = figure_of(summary, reading, "uf1")
            if figure is not None:
                axes.plot([figure.low, figure.high], [row, row], color=colour, alpha=0.35)
                axes.plot(
                    figure.per_seed, [row] * len(figure.per_seed), marker, color=colour, alpha=0.4, ms=4
                )
                axes.plot(figure.mean, row, marker, color=colour, label=title if row == 0 else None)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("UF1; pale: seeds, and the 95 % interval over subjects")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    _save(picture, out / "ablations.svg")
    heads = [
        "network",
        "parameters",
        "seeds",
        "last UF1",
        "last UAR",
        "oracle UF1 (leaks)",
        "oracle UAR (leaks)",
    ]
    rows = [
        [
            name,
            f"{summary.manifest.parameters:,}",
            str(len(summary.seeds)),
            *(cell(figure_of(summary, r, m)) for r in READINGS for m in ("uf1", "uar")),
        ]
        for name, summary in reversed(list(zip(names, summaries, strict=True)))
    ]
    _table(heads, rows, out / "ablations.md")


def _aside(summary: RunSummary) -> str:
    changes = summary.manifest.changes
    return ", ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"


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
