"""A training recipe: everything that decides how a fold is trained, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

# Fields that recipes did not have from the start. A run's record leaves them out where they say what training
# did before them, so that runs begun earlier keep their digest.
_LATER = ("class_weights", "balanced", "drop_last", "layer_decay", "isda", "rotate", "decay_epochs")


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
        class_weights: For `cross-entropy`: a weight per class, in the order of the label scheme. A batch's
            loss is then divided by the sum of its samples' weights. Empty for none.
        balanced: Whether an epoch draws as many samples as the fold has, with replacement, every class
            present being equally likely. The order is random then, whatever `shuffle` says.
        drop_last: Whether an epoch's last batch is left out where it is short. An epoch of less than one
            batch keeps it.
        layer_decay: The learning rate of a layer at depth d is multiplied by this to the power of D - d, D
            being the depth of the last; the network tells the depths in `layer_depths()`.
        isda: Largest strength of implicit semantic augmentation, for networks that have it: reached linearly,
            from zero, as epochs go by.
        rotate: Largest rotation either way, in degrees; it turns the vectors of flow with the map.
        decay_epochs: Epochs after which `step` and `exponential` fall no further; 0 for never.
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
    class_weights: tuple[float, ...] = ()
    balanced: bool = False
    drop_last: bool = False
    layer_decay: float = 1.0
    isda: float = 0.0
    rotate: float = 0.0
    decay_epochs: int = 0

    def steps_per_epoch(self, samples: int) -> int:
        """Returns how many optimiser steps an epoch of so many training samples takes.

        >>> Recipe(batch_size=4).steps_per_epoch(10), Recipe(batch_size=4, drop_last=True).steps_per_epoch(10)
        (3, 2)
        """
        if self.drop_last:
            return max(1, samples // self.batch_size)
        return -(-samples // self.batch_size)

    def record(self) -> dict[str, Any]:
        """Returns the recipe as a run's record has it: plain values, without later fields left at default.

        >>> "drop_last" in Recipe().record(), Recipe(drop_last=True).record()["drop_last"]
        (False, True)
        """
        default = {f.name: f.default for f in fields(self)}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in values.items() if k not in _LATER or getattr(self, k) != default[k]}
