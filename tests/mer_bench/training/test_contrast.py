"""The supervised contrastive term against its formula, and what it does to a network's features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.training.parts import RECIPE, Normed, assert_agree, job_of, run
from torch import nn

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.contrast import LastLinear, supervised_contrast
from mer_bench.training.demands import meet_recipe

FEATURES = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[0, 1, 2, 0, 0, 1, 0], [1, 1, 0, 2, 1, 2, 2]])


def by_loops(features: torch.Tensor, labels: list[int], temperature: float) -> list[float]:
    """Equation 2 of arXiv:2004.11362."""
    z = [(f / f.norm()).tolist() for f in features]
    s = [[sum(a * b for a, b in zip(x, y, strict=True)) / temperature for y in z] for x in z]
    out = []
    for i in range(len(z)):
        total = sum(math.exp(s[i][a]) for a in range(len(z)) if a != i)
        same = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        log_shares = [math.log(math.exp(s[i][p]) / total) for p in same]
        out.append(-sum(log_shares) / len(same) if same else 0.0)
    return out


def test_equals_the_formula_and_leaves_padding_out() -> None:
    rows = torch.tensor([[1.0] * 7, [1.0] * 4 + [0.0] * 3])
    found = supervised_contrast(FEATURES, LABELS, rows, 0.5)
    np.testing.assert_allclose(found[0], by_loops(FEATURES[0], LABELS[0].tolist(), 0.5), rtol=1e-5)
    # Of four samples, two have no other of their class.
    expected = by_loops(FEATURES[1, :4], LABELS[1, :4].tolist(), 0.5)
    np.testing.assert_allclose(found[1, :4], expected, rtol=1e-5)
    assert expected[2:] == [0.0, 0.0]
    torch.testing.assert_close(supervised_contrast(FEATURES[:1], LABELS[:1], None, 0.5), found[:1])


def test_gradients_are_finite_for_the_sharpest_temperature_and_a_lone_sample() -> None:
    features = FEATURES[0].clone().requires_grad_()
    supervised_contrast(features, LABELS[0], None, 0.01).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all() and features.grad.any()
    alone = torch.ones(1, 5, requires_grad=True)
    supervised_contrast(alone, torch.tensor([1]), None, 0.1).sum().backward()
    assert alone.grad is not None and not alone.grad.any()


def test_what_the_last_linear_layer_reads_is_kept_once() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    last, maps = LastLinear(network), torch.randn(2, 1, 2, 2)
    network(maps)
    torch.testing.assert_close(last.take(), F.relu(network[1](maps.flatten(1))))
    with pytest.raises(ValueError, match="did not run"):
        last.take()


def test_stacked_folds_contrast_as_alone_and_it_changes_them() -> None:
    recipe = RECIPE.changed(supcon=0.5)
    many, alone = (run(job_of(Normed, recipe, engine=engine)) for engine in ("stacked", "local"))
    assert_agree(many, alone)
    plain = run(job_of(Normed))
    assert (alone["s0"].train_loss > plain["s0"].train_loss).all()
    assert not np.allclose(alone["s0"].logits, plain["s0"].logits, atol=1e-3)


def test_what_cannot_be_contrasted_is_refused() -> None:
    with pytest.raises(UsageError, match=r"recipe.supcon = 0.1 .* recipe.mixup = 0.2 gives them two"):
        Recipe(supcon=0.1, mixup=0.2)
    with pytest.raises(UsageError, match=r"supcon = 0\.1, but Conv2d has no linear layer"):
        meet_recipe(nn.Conv2d(3, 3, 1), Recipe(supcon=0.1))
