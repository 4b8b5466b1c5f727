"""Optimisers, schedules and clipping: each fold as if alone."""

import pytest
import torch

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.optim import build_optimizer, clip_gradients, learning_rate


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_stacked_parameters_move_as_each_would_alone(optimizer):
    recipe = Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.05, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(3, 4, generator=generator), torch.randn(5, 3, 4, generator=generator)
    stacked = start.clone().requires_grad_()
    alone = [row.clone().requires_grad_() for row in start]
    reference = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(optimizer)
    if reference:
        references = [reference([p], lr=0.1, weight_decay=0.05) for p in alone]
    else:
        references = [
            torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True) for p in alone
        ]
    ours = build_optimizer(recipe, [stacked])
    for g in gradients:
        stacked.grad = g.clone()
        ours.step()
        for p, row, reference_optimizer in zip(alone, g, references, strict=True):
            p.grad = row.clone()
            reference_optimizer.step()
    torch.testing.assert_close(stacked.detach(), torch.stack(alone).detach())
    assert not torch.allclose(stacked.detach(), start)


def test_unknown_optimizer_and_schedule_are_refused():
    with pytest.raises(UsageError, match="not one of adam"):
        build_optimizer(Recipe(optimizer="lion"), [torch.zeros(1, requires_grad=True)])
    with pytest.raises(UsageError, match="not one of constant"):
        learning_rate(Recipe(schedule="poly"), 0, 1)


def test_warm_up_rises_to_the_full_rate_and_the_schedule_starts_after_it():
    recipe = Recipe(lr=1.0, warmup_epochs=2, schedule="exponential", gamma=0.5, epochs=5)
    rates = [learning_rate(recipe, step, 2) for step in range(10)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("exponential", [1.0, 0.5, 0.25, 0.125, 0.125]), ("step", [1.0, 1.0, 0.5, 0.5, 0.5])],
)
def test_decay_ends_after_its_epochs(schedule, expected):
    recipe = Recipe(lr=1.0, schedule=schedule, gamma=0.5, step_epochs=2, epochs=5, decay_epochs=3)
    assert [learning_rate(recipe, step, 1) for step in range(5)] == expected


def test_cosine_falls_from_lr_to_final_lr():
    recipe = Recipe(lr=1.0, final_lr=0.1, schedule="cosine", epochs=10)
    rates = [learning_rate(recipe, step, 3) for step in range(31)]
    assert rates[0] == 1.0
    assert rates[15] == pytest.approx(0.55)
    assert rates[30] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


def test_clipping_is_per_fold():
    a, b = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[4.0], [0.4]])
    gradients = [a.clone(), b.clone()]
    clip_gradients(gradients, 1.0, stacked=True)
    torch.testing.assert_close(gradients[0][0], a[0] / 5)
    torch.testing.assert_close(gradients[1][0], b[0] / 5)
    torch.testing.assert_close(gradients[0][1], a[1])
    alone = [a[0].clone(), b[0].clone()]
    clip_gradients(alone, 1.0, stacked=False)
    torch.testing.assert_close(alone[0], gradients[0][0])
