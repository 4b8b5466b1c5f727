"""MMNet: its size, its continuous attention and what each branch reads."""

import torch
import torch.nn.functional as F

from mer_bench.models.mmnet import SPECS, CABlock, MMNet

SMALL = {"stem": 8, "widths": (8, 8, 8, 16), "depth": 1}


def small(seed=0, size=32):
    torch.manual_seed(seed)
    return MMNet(map_size=size, **SMALL)


def test_parameters_are_the_published_ones():
    # The authors' code builds five outputs, for three classes too: about 9.4 M.
    with torch.device("meta"):
        five, three = (MMNet(num_classes=n) for n in (5, 3))
    assert sum(p.numel() for p in five.parameters()) == 9_442_425
    assert sum(p.numel() for p in three.parameters()) == SPECS[0].parameters == 9_241_719
    assert five.fc.in_features == 512 * 14 * 14


def test_attention_continues_the_last_blocks():
    torch.manual_seed(0)
    block = CABlock(4, 6, stride=2).eval()
    x, last = torch.randn(2, 4, 8, 8), torch.rand(2, 1, 4, 4)
    first, own = block(x, None)
    out, attention = block(x, last)
    torch.testing.assert_close(attention, last * own)
    assert attention.shape == (2, 1, 4, 4)
    # What the attention weighs is the same, whatever came before.
    torch.testing.assert_close(out / attention, first / own, rtol=1e-4, atol=1e-5)
    assert (first >= 0).all()
    assert 0 < own.min() < own.max() < 1


def test_each_block_gets_the_pooled_attention_of_the_one_before():
    network = small(size=64).eval()
    given, left = [], []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, x: given.append(x[1]))
        block.register_forward_hook(lambda *call: left.append(call[2][1]))
    network(torch.rand(1, 6, 64, 64))
    assert [a.shape[-1] for a in left] == [32, 16, 8, 4]
    assert given[0] is None
    for before, after in zip(left, given[1:], strict=False):
        torch.testing.assert_close(after, F.max_pool2d(before, 3, 2, 1))


def test_the_main_branch_reads_the_difference_and_the_other_the_onset():
    network = small(size=64).eval()
    seen = {}
    network.stem.register_forward_pre_hook(lambda _, x: seen.update(main=x[0]))
    network.position.register_forward_pre_hook(lambda _, x: seen.update(position=x[0]))
    onset, apex = torch.rand(2, 2, 3, 64, 64)
    network(torch.cat((onset, apex), 1))
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    torch.testing.assert_close(seen["main"], (apex - onset) / sd, rtol=1e-4, atol=1e-4)
    resized = F.interpolate((onset - mean) / sd, size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen["position"], resized, rtol=1e-4, atol=1e-5)


def test_position_features_lie_where_their_pixels_do():
    branch = small(size=64).position.eval()
    pixels = torch.rand(1, 3, 4, 4)
    out = branch(pixels)
    assert out.shape == (1, 16, 4, 4)
    tokens = branch.embedding(pixels.flatten(2).transpose(1, 2)) + branch.positions
    expected = branch.norm(branch.blocks(tokens))
    torch.testing.assert_close(out[0, :, 2, 1], expected[0, 2 * 4 + 1])
