"""`mer-flow info` on computed and imported stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mer_flow.cli import cli
from mer_flow.samples import Sample, SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.store.summary import summarise
from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample
from mer_flow.work.errors import UsageError

SIDE = 16
PIPELINE = {"map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"}, "flow": {"tau": 0.25}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flows.h5"
    emotions = {"samm": ("anger", "happiness", "surprise", "other"), "casme3": ("disgust", "happy", "others")}
    for database, words in emotions.items():
        with StoreWriter(path, PIPELINE) as writer:
            table = SampleTable(
                Sample(f"{database}/s{i % 4}/c_{i}", database, f"{database}/s{i % 4}", f"c_{i}", 1, 5, 9,
                       "spotted:flow-peak" if i == 0 else "sheet", words[i % len(words)], "", 0, 200.0)
                for i in range(9)
            )  # fmt: skip
            writer.begin(database, table)
            for i, sample in enumerate(table):
                if i > 6:
                    writer.fail(
                        sample.sample_id, "frames" if i == 7 else "face", f"{sample.sample_id}: no frame {i}"
                    )
                    continue
                notes = {
                    "fallbacks": ["regions-dlib", "several-faces"]
                    if i == 1
                    else ["regions-dlib"]
                    if i == 2
                    else []
                }
                record = SampleRecord(sample, np.ones((3, SIDE, SIDE)), regions=np.ones((5, 2)), notes=notes)
                writer.commit(sample.sample_id, encode_sample(record))
            writer.finish()
    return path


def test_counts(path: Path) -> None:
    with FlowStore(path) as store:
        summary = summarise(store)
        assert summary["digest"] == store.digest()
    assert (summary["samples"], summary["subjects"], summary["failed"], summary["unfinished"]) == (
        14,
        8,
        4,
        0,
    )
    assert (summary["kind"], summary["map_size"], summary["values"]) == ("computed", SIDE, "px")
    assert summary["size_bytes"] == path.stat().st_size
    samm = summary["databases"]["samm"]
    assert samm["fallbacks"] == {"regions-dlib": 2, "several-faces": 1}
    assert samm["failed_by_stage"] == {"face": 1, "frames": 1}
    assert samm["failures"][0] == {
        "sample_id": "samm/s0/c_8",
        "stage": "face",
        "reason": "samm/s0/c_8: no frame 8",
    }
    assert samm["apex_sources"] == {"sheet": 6, "spotted:flow-peak": 1}
    assert samm["holds"] == ["flow", "regions"]
    megc3 = samm["schemes"]["megc3"]
    assert megc3["classes"] == {"negative": 2, "positive": 2, "surprise": 2}
    assert (megc3["samples"], megc3["subjects"], sum(megc3["dropped"].values())) == (6, 3, 1)
    assert "casme3-4" not in samm["schemes"]
    casme3 = summary["databases"]["casme3"]["schemes"]
    assert "megc3" not in casme3
    assert casme3["casme3-4"]["classes"] == {"negative": 3, "positive": 2, "surprise": 0, "others": 2}
    assert summary["schemes"]["megc3"]["databases"] == ["samm"]


def test_one_scheme_only(path: Path) -> None:
    with FlowStore(path) as store:
        summary = summarise(store, "megc3")
        assert set(summary["schemes"]) == {"megc3"}
        assert summary["schemes"]["megc3"]["samples"] == 6
        assert summary["databases"]["casme3"]["schemes"]["megc3"]["samples"] == 0
        with pytest.raises(UsageError, match="did you mean 'megc3'"):
            summarise(store, "megc")


def test_the_command(path: Path) -> None:
    run = CliRunner().invoke(cli, ["info", str(path)])
    assert run.exit_code == 0, run.output
    for text in (
        "14 samples, 8 subjects, 2 database(s)",
        "samm: 7 samples, 4 subjects; flow, regions",
        "megc3: 6 samples, 3 subjects: negative 2, positive 2, surprise 2; 1 without a class",
        "fallbacks: regions-dlib 2, several-faces 1",
        "failed: 2 (face 1, frames 1)",
        "samm/s3/c_7: frames: samm/s3/c_7: no frame 7",
        "apex: sheet 6, spotted:flow-peak 1",
    ):
        assert text in run.output
    as_json = CliRunner().invoke(cli, ["info", str(path), "--json", "--scheme", "megc3"])
    assert json.loads(as_json.output)["schemes"]["megc3"]["classes"] == {
        "negative": 2,
        "positive": 2,
        "surprise": 2,
    }


def test_documented_keys_are_the_keys(path: Path, repository: Path) -> None:
    text = (repository / "docs" / "store-format.md").read_text(encoding="utf-8")
    section = text.split("## `mer-flow info --json`")[1].split("\n## ")[0]
    with FlowStore(path) as store:
        summary = summarise(store)
    keys = {*summary, *summary["databases"]["samm"], *summary["schemes"]["megc3"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in section] == []


def test_an_unfinished_build_is_mentioned(path: Path) -> None:
    table = SampleTable(
        [Sample("smic/s1/c", "smic", "smic/s1", "c", 1, 5, 9, "sheet", "negative", "", 0, 100.0)]
    )
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("smic", table)
        writer.commit(
            "smic/s1/c",
            encode_sample(SampleRecord(table[0], np.ones((3, SIDE, SIDE)), regions=np.ones((5, 2)))),
        )
    run = CliRunner().invoke(cli, ["info", str(path)])
    assert "an unfinished build has committed 1 more" in run.output


def test_published_maps(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "public.h5"
    labels = shared_data / "megc2019_combined_3class_gt.csv"
    arguments = [
        "import",
        "ststnet",
        str(shared_data / "ststnet-flow"),
        "--labels",
        str(labels),
        "--store",
        str(path),
    ]
    run = CliRunner().invoke(cli, arguments)
    assert run.exit_code == 0, run.output
    content = json.loads(CliRunner().invoke(cli, ["info", str(path), "--json"]).output)
    assert (content["samples"], content["subjects"]) == (442, 68)
    assert (content["kind"], content["map_size"], content["values"]) == ("imported", 28, "minmax-255")
    assert list(content["schemes"]) == ["megc3"]
    assert content["schemes"]["megc3"]["classes"] == {"negative": 250, "positive": 109, "surprise": 83}
    assert {name: item["samples"] for name, item in content["databases"].items()} == {
        "casme2": 145,
        "samm": 133,
        "smic": 164,
    }
    assert CliRunner().invoke(cli, ["verify", str(path)]).exit_code == 0
