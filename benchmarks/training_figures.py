"""Figures of fold training on one device: the stacked engine, a plain loop and the floors between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ceilings import Ceilings, wait
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.engines.graphs import GraphNotes, graph_pool, own_stream
from mer_bench.training.engines.stacked import fold_capacity
from mer_bench.training.folds import run_folds
from mer_bench.training.plan import Plan
from mer_bench.training.precision import matrix_precision, resolve_precision
from mer_bench.training.stacked_network import StackedNetwork
from mer_bench.training.stacked_observer import StackedObserver
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.stacked_trainer import StackedTrainer

PUBLISHED_EPOCHS = 800

# Capture happens in the third step of each batch size, so the first two epochs go by without.
_WARM_EPOCHS = 3


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        spec: The model.
        options: Its builder's options.
        recipe: How; its epochs are set by each measurement.
        maps: `(N, 3, H, W)` float32.
        labels: `(N,)` int64.
        folds: All folds of the protocol.
        device: Where.
    """

    spec: ModelSpec
    options: dict[str, Any]
    recipe: Recipe
    maps: np.ndarray
    labels: np.ndarray
    folds: list[Fold]
    device: torch.device

    def plan(self, epochs: int, precision: str = "auto", compiled: bool = False, amp: str = "off") -> Plan:
        """The engine's description of the training."""
        recipe = replace(self.recipe, epochs=epochs, amp=amp)
        device = str(self.device)
        return Plan(
            self.spec, self.options, 3, recipe, "cde", 0, device, None, False,
            precision=resolve_precision(precision, device), compiled=compiled,
        )  # fmt: skip


def plain_loop(job: Job, network: nn.Module, epochs: int) -> float:
    """Seconds per fold-epoch of what published scripts do, with torch as it comes.

    One fold at a time, `DataLoader` over a `TensorDataset`, batches sent to the device, Adam, the held-out
    subject evaluated after every epoch. The first epoch is left out.
    """
    fold, batch = job.folds[0], job.recipe.batch_size
    x, y = torch.from_numpy(job.maps), torch.from_numpy(job.labels)
    network.to(job.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=job.recipe.lr)
    criterion = nn.CrossEntropyLoss()
    train = DataLoader(TensorDataset(x[fold.train], y[fold.train]), batch_size=batch, shuffle=True)
    held_out = DataLoader(TensorDataset(x[fold.test], y[fold.test]), batch_size=batch)
    begin = 0.0
    for epoch in range(epochs + 1):
        network.train()
        for maps, labels in train:
            optimizer.zero_grad()
            loss = criterion(network(maps.to(job.device)), labels.to(job.device))
            loss.backward()
            optimizer.step()
            loss.item()
        network.eval()
        with torch.no_grad():
            for maps, _ in held_out:
                network(maps.to(job.device)).argmax(1).cpu()
        if epoch == 0:
            wait(job.device)
            begin = time.perf_counter()
    return (time.perf_counter() - begin) / epochs


@dataclass(frozen=True)
class StackedRate:
    """Seconds per fold-epoch at the margin, how they came about, and what the engine noted."""

    seconds: float
    folds: int
    epochs: int
    setup: float
    peak_bytes: int
    notes: tuple[str, ...]


def stacked_rate(job: Job, plan: Plan, epochs: int) -> StackedRate:
    """Trains and observes one chunk for some epochs; building, warming up and capturing are timed apart.

    A chunk that does not fit is halved, as the engine does.
    """
    most = len(job.folds)
    while True:
        try:
            return _one_chunk(job, plan, epochs, most)
        except torch.OutOfMemoryError:
            if most == 1:
                raise
        most = max(1, most // 2)
        torch.cuda.empty_cache()


def _one_chunk(job: Job, plan: Plan, epochs: int, most: int) -> StackedRate:
    begin = time.perf_counter()
    device = job.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    shape = job.maps.shape[1:]
    with matrix_precision(plan.precision, plan.device), own_stream(device):
        maps = torch.from_numpy(job.maps).to(device)
        labels = torch.from_numpy(job.labels).to(device)
        capacity = fold_capacity(plan, maps, max(len(f.train) for f in job.folds))
        pieces = -(-len(job.folds) // min(capacity, most))
        chunk = job.folds[: -(-len(job.folds) // pieces)]
        notes, pool = GraphNotes(), graph_pool(device)
        seeds = [plan.seed_of(fold) for fold in chunk]
        network = StackedNetwork(plan, seeds, (shape[0], shape[1], shape[2]), device, notes)
        samples = StackedSamples(maps, labels, chunk, 3)
        trainer = StackedTrainer(network, samples, plan.recipe, None, notes, pool)
        observer = StackedObserver(network, maps, chunk, plan.epochs, 3, notes, pool)

        def train(count: int) -> float:
            wait(device)
            start = time.perf_counter()
            for _ in range(count):
                trainer.epoch()
                observer.observe()
            wait(device)
            return time.perf_counter() - start

        train(_WARM_EPOCHS)
        setup = time.perf_counter() - begin
        seconds = train(epochs) / (epochs * len(chunk))
        assert np.isfinite(trainer.history()[0]).all()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return StackedRate(seconds, len(chunk), epochs, setup, peak, tuple(notes))


def epochs_to_plan(epochs: int) -> int:
    """Epochs that a plan for `stacked_rate` must have room for."""
    return epochs + _WARM_EPOCHS


def full_run(job: Job, epochs: int, precision: str = "auto") -> float:
    """Seconds of the real thing: `run_folds` over every fold, records included."""
    records = []
    begin = time.perf_counter()
    run_folds(
        job.spec, job.options, job.maps, job.labels, 3, job.folds, replace(job.recipe, epochs=epochs),
        protocol="cde", seed=0, device=str(job.device), engine="stacked", precision=precision,
        on_fold=lambda record: records.append(record.fold),
    )  # fmt: skip
    assert len(records) == len(job.folds)
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Counts:
    """Operations and parameters of a network.

    Attributes:
        training: Floating-point operations of one sample's passes forwards and backwards, a multiplication
            with its addition counted as two.
        trained: Parameters that get a gradient.
    """

    training: float
    trained: int


def count(job: Job) -> Counts:
    """Counts on the meta device, where nothing is computed."""
    channels, size = job.maps.shape[1:3]
    with torch.device("meta"):
        network = job.spec.build(num_classes=3, in_channels=channels, map_size=size, **job.options)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, channels, size, size)).sum().backward()
    trained = sum(p.numel() for p in network.parameters() if p.grad is not None)
    return Counts(counter.get_total_flops() / 2, trained)


def floors(job: Job, ceilings: Ceilings, counts: Counts, epochs: int) -> dict[str, float]:
    """Seconds that a whole training needs at least, by each measured ceiling.

    Adam reads weight, gradient and two moments and writes all but the gradient: 7 accesses of 4 bytes per
    parameter and step; the passes read the weight twice and write the gradient: 3 more.
    """
    samples = sum(len(fold.train) for fold in job.folds)
    steps = sum(job.recipe.steps_per_epoch(len(fold.train)) for fold in job.folds)
    operations = counts.training * samples * epochs
    return {
        "Adam float32 traffic": 10 * 4 * counts.trained * steps * epochs / ceilings.bandwidth,
        "arithmetic, float32": operations / ceilings.float32,
        "arithmetic, TF32": operations / ceilings.tf32,
        "arithmetic, BF16": operations / ceilings.bf16,
    }


def activation_floor(job: Job, bytes_per_sample: float, bandwidth: float, epochs: int) -> float:
    """Seconds to write and read the largest activation once, and its gradient once."""
    return 4 * bytes_per_sample * sum(len(fold.train) for fold in job.folds) * epochs / bandwidth
