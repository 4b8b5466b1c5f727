"""Published scores: sourced, and found by the models that they belong to."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from mer_bench.models.registry import Registry
from mer_bench.scores.published import SELECTS_ON_TEST, published_scores, scores_beside, scores_of

COMPOSITE = ("cde", ["smic", "samm", "casme2"], 3)


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


def test_figures_of_some_scores() -> None:
    composite = {score.method: score for score in scores_beside(*COMPOSITE)}
    assert len(composite) == 20
    assert composite["STSTNet (PyTorch re-run)"].scores == {"Full": (0.7209, 0.7250)}
    assert composite["AHMSA-Net"].scores["samm"] == (0.8803, 0.8524)
    leaking = [method for method, score in composite.items() if score.selects_on_test == "yes"]
    assert leaking == ["CapsuleNet", "EMR", "HTNet", "CausalNet"]
    casme3 = {score.method: score.scores for score in scores_beside("loso", ["casme3"], 3)}
    assert casme3["AHMSA-Net"] == {"Full": (0.8120, 0.7708)}
    assert casme3["MER-CLIP"] == {"Full": (0.7832, None)}
    assert scores_beside("loso", ["samm"], 3) == ()


@pytest.mark.parametrize(
    ("model", "methods"),
    [
        (("ststnet", "default", "authors"), ["STSTNet (PyTorch re-run)", "STSTNet"]),
        (("ststnet", "default", "paper"), ["STSTNet"]),
        (("bdcnn", "paper", "isda"), []),
        (("bdcnn", "small", "ce"), ["BDCNN (CE)"]),
        (("majority", "default", ""), []),
    ],
)
def test_a_model_finds_its_own_published_scores(model: tuple[str, str, str], methods: list[str]) -> None:
    assert [score.method for score in scores_of(*model, scores_beside(*COMPOSITE))] == methods


def test_the_published_file_is_as_documented() -> None:
    content = tomllib.loads(files("mer_bench.scores").joinpath("published.toml").read_text(encoding="utf-8"))
    known = {"method", "model", "variant", "recipe", "protocol", "databases", "classes", "full", "note"}
    known |= {"smic", "samm", "casme2", "selects_on_test", "sources"}
    assert all(set(entry) <= known for entry in content["score"])
    assert all(entry["sources"] for entry in content["score"])
    assert {key for entry in content["score"] for key in entry["sources"]} == set(content["sources"])
