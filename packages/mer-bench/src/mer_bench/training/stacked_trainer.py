"""Training of many folds at once, one epoch at a time, on their training samples alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.engines.graphs import GraphNotes, Replayed
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)
from mer_bench.training.seeding import (
    AUGMENTATION,
    BALANCING,
    SHUFFLING,
    balanced_draws,
    permutation,
    stream_key,
)
from mer_bench.training.stacked_network import StackedNetwork
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.trainer import AMP_DTYPES

_FIRST_SCALE, _GROW_AFTER = 2.0**16, 2000


class StackedTrainer:
    """Trains the stacked networks on the samples it is given. It is never handed another sample.

    Every fold takes as many steps per epoch as the others; the last batch is padded, and padded rows weigh
    nothing in the loss nor in batch normalisation.

    Nothing waits for the device: losses stay there until `history` is asked for. Where the trainer is
    `on_device`, a step reads all that changes from tensors (its number, the learning rate, the epoch), so
    that a CUDA graph of it stays right.

    Args:
        network: The folds' networks.
        samples: The folds' training samples.
        recipe: How to train.
        augmenter: The recipe's augmentation, or None.
        notes: Where it is noted that a step could not be captured.
        pool: Memory pool of CUDA graphs.
        on_device: Keep learning rate and step count on the device; None for where a graph is used: on CUDA,
            without fp16, whose loss scaling asks the device which folds overflowed.
    """

    def __init__(
        self,
        network: StackedNetwork,
        samples: StackedSamples,
        recipe: Recipe,
        augmenter: Augmenter | None,
        notes: GraphNotes | None = None,
        pool: object = None,
        on_device: bool | None = None,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self._samples = samples
        self._terms = loss_terms(recipe, samples.counts)
        self._augmenter = augmenter
        folds, device = len(samples), samples.lengths.device
        self._device = device
        graphed = device.type == "cuda" and recipe.amp != "fp16"
        self._on_device = graphed if on_device is None else on_device
        self._trainable = list(network.trainable().values())
        groups = parameter_groups(recipe, network.trainable(), network.depths())
        self._optimizer = build_optimizer(recipe, groups, capturable=self._on_device)
        self._steps = recipe.steps_per_epoch(samples.padded)
        self._epoch = 0
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._progress = torch.zeros((), device=device)
        self._number = 0
        rates = [learning_rate(recipe, step, self._steps) for step in range(recipe.epochs * self._steps)]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)
        self._record = torch.zeros(2, recipe.epochs, folds, device=device)
        self._scale = torch.full((folds,), _FIRST_SCALE if recipe.amp == "fp16" else 1.0, device=device)
        self._good_steps = torch.zeros(folds, dtype=torch.int64, device=device)
        self._replayed = Replayed(
            self._step, "training step", notes or GraphNotes(), graphed and self._on_device, pool
        )

    def epoch(self) -> None:
        """Train one epoch; see `history` for how it went."""
        self._progress.fill_(self._epoch / self.recipe.epochs)
        order = self._order()
        losses = torch.zeros(len(self._samples), device=self._device)
        correct = torch.zeros(len(self._samples), device=self._device)
        for number in range(self._steps):
            loss, right = self.step(order[:, number * self.recipe.batch_size :][:, : self.recipe.batch_size])
            losses += loss
            correct += right
        lengths = self._samples.lengths
        if self.recipe.drop_last:
            lengths = lengths.clamp(max=self._steps * self.recipe.batch_size)
        torch.div(torch.stack([losses, correct]), lengths, out=self._record[:, self._epoch])
        self._epoch += 1

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """Ask the device how the epochs so far went.

        Returns:
            Mean loss and accuracy over the epoch's samples of each fold, both `(epochs, F)` float32.
        """
        losses, accuracies = self._record[:, : self._epoch].cpu().numpy()
        return losses, accuracies

    def step(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimiser step in every fold.

        Args:
            positions: `(F, B)` int64, as in `StackedSamples.pick`.

        Returns:
            Sum of the losses and number of right predictions over the batch, each `(F,)`; they hold until the
            next step.
        """
        if not self._on_device:
            set_learning_rate(self._optimizer, learning_rate(self.recipe, self._number, self._steps))
        self._number += 1
        outcome: tuple[Tensor, Tensor] = self._replayed(positions)
        return outcome

    def _step(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self._on_device:
            last = len(self._rates) - 1
            set_learning_rate(self._optimizer, self._rates[self._taken.clamp(max=last).view(1)][0])
        maps, labels, weights = self._samples.pick(positions)
        if self._augmenter is not None:
            maps = self._augmenter(maps, stream_key(self.network.seeds, AUGMENTATION, self._taken))
        amp = AMP_DTYPES.get(self.recipe.amp)
        with torch.autocast(self._device.type, dtype=amp, enabled=amp is not None):
            logits, penalty = self.network.train_forward(maps, labels, weights, self._taken, self._progress)
        logits = logits.float()
        losses = sample_losses(logits, labels, self._terms)
        loss, totals = batch_loss(losses, labels, self._terms, weights), (losses.detach() * weights).sum(1)
        if penalty is not None:
            extra = (penalty * weights).sum(1)
            loss, totals = loss + extra / weights.sum(1), totals + extra.detach()
        # A fold's gradient depends on its own loss alone, so the sum over folds leaves each as it would be by
        # itself.
        self._update(loss)
        self._taken += 1
        right = (logits.detach().argmax(-1) == labels) * weights
        return totals, right.sum(1)

    def _order(self) -> Tensor:
        lengths, padded = self._samples.lengths, self._samples.padded
        if self.recipe.balanced:
            key = stream_key(self.network.seeds, BALANCING, self._epoch)
            return balanced_draws(key, self._samples.counts, padded)
        if not self.recipe.shuffle:
            return torch.arange(padded, device=self._device).expand(len(lengths), padded)
        return permutation(stream_key(self.network.seeds, SHUFFLING, self._epoch), lengths, padded)

    def _update(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        half = self.recipe.amp == "fp16"
        (loss * self._scale if half else loss).sum().backward()
        gradients = [p.grad for p in self._trainable if p.grad is not None]
        overflowed = self._unscale(gradients) if half else None
        if self.recipe.clip_norm:
            clip_gradients(gradients, self.recipe.clip_norm, stacked=True)
        if overflowed is None or not bool(overflowed.any()):
            self._optimizer.step()
        else:
            self._step_without(overflowed)
        # Set free at once: between steps nothing need hold a copy of every weight.
        self._optimizer.zero_grad(set_to_none=True)

    def _unscale(self, gradients: list[Tensor]) -> Tensor:
        """Undo loss scaling, per fold; returns `(F,)` bool, the folds whose gradient overflowed."""
        finite = torch.ones_like(self._scale, dtype=torch.bool)
        for g in gradients:
            g.div_(self._scale.view(-1, *[1] * (g.dim() - 1)))
            finite &= torch.isfinite(g).flatten(1).all(1)
        self._good_steps = torch.where(finite, self._good_steps + 1, 0)
        grown = self._good_steps >= _GROW_AFTER
        self._scale = torch.where(finite, torch.where(grown, self._scale * 2, self._scale), self._scale / 2)
        self._good_steps = torch.where(grown, 0, self._good_steps)
        return ~finite

    @torch.no_grad()
    def _step_without(self, skipped: Tensor) -> None:
        """Step, then put the skipped folds back as they were (their count of steps, shared, goes on)."""
        rows = skipped.nonzero().squeeze(1)
        saved: list[tuple[Tensor, Tensor]] = []
        for p in self._trainable:
            if p.grad is not None:
                p.grad[rows] = 0.0
            state = self._optimizer.state.get(p, {}).values()
            moments = [t for t in state if getattr(t, "shape", None) == p.shape]
            saved += [(t, t[rows].clone()) for t in (p, *moments)]
        self._optimizer.step()
        for tensor, before in saved:
            tensor[rows] = before
