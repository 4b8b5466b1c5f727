"""Explanations: a planted movement is found where it is, and what they say depends on weights and labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.ahmsa_model.parts import CLASSES

from ahmsa_model import AHMSANet, CheckpointMetadata, InputError
from ahmsa_model.explain.attention import attention_maps, received
from ahmsa_model.explain.attribution import attribute, likeness, region_shares, still_maps
from ahmsa_model.explain.average import Group, average
from ahmsa_model.explain.face import USUAL_CENTRES, on_face, region_of_cells
from ahmsa_model.explain.sample import Seen, explain_map
from ahmsa_model.pictures.explained import save_explained

pytest.importorskip("captum", reason="explaining needs ahmsa-model[explain]")
pytest.importorskip("mer_flow", reason="explaining needs ahmsa-model[explain]")

SIDE = 224
CENTRES = USUAL_CENTRES * SIDE
EYES, LIPS = (0, 1), (3, 4)


def planted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and a bump that moves up: at the brows (class 0), at the lip corners (1), or nowhere (2)."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, 0.03, (count, 3, 28, 28)).astype(np.float32)
    labels = np.arange(count) % 3
    rows, columns = np.mgrid[0:28, 0:28]
    for i, label in enumerate(labels):
        if label == 2:
            continue
        for x in (7, 21):
            y = (4, 23)[label] + rng.normal(0, 0.5)
            bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8) * rng.uniform(0.4, 0.9)
            maps[i, 1] -= bump.astype(np.float32)
            maps[i, 2] += (0.5 * bump).astype(np.float32)
    return maps, labels


def trained(maps: np.ndarray, labels: np.ndarray, seed: int = 0) -> AHMSANet:
    torch.manual_seed(seed)
    network = AHMSANet.from_variant("tiny")
    network.metadata = CheckpointMetadata(
        classes=CLASSES, scheme="megc3", view="regions-28", normalisation="scaled"
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    given, wanted = torch.from_numpy(maps), torch.from_numpy(labels)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(given), wanted).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def network() -> AHMSANet:
    return trained(*planted(90, seed=0))


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    return planted(12, seed=1)


def gradients_of(network: torch.nn.Module, maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    cells = region_of_cells("regions-28", CENTRES, SIDE)
    return attribute(network, maps, still_maps(maps, "scaled"), labels, cells).gradients


@pytest.mark.parametrize(("kind", "where"), [(0, EYES), (1, LIPS)])
def test_a_planted_movement_explains_its_class(network: AHMSANet, held_out, kind: int, where) -> None:
    maps, labels = held_out
    sample = maps[labels == kind][0]
    found = explain_map(network, Seen("planted", sample, CENTRES, SIDE))
    assert found.target == kind and found.probabilities[kind] > 0.9
    shares = list(found.shares.values())
    assert sum(shares[k] for k in where) > 0.6 and sum(shares) == pytest.approx(1)
    drops = found.attribution.regions[0]
    assert min(drops[k] for k in where) > 3 * max(abs(drops[k]) for k in range(5) if k not in where)
    strongest = np.unravel_index(found.attribution.occlusion[0].argmax(), (28, 28))
    assert abs(int(strongest[0]) - (4, 23)[kind]) <= 4
    assert abs(found.attribution.gap[0]) < 0.3


def test_integrated_gradients_sum_to_the_change_of_the_score(network: AHMSANet, held_out) -> None:
    maps, labels = held_out
    told = gradients_of(network, maps, labels).sum((1, 2, 3))
    with torch.no_grad():
        logits = network(torch.from_numpy(maps)) - network(torch.zeros(1, 3, 28, 28))
    score = (logits - logits.mean(1, keepdim=True)).numpy()[np.arange(len(labels)), labels]
    # Layer normalisations bend sharply beside the still map: the steps lose up to a twentieth of the score.
    np.testing.assert_allclose(told, score, atol=0.05 * np.abs(score).max())


def test_weights_at_random_and_permuted_labels_change_the_maps(network: AHMSANet, held_out) -> None:
    maps, labels = held_out
    moving = labels < 2
    maps, labels = maps[moving], labels[moving]
    told = gradients_of(network, maps, labels)

    def mean_likeness(other: torch.nn.Module) -> float:
        return float(np.mean(list(map(likeness, told, gradients_of(other, maps, labels)))))

    train, right = planted(90, seed=0)
    again = mean_likeness(trained(train, right, seed=1))
    permuted = mean_likeness(trained(train, np.random.default_rng(0).permutation(right), seed=1))
    torch.manual_seed(5)
    random = mean_likeness(AHMSANet.from_variant("tiny").eval())
    assert again > max(abs(permuted), abs(random)) + 0.05, (again, permuted, random)
    assert abs(random) < 0.2

    cells = region_of_cells("regions-28", CENTRES, SIDE)
    brows = region_shares(told[labels == 0], cells)[:, EYES].sum(1).mean()
    untrained = gradients_of(AHMSANet.from_variant("tiny").eval(), maps[labels == 0], labels[labels == 0])
    assert brows > region_shares(untrained, cells)[:, EYES].sum(1).mean()


def test_attention_is_that_of_the_network(network: AHMSANet, held_out) -> None:
    levels = attention_maps(network, held_out[0])
    config = network.config
    for level, grid, heads, blocks in zip(
        levels, config.grids, config.level_heads, config.blocks, strict=True
    ):
        assert level.shape == (12, blocks, heads, grid**2, grid**2)
        np.testing.assert_allclose(level.sum(-1), 1, atol=1e-5)
    assert received(levels[0][0]).shape == (config.blocks[0], config.level_heads[0], 4, 4)
    # Mixed with these weights, the values are the module's own output.
    spatial = network.levels[0].blocks[0].spatial
    x = torch.randn(2, 16, config.width)
    with torch.no_grad():
        value = spatial._split(spatial.value(x))
        mixed = (spatial.weights(x) @ value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(spatial.output(mixed), spatial(x))


@pytest.mark.parametrize("view", ["regions-28", "regions-28@quadrants", "htnet-28", "whole-28"])
def test_cells_are_laid_where_they_were_cut(view: str) -> None:
    cells = region_of_cells(view, CENTRES, SIDE)
    for region in range(5):
        if not (cells == region).any():
            assert region == 2 and "whole" not in view and view != "regions-28", "quadrants have no nose"
            continue
        face = on_face((cells == region).astype(np.float32), view, CENTRES, SIDE)
        rows, columns = np.nonzero(face > 0.5)
        away = np.hypot(columns.mean() - CENTRES[region, 0], rows.mean() - CENTRES[region, 1])
        assert away < 45, f"region {region} is laid {away:.0f} px from its centre"


def test_a_map_whose_zero_was_lost_is_compared_with_its_median() -> None:
    maps = np.full((1, 3, 8, 8), 120, np.float32)
    maps[0, 0, 2, 2] = 255
    assert (still_maps(maps, "minmax-255") == 120).all()
    assert not still_maps(maps, "scaled").any()


def test_averages_are_those_of_the_samples(network: AHMSANet, held_out, tmp_path: Path) -> None:
    maps, labels = held_out
    groups = [Group(network, maps[:5], labels[:5], 0.0), Group(network, maps[5:], labels[5:], 1e-6)]
    found = average(groups, CLASSES, "regions-28", "scaled", "twelve planted maps")
    told = gradients_of(network, maps, labels)
    assert [(mean.name, mean.samples, mean.right) for mean in found.classes] == [(n, 4, 4) for n in CLASSES]
    for k, mean in enumerate(found.classes):
        np.testing.assert_allclose(mean.gradients, told[labels == k].sum(1).mean(0), atol=1e-5)
    assert found.difference == 1e-6 and abs(found.control) < 0.3
    picture, arrays = save_explained(found, tmp_path / "out")
    assert np.asarray(Image.open(picture)).std() > 10
    assert f"occlusion_{CLASSES[1]}" in np.load(arrays)
    assert json.loads(json.dumps(found.to_dict()))["classes"][0]["samples"] == 4


def test_an_unknown_class_is_answered_with_the_nearest(network: AHMSANet, held_out) -> None:
    with pytest.raises(InputError, match="unknown class 'surprize'; did you mean 'surprise'"):
        explain_map(network, Seen("x", held_out[0][0], CENTRES, SIDE), "surprize")


def test_one_sample_is_drawn_with_its_maps(network: AHMSANet, held_out, tmp_path: Path) -> None:
    found = explain_map(network, Seen("x", held_out[0][0], CENTRES, SIDE), "surprise")
    picture, arrays = save_explained(found, tmp_path)
    assert found.to_dict()["explained"] == "surprise"
    with np.load(arrays) as kept:
        np.testing.assert_array_equal(kept["gradients"], found.attribution.gradients[0])
        assert kept["attention_level1"].shape[-1] == 16
    red = np.asarray(Image.open(picture)).astype(int)
    assert ((red[..., 0] - red[..., 2]) > 60).sum() > 100, "something speaks for the class"
