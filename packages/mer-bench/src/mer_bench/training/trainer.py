"""Training of one fold, one epoch at a time, on its training samples alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.demands import meet_recipe
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.network import dropout_keys, dropout_layers, training_output, wants_channels_last
from mer_bench.training.optim import (
    build_optimizer,
    check_layer_depths,
    clip_gradients,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.seeding import (
    AUGMENTATION,
    BALANCING,
    SHUFFLING,
    balanced_draws,
    permutation,
    stream_key,
)

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochStats:
    """Means over the training samples of one epoch, each taken as it was trained on.

    Attributes:
        loss: Mean loss.
        accuracy: Share of samples whose largest logit is their label's.
    """

    loss: float
    accuracy: float


class FoldTrainer:
    """Trains a network on the samples it is given. It is never handed another sample.

    Args:
        network: Made by `build_network`.
        samples: The fold's training samples.
        recipe: How to train.
        seed: The fold's seed.
        augmenter: The recipe's augmentation, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: TrainingSamples,
        recipe: Recipe,
        seed: int,
        augmenter: Augmenter | None,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.device = samples.labels.device
        self._channels_last = wants_channels_last(network, self.device)
        # Rows are picked every step; with channels last in memory a picked batch needs no second copy.
        self._maps = samples.maps.permute(0, 2, 3, 1).contiguous() if self._channels_last else samples.maps
        self._labels = samples.labels
        self._counts = samples.counts
        self._terms = loss_terms(recipe, samples.counts)
        self._seed = torch.tensor(seed, device=self.device)
        self._augmenter = augmenter
        self._dropouts = dropout_layers(network)
        self._streams = torch.tensor([n for n, _ in self._dropouts.values()], device=self.device)
        meet_recipe(network, recipe)
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._parameters = list(named.values())
        groups = parameter_groups(recipe, named, check_layer_depths(network, recipe))
        self._optimizer = build_optimizer(recipe, groups)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "fp16")
        self._steps = recipe.steps_per_epoch(len(samples.labels))
        self._epoch = 0
        self._step = 0

    def epoch(self) -> EpochStats:
        """Train one epoch.

        Returns:
            Loss and accuracy over the epoch's samples; the loss is NaN or infinite where a batch's was.
        """
        order = self._order(len(self._labels))
        if self.recipe.drop_last:
            order = order[: self._steps * self.recipe.batch_size]
        count = len(order)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, count, self.recipe.batch_size):
            loss, right = self.step(order[start : start + self.recipe.batch_size])
            loss_sum += loss
            correct += right
        self._epoch += 1
        return EpochStats(float(loss_sum) / count, int(correct) / count)

    def step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimiser step.

        Args:
            rows: `(B,)` int64, places among the training samples.

        Returns:
            Sum of the losses and number of right predictions over the batch.
        """
        self.network.train()
        set_learning_rate(self._optimizer, learning_rate(self.recipe, self._step, self._steps))
        labels = self._labels.index_select(0, rows)
        logits, penalty = self._forward(self._batch(rows), labels)
        losses = sample_losses(logits, labels, self._terms)
        loss, total = batch_loss(losses, labels, self._terms), losses.detach().sum()
        if penalty is not None:
            loss, total = loss + penalty.mean(), total + penalty.detach().sum()
        self._update(loss)
        self._step += 1
        return total, (logits.detach().argmax(-1) == labels).sum()

    def _order(self, count: int) -> Tensor:
        if self.recipe.balanced:
            return balanced_draws(stream_key(self._seed, BALANCING, self._epoch), self._counts, count)
        if not self.recipe.shuffle:
            return torch.arange(count, device=self.device)
        key = stream_key(self._seed, SHUFFLING, self._epoch)
        return permutation(key, torch.tensor(count, device=self.device), count)

    def _batch(self, rows: Tensor) -> Tensor:
        maps = self._maps.index_select(0, rows)
        if self._channels_last:
            maps = maps.permute(0, 3, 1, 2)
        if self._augmenter is not None:
            maps = self._augmenter(maps, stream_key(self._seed, AUGMENTATION, self._step))
            if self._channels_last:
                maps = maps.contiguous(memory_format=torch.channels_last)
        return maps

    def _forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._dropouts:
            keys = dropout_keys(self._seed, self._streams, self._step)
            for key, (_, dropout) in zip(keys, self._dropouts.values(), strict=True):
                dropout.key.copy_(key)
                dropout.calls = 0
        amp = AMP_DTYPES.get(self.recipe.amp)
        with torch.autocast(self.device.type, dtype=amp, enabled=amp is not None):
            output = training_output(self.network, maps, labels, self._progress())
        return (output.float(), None) if isinstance(output, Tensor) else (output[0].float(), output[1])

    def _progress(self) -> Tensor:
        return torch.tensor(self._epoch / self.recipe.epochs, device=self.device)

    def _update(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        if self.recipe.clip_norm:
            self._scaler.unscale_(self._optimizer)
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            clip_gradients(gradients, self.recipe.clip_norm, stacked=False)
        self._scaler.step(self._optimizer)
        self._scaler.update()
