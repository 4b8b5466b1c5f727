"""Dual-ATME: its count, its two inputs, and the distance of its branches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of

from mer_bench.models.dual_atme import SPECS, DualATME

SPEC = SPECS[0]
TINY = {**SPEC.variants["tiny"], "in_channels": 6}


@pytest.mark.parametrize("channels", [3, 6])
def test_parameters_are_the_published_ones(channels: int) -> None:
    with torch.device("meta"):
        network = SPEC.build(num_classes=3, in_channels=channels, map_size=28, **SPEC.variants["paper"])
    count = sum(p.numel() for p in network.parameters())
    head = 2 * 7 * 7 * 48 * 1024 + 1024 + 2 * 1024 + 1024 * 3 + 3
    cbam = 48 * 3 + 3 + 3 * 48 + 48 + 2 * 9 + 1
    branch = sum(p.numel() for p in network.whole.parameters())
    assert count == SPEC.parameters == head + cbam + 2 * branch
    assert round(count / 1e6, 2) == 4.83


@pytest.mark.parametrize("attend", [True, False])
def test_each_branch_reads_its_own_map_and_shares_the_attention(attend: bool) -> None:
    torch.manual_seed(0)
    network = DualATME(**{**TINY, "dropout": 0.0, "attend_regions": attend})
    maps = maps_of(5, channels=6)
    logits, penalty = network.train()(maps)
    whole = network.attention(network.whole(2 * maps[:, :3] - 1))
    regions = network.regions(2 * maps[:, 3:] - 1)
    if attend:
        regions = network.attention(regions)
    whole, regions = (x.permute(0, 2, 3, 1).flatten(1) for x in (whole, regions))
    torch.testing.assert_close(penalty, 0.01 * (1 - F.cosine_similarity(whole, regions, dim=1)))
    torch.testing.assert_close(logits, network.fc(torch.cat([whole, regions], 1)))
    assert network.eval()(maps).shape == (5, 3)


def test_one_map_goes_to_both_branches() -> None:
    torch.manual_seed(0)
    one = DualATME(**{**TINY, "in_channels": 3}).eval()
    two = DualATME(**TINY).eval()
    two.load_state_dict(one.state_dict())
    maps = maps_of(4)
    torch.testing.assert_close(one(maps), two(torch.cat([maps, maps], 1)))


def test_the_recipe_s_focal_loss_is_the_authors_one() -> None:
    from mer_bench.training.losses import loss_terms, sample_losses

    recipe = SPEC.recipes["authors"]
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    losses = sample_losses(logits, labels, loss_terms(recipe, torch.tensor([2, 2, 2])))
    torch.testing.assert_close(losses, -((1 - p) ** 2) * p.log(), rtol=1e-4, atol=1e-6)
