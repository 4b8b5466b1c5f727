"""The record: every held-out and inner sample, as the networks are after each epoch, in evaluation mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import RECIPE, SIDE, Dropping, data, job_of
from torch import Tensor

from mer_bench.protocols.folds import Fold
from mer_bench.training.job import TrainingData
from mer_bench.training.networks import Networks, OneNetwork, StackedNetworks
from mer_bench.training.recorder import Course, Recorder, fold_result


def one(seeds: list[int]) -> Networks:
    (seed,) = seeds
    torch.manual_seed(seed)
    return OneNetwork(Dropping(3, 3, SIDE), seed, RECIPE)


def stack(seeds: list[int]) -> Networks:
    return StackedNetworks(job_of(Dropping), seeds, (3, SIDE, SIDE))


def train_once(networks: Networks, maps: Tensor) -> None:
    """Leave the networks as a training step does."""
    labels = torch.zeros(maps.shape[:2], dtype=torch.int64)
    networks.train_forward(maps, labels, None, torch.zeros((), dtype=torch.int64), torch.zeros(()))


@pytest.mark.parametrize(("make", "count"), [(one, 1), (stack, 2)])
def test_every_watched_sample_is_recorded_as_the_networks_are_then(make: Any, count: int) -> None:
    """More samples than are predicted at once, and folds that watch unequal numbers of them."""
    maps = np.random.default_rng(0).normal(size=(400, 3, SIDE, SIDE)).astype(np.float32)
    folds = [
        Fold("a", np.arange(40), np.arange(40, 330), np.arange(330, 400)),
        Fold("b", np.arange(40, 400), np.arange(3)),
    ][:count]
    networks = make(list(range(count)))
    recorder = Recorder(networks, TrainingData(maps, np.zeros(400, np.int64)), folds, 3, 3)
    whole = torch.from_numpy(maps).expand(count, -1, -1, -1, -1)
    expected = []
    for _ in range(3):
        recorder.observe()
        expected.append(networks.predict(whole).numpy())
        with torch.no_grad():
            for parameter in networks.trainable().values():
                parameter.mul_(1.5)
    every = np.stack(expected)
    assert not np.allclose(every[0], every[1])
    for place, (fold, (held_out, inner)) in enumerate(zip(folds, recorder.logits(), strict=True)):
        np.testing.assert_allclose(held_out, every[:, place, fold.test], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inner, every[:, place, fold.inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "count"), [(one, 1), (stack, 2)])
def test_a_prediction_knows_neither_dropout_nor_its_companions(make: Any, count: int) -> None:
    maps = torch.from_numpy(data()[0].maps[:8]).expand(count, -1, -1, -1, -1)
    networks = make(list(range(count)))
    for _ in range(2):
        train_once(networks, maps)
        together = networks.predict(maps)
        alone = torch.cat([networks.predict(maps[:, i : i + 1]) for i in range(8)], 1)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_result_carries_its_fold_its_course_and_the_classes_it_could_not_learn() -> None:
    given, folds = data()
    labels = np.where(given.labels == 2, 0, given.labels)
    course = Course(
        np.zeros((2, 5, 3)), np.zeros((2, 3, 3)), np.array([2.0, 1.0]), np.array([0.5, 0.75]), 1.5
    )
    found = fold_result(
        job_of(Dropping), TrainingData(given.maps, labels), folds[1], "local", course, ["a note"]
    )
    assert (found.fold, found.seed, found.engine, found.device, found.seconds) == (
        "s1",
        0,
        "local",
        "cpu",
        1.5,
    )
    assert found.test_index.tolist() == folds[1].test.tolist()
    assert found.inner_index.tolist() == folds[1].inner.tolist()
    assert found.logits is course.logits and found.inner_logits is course.inner_logits
    assert (found.train_loss.tolist(), found.train_accuracy.tolist()) == ([2, 1], [0.5, 0.75])
    assert found.notes == ("class '2' has no training sample, so it cannot be predicted there", "a note")
