"""Randomness of a fold: one seed per fold, and counter-based streams drawn from it.

Every random number of a training is a pure function of (fold seed, stream, step, position): the SplitMix64
sequence (Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195) evaluated at any point. So a fold
draws the same numbers alone, beside others under `vmap`, in any chunk and in any process.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# Stream numbers; each kind of randomness has its own, so that switching one off leaves the others as they
# were.
INITIALISATION, SHUFFLING, AUGMENTATION, DROPOUT, BALANCING, MIXING = 1, 2, 3, 4, 5, 6

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def fold_seed(seed: int, protocol: str, fold: str) -> int:
    """Derive a fold's seed: the first 63 bits of SHA-256 over `seed|protocol|fold`.

    >>> fold_seed(0, "cde", "samm/006") == fold_seed(0, "cde", "samm/006")
    True
    >>> fold_seed(0, "cde", "samm/006") == fold_seed(1, "cde", "samm/006")
    False
    """
    digest = hashlib.sha256(f"{seed}|{protocol}|{fold}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _wrap(number: int) -> int:
    """Return a number modulo 2**64, as the signed value torch takes."""
    return (number + 2**63) % 2**64 - 2**63


def mix(state: Tensor) -> Tensor:
    """Scramble int64 states by SplitMix64's finaliser, a bijection."""
    # Shifts are arithmetic in torch; the masks make them logical.
    state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * _MIX_1
    state = (state ^ ((state >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return state ^ ((state >> 31) & 0x1FFFFFFFF)


def stream_key(seed: Tensor, *path: int | Tensor) -> Tensor:
    """Return the key of one stream of random numbers.

    Args:
        seed: Fold seeds, any shape, int64.
        path: What the stream is for, as in `(DROPOUT, layer, step)`; an int64 tensor counts on the device,
            and gives the same keys as its values.

    Returns:
        Keys, int64, of the shape that seed and path broadcast to.

    >>> seed = torch.tensor(7)
    >>> stream_key(seed, DROPOUT, 2**40) == stream_key(seed, DROPOUT, torch.tensor(2**40))
    tensor(True)
    """
    key = mix(seed)
    for part in path:
        # int64 tensors wrap by themselves.
        ahead = (part + 1) * _GAMMA if isinstance(part, Tensor) else _wrap(_GAMMA * (part + 1))
        key = mix(key + ahead)
    return key


def random_bits(key: Tensor, count: int) -> Tensor:
    """Draw random 64-bit words, `(..., count)` int64, of keys `(...)` int64."""
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=key.device) * _GAMMA
    return mix(key.unsqueeze(-1) + counter)


def uniform(key: Tensor, count: int) -> Tensor:
    """Draw uniform numbers in [0, 1), multiples of 2**-24: `(..., count)` float32, of keys `(...)` int64."""
    return ((random_bits(key, count) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def normal(key: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers, `(..., count)` float32, of keys `(...)` int64.

    Box and Muller, doi:10.1214/aoms/1177706645.
    """
    radius = torch.sqrt(-2.0 * torch.log1p(-uniform(mix(key + 1), count)))
    return radius * torch.cos((2.0 * torch.pi) * uniform(mix(key + 2), count))


def permutation(key: Tensor, length: Tensor, padded: int) -> Tensor:
    """Draw random orders.

    Args:
        key: Keys, shape `(...)`, int64.
        length: How many items each key orders, shape `(...)`, int64, none above `padded`.
        padded: Length of the rows returned.

    Returns:
        `(..., padded)` int64; the first `length` entries of a row are a permutation of `0 .. length - 1`, the
        rest are the other positions in ascending order. It does not depend on `padded`.
    """
    words = random_bits(key, padded)
    position = torch.arange(padded, device=key.device)
    beyond = position >= length.unsqueeze(-1)
    # Halved, a word can never reach the mark that sends padding to the end.
    return torch.where(beyond, torch.iinfo(torch.int64).max, words >> 1).argsort(dim=-1, stable=True)


def balanced_draws(key: Tensor, counts: Tensor, padded: int) -> Tensor:
    """Draw samples with replacement, every class being equally likely, and every sample of a class.

    Args:
        key: Keys, shape `(...)`, int64.
        counts: Samples per class, shape `(..., classes)`, int64; a class without samples is never drawn.
        padded: Length of the rows returned.

    Returns:
        `(..., padded)` int64; as many entries of a row as there are samples are places among samples that lie
        class by class, the rest are their own position. The draws do not depend on `padded`.
    """
    first, second = random_bits(mix(key + 1), padded), random_bits(mix(key + 2), padded)
    present = counts > 0
    # Halved, a word is not negative; against 2**63 the remainder's bias is nothing.
    rank = (first >> 1) % present.sum(-1, keepdim=True)
    # Classes that are there come first, in their order.
    classes = (~present).to(torch.int64).argsort(dim=-1, stable=True).gather(-1, rank)
    starts = (counts.cumsum(-1) - counts).gather(-1, classes)
    drawn = starts + (second >> 1) % counts.gather(-1, classes)
    position = torch.arange(padded, device=key.device)
    return torch.where(position < counts.sum(-1, keepdim=True), drawn, position)
