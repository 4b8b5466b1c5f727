"""A training recipe: everything that decides how a fold is trained, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one fold is trained.

    Attributes:
        name: What a run's manifest calls it.
        epochs: Passes over the training samples; the headline score is taken after the last.
        batch_size: Samples per optimiser step; the last batch of an epoch may be smaller.
        optimizer: `adam`, `adamw` or `sgd`.
        lr: Learning rate at the start (after warm-up).
        weight_decay: L2 (`adam`, `sgd`) or decoupled (`adamw`).
        momentum: For `sgd`.
        nesterov: For `sgd`.
        beta1: For `adam` and `adamw`.
        beta2: For `adam` and `adamw`.
        eps: For `adam` and `adamw`.
        schedule: `constant`, `cosine` (to `final_lr`), `step` (times `gamma` every `step_epochs`) or
            `exponential`.
        final_lr: Where `cosine` ends.
        step_epochs: For `step`.
        gamma: For `step` and `exponential`.
        warmup_epochs: Linear warm-up from zero.
        loss: `cross-entropy`, `class-balanced`, `logit-adjusted` or `focal`.
        cb_beta: Effective-number beta of `class-balanced`.
        la_tau: Strength of the prior in `logit-adjusted`.
        focal_gamma: Focusing parameter of `focal`.
        label_smoothing: Mass spread over the other classes.
        flip: Probability of a horizontal flip; it negates u.
        shift: Largest translation, in pixels of the view.
        noise: Standard deviation of added Gaussian noise, in the view's units.
        shuffle: Whether the training samples are shuffled every epoch; otherwise they come class by class, as
            published scripts read them from a folder per class.
        clip_norm: Largest gradient norm; 0 switches clipping off.
        amp: `off`, `bf16` or `fp16`.
    """

    name: str = "default"
    epochs: int = 100
    batch_size: int = 256
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 5e-5
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: Literal["constant", "cosine", "step", "exponential"] = "constant"
    final_lr: float = 0.0
    step_epochs: int = 30
    gamma: float = 0.1
    warmup_epochs: int = 0
    loss: Literal["cross-entropy", "class-balanced", "logit-adjusted", "focal"] = "cross-entropy"
    cb_beta: float = 0.999
    la_tau: float = 1.0
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    flip: float = 0.0
    shift: int = 0
    noise: float = 0.0
    shuffle: bool = True
    clip_norm: float = 0.0
    amp: Literal["off", "bf16", "fp16"] = "off"
