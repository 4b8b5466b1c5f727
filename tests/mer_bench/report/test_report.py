"""Tables: honest first, leaks marked, published scores only beside the official composite."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RunError, UsageError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered, Registry
from mer_bench.report.render import to_csv, to_latex, to_markdown
from mer_bench.report.summary import RunSummary, summarise
from mer_bench.report.tables import build_tables
from mer_bench.report.terminal import render_run
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared, execute, prepare_data
from mer_bench.scores.published import SELECTS_ON_TEST, published_scores, scores_beside, scores_of
from mer_bench.settings import Request, RunSettings

Make = Callable[..., RunDirectory]
MAJOR = Registered(MAJORITY[0], "mer-bench 0.1.0")


def prepared(data: BenchData, **settings: object) -> Prepared:
    run = RunSettings(**{"model": "majority", "protocol": "cde", **settings})  # type: ignore[arg-type]
    return prepare_data(MAJOR, Request(run), data)


@pytest.fixture
def summary(bench_data: BenchData, with_records: Make, tmp_path: Path) -> RunSummary:
    return summarise(with_records(prepared(bench_data, seeds=(0, 1, 2), inner=True), tmp_path), draws=200)


def test_a_summary_is_the_pooled_record(bench_data: BenchData, with_records: Make, tmp_path: Path) -> None:
    from sklearn.metrics import f1_score, recall_score

    made = prepared(bench_data, seeds=(0, 1))
    run = with_records(made, tmp_path)
    found = summarise(run, draws=200)
    labels = bench_data.population.labels
    for place, seed in enumerate((0, 1)):
        predicted = np.empty_like(labels)
        for kept in run.records(seed):
            predicted[kept.test_index] = kept.logits[-1].argmax(1)
        figures = found.selections["last"]["Full"].figures
        options = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0}
        assert figures["uf1"].per_seed[place] == pytest.approx(f1_score(labels, predicted, **options))
        assert figures["uar"].per_seed[place] == pytest.approx(recall_score(labels, predicted, **options))
    assert figures["uf1"].mean == pytest.approx(np.mean(figures["uf1"].per_seed))
    assert figures["uf1"].sd == pytest.approx(np.std(figures["uf1"].per_seed, ddof=1))
    assert figures["uf1"].low < figures["uf1"].mean < figures["uf1"].high
    assert found.selections["last"]["Full"].confusion.sum() == 2 * len(labels)


def test_seeds_can_be_chosen(bench_data: BenchData, with_records: Make, tmp_path: Path) -> None:
    run = with_records(prepared(bench_data, seeds=(0, 1)), tmp_path)
    assert summarise(run, (1,), draws=100).seeds == (1,)
    assert summarise(run, (1,), draws=100).selections["last"]["Full"].figures["uf1"].sd is None
    with pytest.raises(UsageError, match=r"has seeds \[0, 1\], not \[7\]"):
        summarise(run, (7,))


def test_a_change_of_device_is_told(bench_data: BenchData, with_records: Make, tmp_path: Path) -> None:
    run = with_records(prepared(bench_data), tmp_path)
    assert not any("device" in note for note in summarise(run, draws=100).notes)
    first = run.records(0)[0]
    run.record_path(0, first.fold).unlink()
    run.write(replace(first, device="cuda (tf32)"))
    (table,) = build_tables([summarise(run, draws=100)])
    assert any("(11 on cpu, 1 on cuda (tf32)), which agree" in note for note in table.notes)


def test_one_incomplete_seed_blocks_the_table(
    bench_data: BenchData, with_records: Make, tmp_path: Path
) -> None:
    run = with_records(prepared(bench_data, seeds=(0, 1)), tmp_path)
    run.record_path(1, "smic/s01").unlink()
    with pytest.raises(RunError, match=r"seed 1: 1 of 12 missing: smic/s01\. Run the same"):
        summarise(run)
    assert summarise(run, (0,), draws=100).seeds == (0,)


def test_honest_figures_come_first_and_leaks_say_so(summary: RunSummary) -> None:
    (table,) = build_tables([summary])
    assert [row.selection for row in table.rows[:3]] == [
        "last epoch",
        "inner (training subjects choose)",
        "oracle (LEAKS: test subject chooses)",
    ]
    assert [row.leaks for row in table.rows[:3]] == [False, False, True]
    last, _, oracle = table.rows[:3]
    assert oracle.values["gap.uf1"] == pytest.approx(
        oracle.values["Full.uf1"].mean - last.values["Full.uf1"].mean
    )
    assert "gap.uf1" not in last.values
    text = to_markdown([table])
    assert all("LEAKS" in line for line in text.splitlines() if line.startswith("| *"))
    assert any("oracle LEAKS" in note for note in table.notes)


def test_published_scores_stay_away_from_other_data(summary: RunSummary) -> None:
    (table,) = build_tables([summary])
    assert not any("published" in row.method for row in table.rows)
    assert any("left out: these samples are not the MEGC2019 composite" in note for note in table.notes)


def test_published_scores_stand_beside_the_official_composite(
    official_data: BenchData, tmp_path: Path
) -> None:
    outcome = execute(prepared(official_data), tmp_path)
    found = summarise(outcome.run, draws=100)
    assert found.selections["last"]["Full"].figures["uf1"].mean == pytest.approx(0.2408, abs=1e-4)
    (table,) = build_tables([found])
    methods = [row.method for row in table.rows]
    assert methods[0] == "Majority class"
    assert len(methods) == 1 + sum(score.protocol == "cde" for score in published_scores())
    htnet = next(row for row in table.rows if row.method == "HTNet (published)")
    assert htnet.leaks and "LEAKS" in htnet.selection and htnet.values["samm.uar"] == 0.8124
    (bare,) = build_tables([found], published=False)
    assert len(bare.rows) == 1


def test_a_control_never_stands_beside_published_scores(official_data: BenchData, tmp_path: Path) -> None:
    control = execute(prepared(official_data, shuffle_labels=1), tmp_path)
    (table,) = build_tables([summarise(control.run, draws=100)])
    assert [row.method for row in table.rows] == ["Majority class [CONTROL: labels shuffled, seed 1]"]
    assert any("not a score" in note for note in table.notes)


def test_csv_carries_every_number(summary: RunSummary) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(build_tables([summary])))))
    figure = summary.selections["oracle"]["samm"].figures["uar"]
    assert float(rows[2]["samm.uar.mean"]) == figure.mean
    assert float(rows[2]["samm.uar.sd"]) == figure.sd
    full = summary.selections["last"]["Full"].figures["uf1"]
    assert (float(rows[0]["Full.uf1.low"]), float(rows[0]["Full.uf1.high"])) == (full.low, full.high)
    assert [row["leaks"] for row in rows] == ["", "", "yes"]


def test_latex_is_escaped_and_balanced(summary: RunSummary, official_data: BenchData, tmp_path: Path) -> None:
    beside = summarise(execute(prepared(official_data), tmp_path).run, draws=100)
    text = to_latex(build_tables([beside, summary]))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert sum(line.count("{") for line in body) == sum(line.count("}") for line in body)
    rows = [line for line in body if line.endswith(r"\\")]
    columns = {line.count(" & ") for line in rows}
    # method, selection, UF1 and UAR of four pools, gaps, seeds: what a page holds.
    assert columns == {12}
    assert "% AHMSA-Net (published): AHMSA-Net, 2025, arXiv:2501.02539, Table 4." in text
    assert not any("%" in line.replace(r"\%", "") for line in body)
    assert r"\emph{" in text and r"$\pm$" in text
    assert not any("±" in line for line in body)


def test_different_samples_are_different_tables(
    summary: RunSummary, bench_data: BenchData, with_records: Make, tmp_path: Path
) -> None:
    other = prepared(bench_data, protocol="cross-db", train_db=("samm",), test_db=("smic",))
    found = summarise(with_records(other, tmp_path), draws=100)
    tables = build_tables([summary, found])
    assert [table.title.split(",")[0] for table in tables] == ["cde", "cross-db"]
    assert found.samples == 20


def test_the_terminal_table(summary: RunSummary) -> None:
    text = render_run(summary)
    header = next(line for line in text.splitlines() if "last epoch" in line)
    assert header.index("last epoch") < header.index("inner") < header.index("oracle (LEAKS)")
    assert "leakage gap" in header
    assert all(name in text for name in ("Full", "CASME II", "SAMM", "SMIC", "UF1", "UAR", "acc"))
    assert "confusion, last epoch, Full, 3 seeds summed" in text
    assert "not the MEGC2019 composite" in text


def test_json_is_plain(summary: RunSummary) -> None:
    import json

    back = json.loads(json.dumps(summary.to_json()))
    figure = back["selections"]["last"]["Full"]["figures"]["uf1"]
    assert figure["mean"] == summary.selections["last"]["Full"].figures["uf1"].mean
    assert len(figure["per_seed"]) == 3


def test_an_absent_class_is_said_so(bench_data: BenchData, with_records: Make, tmp_path: Path) -> None:
    population = bench_data.population
    labels = population.labels.copy()
    labels[(population.databases == "samm") & (labels == 2)] = 0
    data = replace(bench_data, population=replace(population, labels=labels))
    found = summarise(with_records(prepared(data), tmp_path), draws=100)
    assert found.selections["last"]["samm"].absent == (2,)
    (table,) = build_tables([found])
    assert "SAMM has no sample of surprise: it stays in UF1 and UAR as 0." in table.notes
    assert "SAMM has no sample of 'surprise'; it counts as 0" in render_run(found)


def test_published_scores_are_sourced() -> None:
    scores = published_scores()
    keys = [(score.method, score.protocol, score.databases, score.classes) for score in scores]
    assert len(set(keys)) == len(keys) == 28
    registered = Registry()
    for score in scores:
        assert score.source
        assert score.selects_on_test in SELECTS_ON_TEST
        assert score.scores["Full"]
        assert all(0 < value < 1 for pair in score.scores.values() for value in pair if value is not None)
        if score.model:
            spec = registered.get(score.model)
            assert not score.variant or score.variant in spec.variants
            assert not score.recipe or score.recipe in spec.recipes
    composite = {score.method: score for score in scores_beside("cde", ["smic", "samm", "casme2"], 3)}
    assert len(composite) == 20
    assert composite["STSTNet (PyTorch re-run)"].scores == {"Full": (0.7209, 0.7250)}
    assert composite["AHMSA-Net"].scores["samm"] == (0.8803, 0.8524)
    leaking = [method for method, score in composite.items() if score.selects_on_test == "yes"]
    assert leaking == ["CapsuleNet", "HTNet", "CausalNet"]
    casme3 = {score.method: score.scores for score in scores_beside("loso", ["casme3"], 3)}
    assert casme3["AHMSA-Net"] == {"Full": (0.8120, 0.7708)}
    assert casme3["MER-CLIP"] == {"Full": (0.7832, None)}


def test_a_model_finds_its_own_published_scores() -> None:
    beside = scores_beside("cde", ["smic", "samm", "casme2"], 3)
    methods = [score.method for score in scores_of("ststnet", "default", "authors", beside)]
    assert methods == ["STSTNet (PyTorch re-run)", "STSTNet"]
    methods = [score.method for score in scores_of("ststnet", "default", "paper", beside)]
    assert methods == ["STSTNet"]
    assert scores_of("bdcnn", "paper", "isda", beside) == ()
    assert [score.method for score in scores_of("bdcnn", "small", "ce", beside)] == ["BDCNN (CE)"]
    assert scores_of("majority", "default", "", beside) == ()
    assert scores_beside("loso", ["samm"], 3) == ()


def test_the_published_file_is_packaged() -> None:
    content = tomllib.loads(files("mer_bench.scores").joinpath("published.toml").read_text(encoding="utf-8"))
    known = {"method", "model", "variant", "recipe", "protocol", "databases", "classes", "full", "note"}
    known |= {"smic", "samm", "casme2", "selects_on_test", "sources"}
    assert all(set(entry) <= known for entry in content["score"])
    used = {key for entry in content["score"] for key in entry["sources"]}
    assert used == set(content["sources"])
