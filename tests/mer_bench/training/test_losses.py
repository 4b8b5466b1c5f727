"""Losses against independent references and closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mer_bench.recipe import Recipe
from mer_bench.training.losses import (
    batch_loss,
    class_balanced_weights,
    logit_offsets,
    loss_terms,
    sample_losses,
)

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0, 0, 1, 0])
COUNTS = torch.tensor([250, 109, 83])


def losses(recipe, counts=COUNTS, logits=LOGITS, labels=LABELS):
    return sample_losses(logits, labels, loss_terms(recipe, counts))


def test_cross_entropy_and_smoothing_equal_torch():
    torch.testing.assert_close(losses(Recipe()), F.cross_entropy(LOGITS, LABELS, reduction="none"))
    torch.testing.assert_close(
        losses(Recipe(label_smoothing=0.1)),
        F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=0.1),
    )


def test_class_balanced_weights_follow_the_effective_number():
    beta, counts = 0.999, COUNTS.numpy()
    expected = (1 - beta) / (1 - beta**counts)
    expected *= 3 / expected.sum()
    np.testing.assert_allclose(class_balanced_weights(COUNTS, beta).numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(class_balanced_weights(COUNTS, 0.0), torch.ones(3))
    inverse = 1 / counts
    np.testing.assert_allclose(
        class_balanced_weights(COUNTS, 1 - 1e-9).numpy(), 3 * inverse / inverse.sum(), rtol=1e-4
    )


def test_logit_adjusted_equals_balanced_softmax():
    # With tau = 1 the prior's normalisation cancels: cross-entropy of logits + log counts.
    expected = F.cross_entropy(LOGITS + COUNTS.log(), LABELS, reduction="none")
    torch.testing.assert_close(losses(Recipe(loss="logit-adjusted")), expected, rtol=1e-5, atol=1e-6)


def test_focal_loss_is_cross_entropy_at_gamma_zero_and_fades_easy_samples():
    torch.testing.assert_close(
        losses(Recipe(loss="focal", focal_gamma=0.0)), F.cross_entropy(LOGITS, LABELS, reduction="none")
    )
    p = F.softmax(LOGITS, -1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(losses(Recipe(loss="focal", focal_gamma=2.0)), -((1 - p) ** 2) * p.log())


@pytest.mark.parametrize("loss", ["cross-entropy", "class-balanced", "logit-adjusted", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_absent_class_and_certain_predictions_give_finite_losses_and_gradients(loss, smoothing):
    logits = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 0.0]], requires_grad=True)
    recipe = Recipe(loss=loss, label_smoothing=smoothing, focal_gamma=0.5)
    value = losses(recipe, torch.tensor([5, 5, 0]), logits, torch.tensor([0, 0]))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


def test_absent_class_has_no_weight_and_a_floored_prior():
    assert class_balanced_weights(torch.tensor([30, 0, 10]), 0.99)[1] == 0
    offsets = logit_offsets(torch.tensor([30, 0, 10]), 1.0)
    assert math.isclose(offsets[1].item(), math.log(0.5 / 40.5), rel_tol=1e-6)


def test_stacked_terms_are_each_fold_s_own():
    counts = torch.tensor([[250, 109, 83], [10, 0, 40]])
    for loss in ("class-balanced", "logit-adjusted", "focal"):
        together = losses(Recipe(loss=loss), counts, LOGITS.expand(2, 7, 3), LABELS.expand(2, 7))
        for fold in range(2):
            torch.testing.assert_close(together[fold], losses(Recipe(loss=loss), counts[fold]))


def test_a_batch_s_loss_is_the_mean_over_its_samples_fold_by_fold():
    values = torch.tensor([[1.0, 2.0, 6.0, 7.0], [3.0, 5.0, 100.0, 100.0]])
    labels, terms = torch.zeros(2, 4, dtype=torch.int64), loss_terms(Recipe(), torch.ones(2, 3))
    rows = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    assert batch_loss(values, labels, terms).tolist() == [4.0, 52.0]
    assert batch_loss(values, labels, terms, rows).tolist() == [4.0, 4.0]
    alike = loss_terms(Recipe(class_weights=(2, 2, 2)), torch.ones(3))
    assert batch_loss(2 * values[0], labels[0], alike) == 4.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_those_of_torch(smoothing):
    logits = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([[0, 1, 2, 0, 0, 1, 0], [2, 2, 1, 0, 1, 1, 1]])
    weights = (0.15, 0.425, 0.425)
    recipe = Recipe(class_weights=weights, label_smoothing=smoothing)
    reference = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=smoothing)
    terms = loss_terms(recipe, torch.ones(2, 3))
    found = sample_losses(logits, labels, terms)
    torch.testing.assert_close(
        batch_loss(found, labels, terms),
        torch.stack([reference(z, y) for z, y in zip(logits, labels, strict=True)]),
    )
    # Padding counts neither above nor below the line.
    rows = torch.tensor([[1.0] * 7, [1.0] * 4 + [0.0] * 3])
    padded = batch_loss(found, labels, terms, rows)[1]
    torch.testing.assert_close(padded, reference(logits[1, :4], labels[1, :4]))
    padded.backward()
    assert (logits.grad[1, 4:] == 0).all() and (logits.grad[1, :4] != 0).all()
