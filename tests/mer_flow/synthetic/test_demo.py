"""The demonstration end to end on small trees, and the comparison with the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from mer_flow.cli import cli
from mer_flow.store.reader import FlowStore
from mer_flow.synthetic import load_truth
from mer_flow.synthetic.evaluate import EndpointErrors, FlowError, apex_errors, endpoint_errors, true_flow
from mer_flow.synthetic.truth import TruthSample
from mer_flow.work.errors import UsageError

SMALL = ["--db", "samm", "--db", "smic", "--subjects", "2", "--clips", "2", "--seed", "4", "--workers", "1"]


def run(*arguments):
    result = CliRunner().invoke(cli, ["demo", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demonstration of two databases: its folder and its JSON summary."""
    out = tmp_path_factory.mktemp("demo") / "out"
    result = run("--out", str(out), *SMALL, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_demo_builds_every_sample(demo):
    out, summary = demo
    assert summary["samples"] == 8 and summary["subjects"] == 4
    assert sorted(summary["trees"]) == ["samm", "smic"]
    assert [build["built"] for build in summary["builds"]] == [4, 4]
    for database in ("samm", "smic"):
        counts = {key: n for key, n in summary["classes"][database].items() if key != "scheme"}
        assert summary["classes"][database]["scheme"] == "megc3" and sum(counts.values()) == 4
        assert counts["negative"] >= 1 and counts["positive"] >= 1
    with FlowStore(out / "flows.h5") as store:
        assert store.databases == ("samm", "smic")
        assert store.has("samm", "faces")


def test_demo_flow_is_near_the_truth(demo):
    _, summary = demo
    bands = [band for band in summary["endpoint_error"] if band["samples"]]
    assert sum(band["samples"] for band in bands) == 8 and not summary["endpoint_skipped"]
    for band in bands:
        assert band["epe_px"] < band["zero_px"]
        assert 0.5 < band["gain"] < 1.2
    assert summary["apex_error"]["flow-peak"]["samples"] == 4
    assert summary["apex_error"]["flow-peak"]["mean_absolute_frames"] <= 2.0


def test_demo_draws_pictures(demo):
    from PIL import Image

    out, summary = demo
    assert [path.rpartition("/")[2] for path in summary["pictures"]] == [
        "overview.png",
        "samm.png",
        "smic.png",
    ]
    for name in ("overview", "samm", "smic"):
        with Image.open(out / "pictures" / f"{name}.png") as image:
            assert min(image.size) > 300 and len(image.convert("RGB").getcolors(10**7)) > 1000


def test_second_demo_builds_nothing_new(demo):
    out, _ = demo
    before = (out / "flows.h5").read_bytes()
    result = run("--out", str(out), *SMALL, "--quiet")
    assert result.exit_code == 0
    assert result.stdout.count("there already") == 2
    assert "| peak, px | samples |" in result.stdout
    assert (out / "flows.h5").read_bytes() == before


def test_wrong_truth_is_noticed(demo):
    """The comparison itself can fail: the truth of another sample does not fit."""
    out, _ = demo
    with FlowStore(out / "flows.h5") as store:
        good = endpoint_errors(store, {"samm": out / "samm"})
        truth = load_truth(out / "samm")
        i, sample = max(enumerate(store.samples("samm")), key=lambda pair: truth[pair[1].sample_id].amplitude)
        flow, matrix = store.read_flow("samm", i, channels=2), store.alignment("samm")[i]
    right = true_flow(truth[sample.sample_id], 1.0, matrix, flow.shape[-1])
    reached = {error.sample_id: error for error in good.samples}[sample.sample_id]
    assert np.hypot(*(flow - right)).mean() < 0.7 * np.hypot(*(flow + right)).mean()
    assert reached.amplitude == pytest.approx(truth[sample.sample_id].amplitude)
    assert reached.epe < 0.5 * reached.zero


def test_truth_is_mapped_into_the_aligned_face():
    displacement = np.zeros((2, 60, 80), np.float32)
    displacement[0, 20:41, 30:51] = 2.0  # to the right, in a square about (40, 30)
    sample = TruthSample("x", 0, 1, 2, displacement, np.eye(2, 3), 2.0, "", "", np.zeros((68, 2)))
    # A quarter turn and a halving: image right becomes aligned down.
    matrix = np.array([[0.0, -0.5, 35.0], [0.5, 0.0, 0.0]])
    flow = true_flow(sample, 0.5, matrix, 40)
    centre = matrix @ [40, 30, 1]
    assert tuple(centre) == (20.0, 20.0)
    assert flow[:, 20, 20] == pytest.approx([0.0, 0.5])
    assert flow[:, 20, 36] == pytest.approx([0.0, 0.0])


def test_apex_errors_skip_what_is_unknown():
    found = apex_errors({"a": 5, "b": 9, "c": -1, "d": 3}, {"a": 7, "b": 9, "c": 2})
    assert found.errors == {"a": -2, "b": 0} and found.skipped == ("c", "d")
    assert found.mean_absolute == 1.0 and found.within(1) == 0.5
    assert np.isnan(apex_errors({}, {}).mean_absolute)


def test_a_band_without_samples_has_no_figures():
    table = EndpointErrors((FlowError("a", 0.5, 0.04, 0.08, 0.8),), {}).to_markdown().splitlines()
    assert table[2:] == [
        "| 0.4 to 0.8 | 1 | 0.040 | 0.080 | 0.80 |",
        *(f"| {low} | 0 | – | – | – |" for low in ("0.8 to 1.5", "1.5 to 2.3", "2.3 to 3.0")),
    ]


def test_trees_only_makes_no_store(tmp_path):
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--db", "casme2", "--subjects", "1", "--clips", "1", "--workers", "1"]
    result = run(*arguments, "--trees-only", "--quiet")
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["casme2"]
    assert "mer-flow build --db casme2" in result.stdout
    other = CliRunner().invoke(cli, ["demo", *arguments, "--trees-only", "--quiet", "--seed", "1"])
    assert isinstance(other.exception, UsageError) and "seed 0 there, 1 asked" in str(other.exception)


def test_unknown_database_is_named(tmp_path):
    result = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path), "--db", "casme"])
    assert isinstance(result.exception, UsageError) and "did you mean 'casme" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
