"""CausalNet (Zhang et al., ICCV 2025, arXiv:2508.06640): flow before and after the apex, and its directions.

Two of HTNet's towers read two maps each: one the flow from onset to apex and from apex to offset, the other
pictures of the directions of the same two. What a tower says of a map, a vector of four times its width, is
taken as four tokens of a 2×2 grid. Cross attention joins the directions, their tokens are added to those of
the flow, and a causal attention block asks what the movement before the apex says of that after it, and the
other way round.

As in HTNet, attention within a tower sees one patch; see `mer_bench.models.htnet`. Here no LayerNorm follows
a tower, so its last positional embedding counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.htnet import Tower, idle_parameters
from mer_bench.models.layers.transformer import split_heads
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_SIDE = 28
_CHANNELS = 3
_TOKENS = 4
#: Number of maps read -> which of them each tower reads: before and after the apex.
_PAIRS = {1: ((0, 0), (0, 0)), 2: ((0, 1), (0, 1)), 4: ((0, 1), (2, 3))}
#: First row and column of the four 14×14 pieces, and where they go: the code's standard landmarks, which it
#: takes for every face, clamped, truncated, and with rows and columns exchanged.
_PIECE = 14
_PIECES = ((2, 4), (14, 3)), ((3, 14), (13, 14))


def cut_pieces(maps: Tensor) -> Tensor:
    """Put `(..., 28, 28)` maps together from their four pieces, `(..., 28, 28)`."""
    rows = [torch.cat([maps[..., y : y + _PIECE, x : x + _PIECE] for y, x in row], dim=-1) for row in _PIECES]
    return torch.cat(rows, dim=-2)


def feed_forward(width: int) -> nn.Sequential:
    """Return two layers with GELU between."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class NeighbourAttention(nn.Module):
    """Multi-head attention among the tokens of the 2×2 grid, less among those that touch at a corner only.

    Their scores are replaced by `-gamma` times the number of the token, from one; their weights, which the
    softmax has counted in, are then dropped, so a row sums to less than one.

    Args:
        scale: What scores are multiplied by.
    """

    near: Tensor
    far: Tensor

    def __init__(self, width: int, heads: int, gamma: float, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        opposite = torch.eye(_TOKENS).flip(0)
        self.register_buffer("near", 1.0 - opposite, persistent=False)
        self.register_buffer("far", -gamma * torch.arange(1.0, _TOKENS + 1) * opposite, persistent=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Mix `(B, 4, width)` tokens of `context` for each of `x`."""
        query = split_heads(self.query(x), self.heads)
        key, value = (split_heads(part, self.heads) for part in self.key_value(context).chunk(2, dim=-1))
        scores = query @ key.transpose(-1, -2) * self.scale
        weights = (scores * self.near + self.far).softmax(-1) * self.near
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class CrossLayer(nn.Module):
    """Each of two maps attends to the other, the second to what became of the first; then two layers.

    Only the one that asks is normalised.
    """

    def __init__(self, width: int, heads: int, gamma: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = NeighbourAttention(width, heads, gamma, width**-0.5)
        self.feed_forward = feed_forward(width)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map two times `(B, 4, width)` tokens."""
        asked = self.norm(y)
        x = x + self.attention(self.norm(x), y)
        y = y + self.attention(asked, x)
        return x + self.feed_forward(x), y + self.feed_forward(y)


class TemporalAttention(nn.Module):
    """Each token of the later map attends to itself and to its place in the earlier map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Mix two times `(B, 4, width)` tokens into one."""
        query = self.query(later).unflatten(-1, (self.heads, 1, -1))
        both = self.key_value(torch.stack([earlier, later], dim=2))
        # (B, 4, 2, heads * D) to (B, 4, heads, 2, D): the two places are what is attended to.
        key, value = (part.unflatten(-1, (self.heads, -1)).transpose(2, 3) for part in both.chunk(2, dim=-1))
        weights = (query @ key.transpose(-1, -2) * key.shape[-1] ** -0.5).softmax(-1)
        return self.output((weights @ value).flatten(2))


class RelationMining(nn.Module):
    """Tokens that came forwards in time attend to those that came backwards.

    A bias of the keys adds the same to every score of a query; it is kept and not computed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, forwards: Tensor, backwards: Tensor) -> Tensor:
        """Mix two times `(B, 4, width)` tokens into one."""
        total = forwards + backwards
        query, value = self.query(forwards), self.value(total)
        key = F.linear(backwards, self.key.weight)
        mixed = F.scaled_dot_product_attention(
            split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)
        )
        return self.output(mixed.transpose(1, 2).flatten(2) + total)


class CausalAttention(nn.Module):
    """The causal attention block: the two maps in the order of time and against it, by the same weights."""

    def __init__(self, width: int, heads: int, gamma: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.space = NeighbourAttention(width, heads, gamma, (width // heads) ** -0.5)
        self.time = TemporalAttention(width, heads)
        self.feed_forward = feed_forward(width)
        self.mine = RelationMining(width, heads)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Turn two times `(B, 4, width)` tokens into `(B, 12, width)`."""
        first, then = self._pass(before, after)
        last, back = self._pass(after, before)
        return torch.cat([self.mine(then, back), first, last], dim=1)

    def _pass(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        earlier, later = self.norm(earlier), self.norm(later)
        earlier = earlier + self.space(earlier, earlier)
        later = later + self.space(later, later)
        later = later + self.time(earlier, later)
        return earlier + self.feed_forward(earlier), later + self.feed_forward(later)


class CausalNet(nn.Module):
    """The network of the authors' code.

    Args:
        in_channels: 12: flow from onset to apex, from apex to offset, then their direction maps; 6: the two
            flows, which both towers read; or 3: one map in every place.
        map_size: 28.
        width: Channels of a tower's first level, and of a token.
        heads: Heads of a tower's first level; each further level has twice as many.
        blocks: Transformer blocks of each level, from the finest; the last also counts the layers of cross
            attention.
        token_heads: Heads among tokens; they divide the width.
        gamma: How strongly tokens that touch at a corner only are put off.
    """

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        width: int = 256, heads: int = 3, blocks: tuple[int, int, int] = (3, 3, 9),
        token_heads: int = 8, gamma: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if in_channels not in [_CHANNELS * count for count in _PAIRS] or map_size != _SIDE:
            raise UsageError(
                f"causalnet reads one, two or four maps of u, v and strain (3, 6 or 12 channels; several "
                f"stores make one input) of {_SIDE}×{_SIDE} px; got {in_channels} channels of {map_size} px"
            )
        if width % token_heads:
            raise UsageError(f"causalnet: width {width} is no multiple of token_heads {token_heads}")
        self.pairs = _PAIRS[in_channels // _CHANNELS]
        size = _SIDE // 4
        self.flow = Tower(_CHANNELS, _SIDE, size, width, heads, blocks, normed=False)
        self.direction = Tower(_CHANNELS, _SIDE, size, width, heads, blocks, normed=False)
        self.cross = nn.ModuleList(CrossLayer(width, token_heads, gamma) for _ in range(blocks[-1]))
        self.causal = CausalAttention(width, token_heads, gamma)
        self.fc = nn.Sequential(nn.Linear(3 * _TOKENS * width, 8 * width), nn.Linear(8 * width, num_classes))

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, 3, 6 or 12, 28, 28)` float32 maps, 0 to 255, into `(B, classes)` logits."""
        maps = cut_pieces(maps).unflatten(1, (-1, _CHANNELS))
        before, after = self._tokens(self.flow, maps, self.pairs[0])
        x, y = self._tokens(self.direction, maps, self.pairs[1])
        for layer in self.cross:
            x, y = layer(x, y)
        logits: Tensor = self.fc(self.causal(before + x, after + y).flatten(1))
        return logits

    @staticmethod
    def _tokens(tower: nn.Module, maps: Tensor, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return `(B, 4, width)` tokens of two maps; channel c of a tower is of token c % 4."""
        both = tower(torch.cat([maps[:, index] for index in pair]))
        first, second = both.flatten(1).unflatten(1, (-1, _TOKENS)).transpose(1, 2).chunk(2)
        return first, second

    def untrained_parameters(self) -> tuple[str, ...]:
        """Name the parameters that no logit depends on, in the order of `named_parameters()`."""
        idle = idle_parameters(self) | {"causal.mine.key.bias"}
        return tuple(name for name, _ in self.named_parameters() if name in idle)


AUTHORS = Recipe(name="authors", epochs=200, batch_size=1024, optimizer="adam", lr=5e-5, shuffle=False)

SPECS = (
    ModelSpec(
        name="causalnet",
        title="CausalNet",
        build=CausalNet,
        kind="network",
        views=("whole-28:minmax-255",),
        recipes={"authors": AUTHORS},
        variants={
            "paper": {},
            "small": {"width": 16, "heads": 1, "token_heads": 2},
            "tiny": {"width": 8, "heads": 1, "token_heads": 1, "blocks": (1, 1, 2)},
        },
        citation=(
            "Z. Zhang, W. Tang, H. Chen: Rethinking Key-frame-based Micro-expression Recognition: A Robust "
            "and Accurate Framework Against Key-frame Errors. ICCV 2025. arXiv:2508.06640"
        ),
        parameters=276_590_089,
        exactness="exact",
        filled_in=(
            "It reads four maps of a clip: flow from onset to apex and from apex to offset, and pictures of "
            "their directions. Each is a store of its own, made by `mer-flow import causalnet --maps KIND`, "
            "given in this order as --store. The code does not say what its four files are; that follows "
            "from the released maps.",
            "Two stores are taken for the two flows, which then also stand in the place of the direction "
            "maps; one store for a single map in all four places. That is ours: the network then sees less.",
            "The four 14×14 pieces are cut at the same places of every face, as the code does: it has no "
            "landmarks and takes standard ones. Their rows and columns are exchanged, as in HTNet's.",
            "Channels come as u, v, strain; the code reads them in the reverse order, which an embedding "
            "with drawn weights does not notice.",
            "The code stops a fold when the test subject is recognised whole, and keeps its best epoch; here "
            "200 epochs are trained, and the best epoch is the oracle's.",
            "Layers (3, 3, 9) and gamma 0.5 are those of the released script, found by the authors among 36 "
            "settings by the score of the test subjects.",
            "Finding: as in HTNet, every attention within a tower sees one patch; queries and keys, and the "
            "bias of the relation mining's keys, have no influence on any logit. They are kept and counted, "
            "but neither computed nor trained.",
            "Variants small and tiny are ours: the same network of 16 and 8 channels, for a CPU.",
        ),
        selects_on_test=True,
        licence="MIT (github.com/tony19980810/CausalNet); the network is written anew, no weights.",
    ),
)
