"""Whole training subjects set apart: reserved to choose the epoch, or left out for a learning curve."""

from __future__ import annotations

import hashlib

import numpy as np

from mer_bench.errors import ProtocolError, UsageError
from mer_bench.protocols.folds import Population


def reserve_inner(
    population: Population, train: np.ndarray, fold: str, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split a fold's training samples into training and inner validation, by whole subjects.

    `round(fraction * subjects)` subjects (at least one) are taken greedily, each time the one that brings the
    reserved class counts closest to `fraction` of the fold's; ties fall to a shuffle that depends on the seed
    and the fold's name alone. A subject is never taken when training would lose a class by it.

    Returns:
        The remaining rows of `train` and the reserved ones, both int64, ascending as `train` is.

    Raises:
        UsageError: The fraction is not between 0 and 1.
        ProtocolError: No subject can be spared.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the inner fraction must lie between 0 and 1, got {fraction}")
    names, owner = np.unique(population.subjects[train], return_inverse=True)
    counts = np.array([population.counts(train[owner == subject]) for subject in range(names.size)])
    counts = counts.reshape(-1, len(population.classes))
    total = counts.sum(0)
    order = _shuffled(names.size, fold, seed)
    taken: list[int] = []
    for _ in range(min(max(1, round(fraction * names.size)), names.size - 1)):
        after = counts[taken].sum(0) + counts[order]
        # Training must keep every class that it had.
        free = ~np.isin(order, taken) & ~((total > 0) & (after >= total)).any(1)
        if not free.any():
            break
        cost = (((after - fraction * total) / np.maximum(total, 1)) ** 2).sum(1)
        taken.append(int(order[np.flatnonzero(free & (cost <= cost[free].min() + 1e-12))[0]]))
    if not taken:
        raise ProtocolError(
            f"fold '{fold}': no training subject can be reserved for --inner without losing a class from "
            f"training ({names.size} subjects, {len(train)} samples); run without --inner"
        )
    mask = np.isin(owner, taken)
    return train[~mask], train[mask]


def keep_subjects(population: Population, train: np.ndarray, fold: str, limit: int, seed: int) -> np.ndarray:
    """Keep the training samples of `limit` subjects, drawn by the seed and the fold's name alone.

    Those of a smaller limit are among those of a larger one, so that a learning curve adds subjects and
    exchanges none.

    Returns:
        Their rows of `train`, int64, ascending.

    Raises:
        UsageError: The limit is not positive.
        ProtocolError: The fold has fewer training subjects.
    """
    if limit < 1:
        raise UsageError(f"a fold trains on at least 1 subject, got train_subjects={limit}")
    names, owner = np.unique(population.subjects[train], return_inverse=True)
    if names.size < limit:
        raise ProtocolError(
            f"fold '{fold}' has {names.size} training subjects, but train_subjects asks for {limit}; "
            "ask for fewer, or leave it out for all"
        )
    return train[np.isin(owner, _shuffled(names.size, fold, seed)[:limit])]


def _shuffled(size: int, fold: str, seed: int) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(fold.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, key]).permutation(size)
