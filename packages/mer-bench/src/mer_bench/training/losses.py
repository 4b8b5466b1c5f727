"""Losses of a fold, with class statistics from its training samples alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


@dataclass(frozen=True)
class LossTerms:
    """What a loss knows of the training fold.

    Attributes:
        weight: `(..., classes)` float32 weight of a sample by its class, or None for one everywhere.
        offset: `(..., classes)` float32 added to the logits in training, or None.
        focal_gamma: Focusing parameter; 0 for none.
        label_smoothing: Mass spread over all classes.
        class_weights: `(classes,)` float32 weights that a batch's loss is divided by the sum of, or None.
    """

    weight: Tensor | None
    offset: Tensor | None
    focal_gamma: float
    label_smoothing: float
    class_weights: Tensor | None = None


def class_balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """Weigh by the effective number of samples (Cui et al., CVPR 2019, doi:10.1109/CVPR.2019.00949, eq. 2).

    Args:
        counts: `(..., classes)` training samples per class.
        beta: In [0, 1); 0 weighs all classes alike, towards 1 it nears the inverse frequency.

    Returns:
        `(..., classes)` float32 with mean 1 over the classes present; an absent class has weight 0, as none
        of its samples is ever weighed.

    >>> class_balanced_weights(torch.tensor([10, 10, 0]), 0.9)
    tensor([1., 1., 0.])
    """
    counts = counts.to(torch.float64)
    present = counts > 0
    # expm1 and log1p keep the digits that 1 - beta ** n loses for beta near 1.
    effective = -torch.expm1(
        counts.clamp(min=1) * torch.log1p(torch.tensor(-(1.0 - beta), dtype=torch.float64))
    )
    weight = torch.where(present, (1.0 - beta) / effective, 0.0)
    return (weight * present.sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)).to(torch.float32)


def logit_offsets(counts: Tensor, tau: float) -> Tensor:
    """Return offsets of the logit-adjusted loss (Menon et al., ICLR 2021, arXiv:2007.07314, eq. 10).

    Args:
        counts: `(..., classes)` training samples per class.
        tau: Strength of the prior.

    Returns:
        `(..., classes)` float32, `tau * log(prior)`; an absent class counts as half a sample, so that it
        stays finite.
    """
    counts = counts.to(torch.float64).clamp(min=0.5)
    return (tau * torch.log(counts / counts.sum(-1, keepdim=True))).to(torch.float32)


def loss_terms(recipe: Recipe, counts: Tensor) -> LossTerms:
    """Prepare a recipe's loss for training folds.

    Args:
        recipe: How to train.
        counts: `(..., classes)` int64 samples per class of the training fold, none of the held-out ones; the
            terms lie on their device.

    Raises:
        UsageError: There is not one class weight per class.
    """
    check_class_weights(recipe, counts.shape[-1])
    return LossTerms(
        weight=class_balanced_weights(counts, recipe.cb_beta) if recipe.loss == "class-balanced" else None,
        offset=logit_offsets(counts, recipe.la_tau) if recipe.loss == "logit-adjusted" else None,
        focal_gamma=recipe.focal_gamma if recipe.loss == "focal" else 0.0,
        label_smoothing=recipe.label_smoothing,
        class_weights=torch.tensor(recipe.class_weights, dtype=torch.float32, device=counts.device)
        if recipe.class_weights
        else None,
    )


def check_class_weights(recipe: Recipe, num_classes: int) -> None:
    """Refuse class weights that are not one per class.

    Raises:
        UsageError: It is so.
    """
    if recipe.class_weights and len(recipe.class_weights) != num_classes:
        raise UsageError(
            f"recipe '{recipe.name}': class_weights has {len(recipe.class_weights)} weights, but there are "
            f"{num_classes} classes; give one per class, as in class_weights = "
            f"{', '.join(['1'] * num_classes)}, or none"
        )


def sample_losses(logits: Tensor, labels: Tensor, terms: LossTerms) -> Tensor:
    """Return the loss of every sample.

    A batch's loss is made of them by `batch_loss`. Focal loss: Lin et al., ICCV 2017,
    doi:10.1109/ICCV.2017.324.

    Args:
        logits: `(..., B, classes)` float32.
        labels: `(..., B)` int64.
        terms: Terms whose leading axes are those of `logits`.

    Returns:
        `(..., B)` float32.
    """
    if terms.offset is not None:
        logits = logits + terms.offset.unsqueeze(-2)
    if terms.focal_gamma:
        classes = logits.shape[-1]
        log_p = F.log_softmax(logits, dim=-1)
        # `one_hot` would ask for the largest label.
        target = (labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)).to(log_p.dtype)
        target = target * (1.0 - terms.label_smoothing) + terms.label_smoothing / classes
        # 1 - p from expm1; clamped, as a power below 1 has no gradient at zero.
        rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
        losses = -(target * rest**terms.focal_gamma * log_p).sum(-1)
    else:
        flat = F.cross_entropy(
            logits.flatten(0, -2),
            labels.flatten(),
            weight=terms.class_weights,
            reduction="none",
            label_smoothing=terms.label_smoothing,
        )
        losses = flat.view(labels.shape)
    if terms.weight is not None:
        losses = losses * terms.weight.gather(-1, labels)
    return losses


def batch_loss(losses: Tensor, labels: Tensor, terms: LossTerms, rows: Tensor | None = None) -> Tensor:
    """Return a batch's loss: the mean over its samples, or with class weights their sum by that of weights.

    Args:
        losses: `(..., B)` float32 from `sample_losses`.
        labels: `(..., B)` int64.
        terms: The same terms.
        rows: `(..., B)` float32, 1 for a sample and 0 for padding; None where every row is a sample.

    Returns:
        `(...)` float32.
    """
    if terms.class_weights is None:
        return losses.mean(-1) if rows is None else (losses * rows).sum(-1) / rows.sum(-1)
    weights = terms.class_weights[labels]
    if rows is not None:
        losses, weights = losses * rows, weights * rows
    return losses.sum(-1) / weights.sum(-1)
