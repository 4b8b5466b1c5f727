"""Training with its progress shown on standard error, here or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mer_bench.runs.part import Part
    from mer_bench.runs.train import Outcome, Prepared
    from mer_flow.work.where import Where


def execute_shown(
    prepared: Prepared, out: Path, where: Where | None = None, part: Part | None = None, quiet: bool = False
) -> Outcome:
    """Train the folds of a run that have no sound record yet, as `execute` does.

    Args:
        prepared: The run.
        out: Folder of all runs.
        where: Where its folds are trained; here unless given.
        part: Which folds; all unless given.
        quiet: Show nothing.
    """
    from mer_bench.runs.part import Part
    from mer_bench.runs.train import execute

    manifest, part = prepared.manifest, part or Part()
    label = f"train {manifest.model}"
    if where is None or not where.on_dask:
        with training_shown(label, quiet) as report:
            return execute(prepared, out, part.limit, report, part.shard)
    from mer_bench.runs.together import execute_together, open_cluster

    with (
        open_cluster(where, [manifest.package], prepared.job.training.workers) as executor,
        training_shown(label, quiet, note=executor.counted) as report,
    ):
        (found,) = execute_together([prepared], out, executor, part, report)
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def training_shown(
    label: str, quiet: bool, unit: str = "fold-epochs", note: str | Callable[[], str] = ""
) -> Iterator[Callable[[int, int], None]]:
    """Show how far a training has come, and what it has to say meanwhile, on standard error.

    Yields:
        What takes the steps done and their total; the first call begins the line.
    """
    from mer_flow.work.progress import Progress

    progress = Progress(label, unit=unit, quiet=quiet)

    def report(done: int, total: int) -> None:
        if not progress.total:
            progress.expect(total)
        progress.reach(done, note() if callable(note) else note)

    training = logging.getLogger("mer_bench.training")
    level, propagate, handler = training.level, training.propagate, logging.StreamHandler()
    handler.addFilter(lambda said: said.name != "mer_bench.training.folds")  # the manifest warned of it
    training.addHandler(handler)
    training.setLevel(logging.WARNING if quiet else logging.INFO)
    training.propagate = False
    try:
        with progress:
            yield report
    finally:
        training.removeHandler(handler)
        training.setLevel(level)
        training.propagate = propagate
