"""An epoch's last batch may be a single sample, whatever the network normalises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.folds import run_folds
from mer_bench.training.layers import LoneBatchNorm1d, MaskedBatchNorm


class NormedFeatures(nn.Module):
    """Batch normalisation of features: one value per channel and sample."""

    def __init__(self, num_classes, in_channels, map_size):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels * map_size**2, 6), nn.BatchNorm1d(6), nn.Tanh(),
            nn.Linear(6, num_classes),
        )  # fmt: skip

    def forward(self, maps):
        return self.layers(maps)


SPEC = ModelSpec(
    "normed", "Normed", NormedFeatures, "network", ("whole-6:raw",), "none", "baseline",
    recipes={"r": Recipe(name="r")}, default_recipe="r",
)  # fmt: skip


def trained(engine: str) -> dict[str, np.ndarray]:
    """17 and 20 training samples in batches of 8: one and four are left over."""
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((24, 3, 6, 6)).astype(np.float32)
    labels = np.arange(24) % 3
    rows = np.arange(24)
    folds = [Fold("one", rows[:17], rows[17:]), Fold("four", rows[:20], rows[20:])]
    recipe = Recipe(epochs=4, batch_size=8, optimizer="sgd", lr=0.05)
    records = {}
    run_folds(
        SPEC, {}, maps, labels, 3, folds, recipe, protocol="p", seed=0, device="cpu", engine=engine,
        on_fold=lambda record: records.__setitem__(record.fold, record.logits),
    )  # fmt: skip
    return records


def test_a_fold_that_leaves_one_sample_over_trains_alike_in_both_engines():
    alone, stacked = trained("serial"), trained("stacked")
    for name, logits in alone.items():
        assert np.isfinite(logits).all()
        np.testing.assert_allclose(stacked[name], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layer", [LoneBatchNorm1d, MaskedBatchNorm])
def test_one_sample_is_normalised_by_the_running_statistics_and_leaves_them(layer, momentum):
    torch.manual_seed(0)
    plain, replaced = nn.BatchNorm1d(4, momentum=momentum), layer(nn.BatchNorm1d(4, momentum=momentum))
    for batch in (torch.randn(5, 4), 3 + torch.randn(7, 4)):
        torch.testing.assert_close(replaced(batch), plain(batch))
    before = {name: tensor.clone() for name, tensor in replaced.state_dict().items()}
    one = torch.randn(1, 4, requires_grad=True)
    found = replaced(one)
    torch.testing.assert_close(found, plain.eval()(one))
    found.square().sum().backward()
    assert (one.grad.abs() > 0).all()
    for name, tensor in replaced.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        torch.testing.assert_close(tensor, plain.state_dict()[name])
