"""The training curve of a run, as SVG: the reading that was fixed beforehand, and the one that is picked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mer_bench.scores.course import Course
from mer_bench.scores.metrics import FULL
from mer_bench.scores.summary import RunSummary

_HONEST, _LEAK, _FAINT, _INK = "#0072b2", "#a83a06", "#56606b", "#1b2027"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mer-bench",  # the same file for the same run
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "text.color": _INK,
    "hatch.linewidth": 0.8,
}


def draw_course(course: Course, summary: RunSummary, chance: float | None) -> bytes:
    """Draw UF1 after each epoch, fixed beforehand and picked by the held-out subjects.

    Args:
        course: The scores.
        summary: Of the same run: its headline and what is written at the ends.
        chance: UF1 of permuted labels, drawn as a line; None where no control was run.

    Returns:
        An SVG file.
    """
    epochs = np.arange(1, course.epochs + 1)
    headline = summary.headline
    fixed, picked = course.fixed.mean(0), course.picked.mean(0)
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.fill_between(
            epochs, fixed, picked, facecolor="none", edgecolor=_LEAK, alpha=0.35, hatch="///", linewidth=0
        )
        if len(course.fixed) > 1:
            axes.plot(epochs, course.fixed.T, color=_HONEST, alpha=0.3, linewidth=0.8)
            axes.plot(epochs, course.picked.T, color=_LEAK, alpha=0.3, linewidth=0.8, linestyle="--")
        axes.plot(epochs, course.train_accuracy.mean(0), color=_FAINT, linewidth=1, linestyle=":")
        axes.plot(epochs, picked, color=_LEAK, linewidth=2, linestyle="--")
        axes.plot(epochs, fixed, color=_HONEST, linewidth=2)
        if chance is not None:
            axes.axhline(chance, color=_INK, linewidth=1, linestyle=(0, (1, 3)))
            axes.text(epochs[0], chance - 0.01, "labels permuted", fontsize=10, va="top")
        if headline == "tail":
            axes.axvspan(summary.chosen_epochs["tail"], epochs[-1], color=_HONEST, alpha=0.1, linewidth=0)
        values = {name: of[FULL].figures["uf1"].mean for name, of in summary.selections.items()}
        axes.plot(epochs[-1], values[headline], "o", color=_HONEST, markersize=8, clip_on=False)
        axes.plot(
            epochs[-1], values["oracle"], "D", color=_LEAK, markerfacecolor="white", markersize=8,
            markeredgewidth=2, clip_on=False,
        )  # fmt: skip
        # One tick per fold at the epoch that its subject picks, spread a little so that many are seen.
        spread = np.linspace(-0.3, 0.3, course.chosen.size) * max(course.epochs / 60, 0.3)
        axes.plot(
            course.chosen.ravel() + spread, np.full(course.chosen.size, 0.02), "|", color=_LEAK, alpha=0.5
        )
        axes.set(xlabel="epoch", ylabel="UF1, all folds together", ylim=(0, 1))
        axes.margins(x=0.02)
        axes.locator_params(axis="x", integer=True)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
