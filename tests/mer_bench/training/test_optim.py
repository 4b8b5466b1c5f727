"""Optimisers, schedules, clipping and layer decay: each fold as if alone."""

import pytest
import torch
from torch import nn

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.demands import meet_recipe
from mer_bench.training.optim import (
    build_optimizer,
    check_layer_depths,
    clip_gradients,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_stacked_parameters_move_as_each_would_alone(optimizer):
    # Nothing is as torch has it where nothing is said.
    told = {"momentum": 0.7} if optimizer == "sgd" else {"beta1": 0.8, "beta2": 0.95, "eps": 1e-2}
    recipe = Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.05, nesterov=True, **told)
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(3, 4, generator=generator), torch.randn(5, 3, 4, generator=generator)
    stacked = start.clone().requires_grad_()
    alone = [row.clone().requires_grad_() for row in start]
    reference = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(optimizer)
    if reference:
        references = [reference([p], lr=0.1, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.05) for p in alone]
    else:
        references = [
            torch.optim.SGD([p], lr=0.1, momentum=0.7, weight_decay=0.05, nesterov=True) for p in alone
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


def test_cosine_reaches_its_end_after_a_warm_up_too():
    recipe = Recipe(lr=1.0, final_lr=0.1, schedule="cosine", epochs=10, warmup_epochs=2)
    rates = [learning_rate(recipe, step, 3) for step in range(31)]
    assert rates[5] == rates[6] == 1.0
    assert rates[18] == pytest.approx(0.55)
    assert rates[30] == pytest.approx(0.1)


def test_clipping_is_per_fold():
    a, b = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([4.0, 0.4])
    gradients = [a.clone(), b.clone()]
    clip_gradients(gradients, 1.0)
    torch.testing.assert_close(gradients[0][0], a[0] / 5)
    torch.testing.assert_close(gradients[1][0], b[0] / 5)
    torch.testing.assert_close(gradients[0][1], a[1])


class Deep(nn.Module):
    """Says how deep its layers lie, but not of the last where it is forgetful."""

    def __init__(self, forgetful=False):
        super().__init__()
        self.hidden, self.head = nn.Linear(12, 8), nn.Linear(8, 3)
        self.forgetful = forgetful

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(x)))

    def layer_depths(self):
        depths = {name: 0 if name.startswith("hidden") else 2 for name, _ in self.named_parameters()}
        return {name: d for name, d in depths.items() if d == 0} if self.forgetful else depths


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_layer_decay_is_that_of_groups_made_by_hand(optimizer):
    recipe = Recipe(
        optimizer=optimizer, lr=0.1, weight_decay=0.05, layer_decay=0.5, schedule="step", step_epochs=1
    )
    ours, theirs = Deep(), Deep()
    theirs.load_state_dict(ours.state_dict())
    groups = [
        {"params": list(theirs.hidden.parameters()), "lr": 0.1 * 0.25},
        {"params": list(theirs.head.parameters()), "lr": 0.1},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    reference = kind(groups, weight_decay=0.05, **({"momentum": 0.9} if optimizer == "sgd" else {}))
    made = build_optimizer(
        recipe, parameter_groups(recipe, dict(ours.named_parameters()), check_layer_depths(ours, recipe))
    )
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    for step in range(4):
        set_learning_rate(made, learning_rate(recipe, step, 2))
        if step == 2:
            for group in reference.param_groups:
                group["lr"] *= 0.1
        for network, optimiser in ((ours, made), (theirs, reference)):
            optimiser.zero_grad()
            network(x).square().sum().backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_layer_decay_without_depths_is_refused():
    recipe = Recipe(layer_decay=0.9)
    for network, message in (
        (nn.Linear(3, 4), "Linear tells no depths"),
        (Deep(forgetful=True), "leaves out 2 of 4 .*'head.weight'"),
    ):
        with pytest.raises(UsageError, match=message):
            check_layer_depths(network, recipe)
        assert check_layer_depths(network, Recipe()) == {}


def test_a_network_without_augmentation_of_features_is_not_asked_for_it():
    with pytest.raises(UsageError, match="Linear has no implicit semantic augmentation; set isda = 0"):
        meet_recipe(nn.Linear(3, 4), Recipe(isda=0.5))
