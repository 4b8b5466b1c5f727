"""A training recipe: everything that decides how a fold is trained, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mer_bench.errors import UsageError
from mer_flow.work.settings import Settings

# Above, a mistake: every epoch's logits are recorded, and memory is taken for them before the first.
Epochs = Annotated[int, Field(ge=0, le=100_000)]
AtLeastOneEpoch = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
Pixels = Annotated[int, Field(ge=0, le=1024)]
Degrees = Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# At 1 a moving average never moves, and all effective numbers of samples are alike: 0/0.
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Recipe(Settings):
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
        amp: `off` or `bf16`.
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
        gain: Every sample's flow is multiplied by a number drawn from 1 - gain to 1 + gain.
        mixup: alpha of Beta(alpha, alpha), of which the share is drawn that a sample keeps when it is mixed
            with another of its batch; 0 for no mixing.
        mixup_by: Whether a share is drawn for each `batch` or each `sample`.
        supcon: Weight of a supervised contrastive term on what the last linear layer reads.
        supcon_temperature: Of that term.
        ema: Decay of a moving average of weights and running statistics, which predicts in place of the raw
            ones; 0 for none.
        flip_average: Whether a prediction is the mean of the probabilities of a map and its mirror.
        prior: tau: tau times the log prior of the training classes is taken off a prediction's logits. Above
            0 rare classes gain; below 0 frequent ones, as where training was logit-adjusted too strongly.
    """

    where = "recipe"
    error = UsageError

    name: str = "default"
    epochs: AtLeastOneEpoch = 100
    batch_size: BatchSize = 256
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Positive = 5e-5
    weight_decay: NotNegative = 0.0
    momentum: Decay = 0.9
    nesterov: bool = False
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    schedule: Literal["constant", "cosine", "step", "exponential"] = "constant"
    final_lr: NotNegative = 0.0
    step_epochs: AtLeastOneEpoch = 30
    gamma: NotNegative = 0.1
    warmup_epochs: Epochs = 0
    loss: Literal["cross-entropy", "class-balanced", "logit-adjusted", "focal"] = "cross-entropy"
    cb_beta: Decay = 0.999
    la_tau: float = 1.0
    focal_gamma: NotNegative = 2.0
    label_smoothing: Share = 0.0
    flip: Share = 0.0
    shift: Pixels = 0
    noise: NotNegative = 0.0
    shuffle: bool = True
    clip_norm: NotNegative = 0.0
    amp: Literal["off", "bf16"] = "off"
    class_weights: tuple[Positive, ...] = ()
    balanced: bool = False
    drop_last: bool = False
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    isda: NotNegative = 0.0
    rotate: Degrees = 0.0
    decay_epochs: Epochs = 0
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: NotNegative = 0.0
    mixup_by: Literal["batch", "sample"] = "batch"
    supcon: NotNegative = 0.0
    supcon_temperature: Positive = 0.1
    ema: Decay = 0.0
    flip_average: bool = False
    prior: float = 0.0

    @model_validator(mode="after")
    def _weights_belong_to_the_loss(self) -> Self:
        if self.class_weights and self.loss != "cross-entropy":
            raise UsageError(
                f"recipe.class_weights belongs to loss = 'cross-entropy', but recipe.loss is '{self.loss}'; "
                "class-balanced has weights of its own"
            )
        return self

    @model_validator(mode="after")
    def _contrasted_samples_have_one_class(self) -> Self:
        if self.supcon and self.mixup:
            raise UsageError(
                f"recipe.supcon = {self.supcon:g} compares samples of one class, and recipe.mixup = "
                f"{self.mixup:g} gives them two; set one of them to 0"
            )
        return self

    def steps_per_epoch(self, samples: int) -> int:
        """Return how many optimiser steps an epoch of so many training samples takes.

        >>> Recipe(batch_size=4).steps_per_epoch(10), Recipe(batch_size=4, drop_last=True).steps_per_epoch(10)
        (3, 2)
        """
        if self.drop_last:
            return max(1, samples // self.batch_size)
        return -(-samples // self.batch_size)

    def record(self) -> dict[str, Any]:
        """Return the recipe as a run's record has it: plain values."""
        return self.model_dump(mode="json")
