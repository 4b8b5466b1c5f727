"""AHMSANet as a whole: counts, gradients, stacking, determinism, the ablation, memorisation."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ahmsa_model import AHMSAConfig, AHMSANet, InputError, count_parameters, variant_config

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
    assert round(count_parameters(variant_config(variant)) / 1e6, 1) == millions


def test_the_paper_variant_counted_by_hand():
    def block(c, heads):
        inner = heads * 85
        channel, spatial = 2 * c * (c // 16), 3 * c * inner + inner * c + c
        return 3 * 2 * c + channel + spatial + (c * 4 * c + 4 * c) + (4 * c * c + c)

    def down(c):
        return 9 * c * 2 * c + 2 * c + 2 * 2 * c

    expected = (3 * 49 * 256 + 256) + 2 * block(256, 3) + 2 * block(512, 6) + 8 * block(1024, 12)
    expected += down(256) + down(512) + (16 * 256 + 4 * 512 + 1024) + (2 * 1024 + 1024 * 3 + 3)
    assert count_parameters(AHMSAConfig()) == expected == 115_586_563


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


def test_stacked_networks_equal_each_plain_one():
    networks = [seeded("small", seed).double() for seed in range(3)]
    maps, labels = maps_of(15).double().view(3, 5, 3, 28, 28), torch.arange(15).view(3, 5) % 3
    parameters, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def loss(parameters, buffers, maps, labels):
        logits = functional_call(base, (parameters, buffers), (maps,))
        return F.cross_entropy(logits, labels), logits

    # the fused CPU kernel has no batching rule; its plain form has
    with sdpa_kernel(SDPBackend.MATH):
        gradients, logits = vmap(grad(loss, has_aux=True))(parameters, buffers, maps, labels)
    for i, network in enumerate(networks):
        plain = network(maps[i])
        torch.testing.assert_close(logits[i], plain, rtol=1e-9, atol=1e-11)
        F.cross_entropy(plain, labels[i]).backward()
        for name, parameter in network.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradients[name][i], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler"
)
def test_compiles_whole():
    network, maps = seeded("tiny"), maps_of(4)
    torch.testing.assert_close(
        torch.compile(network, fullgraph=True)(maps), network(maps), rtol=1e-4, atol=1e-5
    )


def test_runs_under_bf16_autocast_and_trains():
    network, labels = seeded("small"), torch.arange(8) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(maps_of(8))
    F.cross_entropy(logits.float(), labels).backward()
    torch.testing.assert_close(logits.float(), network(maps_of(8)), rtol=0.1, atol=0.05)
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_seed_gives_one_network_and_another_seed_another():
    one, same, other = (seeded("tiny", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embedding.projection.weight"], other["embedding.projection.weight"])
    torch.manual_seed(3)
    first = AHMSANet(variant_config("tiny")).state_dict()
    torch.manual_seed(3)
    second = AHMSANet(variant_config("tiny")).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_generator_draws_what_torchs_own_initialisation_would():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = AHMSANet.from_variant("small").state_dict()
    for name, tensor in seeded("small", 7).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-8, msg=name)


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


def fit(network, maps, labels, steps, lr):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(maps), labels)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_tiny_overfits_16_random_samples():
    network, maps = seeded("tiny"), maps_of(16)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 16))
    assert fit(network, maps, labels, 60, 3e-3) < 0.02
    assert torch.equal(network(maps).argmax(1), labels)


def test_training_repeats_itself():
    labels = torch.arange(16) % 3
    states = []
    for _ in range(2):
        network = seeded("tiny")
        fit(network, maps_of(16), labels, 5, 1e-3)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_dim64_memorises_random_labels_at_the_lineages_rate():
    """Capacity only: 96 random maps, random labels in the composite's ratio, batch 96, 5e-5."""
    labels = torch.from_numpy(np.random.default_rng(0).choice(3, 96, p=(0.57, 0.24, 0.19)))
    network = seeded("dim64")
    assert fit(network, maps_of(96), labels, 45, 5e-5) < 0.1
    assert float((network(maps_of(96)).argmax(1) == labels).double().mean()) == 1.0
