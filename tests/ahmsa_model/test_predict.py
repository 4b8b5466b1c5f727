"""Prediction from frames: the same numbers as reading a store, clear refusals, a picture."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ahmsa_model import AHMSANet, InputError, predict_pair
from ahmsa_model.predict import view_map

pytest.importorskip("cv2", reason="prediction from frames needs ahmsa-model[predict]")
pytest.importorskip("dlib", reason="prediction from frames needs ahmsa-model[predict]")

from tests.ahmsa_model.parts import CLASSES

from_pretrained = AHMSANet.from_pretrained


@pytest.mark.parametrize("view", ["regions-28", "regions-28@quadrants", "whole-28", "whole-224", "htnet-28"])
@pytest.mark.parametrize("normalisation", ["scaled", "minmax", "raw"])
def test_a_view_of_one_sample_equals_the_stores(built, view, normalisation):
    from mer_flow.views import read_view

    expected = read_view(built.store, view, normalisation).maps[0]
    flow = built.store.read_flow("casme2", 0).astype(np.float32)
    np.testing.assert_array_equal(
        view_map(flow, built.store.regions("casme2")[0], view, normalisation), expected
    )


def test_a_pair_of_frames_gives_the_logits_of_the_stored_sample(built):
    from mer_flow.views import read_view

    result = predict_pair(built.checkpoint, built.onset, built.apex)
    maps = read_view(built.store, "regions-28", "scaled").maps[:1]
    np.testing.assert_array_equal(result.map, maps[0])
    with torch.no_grad():
        logits = from_pretrained(built.checkpoint)(torch.from_numpy(maps))[0].double()
    np.testing.assert_allclose(result.logits, logits.numpy(), rtol=1e-6)
    np.testing.assert_allclose(result.probabilities, torch.softmax(logits, 0).numpy(), rtol=1e-6)
    assert result.label == CLASSES[int(logits.argmax())]
    assert result.warnings == ()


def test_a_network_left_in_training_mode_predicts_without_dropout(built, tmp_path):
    torch.manual_seed(0)
    network = AHMSANet.from_variant("tiny", dropout=0.5)
    network.metadata = from_pretrained(built.checkpoint).metadata
    network.save_pretrained(tmp_path)
    dropping = from_pretrained(tmp_path)
    expected = predict_pair(dropping, built.onset, built.apex)
    dropping.train()
    np.testing.assert_array_equal(predict_pair(dropping, built.onset, built.apex).logits, expected.logits)


def test_a_pipeline_of_another_hash_is_refused(built):
    loaded = from_pretrained(built.checkpoint)
    pipeline = copy.deepcopy(loaded.metadata.pipeline)
    pipeline["config"]["align"]["size"] = 200
    with pytest.raises(InputError, match="its pipeline is not the one that its pipeline_hash"):
        predict_pair(without(loaded, pipeline=pipeline), built.onset, built.apex)


def test_another_library_version_is_a_warning(built):
    from mer_flow.store.schema import pipeline_hash

    loaded = from_pretrained(built.checkpoint)
    pipeline = {
        **loaded.metadata.pipeline,
        "versions": {**loaded.metadata.pipeline["versions"], "numpy": "0.1"},
    }
    other = without(loaded, pipeline=pipeline, pipeline_hash=pipeline_hash(pipeline))
    warnings = predict_pair(other, built.onset, built.apex).warnings
    assert warnings == (f"numpy: the training maps were made with 0.1, this one with {np.__version__}",)


def test_what_a_recipe_did_to_scores_and_prediction_does_not_is_a_warning(built):
    loaded = without(
        from_pretrained(built.checkpoint), training={"recipe": {"flip_average": True, "prior": 0.0}}
    )
    warnings = predict_pair(loaded, built.onset, built.apex).warnings
    assert warnings == ("scored with flip_average = True; here the network answers as it is",)


def without(loaded, **changes):
    other = copy.copy(loaded)
    other.metadata = loaded.metadata.model_copy(update=changes)
    return other


def test_a_checkpoint_without_a_pipeline_asks_before_it_assumes_one(built):
    imported = without(from_pretrained(built.checkpoint), pipeline={})
    with pytest.raises(InputError, match="does not record how its training maps were made"):
        predict_pair(imported, built.onset, built.apex)
    result = predict_pair(imported, built.onset, built.apex, default_pipeline=True)
    assert result.warnings == ("the checkpoint records no pipeline; mer-flow's default was used",)
    with pytest.raises(InputError, match="does not name its view"):
        predict_pair(without(imported, view=""), built.onset, built.apex, default_pipeline=True)


def test_bad_frames_are_named(built, tmp_path):
    loaded = from_pretrained(built.checkpoint)
    with pytest.raises(InputError, match="nothing"):
        predict_pair(loaded, tmp_path / "nothing.png", built.apex)
    with pytest.raises(InputError, match="face"):
        predict_pair(loaded, np.zeros((240, 320, 3), np.uint8), np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(InputError, match="shape"):
        predict_pair(loaded, built.onset, np.zeros((24, 32, 3), np.uint8))
    with pytest.raises(InputError, match="none of flow"):
        predict_pair(without(loaded, view="faces-28"), built.onset, built.apex)
    with pytest.raises(InputError, match="unknown normalisation 'scalde'; did you mean 'scaled'"):
        predict_pair(without(loaded, normalisation="scalde"), built.onset, built.apex)
    blank = np.zeros((240, 320, 3), np.uint8)
    with pytest.raises(InputError, match=r"--set faces\.upsample=2"):
        predict_pair(loaded, blank, blank)
    with pytest.raises(InputError, match=r"--set faces\.upsample=3"):
        predict_pair(loaded, blank, blank, settings=["faces.upsample=2"])


def ahmsa(*arguments):
    command = [sys.executable, "-m", "ahmsa_model.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_prints_json_and_draws(built, tmp_path):
    picture = tmp_path / "out" / "p.png"
    done = ahmsa(
        "predict", "--checkpoint", built.checkpoint, "--onset", built.onset, "--apex", built.apex,
        "--picture", picture, "--json", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert list(facts["probabilities"]) == list(CLASSES)
    assert sum(facts["probabilities"].values()) == pytest.approx(1)
    expected = predict_pair(built.checkpoint, built.onset, built.apex)
    assert facts["logits"] == pytest.approx(
        dict(zip(CLASSES, expected.logits.tolist(), strict=True)), rel=1e-5
    )
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[0] > 480 and pixels.shape[1] > 900
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 2000


def test_a_changed_parameter_is_a_warning(built):
    result = predict_pair(built.checkpoint, built.onset, built.apex, settings=["stabilise.method=none"])
    assert result.warnings == (
        "stabilise.method: the training maps were made with similarity, this one with none",
    )


def test_one_picture_as_onset_and_apex_is_called_noise(built, tmp_path):
    frames = ("--onset", built.onset, "--apex", built.onset)
    command = ("predict", "--checkpoint", built.checkpoint, *frames, "--device", "cpu")
    done = ahmsa(*command)
    assert "flow is 0 px of a 224 px face, within the noise of a still face (0.12 px)" in done.stderr
    (warning,) = json.loads(ahmsa(*command, "--json").stdout)["warnings"]
    assert "within the noise" in warning


def test_noise_is_drawn_pale(built):
    from ahmsa_model.pictures.prediction import draw_prediction

    result = predict_pair(built.checkpoint, built.onset, built.onset)
    rng = np.random.default_rng(0)
    flow, view = result.extracted.flow, result.map
    noisy = dataclasses.replace(
        result,
        extracted=dataclasses.replace(result.extracted, flow=rng.normal(0, 0.02, flow.shape).astype("f4")),
        map=rng.normal(0, 0.007, view.shape).astype("f4"),
    )
    pictures = [np.asarray(draw_prediction(one)).astype(int) for one in (result, noisy)]
    assert 0 < np.abs(pictures[0] - pictures[1])[300:].max() < 80  # the row of what the network is fed


def test_the_picture_shows_the_probabilities(built):
    from ahmsa_model.pictures.prediction import BAR, PANEL, draw_prediction

    result = predict_pair(built.checkpoint, built.onset, built.apex)
    for shares in ([1.0, 0.0, 0.0], [0.25, 0.5, 0.25]):
        drawn = draw_prediction(dataclasses.replace(result, probabilities=np.array(shares)))
        blue = (np.asarray(drawn) == BAR).all(-1)
        lengths = [int(row.sum()) for row in blue if row.sum() > 8]  # fewer: an edge of a panel
        assert max(lengths) == pytest.approx(PANEL * max(shares), abs=2)
        assert min(lengths) == pytest.approx(PANEL * min(s for s in shares if s > 0), abs=2)


def test_the_picture_has_every_warning_whole(built):
    from ahmsa_model.pictures.prediction import NOTE, draw_prediction

    result = predict_pair(built.checkpoint, built.onset, built.apex)
    said = ("short", " ".join(["a warning of many words"] * 8), "the last")
    one, many = (
        draw_prediction(dataclasses.replace(result, warnings=warnings)) for warnings in (said[:1], said)
    )
    assert many.height == one.height + 3 * NOTE  # the long one takes two lines
    foot = np.asarray(many.convert("L"))[-5 * NOTE :]
    assert foot[-2 * NOTE :].min() < 128 and (foot[:, -16:] == 255).all()


def test_a_picture_that_cannot_be_written_is_named(built, tmp_path):
    from ahmsa_model.pictures.prediction import save_picture

    result = predict_pair(built.checkpoint, built.onset, built.apex)
    with pytest.raises(InputError, match=r"picture .*unknown cannot be written"):
        save_picture(result, tmp_path / "p.unknown")


def test_a_network_trained_on_everything_by_the_bench_predicts_from_frames(built, tmp_path):
    pytest.importorskip("mer_bench", reason="training needs ahmsa-model[bench]")
    from mer_bench.models.registry import Registry
    from mer_bench.settings import Request, RunSettings, TrainingSettings
    from mer_bench.weights.fit import fit
    from mer_flow.views import read_view

    settings = RunSettings(model="ahmsa", variant="tiny", recipe="quick")
    request = Request(settings, {"epochs": 3}, TrainingSettings(device="cpu"))
    fit(Registry().find("ahmsa"), request, built.store.path, tmp_path / "net")
    checkpoint = from_pretrained(tmp_path / "net")
    assert checkpoint.metadata.pipeline_hash == built.store.pipeline_hash
    result = predict_pair(checkpoint, built.onset, built.apex)
    assert result.classes == CLASSES and result.warnings == ()
    maps = read_view(built.store, "regions-28", "scaled").maps[:1]
    with torch.no_grad():
        logits = checkpoint(torch.from_numpy(maps))[0].double()
    np.testing.assert_allclose(result.logits, logits.numpy(), rtol=1e-6)
