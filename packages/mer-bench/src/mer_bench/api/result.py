"""Result: what a run found, as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mer_bench.errors import UsageError
from mer_bench.report.terminal import render_run
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.metrics import FULL
from mer_bench.scores.predictions import pool_rows, predictions_of
from mer_bench.scores.selection import LEAKING
from mer_bench.scores.summary import RunSummary, summarise
from mer_flow.work.errors import MissingDependencyError
from mer_flow.work.libraries import extra_command
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Result:
    """A complete run on disk; printed, it shows the table of `mer-bench run`.

    Args:
        run: Its directory.
        seeds: The seeds that count; all of it by default.

    Raises:
        RunError: There is no run.
    """

    def __init__(self, run: Path | str, seeds: Sequence[int] | None = None):
        self.run = Path(run)
        self._directory = RunDirectory(self.run)
        self.seeds = tuple(self._directory.seeds if seeds is None else seeds)

    def __repr__(self) -> str:
        return f"{render_run(self.summary)}\nrun {self.run}"

    @cached_property
    def summary(self) -> RunSummary:
        """Every figure of the run."""
        return summarise(self._directory, self.seeds)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The predictions of the headline, a row per seed and sample; columns as of `predictions_of`."""
        return predictions_of(self._directory, self.seeds)

    def table(self) -> pd.DataFrame:
        """Return a row per selection and pool; columns as of `pool_rows`, and `leaks`.

        The headline comes first; `leaks` marks selections by the test subject, which stand beside it and
        never alone.
        """
        import pandas as pd

        rows = [
            {"selection": name, **row, "leaks": name in LEAKING}
            for name in self.summary.shown
            for row in pool_rows(self.summary.selections[name])
        ]
        return pd.DataFrame(rows).set_index(["selection", "pool"])

    def plot_confusion(self, pool: str = FULL, ax: Axes | None = None) -> Axes:
        """Draw the confusion matrix of the headline, summed over seeds, each row's share as colour.

        Args:
            pool: `Full`, or a database.
            ax: Where to draw; a new figure unless given.

        Raises:
            UsageError: There is no such pool.
            MissingDependencyError: matplotlib is absent.
        """
        pools = self.summary.selections[self.summary.headline]
        if pool not in pools:
            raise UsageError(str(unknown("pool", pool, pools)))
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MissingDependencyError(
                f"plot_confusion needs matplotlib ({error}): {extra_command('plots', 'mer-bench')}"
            ) from error
        from sklearn.metrics import ConfusionMatrixDisplay

        counts, classes = pools[pool].confusion, self._directory.manifest.classes
        ax = ax or plt.subplots()[1]
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        display = ConfusionMatrixDisplay(shares, display_labels=classes)
        display.plot(ax=ax, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
        for text, count in zip(display.text_.ravel(), counts.ravel(), strict=True):
            text.set_text(f"{count}")
        figure = pools[pool].figures["uf1"]
        ax.set_title(f"{self.summary.title}, {pool} ({self.summary.headline})\nUF1 {figure.mean:.3f}")
        return ax
