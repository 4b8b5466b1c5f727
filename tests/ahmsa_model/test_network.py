"""AHMSANet as a whole: counts, gradients, the ablation, capacity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ahmsa_model import VARIANTS, AHMSAConfig, AHMSANet, InputError, variant_config
from ahmsa_model.network import Hierarchy

QUICK = ("tiny", "small", "small-block", "small-no-channel")


def maps_of(count, size=28, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seeded(name="tiny", seed=0, **options):
    torch.manual_seed(seed)
    return AHMSANet.from_variant(name, **options)


@pytest.mark.parametrize("variant", (*QUICK, "constant256"))
@pytest.mark.parametrize("batch", [1, 2])
def test_logits_have_one_row_per_map(variant, batch):
    network = seeded(variant, num_classes=5).eval()
    assert network(maps_of(batch)).shape == (batch, 5)


def test_scale_factor_3_runs_with_36_and_63_pixel_maps():
    for size, patch in ((36, 4), (63, 7)):
        network = seeded("tiny", map_size=size, patch_size=patch, scale_factor=3)
        assert [len(level.position) for level in network.levels] == [81, 9, 1]
        assert network(maps_of(2, size)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 3, 27, 28), (2, 1, 28, 28)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"takes maps of shape \(batch, 3, 28, 28\), got"):
        seeded()(torch.zeros(shape))


@pytest.mark.parametrize(
    "variant, millions",
    [
        ("paper", 115.6),
        ("paper-block", 115.6),
        ("scale3", 115.6),
        ("dim128", 28.8),
        ("dim64", 7.2),
        ("constant256", 10.8),
        ("blocks-1-1-8", 111.6),
        ("blocks-8-8-8", 139.4),
    ],
)
def test_parameter_counts(variant, millions):
    assert round(variant_config(variant).parameters / 1e6, 1) == millions


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options", [{}, {"head_hidden": 10, "channel_attention": "separate", "positional_embedding": False}]
)
def test_counted_without_building_as_built(variant, options):
    config = variant_config(variant, **options)
    with torch.device("meta"):
        assert config.parameters == sum(p.numel() for p in Hierarchy(config).parameters())


def test_the_paper_variant_counted_by_hand():
    def block(c, heads):
        inner = heads * 85
        channel, spatial = 2 * c * (c // 16), 3 * c * inner + inner * c + c
        return 3 * 2 * c + channel + spatial + (c * 4 * c + 4 * c) + (4 * c * c + c)

    def down(c):
        return 9 * c * 2 * c + 2 * c + 2 * 2 * c

    expected = (3 * 49 * 256 + 256) + 2 * block(256, 3) + 2 * block(512, 6) + 8 * block(1024, 12)
    expected += down(256) + down(512) + (16 * 256 + 4 * 512 + 1024) + (2 * 1024 + 1024 * 3 + 3)
    assert AHMSAConfig().parameters == expected == 115_586_563


@pytest.mark.parametrize("variant", QUICK)
def test_every_parameter_has_a_gradient_but_those_named(variant):
    network = seeded(variant)
    F.cross_entropy(network(maps_of(32)), torch.arange(32) % 3).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert tuple(without) == network.untrained_parameters()
    assert len(without) == (sum(network.config.blocks) if "block" in variant else network.config.blocks[-1])


def test_the_named_parameters_change_no_logit_and_the_others_do():
    for attention, expected in (("block", True), ("global", False)):
        network, maps = seeded("small", attention=attention).eval(), maps_of(4)
        before = network(maps)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "query_key" in name:
                    parameter.copy_(torch.randn_like(parameter))
        assert torch.equal(network(maps), before) is expected


def test_dropping_a_patch_reaches_the_others_only_through_global_attention():
    for attention, reaches in (("block", False), ("global", True)):
        network = seeded("small", attention=attention, channel_attention="none").eval()
        maps = maps_of(1)
        changed = maps.clone()
        changed[..., :7, :7] = 0
        first = [network.levels[0](network.embedding(m)) for m in (maps, changed)]
        moved = (first[0] - first[1]).abs().amax(-1)[0] > 0
        assert bool(moved[0])
        assert bool(moved[1:].any()) is reaches


def test_compiles_whole():
    """One graph forward and one backward; what a code generator makes of them is torch's."""
    compiled, network, maps = seeded("tiny"), seeded("tiny"), maps_of(4)
    logits = torch.compile(compiled, fullgraph=True, backend="aot_eager")(maps)
    torch.testing.assert_close(logits, network(maps), rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    network(maps).square().sum().backward()
    for mine, other in zip(compiled.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_runs_under_bf16_autocast_and_trains():
    network, labels = seeded("small"), torch.arange(8) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(maps_of(8))
    F.cross_entropy(logits.float(), labels).backward()
    torch.testing.assert_close(logits.float(), network(maps_of(8)), rtol=0.1, atol=0.05)
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("variant", QUICK)
def test_a_sample_does_not_depend_on_its_companions(variant):
    network, maps = seeded(variant).eval(), maps_of(8)
    with torch.no_grad():
        together, alone = network(maps), torch.cat([network(m[None]) for m in maps])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only():
    network, maps = seeded("tiny", dropout=0.5), maps_of(4)
    assert not torch.equal(network(maps), network(maps))
    network.eval()
    assert torch.equal(network(maps), network(maps))


@pytest.mark.slow
def test_dim64_memorises_random_labels_at_the_lineages_rate():
    """Capacity only: 96 random maps, random labels in the composite's ratio, batch 96, 5e-5."""
    labels = torch.from_numpy(np.random.default_rng(0).choice(3, 96, p=(0.57, 0.24, 0.19)))
    network, maps = seeded("dim64"), maps_of(96)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
    for _ in range(45):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(maps), labels)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1
    assert torch.equal(network(maps).argmax(1), labels)
