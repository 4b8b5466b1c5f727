"""CausalNet: the authors' function, written out token by token, and what it makes of one, two, four maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of

from mer_bench.errors import UsageError
from mer_bench.models.causalnet import SPECS, CausalNet, cut_pieces

SPEC = SPECS[0]
TINY = SPEC.variants["tiny"]
#: Left eye, right eye, left and right lip corner of the standard face that the code takes: x, y, px.
LANDMARKS = ((9.528, 11.063), (21.396, 10.920), (10.255, 22.121), (20.584, 22.256))


def tokens_of(tower, maps):
    """A tower's answer as the code reshapes it: channels to a quarter as many, on a 2x2 grid, row by row."""
    x = tower(maps)
    return x.reshape(len(maps), x.shape[-1] // 4, 2, 2).flatten(2).transpose(1, 2)


def neighbours(module, x, context, gamma, scale):
    """The masked attention for each sample, head and pair of tokens by itself."""
    width = x.shape[-1]
    size = width // module.heads
    q = module.query(x)
    k, v = module.key_value(context)[..., :width], module.key_value(context)[..., width:]
    out = torch.zeros_like(x)
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(4):
            scores = []
            for j in range(4):
                corner = abs(i // 2 - j // 2) + abs(i % 2 - j % 2) == 2
                own = scale * (q[:, i, part] * k[:, j, part]).sum(-1)
                scores.append(torch.full_like(own, -(j + 1) * gamma) if corner else own)
            weights = torch.stack(scores, -1).softmax(-1)
            for j in range(4):
                if abs(i // 2 - j // 2) + abs(i % 2 - j % 2) < 2:
                    out[:, i, part] += weights[:, j, None] * v[:, j, part]
    return module.output(out)


def attend(query, keys, values, heads):
    """Plain attention of each token to a list of places: (B, 4, C), two lists of (B, 4, C)."""
    q = query.unflatten(-1, (heads, -1))
    scores = torch.stack([(q * k.unflatten(-1, (heads, -1))).sum(-1) for k in keys], -1) / q.shape[-1] ** 0.5
    weights = scores.softmax(-1)
    mixed = sum(weights[..., n, None] * v.unflatten(-1, (heads, -1)) for n, v in enumerate(values))
    return mixed.flatten(-2)


def in_time(block, earlier, later, gamma):
    """One pass of the causal block, in one order of time."""
    width, heads = earlier.shape[-1], block.space.heads
    scale = (width // heads) ** -0.5
    earlier, later = block.norm(earlier), block.norm(later)
    earlier = neighbours(block.space, earlier, earlier, gamma, scale) + earlier
    later = neighbours(block.space, later, later, gamma, scale) + later
    key_value = block.time.key_value
    pairs = [key_value(earlier).split(width, -1), key_value(later).split(width, -1)]
    mixed = attend(block.time.query(later), [k for k, _ in pairs], [v for _, v in pairs], heads)
    later = block.time.output(mixed) + later
    return block.feed_forward(earlier) + earlier, block.feed_forward(later) + later


def as_published(network, maps, gamma):
    """The forward pass as the code has it, biases of keys and all, on the same weights."""
    before, after, x, y = (
        tokens_of(tower, cut_pieces(maps[:, 3 * n : 3 * n + 3]))
        for n, tower in enumerate([network.flow, network.flow, network.direction, network.direction])
    )
    width = x.shape[-1]
    for layer in network.cross:
        x_norm, y_norm = layer.norm(x), layer.norm(y)
        x = x + neighbours(layer.attention, x_norm, y, gamma, width**-0.5)
        y = y + neighbours(layer.attention, y_norm, x, gamma, width**-0.5)
        x, y = layer.feed_forward(x) + x, layer.feed_forward(y) + y
    first, second = before + x, after + y
    block, mine = network.causal, network.causal.mine
    first_on, second_on = in_time(block, first, second, gamma)
    second_back, first_back = in_time(block, second, first, gamma)
    key, value = mine.key(first_back), mine.value(first_back + second_on)
    shown = [[part[:, j : j + 1].expand(-1, 4, -1) for j in range(4)] for part in (key, value)]
    mixed = attend(mine.query(second_on), *shown, mine.heads)
    long = mine.output(mixed + second_on + first_back)
    return network.fc(torch.cat([long, first_on, second_back], 1).flatten(1))


@pytest.mark.parametrize("channels", [3, 6, 12])
def test_parameters_are_the_published_ones(channels: int) -> None:
    with torch.device("meta"):
        network = CausalNet(in_channels=channels)
        assert network(torch.zeros(2, channels, 28, 28)).shape == (2, 3)
    count = sum(p.numel() for p in network.parameters())
    assert count == SPEC.parameters
    assert round(count / 1e6, 1) == 276.6


@pytest.mark.parametrize("gamma", [0.5, 0.25])
def test_function_and_gradients_are_the_authors(gamma: float) -> None:
    torch.manual_seed(0)
    network = CausalNet(in_channels=12, width=8, heads=1, blocks=(1, 1, 2), token_heads=2, gamma=gamma)
    network = network.double()
    maps, labels = maps_of(6, channels=12).double() * 255, torch.arange(6) % 3
    logits, expected = network(maps), as_published(network, maps, gamma)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(F.cross_entropy(logits, labels), network.parameters(), allow_unused=True)
    theirs = torch.autograd.grad(F.cross_entropy(expected, labels), network.parameters(), allow_unused=True)
    idle = network.untrained_parameters()
    for (name, _), own, other in zip(network.named_parameters(), ours, theirs, strict=True):
        if name in idle:
            assert own is None and (other is None or other.abs().max() < 1e-12)
        else:
            torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-10)


def test_pieces_are_cut_where_the_code_cuts_them() -> None:
    """Around its standard landmarks, clamped to [7, 21] and truncated, whose x it takes for the row."""
    maps = maps_of(1)
    places = [[int(min(max(value, 7), 21)) for value in point] for point in LANDMARKS]
    pieces = [maps[..., x - 7 : x + 7, y - 7 : y + 7] for x, y in places]
    expected = torch.cat([torch.cat(pieces[:2], -1), torch.cat(pieces[2:], -1)], -2)
    assert torch.equal(cut_pieces(maps), expected)


def test_two_maps_are_read_by_both_towers_and_one_stands_everywhere() -> None:
    networks = {channels: CausalNet(in_channels=channels, **TINY).eval() for channels in (3, 6, 12)}
    for network in networks.values():
        network.load_state_dict(networks[12].state_dict())
    first, second = maps_of(3, seed=1) * 255, maps_of(3, seed=2) * 255
    flows = torch.cat([first, second], 1)
    torch.testing.assert_close(networks[6](flows), networks[12](torch.cat([flows, flows], 1)))
    torch.testing.assert_close(networks[3](first), networks[12](torch.cat([first] * 4, 1)))
    assert not torch.allclose(networks[6](flows), networks[6](torch.cat([second, first], 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 9}, "3, 6 or 12 channels"),
        ({"map_size": 56}, "28×28 px; got 3 channels of 56 px"),
        ({"width": 12}, "no multiple of token_heads 8"),
    ],
)
def test_what_it_cannot_read_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CausalNet(**options)


def test_the_recipe_sees_all_samples_at_once() -> None:
    recipe = SPEC.recipes["authors"]
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.lr) == (200, 1024, "adam", 5e-5)
    assert SPEC.selects_on_test
