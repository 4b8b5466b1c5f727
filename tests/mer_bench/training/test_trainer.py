"""What a network may ask of its training, and what recipes may ask beyond the plain epoch.

Stacked and single folds run the same float32 arithmetic with sums in another order; over the few steps taken
here they stay within 1e-4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.training.parts import RECIPE, assert_agree, data, job_of, run, stacked
from torch import Tensor, nn

from mer_bench.errors import TrainingError
from mer_bench.recipe import Recipe
from mer_bench.training.networks import OneNetwork
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

ENGINES = pytest.mark.parametrize("engine", ["local", "stacked"])


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


def trainer_of(build: Any, recipe: Recipe) -> tuple[Trainer, nn.Module]:
    """Fold s4, 18 training samples, and its network."""
    given, folds = data()
    torch.manual_seed(0)
    network = build().train()
    networks = OneNetwork(network, 7, recipe)
    return Trainer(networks, TrainingSamples(given, folds[4:], 3, networks), recipe, None), network


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
    many, single = (run(job_of(build, recipe, engine=engine)) for engine in ("stacked", "local"))
    # Half precision rounds by the order of sums.
    assert_agree(many, single, **({} if recipe.amp == "off" else {"atol": 0.05}))


@pytest.mark.parametrize("build", [Penalised, Centred])
def test_a_penalty_is_part_of_the_loss_and_of_the_gradient(build: type[nn.Module]) -> None:
    plain, other = run(job_of(Plain)), run(job_of(build))
    assert not np.allclose(plain["s0"].logits, other["s0"].logits, atol=1e-3)
    # Same weights at the start, hence the same loss but for the penalty, which is above zero.
    assert (other["s0"].train_loss > plain["s0"].train_loss).all()


def test_the_first_step_of_a_penalised_network_is_that_of_a_loop_by_hand() -> None:
    trainer, network = trainer_of(Penalised, RECIPE.changed(optimizer="sgd", momentum=0.0, lr=0.1))
    given, folds = data()
    rows = folds[4].train[np.argsort(given.labels[folds[4].train], kind="stable")][:16]
    x, y = torch.from_numpy(given.maps[rows]), torch.from_numpy(given.labels[rows])
    torch.manual_seed(0)
    twin = Penalised()
    logits, penalty = twin.train()(x)
    loss = F.cross_entropy(logits, y) + penalty.mean()
    loss.backward()
    (total,), (right,) = trainer.step(torch.arange(16)[None])
    assert float(total) == pytest.approx(float(loss.detach()) * 16, rel=1e-5)
    assert int(right) == int((logits.argmax(1) == y).sum())
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"supcon": 0.5}])
def test_a_penalty_is_added_to_a_blend_s_loss_and_to_a_contrast(changes: dict[str, float]) -> None:
    """From the same weights and draws: what the penalty adds to the losses, and its gradient to the step."""
    recipe, seen = RECIPE.changed(optimizer="sgd", momentum=0.0, lr=0.1, **changes), list[Tensor]()
    after = []
    for build in (Plain, Penalised):
        trainer, network = trainer_of(build, recipe)
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        (total,), _ = trainer.step(torch.arange(16)[None])
        after.append((float(total), [p.detach() for p in network.parameters()]))
    torch.manual_seed(0)
    twin = Penalised().train()
    _, penalty = twin(seen[-1])
    penalty.mean().backward()
    (without, plain), (with_it, penalised) = after
    assert with_it - without == pytest.approx(float(penalty.detach().sum()), rel=1e-4)
    for ours, theirs, start in zip(penalised, plain, twin.parameters(), strict=True):
        step = torch.zeros_like(start) if start.grad is None else -0.1 * start.grad
        torch.testing.assert_close(ours - theirs, step, rtol=1e-4, atol=1e-6)


def test_running_buffers_see_each_sample_once_and_progress_counts_epochs() -> None:
    trainer, network = trainer_of(Centred, RECIPE.changed(epochs=4))
    given, folds = data()
    for epoch in range(4):
        trainer.epoch()
        assert float(network.last_progress) == epoch / 4
        counts = np.bincount(given.labels[folds[4].train], minlength=3) * (epoch + 1)
        assert network.counts.tolist() == counts.tolist()


def test_padded_rows_do_not_enter_running_buffers() -> None:
    trainer, _ = stacked(job_of(Centred, RECIPE.changed(epochs=2)))
    for _ in range(2):
        trainer.epoch()
    given, folds = data()
    expected = [2 * np.bincount(given.labels[fold.train], minlength=3) for fold in folds[1:3]]
    assert trainer.networks.buffers["counts"].tolist() == np.stack(expected).tolist()


@ENGINES
def test_nan_in_a_penalty_is_a_loss_error_of_its_fold(engine: str) -> None:
    # Sample 0 is the poisoned one; folds s0 and s1 are trained without.
    with pytest.raises(
        TrainingError, match=r"3 of 5 folds failed(.|\n)*fold 's2', epoch 1: .* loss became nan"
    ):
        run(job_of(NanPenalty, engine=engine))


@ENGINES
@pytest.mark.parametrize(
    ("build", "message"),
    [(BadPenalty, r"penalty of shape \((16|2), 3\).*expected one number per sample, \((16|2),\)"),
     (Triple, r"returned tuple, expected logits or \(logits, penalty\)")],
)  # fmt: skip
def test_a_misshapen_answer_in_training_is_refused(engine: str, build: type[nn.Module], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run(job_of(build, engine=engine))


def test_a_balanced_epoch_reaches_the_network_balanced() -> None:
    trainer, network = trainer_of(Centred, RECIPE.changed(balanced=True, epochs=200, lr=1e-9))
    for _ in range(200):
        trainer.epoch()
    counts = network.counts
    assert counts.sum() == 200 * 18
    torch.testing.assert_close(counts / counts.sum(), torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_batches_are_cut_from_the_stored_order_unless_they_are_shuffled() -> None:
    seen = list[Tensor]()

    class Spy(Plain):
        def forward(self, maps: Tensor) -> Any:
            seen.append((maps[:, 0, 0, 0] * 10).round())
            return super().forward(maps)

    given, folds = data()
    stored = folds[4].train[np.argsort(given.labels[folds[4].train], kind="stable")].tolist()
    for shuffle in (False, True):
        seen.clear()
        trainer, _ = trainer_of(Spy, RECIPE.changed(shuffle=shuffle))
        trainer.epoch()
        order = torch.cat(seen).tolist()
        assert sorted(order) == sorted(stored) and (order == stored) != shuffle


def test_drop_last_leaves_out_the_short_batch_only() -> None:
    seen = []

    class Spy(Plain):
        def forward(self, maps: Tensor) -> Any:
            if self.training:
                seen.append(len(maps))
            return super().forward(maps)

    recipe = RECIPE.changed(epochs=1, drop_last=True)
    run(job_of(Spy, recipe))
    # 37, 32, 31, 39 and 18 training samples in batches of 16.
    assert seen == [16] * 8
    assert_agree(*(run(job_of(Plain, recipe, engine=engine)) for engine in ("stacked", "local")))
    seen.clear()
    trainer, _ = trainer_of(Spy, recipe.changed(batch_size=64))
    trainer.epoch()
    assert seen == [18]
