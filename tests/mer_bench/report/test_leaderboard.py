"""The leaderboard's table, in every rendering."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.report.entries import Entry
from mer_bench.report.leaderboard import build_leaderboards
from mer_bench.report.pairs import against_best
from mer_bench.report.render import to_csv, to_latex, to_markdown
from mer_bench.report.tables import Table
from mer_bench.report.terminal import render_leaderboard
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared, prepare_data
from mer_bench.scores.compare import compare_runs
from mer_bench.scores.summary import RunSummary, complete_records, summarise
from mer_bench.settings import Request, RunSettings

HTNET = replace(
    STSTNET[0],
    name="htnet",
    title="HTNet",
    selects_on_test=True,
    exactness="reconstructed",
    filled_in=("One choice.", "Another."),
)


def prepared(spec: ModelSpec, data: BenchData, **settings: object) -> Prepared:
    recipe = settings.pop("recipe", "")
    run = RunSettings(model=spec.name, protocol="cde", recipe=recipe, **settings)
    return prepare_data(Registered(spec, "test 1.0"), Request(run), data)


@pytest.fixture(scope="module")
def summaries(
    official_data: BenchData, with_records: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> list[RunSummary]:
    """Four runs of the official composite, scored by hand: the worst first, a perfect control among them."""
    out = tmp_path_factory.mktemp("runs")
    data = replace(official_data, maps=np.zeros((442, 3, 28, 28), np.float32))
    return [
        summarise(with_records(prepared(spec, data, **settings), out, epochs, right), draws=50)
        for spec, settings, epochs, right in (
            (MAJORITY[0], {}, 1, 0.0),
            (STSTNET[0], {"seeds": (0, 1), "shuffle_labels": 3}, 4, 1.0),
            (STSTNET[0], {"seeds": (0, 1)}, 4, 0.6),
            (HTNET, {"recipe": "paper"}, 4, 0.8),
        )
    ]


@pytest.fixture(scope="module")
def board(summaries: list[RunSummary]) -> Table:
    (table,) = build_leaderboards(summaries)
    return table


def test_each_run_is_tested_against_the_best_single_one(summaries: list[RunSummary]) -> None:
    entries = [
        Entry(run, complete_records(run)) for run in (RunDirectory(Path(one.path)) for one in summaries)
    ]
    tested = against_best(entries)
    majority, _, ststnet, htnet = (summary.path for summary in summaries)
    # A control has other labels; the best is not tested against itself.
    assert set(tested) == {majority, ststnet}
    (table,) = build_leaderboards(summaries, tested=tested)
    first, second, *_ = (row.values for row in table.rows)
    assert "p_best" not in first and f"against {summaries[3].title}" in "".join(table.notes)
    found = compare_runs(RunDirectory(Path(ststnet)), RunDirectory(Path(htnet))).tests["Full"]["uf1"]
    assert second["gap.best"] == pytest.approx(found.difference) and found.difference < -0.05
    assert second["gap.best.interval"] == pytest.approx((found.low, found.high))
    assert second["p_best"] == found.p_value
    record = next(row for row in csv.DictReader(io.StringIO(to_csv([table]))) if row["method"] == "STSTNet")
    assert float(record["gap.best.low"]) == pytest.approx(found.low)
    assert f"{found.difference:+.4f}" in to_markdown([table]) and "p" in render_leaderboard(table)


def test_maps_are_named_where_runs_read_several_stores(summaries: list[RunSummary]) -> None:
    (alike,) = build_leaderboards(summaries)
    assert "maps" not in dict(alike.columns)
    other = summaries[2].manifest.model_copy(update={"store": "/data/others.h5"})
    (table,) = build_leaderboards([*summaries, replace(summaries[2], manifest=other)])
    assert [row.values["maps"] for row in table.rows].count("others.h5") == 1
    assert "maps" in dict(table.columns) and "others.h5" in render_leaderboard(table)


def test_the_best_honest_figure_comes_first_and_a_control_last(board: Table) -> None:
    assert [row.values["method"] for row in board.rows] == [
        "HTNet",
        "STSTNet",
        "Majority class",
        "STSTNet [CONTROL: labels shuffled, seed 3]",
    ]
    htnet, ststnet, majority, _ = (row.values for row in board.rows)
    assert (ststnet["variant"], ststnet["recipe"], ststnet["seeds"]) == ("default", "authors", 2)
    assert (ststnet["parameters"], ststnet["exactness"]) == (1683, "exact")
    assert ststnet["Full.uf1"].sd is not None and htnet["Full.uf1"].sd is None
    oracle, last = ststnet["oracle.Full.uf1"].mean, ststnet["Full.uf1"].mean
    assert ststnet["gap.uf1"] == pytest.approx(oracle - last) and oracle > last
    assert {"smic.uf1", "samm.uar", "casme2.uf1"} <= set(ststnet)
    assert "oracle.Full.uf1" not in majority and majority["recipe"] is None


def test_each_run_is_ranked_by_its_own_headline(
    official_data: BenchData, with_records: Callable[..., object], tmp_path: Path
) -> None:
    data = replace(official_data, maps=np.zeros((442, 3, 28, 28), np.float32))
    tail, last, single = (
        summarise(with_records(prepared(spec, data, **settings), tmp_path, epochs, right), draws=50)
        for spec, settings, epochs, right in (
            (STSTNET[0], {"headline": "tail", "tail_epochs": 3}, 4, 0.6),
            (HTNET, {"recipe": "paper"}, 4, 0.4),
            (MAJORITY[0], {}, 1, 0.0),
        )
    )
    (board,) = build_leaderboards([last, tail])
    assert [row.values["headline"] for row in board.rows] == ["tail", "last"]
    assert [heading for _, heading in board.columns if heading.startswith("UF1 (")] == [
        *("UF1 (headline)", "UF1 (last)", "UF1 (tail)")
    ]
    first = board.rows[0].values
    assert first["Full.uf1"] == first["tail.Full.uf1"] != first["last.Full.uf1"]
    assert "by UF1 of the headline" in render_leaderboard(board)
    # The one epoch of a classifier is last and tail both, so a board has one headline.
    (board,) = build_leaderboards([single, tail])
    headings = dict(board.columns)
    assert headings["Full.uf1"] == "UF1 (tail)" and headings["last.Full.uf1"] == "UF1 (last)"
    assert "headline" not in headings and "by UF1 of the tail" in render_leaderboard(board)


def test_published_scores_stand_beside_with_source_and_selection(board: Table) -> None:
    htnet, ststnet, majority, control = board.rows
    assert (htnet.values["published_uf1"], htnet.values["published_uar"]) == (0.8603, 0.8475)
    assert htnet.values["selects"] == "yes (LEAKS)" and "arXiv:2307.14637" in htnet.values["published_source"]
    assert {"published_uf1", "oracle.Full.uf1"} <= htnet.leaking
    # The figure of the recipe that was run; the other one is in a note.
    assert ststnet.values["published_uf1"] == 0.7209 and ststnet.values["selects"] == "no"
    assert "published_uf1" not in ststnet.leaking
    assert any("also published with 0.7353 / 0.7605 (STSTNet: " in note for note in board.notes)
    assert "published_uf1" not in majority.values and "published_uf1" not in control.values
    assert any("lists the 2 choices that were filled in" in note for note in board.notes)
    assert any("oracle LEAKS" in note for note in board.notes)


def test_without_published_scores(summaries: list[RunSummary]) -> None:
    (table,) = build_leaderboards(summaries, published=False)
    assert not any(key.startswith("published") for key, _ in table.columns)
    assert table.rows[0].values["selects"] == "yes (LEAKS)"


def test_markdown_marks_the_cells_that_leak(board: Table) -> None:
    lines = [line for line in to_markdown([board]).splitlines() if line.startswith("| ")]
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert head[:5] == ["model", "variant", "recipe", "parameters", "specification"]
    cells = dict(zip(head, (cell.strip() for cell in lines[2].strip("|").split("|")), strict=True))
    assert cells["published UF1"] == "*0.8603*"
    assert cells["oracle UF1 (LEAKS)"].startswith("*0.") and cells["UF1 (last)"].startswith("0.")
    cells = dict(zip(head, (cell.strip() for cell in lines[3].strip("|").split("|")), strict=True))
    assert cells["published UF1"] == "0.7209" and "±" in cells["UF1 (last)"]


def test_csv_has_every_number(board: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([board]))))
    assert [row["method"] for row in rows][:2] == ["HTNet", "STSTNet"]
    value = board.rows[1].values["oracle.Full.uf1"]
    assert float(rows[1]["oracle.Full.uf1.mean"]) == value.mean
    assert float(rows[1]["oracle.Full.uf1.sd"]) == value.sd
    assert (rows[0]["published_uf1"], rows[0]["selects"]) == ("0.8603", "yes (LEAKS)")


def test_latex_is_balanced_and_names_its_sources(board: Table) -> None:
    text = to_latex([board])
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in body}) == 1
    assert r"\emph{0.8603}" in text and "specification" not in body[0]
    assert "% HTNet, as published: Wang et al., HTNet" in text
    assert text.count(r"\midrule") == 1


def test_the_terminal_shows_honest_leaking_and_published_figures(board: Table) -> None:
    text = render_leaderboard(board)
    first, second = text.split("\n\n")[1:3]
    assert "oracle (LEAKS)" in first.splitlines()[0]
    assert first.splitlines()[1].split()[:5] == ["1", "HTNet", "default", "paper", "1,683"]
    row = second.splitlines()[2]
    assert "0.8603 / 0.8475" in row and "reconstructed" in row and row.endswith("yes (LEAKS)")
    assert max(map(len, first.splitlines())) <= 140


def test_runs_on_other_samples_get_a_table_of_their_own(
    summaries: list[RunSummary], bench_data: BenchData, with_records: Callable[..., object], tmp_path: Path
) -> None:
    other = summarise(with_records(prepared(MAJORITY[0], bench_data), tmp_path), draws=50)
    tables = build_leaderboards([*summaries, other])
    assert [len(table.rows) for table in tables] == [4, 1]
    assert any("Published scores are left out" in note for note in tables[1].notes)
