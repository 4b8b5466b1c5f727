"""Tables: honest first, leaks marked, published scores only beside the official composite."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.report.render import to_csv, to_latex, to_markdown
from mer_bench.report.tables import build_tables
from mer_bench.report.terminal import render_run, render_table
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared, execute, prepare_data
from mer_bench.scores.published import published_scores
from mer_bench.scores.summary import RunSummary, summarise
from mer_bench.settings import Request, RunSettings

Summarise = Callable[..., RunSummary]


def prepared(data: BenchData, **settings: object) -> Prepared:
    run = RunSettings(**{"model": "majority", "protocol": "cde", **settings})
    return prepare_data(Registered(MAJORITY[0], "mer-bench 0.1.0"), Request(run), data)


@pytest.fixture
def by_hand(with_records: Callable[..., RunDirectory], tmp_path: Path) -> Summarise:
    """Returns by_hand(data, **settings): a run of random picks, summarised."""
    return lambda data, **settings: summarise(with_records(prepared(data, **settings), tmp_path), draws=200)


@pytest.fixture
def majority(tmp_path: Path) -> Summarise:
    """Returns majority(data, **settings): the majority class, trained and summarised."""
    return lambda data, **settings: summarise(execute(prepared(data, **settings), tmp_path).run, draws=100)


@pytest.fixture
def summary(bench_data: BenchData, by_hand: Summarise) -> RunSummary:
    return by_hand(bench_data, seeds=(0, 1, 2), inner=True)


def test_honest_figures_come_first_and_leaks_say_so(summary: RunSummary) -> None:
    (table,) = build_tables([summary])
    last, tail, inner, oracle = table.rows[:4]
    assert [row.values["selection"] for row in (last, tail, inner, oracle)] == [
        "last epoch",
        "tail (mean of the last epochs)",
        "inner (training subjects choose)",
        "oracle (LEAKS: test subject chooses)",
    ]
    assert [row.leaks for row in (last, tail, inner, oracle)] == [False, False, False, True]
    assert (last.values["epoch"], tail.values["epoch"]) == ("3 of 3", "3 of 3")
    gain = oracle.values["Full.uf1"].mean - last.values["Full.uf1"].mean
    assert oracle.values["gap.uf1"] == pytest.approx(gain)
    assert "gap.uf1" not in last.values
    marked = [line for line in to_markdown([table]).splitlines() if line.startswith("| *")]
    assert len(marked) == 1 and "LEAKS" in marked[0]
    assert any("oracle LEAKS" in note for note in table.notes)


def test_published_scores_stay_away_from_other_data(summary: RunSummary) -> None:
    (table,) = build_tables([summary])
    assert not any("published" in row.values["method"] for row in table.rows)
    said = "left out: these samples are not the MEGC2019 composite (casme2: 4 subjects"
    assert any(said in note for note in table.notes)
    assert said in render_run(summary)


def test_published_scores_stand_beside_the_official_composite(
    official_data: BenchData, majority: Summarise
) -> None:
    found = majority(official_data)
    assert found.selections["last"]["Full"].figures["uf1"].mean == pytest.approx(0.2408, abs=1e-4)
    (table,) = build_tables([found])
    rows = {row.values["method"]: row for row in table.rows}
    assert next(iter(rows)) == "Majority class"
    assert len(rows) == 1 + sum(score.protocol == "cde" for score in published_scores())
    htnet = rows["HTNet (published)"]
    assert htnet.leaks and "LEAKS" in htnet.values["selection"] and htnet.values["samm.uar"] == 0.8124
    shown = render_table(table, 100)
    assert "Full UF1  Full UAR" in shown and "as published; its code LEAKS " in shown
    (bare,) = build_tables([found], published=False)
    assert len(bare.rows) == 1


def test_a_control_never_stands_beside_published_scores(
    official_data: BenchData, majority: Summarise
) -> None:
    control = majority(official_data, shuffle_labels=1)
    (table,) = build_tables([control])
    methods = [row.values["method"] for row in table.rows]
    assert methods == ["Majority class [CONTROL: labels shuffled, seed 1]"]
    assert any("not a score" in note for note in table.notes)
    # Its labels deviate from the composite's, those of the run beside it do not.
    (table,) = build_tables([majority(official_data), control])
    assert len(table.rows) > 20
    assert not any("left out" in note for note in table.notes)


def test_csv_carries_every_number(summary: RunSummary) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(build_tables([summary])))))
    figure = summary.selections["oracle"]["samm"].figures["uar"]
    assert (float(rows[3]["samm.uar.mean"]), float(rows[3]["samm.uar.sd"])) == (figure.mean, figure.sd)
    full = summary.selections["last"]["Full"].figures["uf1"]
    assert (float(rows[0]["Full.uf1.low"]), float(rows[0]["Full.uf1.high"])) == (full.low, full.high)
    assert [row["leaks"] for row in rows] == ["", "", "", "yes"]
    assert [row["method"] for row in rows] == [summary.title] * 4


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_title_is_no_formula_in_csv(summary: RunSummary, sign: str) -> None:
    title = f"{sign}HYPERLINK(0)"
    named = replace(summary, manifest=summary.manifest.model_copy(update={"title": title}))
    rows = list(csv.DictReader(io.StringIO(to_csv(build_tables([named])))))
    assert {row["method"][:2] for row in rows} == {f"'{sign}"}


def test_latex_is_escaped_and_balanced(
    summary: RunSummary, official_data: BenchData, majority: Summarise
) -> None:
    text = to_latex(build_tables([majority(official_data), summary]))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert sum(line.count("{") for line in body) == sum(line.count("}") for line in body)
    # method, selection, UF1 and UAR of four pools, gaps, seeds: what a page holds.
    assert {line.count(" & ") for line in body if line.endswith(r"\\")} == {12}
    assert r"\begin{tabular}{llrrrrrrrrrrr}" in body
    assert "% AHMSA-Net (published): AHMSA-Net, 2025, arXiv:2501.02539, Table 4." in text
    assert text.count(r"\midrule") == 3
    assert not any("%" in line.replace(r"\%", "") for line in body)
    assert r"\emph{" in text and r"$\pm$" in text
    assert not any("±" in line for line in body)


def test_different_samples_are_different_tables(
    summary: RunSummary, bench_data: BenchData, by_hand: Summarise
) -> None:
    found = by_hand(bench_data, protocol="cross-db", train_db=("samm",), test_db=("smic",))
    tables = build_tables([summary, found])
    assert [table.title.split(",")[0] for table in tables] == ["cde", "cross-db"]
    assert found.samples == 20


def test_the_terminal_table(summary: RunSummary) -> None:
    text = render_run(summary)
    header = next(line for line in text.splitlines() if "last epoch" in line)
    places = [header.index(name) for name in ("last epoch", "tail", "inner", "oracle (LEAKS)")]
    assert places == sorted(places)
    assert "leakage gap" in header
    assert all(name in text for name in ("Full", "CASME II", "SAMM", "SMIC", "UF1", "UAR", "Acc"))
    assert "confusion, last epoch, Full, 3 seeds summed" in text


def test_an_absent_class_is_said_so(bench_data: BenchData, by_hand: Summarise) -> None:
    population = bench_data.population
    labels = population.labels.copy()
    labels[(population.databases == "samm") & (labels == 2)] = 0
    found = by_hand(replace(bench_data, population=replace(population, labels=labels)))
    assert found.selections["last"]["samm"].absent == (2,)
    said = "SAMM has no sample of surprise: it stays in UF1 and UAR as 0."
    assert said in build_tables([found])[0].notes
    assert said in render_run(found)


def test_many_warnings_are_cut_short_on_a_terminal_alone(bench_data: BenchData, by_hand: Summarise) -> None:
    found = by_hand(bench_data)
    many = found.manifest.model_copy(update={"warnings": tuple(f"warning {n}" for n in range(13))})
    found = replace(found, manifest=many)
    text = render_run(found)
    assert "warning 9." in text and "warning 10." not in text and "3 more warnings in" in text
    assert sum("warning" in note for note in build_tables([found])[0].notes) == 13


def test_what_holds_for_many_runs_is_said_once(bench_data: BenchData, by_hand: Summarise) -> None:
    found = by_hand(bench_data)
    runs = [
        replace(found, manifest=found.manifest.model_copy(update={"title": f"Net {n}", "warnings": (said,)}))
        for n, said in enumerate(("few subjects", "few subjects", "no strain"))
    ]
    (table,) = build_tables(runs)
    assert [note for note in table.notes if "few" in note or "strain" in note] == [
        f"{runs[0].title}, {runs[1].title}: few subjects.",
        f"{runs[2].title}: no strain.",
    ]
    (table,) = build_tables(runs[:2])
    assert "all of them: few subjects." in table.notes
