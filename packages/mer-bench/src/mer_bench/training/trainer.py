"""Training of some folds side by side, one epoch at a time, on their training samples alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.contrast import supervised_contrast
from mer_bench.training.graphs import Graphs
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.mixing import Mixer
from mer_bench.training.networks import Networks
from mer_bench.training.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.seeding import (
    AUGMENTATION,
    BALANCING,
    MIXING,
    SHUFFLING,
    balanced_draws,
    permutation,
    stream_key,
)


class Trainer:
    """Trains networks on the samples it is given. It is never handed another sample.

    Every fold takes as many steps per epoch as the others; the last batch is padded, and padded rows weigh
    nothing in the loss nor in batch normalisation.

    Nothing waits for the device: losses stay there until `history` is asked for. Where graphs are used, a
    step reads all that changes from tensors (its number, the learning rate, the epoch).

    Args:
        networks: The folds' networks.
        samples: The folds' training samples.
        recipe: How to train.
        augmenter: The recipe's augmentation, or None.
        graphs: The chunk's CUDA graphs; none are used unless given.
    """

    def __init__(
        self,
        networks: Networks,
        samples: TrainingSamples,
        recipe: Recipe,
        augmenter: Augmenter | None,
        graphs: Graphs | None = None,
    ) -> None:
        graphs = graphs or Graphs()
        self.networks = networks
        self.recipe = recipe
        self._samples = samples
        self._augmenter = augmenter
        self._mixer = Mixer(recipe, networks.device) if recipe.mixup else None
        if recipe.ema:
            networks.begin_average()
        self._terms = loss_terms(recipe, samples.counts)
        self._on_device = graphs.on_device
        groups = parameter_groups(recipe, networks.trainable(), networks.depths)
        self._optimizer = build_optimizer(recipe, groups, capturable=self._on_device)
        self._steps = recipe.steps_per_epoch(samples.padded)
        device = self._device = networks.device
        self._epoch = self._number = 0
        # What `_epoch` and `_number` say, on the device.
        self._progress = torch.zeros((), device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        rates = [learning_rate(recipe, step, self._steps) for step in range(recipe.epochs * self._steps)]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)
        self._record = torch.zeros(2, recipe.epochs, len(samples), device=device)
        self._replayed = graphs.replayed(self._step, "training step")

    def epoch(self) -> None:
        """Train one epoch; see `history` for how it went."""
        self._progress.fill_(self._epoch / self.recipe.epochs)
        order = self._order()
        size = self.recipe.batch_size
        sums = torch.zeros(2, len(self._samples), device=self._device)
        for number in range(self._steps):
            sums += self.step(order[:, number * size : (number + 1) * size])
        lengths = self._samples.lengths
        if self.recipe.drop_last:
            lengths = lengths.clamp(max=self._steps * size)
        torch.div(sums, lengths, out=self._record[:, self._epoch])
        self._epoch += 1

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """Ask the device how the epochs so far went.

        Returns:
            Mean loss of each fold over the epoch's samples, each as it was trained on, and the share whose
            largest logit is their label's (a mixed sample counts by its shares), both `(epochs, F)` float32.
        """
        losses, accuracies = self._record[:, : self._epoch].cpu().numpy()
        return losses, accuracies

    def step(self, positions: Tensor) -> Tensor:
        """Take one optimiser step in every fold.

        Args:
            positions: `(F, B)` int64, as in `TrainingSamples.pick`.

        Returns:
            `(2, F)` float32, sum of the losses and number of right predictions over the batch; it holds until
            the next step.
        """
        if not self._on_device:
            set_learning_rate(self._optimizer, learning_rate(self.recipe, self._number, self._steps))
        self._number += 1
        outcome: Tensor = self._replayed(positions)
        return outcome

    def _step(self, positions: Tensor) -> Tensor:
        if self._on_device:
            last = len(self._rates) - 1
            set_learning_rate(self._optimizer, self._rates[self._taken.clamp(max=last).view(1)][0])
        maps, labels, weights = self._samples.pick(positions)
        if self._augmenter is not None:
            maps = self._augmenter(maps, stream_key(self.networks.seeds, AUGMENTATION, self._taken))
        targets, shares = labels, weights
        if self._mixer is not None:
            key = stream_key(self.networks.seeds, MIXING, self._taken)
            maps, targets, shares = self._mixer(maps, labels, weights, key)
        half = self.recipe.amp == "bf16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            logits, penalty, features = self.networks.train_forward(
                maps, labels, weights, self._taken, self._progress
            )
        if features is not None:
            contrast = supervised_contrast(features, labels, weights, self.recipe.supcon_temperature)
            penalty = self.recipe.supcon * contrast + (0.0 if penalty is None else penalty)
        logits = logits.float()
        if self._mixer is not None:
            # One row per share.
            logits = torch.cat([logits, logits], 1)
            penalty = None if penalty is None else torch.cat([penalty, penalty], 1)
        losses = sample_losses(logits, targets, self._terms)
        loss = batch_loss(losses, targets, self._terms, shares)
        totals, right = losses.detach(), (logits.detach().argmax(-1) == targets).float()
        if penalty is not None:
            loss = loss + (penalty.mean(1) if shares is None else (penalty * shares).sum(1) / shares.sum(1))
            totals = totals + penalty.detach()
        # A fold's gradient depends on its own loss alone, so the sum over folds leaves each as it would be by
        # itself.
        loss.sum().backward()
        if self.recipe.clip_norm:
            clip_gradients(self.networks.gradients(), self.recipe.clip_norm)
        self._optimizer.step()
        # Set free at once: between steps nothing need hold a copy of every weight.
        self._optimizer.zero_grad(set_to_none=True)
        self._taken += 1
        if self.recipe.ema:
            # Averages of few steps forget the weights at the start sooner.
            self.networks.follow(((1.0 + self._taken) / (10.0 + self._taken)).clamp(max=self.recipe.ema))
        outcome = torch.stack([totals, right])
        return (outcome if shares is None else outcome * shares).sum(-1)

    def _order(self) -> Tensor:
        seeds, samples = self.networks.seeds, self._samples
        if self.recipe.balanced:
            return balanced_draws(stream_key(seeds, BALANCING, self._epoch), samples.counts, samples.padded)
        if not self.recipe.shuffle:
            return torch.arange(samples.padded, device=self._device).expand(len(samples), -1)
        return permutation(stream_key(seeds, SHUFFLING, self._epoch), samples.lengths, samples.padded)
