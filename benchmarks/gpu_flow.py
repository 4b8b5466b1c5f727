"""Inputs and comparisons of `gpu.py`: textured faces that move, and trainings on two devices."""

from __future__ import annotations

from typing import Any

import numpy as np
from public_shape import Records
from training_figures import Case

from mer_bench.training.folds import run_folds


def faces(pairs: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of smooth textures, the second moved by up to two pixels in its middle.

    Args:
        pairs: How many.
        side: Pixels.
        seed: Of the textures.

    Returns:
        Onsets and apices, both `(pairs, side, side)` uint8.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    lump = np.exp(-((x - side / 2) ** 2 + (y - side / 2) ** 2) / (2 * (side / 6) ** 2))
    onset, apex = np.empty((2, pairs, side, side), np.uint8)
    for number in range(pairs):
        waves = [
            (generator.uniform(0.02, 0.25, 2), generator.uniform(0, 2 * np.pi), generator.uniform(3, 12))
            for _ in range(24)
        ]
        u, v = generator.uniform(-2, 2, 2)
        for image, (dx, dy) in ((onset, (0.0, 0.0)), (apex, (u, v))):
            moved_x, moved_y = x - dx * lump, y - dy * lump
            grey = 128 + sum(a * np.sin(fx * moved_x + fy * moved_y + p) for (fx, fy), p, a in waves)
            image[number] = np.clip(grey, 0, 255).astype(np.uint8)
    return onset, apex


def backend(name: str, device: str) -> Any:
    """A flow backend with OpenCV's default parameters; imported late, as a machine may lack its library."""
    from mer_flow.flow import BackendOptions, TVL1Params, get_backend

    options = BackendOptions(device=device) if name == "torch-tvl1" else BackendOptions()
    return get_backend(name, TVL1Params(), options)


def endpoint_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean length of the difference of two flows `(N, 2, H, W)`, px."""
    return float(np.hypot(*(a - b).swapaxes(0, 1)).mean())


def trained(case: Case, epochs: int, device: str) -> np.ndarray:
    """Every held-out logit of a stacked float32 training, `(epochs, n, 3)` in the order of the folds."""
    records = Records()
    job = case.job_with(epochs, device=device, engine="stacked", precision="float32")
    run_folds(job, case.data, case.folds, None, records)
    return np.concatenate([records[fold.name].logits for fold in case.folds], axis=1)
