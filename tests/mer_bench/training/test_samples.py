"""Training samples: those of their folds alone, class by class; and data that no training starts on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import Normed, data, job_of, run
from torch import nn

from mer_bench.errors import DataError
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.job import TrainingData
from mer_bench.training.networks import OneNetwork
from mer_bench.training.samples import TrainingSamples


class Last(nn.Linear):
    channels_last = True


@pytest.mark.parametrize("network", [nn.Linear, Last])
def test_positions_lead_to_training_samples_alone(network):
    given, folds = data()
    networks = OneNetwork(network(1, 1), 0, Recipe())
    samples = TrainingSamples(given, folds, 3, networks)
    picked, labels, weights = samples.pick(torch.arange(samples.padded).expand(5, -1))
    assert picked[0].is_contiguous(memory_format=torch.channels_last) == (network is Last)
    for place, fold in enumerate(folds):
        real = weights[place] > 0
        np.testing.assert_array_equal(np.sort(picked[place, real, 0, 0, 0]), given.maps[fold.train, 0, 0, 0])
        everything = set(picked[place, :, 0, 0, 0].tolist())
        assert everything == set(given.maps[fold.train, 0, 0, 0].tolist())
        assert samples.counts[place].tolist() == np.bincount(given.labels[fold.train], minlength=3).tolist()
        named = (picked[place, :, 0, 0, 0] * 10).round().long()
        assert labels[place].tolist() == given.labels[named].tolist()
    assert TrainingSamples(given, folds[:1], 3, networks).pick(torch.arange(16)[None])[2] is None


def test_samples_lie_where_the_networks_are():
    given, folds = data()
    networks = OneNetwork(nn.Linear(1, 1, device="meta"), 0, Recipe())
    samples = TrainingSamples(given, folds[:2], 3, networks)
    picked = samples.pick(torch.zeros(2, 4, dtype=torch.int64, device="meta"))
    assert {each.device.type for each in (*picked, samples.lengths, samples.counts)} == {"meta"}


def test_without_shuffling_samples_come_class_by_class():
    labels = np.array([2, 0, 1, 0, 2, 1, 0])
    fold = Fold("a", np.array([0, 1, 2, 3, 5, 6]), np.array([4]))
    maps = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    samples = TrainingSamples(TrainingData(maps, labels), [fold], 4, OneNetwork(nn.Linear(1, 1), 0, Recipe()))
    assert samples.counts.tolist() == [[3, 2, 1, 0]]  # a class that it lacks keeps its place
    picked, found, _ = samples.pick(torch.arange(6)[None])
    assert picked.flatten().tolist() == [1, 3, 6, 2, 5, 0]  # the stored order within a class
    assert found.flatten().tolist() == [0, 0, 0, 1, 1, 2]


def test_nan_in_a_map_is_named_before_training():
    maps = data()[0].maps.copy()
    maps[7, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match="1 of 40 maps are not finite: sample 7 "):
        run(job_of(Normed), maps=maps)
    with pytest.raises(DataError, match=r"must be \(N, C, H, W\) with one label each"):
        run(job_of(Normed), maps=maps[:5])
    job = job_of(Normed)
    with pytest.raises(DataError, match="has label 2, expected 0 to 1"):
        run(replace(job, classes=("a", "b")))


def test_folds_that_overlap_or_are_empty_are_refused():
    _, folds = data()
    for bad, words in (
        (replace(folds[0], train=np.arange(40)), "disjoint"),
        (replace(folds[0], inner=folds[0].train[:1]), "disjoint"),
        (replace(folds[0], inner=folds[0].test[:1]), "disjoint"),
        (replace(folds[0], inner=np.array([99])), "sample 99"),
        (replace(folds[0], train=np.empty(0, np.int64)), "no training samples"),
        (replace(folds[0], test=np.array([99])), "sample 99"),
    ):
        with pytest.raises(DataError, match=words):
            run(job_of(Normed), [bad])
    with pytest.raises(DataError, match="more than once"):
        run(job_of(Normed), [folds[0], folds[0]])
