"""Whole training subjects reserved to choose the epoch, so that the held-out subject never has to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from mer_bench.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from mer_bench.protocols.folds import Population


def reserve_inner(
    population: Population, train: np.ndarray, fold: str, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a fold's training samples into training and inner validation, by whole subjects.

    `round(fraction * subjects)` subjects (at least one) are taken greedily, each time the one that brings the
    reserved class counts closest to `fraction` of the fold's; ties fall to a seeded shuffle that depends on
    the seed and the fold's name alone. A subject is never taken when it holds the last training samples of a
    class.

    Args:
        population: The samples.
        train: `(n,)` int64, the fold's training samples, ascending.
        fold: The fold's name.
        fraction: Share of the training subjects to reserve, in (0, 1).
        seed: Decides the choice.

    Returns:
        The remaining training samples and the reserved ones, both `(., )` int64 ascending.

    Raises:
        UsageError: The fraction is not between 0 and 1.
        ProtocolError: No subject can be spared.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the inner fraction must lie between 0 and 1, got {fraction}")
    names, owner = np.unique(population.subjects[train], return_inverse=True)
    per_subject = np.zeros((names.size, len(population.classes)))
    np.add.at(per_subject, (owner, population.labels[train]), 1)
    total = per_subject.sum(0)
    target = fraction * total
    scale = np.maximum(total, 1)
    key = int.from_bytes(hashlib.sha256(fold.encode()).digest()[:8], "big")
    order = np.random.default_rng([seed, key]).permutation(names.size)
    wanted = min(max(1, round(fraction * names.size)), names.size - 1)
    taken: list[int] = []
    reserved = np.zeros_like(total)
    for _ in range(wanted):
        best, best_cost = -1, np.inf
        for subject in order:
            after = reserved + per_subject[subject]
            # Training must keep every class that it had.
            if subject in taken or np.any((total > 0) & (after >= total)):
                continue
            cost = float((((after - target) / scale) ** 2).sum())
            if cost < best_cost - 1e-12:
                best, best_cost = int(subject), cost
        if best < 0:
            break
        taken.append(best)
        reserved += per_subject[best]
    if not taken:
        raise ProtocolError(
            f"fold '{fold}': no training subject can be reserved for --inner without losing a class from "
            f"training ({names.size} subjects, {len(train)} samples); run without --inner"
        )
    mask = np.isin(owner, taken)
    return train[~mask], train[mask]
