"""What a network may ask of its training, and what recipes may ask beyond the plain epoch.

Stacked and single folds run the same float32 arithmetic with sums in another order; over the few steps taken
here they stay within 1e-4.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.settings import Request, RunSettings, resolve
from mer_bench.training.folds import run_folds
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.optim import (
    build_optimizer,
    check_layer_depths,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.seeding import balanced_draws, stream_key
from mer_bench.training.trainer import FoldTrainer

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.003)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
CPU = torch.device("cpu")


class Plain(nn.Module):
    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 6) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels * map_size**2, 8)
        self.head = nn.Linear(8, num_classes)

    def features(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.hidden(maps.flatten(1)))

    def forward(self, maps: Tensor) -> Any:
        return self.head(self.features(maps))

    def layer_depths(self) -> dict[str, int]:
        return {name: 0 if name.startswith("hidden") else 2 for name, _ in self.named_parameters()}


class Penalised(Plain):
    """Keeps its features small."""

    def forward(self, maps: Tensor) -> Any:
        features = self.features(maps)
        logits = self.head(features)
        return (logits, features.square().mean(1)) if self.training else logits


class NanPenalty(Plain):
    def forward(self, maps: Tensor) -> Any:
        logits = super().forward(maps)
        poisoned = torch.where(maps[:, 0, 0, 0] == 0, torch.nan, 0.0)
        return (logits, poisoned) if self.training else logits


class BadPenalty(Plain):
    def forward(self, maps: Tensor) -> Any:
        logits = super().forward(maps)
        return (logits, logits) if self.training else logits


class Triple(Plain):
    def forward(self, maps: Tensor) -> Any:
        logits = super().forward(maps)
        return (logits, logits[:, 0], logits) if self.training else logits


class Centred(Plain):
    """Pulls features towards their class's running mean, more so as training goes on."""

    trains_with_labels = True

    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 6) -> None:
        super().__init__(num_classes, in_channels, map_size)
        self.register_buffer("sums", torch.zeros(num_classes, 8))
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("last_progress", torch.full((), -1.0))
        self.register_buffer("row_weight", torch.ones(1), persistent=False)

    def forward(self, maps: Tensor, labels: Tensor | None = None, progress: Tensor | None = None) -> Any:
        features = self.features(maps)
        logits = self.head(features)
        if not self.training:
            return logits
        assert labels is not None and progress is not None
        assert labels.dtype == torch.int64 and progress.dtype == torch.float32 and progress.dim() == 0
        own = F.one_hot(labels, self.counts.shape[0]).float() * self.row_weight.expand(len(labels))[:, None]
        self.sums.add_(own.T @ features.detach())
        self.counts.add_(own.sum(0))
        self.last_progress.copy_(progress)
        means = self.sums / self.counts.clamp(min=1)[:, None]
        return logits, (0.5 + progress) * (features - means[labels]).square().sum(1)


def as_spec(build: type[nn.Module], recipe: Recipe = RECIPE) -> ModelSpec:
    return ModelSpec(
        "net", "Net", build, "network", ("whole-6:raw",), "none", "baseline",
        recipes={"r": recipe}, default_recipe="r",
    )  # fmt: skip


def data() -> tuple[np.ndarray, np.ndarray, list[Fold]]:
    """Subjects of 3, 5, 9, 1 and 22 samples: trainings of unequal length, and unequal steps per epoch."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(5), [3, 5, 9, 1, 22])
    maps = generator.standard_normal((40, 3, 6, 6)).astype(np.float32)
    maps[:, 0, 0, 0] = np.arange(40) / 10
    labels = generator.integers(0, 3, 40).astype(np.int64)
    return maps, labels, [
        Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(5)
    ]  # fmt: skip


def run(build: type[nn.Module], engine: str, recipe: Recipe = RECIPE) -> dict[str, Any]:
    maps, labels, folds = data()
    records: dict[str, Any] = {}
    run_folds(
        as_spec(build), {}, maps, labels, 3, folds, recipe, protocol="p", seed=0, device="cpu",
        engine=engine, on_fold=lambda r: records.__setitem__(r.fold, r),
    )  # fmt: skip
    return records


def assert_agree(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys() and a
    for name in a:
        for field in ("logits", "train_loss", "train_accuracy"):
            np.testing.assert_allclose(getattr(a[name], field), getattr(b[name], field), **TOLERANCE)


def trainer_of(build: type[nn.Module], recipe: Recipe) -> FoldTrainer:
    maps, labels, folds = data()
    torch.manual_seed(0)
    samples = TrainingSamples.of_fold(maps, labels, folds[4], 3, CPU)
    return FoldTrainer(build().train(), samples, recipe, 7, None)


@pytest.mark.parametrize("build", [Penalised, Centred])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_weights": (0.2, 0.5, 0.3), "label_smoothing": 0.1},
        {"balanced": True, "drop_last": True, "optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 1},
        {"layer_decay": 0.5, "amp": "bf16"},
    ],
)
def test_stacked_folds_agree_with_single_ones(build: type[nn.Module], changes: dict[str, Any]) -> None:
    recipe = RECIPE.changed(**changes)
    stacked, single = run(build, "stacked", recipe), run(build, "serial", recipe)
    if recipe.amp != "off":  # half precision rounds by the order of sums
        for name in stacked:
            np.testing.assert_allclose(stacked[name].logits, single[name].logits, atol=0.05)
        return
    assert_agree(stacked, single)


@pytest.mark.parametrize("build", [Penalised, Centred])
def test_a_penalty_is_part_of_the_loss_and_of_the_gradient(build: type[nn.Module]) -> None:
    plain, other = run(Plain, "serial"), run(build, "serial")
    assert not np.allclose(plain["s0"].logits, other["s0"].logits, atol=1e-3)
    # Same weights at the start, hence the same loss but for the penalty, which is above zero.
    assert (other["s0"].train_loss > plain["s0"].train_loss).all()


def test_the_first_step_of_a_penalised_network_is_that_of_a_loop_by_hand() -> None:
    trainer = trainer_of(Penalised, RECIPE.changed(optimizer="sgd", momentum=0.0, lr=0.1))
    maps, labels, folds = data()
    order = np.argsort(labels[folds[4].train], kind="stable")[:16]
    x, y = (torch.from_numpy(a[folds[4].train][order]) for a in (maps, labels))
    torch.manual_seed(0)
    twin = Penalised()
    logits, penalty = twin.train()(x)
    loss = F.cross_entropy(logits, y) + penalty.mean()
    loss.backward()
    loss = float(loss.detach())
    total, right = trainer.step(torch.arange(16))
    assert float(total) == pytest.approx(loss * 16, rel=1e-5)
    assert int(right) == int((logits.argmax(1) == y).sum())
    for ours, theirs in zip(trainer.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


def test_running_buffers_see_each_sample_once_and_progress_counts_epochs() -> None:
    trainer = trainer_of(Centred, RECIPE.changed(epochs=4))
    _, labels, folds = data()
    for epoch in range(4):
        trainer.epoch()
        assert float(trainer.network.last_progress) == epoch / 4
        counts = np.bincount(labels[folds[4].train], minlength=3) * (epoch + 1)
        assert trainer.network.counts.tolist() == counts.tolist()


def test_padded_rows_do_not_enter_running_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench.training import stacked

    kept = []
    build = stacked.StackedNetwork

    def keep(*given: Any) -> Any:
        kept.append(build(*given))
        return kept[-1]

    monkeypatch.setattr(stacked, "StackedNetwork", keep)
    run(Centred, "stacked", RECIPE.changed(epochs=2))
    _, labels, folds = data()
    seen = torch.cat([network.buffers["counts"] for network in kept])
    expected = [2 * np.bincount(labels[fold.train], minlength=3) for fold in folds]
    # Chunks come longest training first.
    assert sorted(seen.tolist()) == sorted(np.stack(expected).tolist())


@pytest.mark.parametrize("engine", ["serial", "stacked"])
def test_nan_in_a_penalty_is_a_loss_error_of_its_fold(engine: str) -> None:
    # Sample 0 is the poisoned one; only fold s0 holds it out.
    with pytest.raises(
        TrainingError, match=r"4 of 5 folds failed(.|\n)*fold 's1', epoch 1: .* loss became nan"
    ):
        run(NanPenalty, engine)


@pytest.mark.parametrize("engine", ["serial", "stacked"])
@pytest.mark.parametrize(
    ("build", "message"),
    [(BadPenalty, r"penalty of shape \((16|2), 3\).*expected one number per sample, \((16|2),\)"),
     (Triple, r"returned tuple, expected logits or \(logits, penalty\)")],
)  # fmt: skip
def test_a_misshapen_answer_in_training_is_refused(engine: str, build: type[nn.Module], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run(build, engine)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_those_of_torch(smoothing: float) -> None:
    logits = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([[0, 1, 2, 0, 0, 1, 0], [2, 2, 1, 0, 1, 1, 1]])
    weights = (0.15, 0.425, 0.425)
    recipe = Recipe(class_weights=weights, label_smoothing=smoothing)
    reference = nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=smoothing)
    terms = loss_terms(recipe, torch.ones(2, 3))
    losses = sample_losses(logits, labels, terms)
    torch.testing.assert_close(
        batch_loss(losses, labels, terms),
        torch.stack([reference(z, y) for z, y in zip(logits, labels, strict=True)]),
    )
    # Padding counts neither above nor below the line.
    rows = torch.tensor([[1.0] * 7, [1.0] * 4 + [0.0] * 3])
    padded = batch_loss(losses, labels, terms, rows)[1]
    torch.testing.assert_close(padded, reference(logits[1, :4], labels[1, :4]))
    padded.backward()
    assert (logits.grad[1, 4:] == 0).all() and (logits.grad[1, :4] != 0).all()


def test_class_weights_must_fit_the_classes() -> None:
    with pytest.raises(UsageError, match="class_weights has 2 weights, but there are 3 classes"):
        run(Plain, "serial", RECIPE.changed(class_weights=(1.0, 2.0)))


def test_balanced_draws_are_uniform_over_classes_and_within_them() -> None:
    counts = torch.tensor([6, 0, 30, 4])
    draws = torch.cat([balanced_draws(stream_key(torch.tensor(3), 5, e), counts, 40) for e in range(300)])
    drawn = np.bincount(draws.numpy(), minlength=40)
    assert len(drawn) == 40
    by_class = np.array([drawn[:6].sum(), drawn[6:36].sum(), drawn[36:].sum()])
    # 12,000 draws: a class's share has a standard deviation of 0.0043.
    np.testing.assert_allclose(by_class / 12000, 1 / 3, atol=0.02)
    for part, size in ((drawn[:6], 6), (drawn[6:36], 30), (drawn[36:], 4)):
        share = part / part.sum()
        assert np.abs(share - 1 / size).max() < 5 * np.sqrt(1 / size / part.sum())


def test_balanced_draws_depend_on_fold_seed_and_epoch_alone() -> None:
    seeds = torch.tensor([3, 4])
    counts = torch.tensor([[6, 0, 30, 4], [5, 5, 5, 5]])
    together = balanced_draws(stream_key(seeds, 5, 0), counts, 44)
    alone = balanced_draws(stream_key(seeds[1], 5, 0), counts[1], 20)
    assert together[1, :20].tolist() == alone.tolist()
    # What pads a row is marked as padding: its own position, past the fold's length.
    assert together[1, 20:].tolist() == list(range(20, 44))
    assert together[0, :40].tolist() != balanced_draws(stream_key(seeds[0], 5, 1), counts[0], 40).tolist()
    assert together.tolist() == balanced_draws(stream_key(seeds, 5, 0), counts, 44).tolist()


def test_a_balanced_epoch_reaches_the_network_balanced() -> None:
    trainer = trainer_of(Centred, RECIPE.changed(balanced=True, epochs=200, lr=1e-9))
    for _ in range(200):
        trainer.epoch()
    counts = trainer.network.counts
    assert counts.sum() == 200 * 18
    torch.testing.assert_close(counts / counts.sum(), torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_drop_last_leaves_out_the_short_batch_only() -> None:
    maps, labels, folds = data()
    seen = []

    class Spy(Plain):
        def forward(self, maps: Tensor) -> Any:
            if self.training:
                seen.append(len(maps))
            return super().forward(maps)

    recipe = RECIPE.changed(epochs=1, drop_last=True)
    run_folds(
        as_spec(Spy), {}, maps, labels, 3, folds, recipe, protocol="p", seed=0, device="cpu",
        engine="serial", on_fold=lambda r: None,
    )  # fmt: skip
    # 37, 35, 31, 39 and 18 training samples in batches of 16.
    assert seen == [16, 16, 16, 16, 16, 16, 16, 16]
    assert_agree(run(Plain, "stacked", recipe), run(Plain, "serial", recipe))
    seen.clear()
    trainer = trainer_of(Spy, recipe.changed(batch_size=64))
    trainer.epoch()
    assert seen == [18]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_layer_decay_is_that_of_groups_made_by_hand(optimizer: str) -> None:
    recipe = Recipe(
        optimizer=optimizer, lr=0.1, weight_decay=0.05, layer_decay=0.5, schedule="step", step_epochs=1
    )
    torch.manual_seed(0)
    ours, theirs = Plain(), Plain()
    theirs.load_state_dict(ours.state_dict())
    groups = [
        {"params": list(theirs.hidden.parameters()), "lr": 0.1 * 0.25},
        {"params": list(theirs.head.parameters()), "lr": 0.1},
    ]
    reference: torch.optim.Optimizer
    if optimizer == "sgd":
        reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.05)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
        reference = kind(groups, lr=0.1, weight_decay=0.05)
    made = build_optimizer(
        recipe, parameter_groups(recipe, dict(ours.named_parameters()), check_layer_depths(ours, recipe))
    )
    maps = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    for step in range(4):
        set_learning_rate(made, learning_rate(recipe, step, 2))
        if step == 2:
            for group in reference.param_groups:
                group["lr"] *= 0.1
        for network, optimiser in ((ours, made), (theirs, reference)):
            optimiser.zero_grad()
            network(maps).square().sum().backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_layer_decay_without_depths_is_refused_before_training(prepared_with: Any) -> None:
    class Flat(nn.Module):
        def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28) -> None:
            super().__init__()
            self.fc = nn.Linear(in_channels * map_size**2, num_classes)

        def forward(self, maps: Tensor) -> Tensor:
            return self.fc(maps.flatten(1))

    class Forgetful(Flat):
        def layer_depths(self) -> dict[str, int]:
            return {"fc.weight": 0}

    for build, message in ((Flat, "tells no depths"), (Forgetful, "leaves out 1 of 2 .*'fc.bias'")):
        with pytest.raises(UsageError, match=message):
            prepared_with(as_spec(build), {"layer_decay": "0.9"})
        prepared_with(as_spec(build))
    with pytest.raises(UsageError, match="2 weights, but there are 3 classes"):
        prepared_with(as_spec(Flat), {"class_weights": "1,2"})
    with pytest.raises(UsageError, match="Flat has no implicit semantic augmentation; set isda = 0"):
        prepared_with(as_spec(Flat), {"isda": "0.5"})


def test_the_new_fields_are_settable_and_checked() -> None:
    def resolved(**overrides: str) -> Recipe:
        recipe = resolve(as_spec(Plain), Request(RunSettings(model="net", protocol="cde"), overrides)).recipe
        assert recipe is not None
        return recipe

    recipe = resolved(class_weights=".15, .425,.425", balanced="yes", drop_last="true", layer_decay="0.9")
    assert recipe.class_weights == (0.15, 0.425, 0.425)
    assert (recipe.balanced, recipe.drop_last, recipe.layer_decay) == (True, True, 0.9)
    for bad, message in (
        ({"class_weights": "1,0,1"}, "finite and above 0"),
        ({"class_weights": "1,nan,1"}, "finite and above 0"),
        ({"class_weights": "1,1,1", "loss": "focal"}, "belongs to loss = 'cross-entropy'"),
        ({"layer_decay": "0"}, r"lie in \(0, 1\]"),
        ({"layer_decay": "1.5"}, r"lie in \(0, 1\]"),
        ({"isda": "-1"}, "at least 0"),
        ({"balance": "yes"}, "balanced"),
    ):
        with pytest.raises(UsageError, match=message):
            resolved(**bad)


def test_a_recipe_that_uses_no_later_field_is_recorded_as_it_was_before_them() -> None:
    later = {"class_weights", "balanced", "drop_last", "layer_decay", "isda", "rotate", "decay_epochs"}
    before = {k: v for k, v in asdict(Recipe()).items() if k not in later}
    assert Recipe().record() == before and len(before) == 27
    changed = Recipe(class_weights=(1.0, 2.0), drop_last=True).record()
    assert changed == {**before, "class_weights": [1.0, 2.0], "drop_last": True}


def test_the_digest_of_a_run_is_what_it_was_before_the_later_fields(prepared_with: Any) -> None:
    plain = prepared_with(as_spec(Plain28)).manifest
    assert "balanced" not in plain["identity"]["recipe"]
    balanced = prepared_with(as_spec(Plain28), {"balanced": "yes"}).manifest
    assert balanced["identity"]["recipe"]["balanced"] is True
    assert balanced["digest"] != plain["digest"]


class Plain28(Plain):
    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28) -> None:
        super().__init__(num_classes, in_channels, map_size)
