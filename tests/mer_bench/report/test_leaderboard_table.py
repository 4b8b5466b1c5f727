"""The leaderboard's table, in every rendering; its progress and its estimates of time."""

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
from mer_bench.progress import LeaderboardProgress
from mer_bench.report.leaderboard import build_leaderboards, render_leaderboard
from mer_bench.report.render import to_csv, to_latex, to_markdown
from mer_bench.report.summary import RunSummary, summarise
from mer_bench.report.tables import Table
from mer_bench.runs.data import BenchData, DataCache
from mer_bench.runs.estimate import estimate_seconds, flops_per_sample
from mer_bench.runs.train import Prepared, prepare_data
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
    run = RunSettings(model=spec.name, protocol="cde", recipe=recipe, **settings)  # type: ignore[arg-type]
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


def test_the_best_honest_figure_comes_first_and_a_control_last(board: Table) -> None:
    assert [row.method for row in board.rows] == [
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


class Stream:
    """Remembers what is written; no terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_progress_says_which_model_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mer_bench.progress.time.monotonic", lambda: now[0])
    stream = Stream()
    progress = LeaderboardProgress(
        ["majority", "ststnet", "rcn-a"], [(0,), (0,), (0, 1)], [0.0, 100.0, 50.0], stream
    )  # type: ignore[arg-type]
    progress.begin(0)
    progress.end()
    progress.begin(1)
    now[0] = 20.0
    progress(1, 0, 10, 100)
    assert stream.text.splitlines() == [
        "model 1 of 3, majority",
        "model 2 of 3, ststnet",
        "model 2 of 3, ststnet: seed 0 (1 of 1): 10/100 fold-epochs, 0/s, 3 min 0 s left; "
        "3 min 50 s for all models",
    ]
    # It took twice the estimate, so what is to come is taken to do so too.
    now[0] = 200.0
    progress.end()
    assert progress.later(10.0) == "; 1 min 50 s for all models"
    progress.begin(2)
    assert progress.later(10.0) == ""
    progress.end()


def test_progress_without_estimates_counts_models() -> None:
    progress = LeaderboardProgress(["a", "b", "c"], [(0,)] * 3, [None, 5.0, None], Stream())  # type: ignore[arg-type]
    progress.begin(0)
    assert progress.later(1.0) == "; 2 more models to come"
    progress.begin(1)
    assert progress.later(1.0) == "; 1 more model to come"
    quiet = LeaderboardProgress(["a"], [(0,)], [None], stream := Stream(), quiet=True)  # type: ignore[arg-type]
    quiet.begin(0)
    quiet.end()
    assert stream.text == ""


def test_the_estimate_is_the_arithmetic(prepared_with: Callable[..., Prepared]) -> None:
    from torch import nn

    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    assert flops_per_sample(linear, (3, 28, 28)) == 2 * 3 * 28 * 28 * 3
    one = prepared_with(STSTNET[0], {"epochs": 10})
    rate = 1e6
    seconds = estimate_seconds(one, 12, rate)
    assert seconds is not None and seconds > 0
    assert estimate_seconds(one, 0, rate) == 0
    twice = estimate_seconds(prepared_with(STSTNET[0], {"epochs": 20}), 12, rate)
    assert twice == pytest.approx(2 * seconds)
    assert estimate_seconds(prepared_with(MAJORITY[0]), 12, rate) is None


def test_a_cache_keeps_what_fits_and_always_the_last(bench_data: BenchData) -> None:
    reads = []

    def read(name: str) -> BenchData:
        return cache.read(name, lambda: reads.append(name) or bench_data)  # type: ignore[func-returns-value]

    cache = DataCache(limit=2 * bench_data.maps.nbytes)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert read(name) is bench_data
    assert reads == ["a", "b", "c", "b"]
    cache = DataCache(limit=0)
    read("a"), read("a")
    assert reads[4:] == ["a"]
