"""`write_site`: runs in, a folder of pages out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mer_bench import __version__
from mer_bench.errors import UsageError
from mer_bench.report.entries import LeftOut, read_entries
from mer_bench.report.pairs import DRAWS, paired
from mer_bench.report.site.board import Board, build_boards
from mer_bench.report.site.figures import draw_course
from mer_bench.report.site.runs import run_values
from mer_bench.report.site.samples import Gallery, build_gallery, write_gallery
from mer_bench.scores.predictions import predictions_from
from mer_flow.pictures.web.pages import Pages
from mer_flow.store.reader import FlowStore
from mer_flow.work.cells import csv_text


@dataclass(frozen=True)
class Site:
    """What was written.

    Attributes:
        page: The first page, the leaderboard.
        runs: Complete runs, each with a page.
        left_out: Runs without scores, which the first page names.
        samples: Samples with a page.
    """

    page: Path
    runs: int
    left_out: tuple[LeftOut, ...]
    samples: int


def write_site(
    runs: Sequence[Path],
    folder: Path,
    *,
    store: Path | None = None,
    seeds: Sequence[int] | None = None,
    published: bool = True,
) -> Site:
    """Write the results of runs as pages that open from the file system.

    Args:
        runs: Run directories; incomplete and damaged ones are named on the first page, without scores.
        folder: A new or empty folder, or an earlier site, which is brought up to date.
        store: The store of the samples; with it every sample and subject has a page with its maps.
        seeds: Seeds to take; all by default.
        published: Set published scores beside runs of the official composite.

    Raises:
        UsageError: The store holds none of the tested samples.
    """
    entries, left_out = read_entries(runs, seeds)
    boards = build_boards(entries, published)
    with ExitStack() as stack:
        opened = stack.enter_context(FlowStore(store)) if store else None
        pages = stack.enter_context(Pages(folder, __package__, f"mer-bench {__version__}"))
        gallery = build_gallery(pages, opened, boards) if opened else None
        if opened and entries and gallery is None:
            raise UsageError(
                f"{store} holds none of the samples that these runs tested; give the store that they read, "
                f"as {entries[0].run.manifest.store}"
            )
        _write_runs(pages, boards, gallery)
        pages.write("index.html", "index.html", boards=boards, left_out=left_out, gallery=gallery)
        pages.write("curves.html", "curves.html", boards=boards, gallery=gallery)
        if gallery:
            write_gallery(pages, gallery, boards)
    return Site(folder / "index.html", len(entries), tuple(left_out), len(gallery.samples) if gallery else 0)


def _write_runs(pages: Pages, boards: Sequence[Board], gallery: Gallery | None) -> None:
    for board in boards:
        pairs = paired(board.entries)
        for entry in board.entries:
            if entry.course is not None:
                chance = None if entry.is_control else board.chance
                pages.write_bytes(
                    f"figures/{entry.key}.svg", draw_course(entry.course, entry.summary, chance)
                )
            table = predictions_from(entry.run, entry.records).round(6)
            pages.write_bytes(f"runs/{entry.key}-predictions.csv", csv_text(table).encode())
            pages.write(
                f"runs/{entry.key}.html", "run.html", **run_values(entry, board), pairs=pairs[entry.key],
                draws=DRAWS, gallery=gallery, sprites=gallery and gallery.sprites,
            )  # fmt: skip
