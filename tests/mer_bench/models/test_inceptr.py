"""IncepTR: its count, the token its HeadDropOut drops, and the distance of its branches."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of

from mer_bench.models.inceptr import SPECS, HeadDropAttention, HeadDropOut, IncepTR

SPEC = SPECS[0]
TINY = dict(SPEC.variants["tiny"])
STILL = {**TINY, "dropout": 0.0, "drop_path": 0.0, "head_drop": 0.0}


def test_parameters_are_the_published_ones_less_three_unused_parts() -> None:
    with torch.device("meta"):
        network = SPEC.build(num_classes=3, in_channels=3, map_size=28, **SPEC.variants["paper"])
    count = sum(p.numel() for p in network.parameters())
    block = 512 * 1536 + 1536 + 512 * 512 + 512 + 2 * (512 * 1024) + 1024 + 512 + 4 * 512
    transformer = 3 * 512 + 512 + 196 * 512 + 3 * block + 2 * 512
    head = 196 * 512 * 1024 + 1024 + 1024 * 3 + 3
    joints = 512 * 256 + 256 + 48 * 256 + 256
    inception = sum(p.numel() for part in network.local[:2] for p in part.parameters())
    cbam = 48 * 3 + 3 + 3 * 48 + 48 + 2 * 9 + 1
    assert count == SPEC.parameters == transformer + head + joints + inception + cbam
    unused = 512 + (512 * 5 + 5) + (512 + 1)
    assert round(count / 1e6, 1) == round((count + unused) / 1e6, 1) == 109.3


def test_the_branches_meet_where_both_are_halved() -> None:
    torch.manual_seed(0)
    network = IncepTR(**{**STILL, "shrink": 2}).eval()
    maps = maps_of(3)
    local = network.local(maps)
    distant = network.project(network.transformer(F.avg_pool2d(maps, 2)))
    assert local.shape == distant.shape == (3, 4, 14, 14)
    joined = torch.cat([distant, local], 1).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(network(maps), network.fc(joined))
    network.train()
    logits, penalty = network(maps)
    assert logits.shape == (3, 3) and penalty.shape == (3,)
    local, distant = network.local(maps), network.project(network.transformer(F.avg_pool2d(maps, 2)))
    expected = 0.1 * (1 - F.cosine_similarity(distant, local, dim=1)).mean((1, 2))
    torch.testing.assert_close(penalty, expected)


def test_head_drop_out_drops_one_of_the_first_tokens_in_a_share_of_the_samples() -> None:
    torch.manual_seed(0)
    drop = HeadDropOut(0.3, 4)
    tokens = torch.rand(20_000, 9, 6) + 0.1
    dropped = drop(tokens)
    gone = (dropped == 0).all(-1)
    assert gone.sum(1).max() == 1 and not gone[:, 4:].any()
    # The rest is as it was: nothing is scaled.
    assert torch.equal(dropped[~gone], tokens[~gone])
    np.testing.assert_allclose(gone[:, :4].float().mean(0), 0.3 / 4, atol=0.008)
    assert drop.eval()(tokens) is tokens


def test_attention_is_plain_attention_of_what_is_left() -> None:
    torch.manual_seed(0)
    attention = HeadDropAttention(8, 2, 1.0)
    x = torch.randn(3, 5, 8)
    qkv = attention.qkv(x)
    torch.manual_seed(5)
    dropped = attention.head_drop(qkv)
    assert ((dropped == 0).all(-1).sum(1) == 1).all()
    q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in dropped.chunk(3, -1))
    mixed = (q @ k.transpose(-1, -2) / 2.0).softmax(-1) @ v
    torch.manual_seed(5)
    torch.testing.assert_close(attention(x), attention.output(mixed.transpose(1, 2).flatten(2)))
