"""HSTA: its size, its tokens, and attention between branches against the formulas written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mer_bench.models.hsta import HSTA, SPECS, HSTAFlow
from mer_bench.models.layers.space_time import Exchange, Stage, TubeletEmbedding, position_table

TINY = dict(SPECS[0].variants["tiny"])
FLOW_TINY = dict(SPECS[1].variants["tiny"])


def count(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in HSTA(**options).parameters())


def tiny(seed=0, kind=HSTA, frames=6, size=28, **options):
    torch.manual_seed(seed)
    channels = 3 * (frames + kind.special_frames)
    settings = {**(TINY if kind is HSTA else FLOW_TINY), **options}
    return kind(in_channels=channels, map_size=size, **settings).eval()


def test_parameters_are_the_published_ones():
    # Published for 7 classes: 81.9 M with four stages of 1 and 2 blocks, 104.3 M with three of 1 and 4.
    assert count(num_classes=7) == 81_887_623
    assert count(num_classes=7, stages=3, depths=(1, 4)) == 104_319_367
    assert count(num_classes=3) == SPECS[0].parameters == 81_887_623 - 4 * (384 + 768 + 1)


def test_tokens_at_the_published_size():
    with torch.device("meta"):
        network = HSTA()
        special = network.special_embedding(torch.zeros(1, 2, 3, 224, 224))
        clip = network.clip_embedding(torch.zeros(1, 6, 3, 224, 224))
    assert special.shape == (1, 18 * 18, 384)
    assert clip.shape == (1, 3 * 14 * 14, 768)
    assert network.special_positions.shape == (325, 384)
    assert network.clip_positions.shape == (589, 768)


@pytest.mark.parametrize("side", [8, 11])
def test_tubelets_are_a_strided_convolution(side):
    torch.manual_seed(0)
    embedding = TubeletEmbedding(3, 2, 4, 5)
    convolution = nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4))
    convolution.weight.data = embedding.projection.weight.data.view(5, 3, 2, 4, 4)
    convolution.bias.data = embedding.projection.bias.data
    frames = torch.randn(2, 6, 3, side, side)
    expected = convolution(frames.transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(frames), expected)


def test_positions_are_the_sinusoids_of_the_formula():
    table = np.empty((7, 6))
    for position in range(7):
        for j in range(6):
            angle = position / 10000 ** (2 * (j // 2) / 6)
            table[position, j] = math.cos(angle) if j % 2 else math.sin(angle)
    np.testing.assert_allclose(position_table(7, 6).numpy(), table, atol=1e-6)


def written_out(exchange, own, visited):
    """The exchange, one sample and one head at a time."""
    out = own.clone()
    attention = exchange.attention
    for i in range(len(own)):
        guest = exchange.there[2](F.gelu(exchange.there[0](own[i, 0])))
        tokens = torch.stack([guest, *visited[i, 1:]])
        normed = attention.norm(tokens)
        q, k, v = attention.query(normed[0]), attention.key(normed), attention.value(normed)
        side = len(q) // attention.heads
        heads = []
        for h in range(attention.heads):
            part = slice(h * side, (h + 1) * side)
            weights = torch.softmax(k[:, part] @ q[part] / math.sqrt(side), 0)
            heads.append(weights @ v[:, part])
        guest = guest + attention.output(torch.cat(heads))
        out[i, 0] = exchange.back[2](F.gelu(exchange.back[0](guest)))
    return out


def test_a_cls_token_visits_the_other_branch_and_nothing_else_changes():
    torch.manual_seed(1)
    exchange = Exchange(6, 8, heads=2, dropout=0.0)
    own, visited = torch.randn(3, 5, 6), torch.randn(3, 4, 8)
    out = exchange(own, visited)
    torch.testing.assert_close(out, written_out(exchange, own, visited), rtol=1e-5, atol=1e-6)
    assert torch.equal(out[:, 1:], own[:, 1:])

    def moved(tokens, row):
        tokens = tokens.clone()
        tokens[:, row] += torch.linspace(-1, 2, tokens.shape[-1])
        return tokens

    assert torch.equal(exchange(own, moved(visited, 0))[:, 0], out[:, 0]), "the host's CLS is not looked at"
    assert torch.equal(exchange(moved(own, 2), visited)[:, 0], out[:, 0]), "nor are its own patches"
    assert not torch.allclose(exchange(own, moved(visited, 2))[:, 0], out[:, 0])


def test_both_exchanges_see_the_branches_as_the_blocks_left_them():
    torch.manual_seed(2)
    stage = Stage((6, 8), (1, 2), heads=2, dropout=0.0, drop_path=(0.0, 0.0)).eval()
    assert (len(stage.special), len(stage.clip)) == (1, 2)
    special, clip = torch.randn(2, 5, 6), torch.randn(2, 7, 8)
    outputs = stage(special, clip)
    inner = stage.special(special), stage.clip(clip)
    torch.testing.assert_close(outputs[0], stage.special_exchange(inner[0], inner[1]))
    torch.testing.assert_close(outputs[1], stage.clip_exchange(inner[1], inner[0]))


def test_keys_have_no_bias_and_drop_path_rises_to_the_last_block():
    network = HSTA(widths=(12, 24), heads=2)
    names = {name.rpartition(".")[2] for name, _ in network.stages[0].clip[0].attention.named_parameters()}
    assert {"query_bias", "value_bias"} <= names
    assert network.stages[0].clip[0].attention.qkv.bias is None
    rates = [block.drop_path1.dropout.p for stage in network.stages for block in stage.clip]
    assert rates == pytest.approx(np.linspace(0, 0.2, 8))
    assert [stage.special[0].drop_path1.dropout.p for stage in network.stages] == rates[::2]


def test_depths_of_layers():
    network = tiny()
    depths = network.layer_depths()
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert {depths[n] for n in ("special_cls", "clip_cls", "clip_embedding.projection.weight")} == {0}
    assert depths["stages.1.clip.0.norm1.weight"] == 2
    assert {depths[n] for n in ("head.weight", "special_norm.bias")} == {3}


def test_six_frames_spread_over_a_longer_clip_and_the_two_special_ones_are_read():
    network = tiny(frames=8, differences=False)
    assert network.picked == [0, 1, 3, 4, 6, 7]
    maps = torch.rand(1, 30, 28, 28)
    logits = network(maps)
    for frame in range(10):
        other = maps.clone()
        other[:, 3 * frame : 3 * frame + 3, 4:20, 4:20] += 0.5
        assert torch.equal(network(other), logits) == (frame in (2, 5)), frame
    swapped = torch.cat((maps[:, :24], maps[:, 27:], maps[:, 24:27]), 1)
    assert not torch.allclose(network(swapped), logits, atol=1e-6)


def test_frames_are_normalised_as_images_and_flow_is_not():
    seen = {}
    network = tiny(kind=HSTAFlow)
    network.special_embedding.register_forward_pre_hook(lambda _, x: seen.update(special=x[0]))
    network.clip_embedding.register_forward_pre_hook(lambda _, x: seen.update(clip=x[0]))
    maps = torch.rand(2, 21, 28, 28)
    network(maps)
    torch.testing.assert_close(seen["special"], maps[:, None, 18:] / 0.1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    torch.testing.assert_close(seen["clip"], (maps[:, :18].unflatten(1, (6, 3)) - mean) / sd)


def test_differences_cancel_what_does_not_move():
    network = tiny(kind=HSTAFlow, differences=True)
    maps = torch.rand(2, 21, 28, 28)
    lighter = maps.clone()
    lighter[:, :18] += torch.rand(2, 3, 28, 28).repeat(1, 6, 1, 1)
    torch.testing.assert_close(network(lighter), network(maps), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(tiny(kind=HSTAFlow)(lighter), tiny(kind=HSTAFlow)(maps), atol=1e-4)


def test_larger_frames_are_averaged():
    maps = torch.rand(2, 24, 56, 56)
    expected = tiny()(F.avg_pool2d(maps, 2))
    torch.testing.assert_close(tiny(size=56)(maps), expected)
