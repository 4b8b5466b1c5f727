"""Streams of random numbers: functions of seed, purpose and step alone; draws that are balanced."""

from __future__ import annotations

import numpy as np
import torch

from mer_bench.training.seeding import balanced_draws, fold_seed, stream_key


def test_a_fold_has_a_seed_of_its_own():
    assert fold_seed(0, "cde", "samm/006") != fold_seed(0, "loso", "samm/006")
    assert 0 <= fold_seed(0, "cde", "samm/006") < 2**63


def test_a_key_counted_on_the_device_is_the_key_of_its_value():
    seeds = torch.tensor([7, 2**62 + 5, 1])
    for step in (0, 1, 799, 2**40):
        assert torch.equal(stream_key(seeds, 4, 3, step), stream_key(seeds, 4, 3, torch.tensor(step)))


def test_balanced_draws_are_uniform_over_classes_and_within_them():
    counts = torch.tensor([6, 0, 30, 4])
    draws = torch.cat([balanced_draws(stream_key(torch.tensor(3), 5, e), counts, 40) for e in range(300)])
    drawn = np.bincount(draws.numpy(), minlength=40)
    assert len(drawn) == 40
    by_class = np.array([drawn[:6].sum(), drawn[6:36].sum(), drawn[36:].sum()])
    # 12,000 draws: a class's share has a standard deviation of 0.0043.
    np.testing.assert_allclose(by_class / 12000, 1 / 3, atol=0.02)
    for part, size in ((drawn[:6], 6), (drawn[6:36], 30), (drawn[36:], 4)):
        share = part / part.sum()
        assert np.abs(share - 1 / size).max() < 5 * np.sqrt(1 / size / part.sum())


def test_balanced_draws_depend_on_fold_seed_and_epoch_alone():
    seeds = torch.tensor([3, 4])
    counts = torch.tensor([[6, 0, 30, 4], [5, 5, 5, 5]])
    together = balanced_draws(stream_key(seeds, 5, 0), counts, 44)
    alone = balanced_draws(stream_key(seeds[1], 5, 0), counts[1], 20)
    assert together[1, :20].tolist() == alone.tolist()
    # What pads a row is marked as padding: its own position, past the fold's length.
    assert together[1, 20:].tolist() == list(range(20, 44))
    assert together[0, :40].tolist() != balanced_draws(stream_key(seeds[0], 5, 1), counts[0], 40).tolist()
    assert together.tolist() == balanced_draws(stream_key(seeds, 5, 0), counts, 44).tolist()
