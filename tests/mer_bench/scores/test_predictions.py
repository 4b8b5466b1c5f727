"""Predictions of a run as a table, and anybody's predictions scored or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mer_bench as mb
from mer_bench.models.registry import Registry
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import prepare, prepare_data
from mer_bench.scores.predictions import predictions_of
from mer_bench.scores.summary import summarise
from mer_bench.settings import Request, RunSettings

CLASSES = ("negative", "positive", "surprise")


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: Any, with_records: Callable[..., RunDirectory]) -> RunDirectory:
    request = Request(RunSettings(model="ststnet", protocol="cde", seeds=2))
    prepared = prepare(Registry().find("ststnet"), request, small_store)
    return with_records(prepared, tmp_path_factory.mktemp("runs"), right=0.5)


@pytest.fixture
def frame(run: RunDirectory) -> pd.DataFrame:
    return predictions_of(run, (0,))


@pytest.mark.parametrize("selection", ["", "tail", "oracle"])
def test_exported_predictions_score_as_their_run(
    run: RunDirectory, small_store: Path, tmp_path: Path, call: Any, selection: str
) -> None:
    file, chosen = tmp_path / "p.csv", ["--selection", selection] if selection else []
    assert call("export-predictions", run.path, "--out", file, *chosen)[0] == 0
    code, out, _ = call("score", file, "--store", small_store, "--protocol", "cde", "--json")
    assert code == 0
    found, expected = json.loads(out), summarise(run).selections[selection or "last"]
    assert [row["pool"] for row in found["pools"]] == list(expected)
    for row in found["pools"]:
        for name, figure in expected[row["pool"]].figures.items():
            told = row[name], row[f"{name}_sd"], row[f"{name}_low"], row[f"{name}_high"]
            assert told == (figure.mean, figure.sd, figure.low, figure.high)
        assert found["confusions"][row["pool"]] == expected[row["pool"]].confusion.tolist()
    code, out, _ = call("score", file, "--store", small_store, "--protocol", "cde")
    assert code == 0 and "54 samples of 9 subjects, seeds 0, 1" in out and "CASME II" in out
    assert "note: these samples are not the MEGC2019 composite" in out


def test_no_cell_of_exported_predictions_is_a_formula(
    bench_data: BenchData, with_records: Any, tmp_path: Path, call: Any
) -> None:
    people = bench_data.population
    people = replace(people, sample_ids=np.char.add("=", people.sample_ids))
    request = Request(RunSettings(model="majority", protocol="cde"))
    prepared = prepare_data(Registry().find("majority"), request, replace(bench_data, population=people))
    run = with_records(prepared, tmp_path / "runs", epochs=1, right=0.5)
    assert call("export-predictions", run.path, "--out", tmp_path / "p.csv")[0] == 0
    rows = (tmp_path / "p.csv").read_text().splitlines()[1:]
    assert rows and all(row.startswith(("'=casme2/", "'=s")) for row in rows)
    found = mb.score(tmp_path / "p.csv", protocol="cde").pools["Full"].figures["uf1"]
    assert found.mean == summarise(run).selections["last"]["Full"].figures["uf1"].mean


def test_probabilities_alone_suffice_and_so_do_names_alone(frame: pd.DataFrame, small_store: Path) -> None:
    expected = mb.score(frame, small_store).table()
    for columns in (["sample", *(f"p_{name}" for name in CLASSES)], ["sample", "predicted"]):
        assert mb.score(frame[columns].sample(frac=1, random_state=0), small_store).table().equals(expected)


def test_without_a_store_the_table_says_what_is_true(frame: pd.DataFrame, small_store: Path) -> None:
    assert mb.score(frame).table().equals(mb.score(frame, small_store).table())
    with pytest.raises(mb.MerBenchError, match=r"without a store they need the column\(s\) label"):
        mb.score(frame.drop(columns="label"))


def test_scores_are_those_of_scikit_learn(frame: pd.DataFrame, small_store: Path) -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    found = mb.score(frame, small_store).table()
    for pool, rows in [("Full", frame), *frame.groupby("database")]:
        assert found.loc[pool, "uf1"] == pytest.approx(f1_score(rows.label, rows.predicted, average="macro"))
        assert found.loc[pool, "uar"] == pytest.approx(balanced_accuracy_score(rows.label, rows.predicted))


def test_a_protocol_decides_which_samples_must_be_there(frame: pd.DataFrame, small_store: Path) -> None:
    samm = frame[frame.database == "samm"]
    scores = mb.score(samm, small_store, "loso", db="samm")
    assert (scores.samples, scores.subjects, list(scores.pools)) == (18, 3, ["Full"])
    cross = mb.score(samm, small_store, "cross-db", train_db=("smic", "casme2"), test_db="samm")
    assert cross.samples == 18
    with pytest.raises(mb.MerBenchError, match="36 of 54 samples have no prediction"):
        mb.score(samm, small_store)
    with pytest.raises(mb.MerBenchError, match=r"36 sample\(s\) are none of the 18 that the protocol tests"):
        mb.score(frame, small_store, "loso", db="samm")


def set_at(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing": (lambda f: f.drop(index=3), r"1 of 54 samples have no prediction: casme2/s00/c3"),
    "doubled": (
        lambda f: pd.concat([f, f.iloc[[5]]]),
        r"1 sample\(s\) occur more than once: casme2/s00/c5; keep one row",
    ),
    "foreign": (
        set_at("sample", 2, "casme2/s99/c2"),
        r"1 sample\(s\) are none of the 54 that the protocol tests: casme2/s99/c2; check",
    ),
    "NaN": (set_at("p_positive", 4, np.nan), r"1 row\(s\) hold NaN or .* p_surprise: casme2/s00/c4"),
    "text": (set_at("p_positive", 4, "high"), r"1 row\(s\) hold NaN or what is no number.*casme2/s00/c4"),
    "wrong class": (
        set_at("predicted", 6, "others"),
        r"column predicted: 1 row\(s\) say 'others', expected one of negative, positive, surprise: casme2",
    ),
    "no class": (set_at("predicted", 6, np.nan), r"1 row\(s\) say 'nan', expected one of negative"),
    "a number": (set_at("predicted", 6, 1), r"1 row\(s\) say '1', expected one of negative, positive"),
    "other labels": (
        lambda f: f.assign(label="negative"),
        r"column label differs from the store for 36 row\(s\): .*Leave the column out",
    ),
    "other classes": (
        lambda f: f.rename(columns={"p_positive": "p_positve"}),
        "unknown column of a class 'p_positve'; did you mean 'p_positive'",
    ),
    "too few classes": (lambda f: f.drop(columns="p_surprise"), "there is no column p_surprise; every class"),
    "no prediction": (
        lambda f: f[["sample"]],
        "neither a column 'predicted', the name of a class, nor p_",
    ),
    "no sample": (
        lambda f: f.drop(columns="sample"),
        r"there is no column 'sample'; it has subject, data.*\. Expected a header with sample, and predicted",
    ),
    "half a seed": (set_at("seed", 1, 0.5), r"column seed: 1 row\(s\) hold no whole number: casme2/s00/c1"),
    "a seed too many": (set_at("seed", 1, 3), r"predictions, seed 0: 1 of 54 samples have no prediction"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_refused_by_name(frame: pd.DataFrame, small_store: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(mb.MerBenchError, match=message) as error:
        mb.score(change(frame), small_store)
    assert "\n" not in str(error.value)


def test_what_is_no_table_and_a_command_without_protocol_are_refused(
    tmp_path: Path, small_store: Path, call: Any
) -> None:
    (tmp_path / "empty.csv").write_text("")
    code, _, err = call("score", tmp_path / "empty.csv", "--store", small_store, "--protocol", "cde")
    assert code == 1 and "empty.csv cannot be read: No columns to parse" in err
    code, _, err = call("score", tmp_path / "empty.csv", "--store", small_store)
    assert code == 2 and "no --protocol given; choose one of cde" in err
    code, _, err = call("export-predictions", tmp_path, "--out", tmp_path / "x.csv")
    assert code == 1 and "is no run directory" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sample,predicted\n", "it has no row"),
        ("a," * 300 + "a\n", "it has 301 columns, at most 256"),
        ("sample,predicted\n" + "x" * 100_000 + ",negative\n", "1 sample.s. are none of the"),
        ("sample,predicted\n" + "".join(f"s,c{n}\n" for n in range(10_000)), "and 9995 more, expected"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_of_predictions_is_one_short_line(
    content: str, message: str, small_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(mb.MerBenchError, match=message) as refused:
        mb.score(path, small_store)
    assert len(str(refused.value)) < 1000 and "\n" not in str(refused.value)


def test_an_endless_file_of_predictions_is_not_read_to_its_end(small_store: Path) -> None:
    with pytest.raises(mb.MerBenchError, match="more than 134,217,728 bytes"):
        mb.score("/dev/zero", small_store)
