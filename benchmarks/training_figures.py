"""Figures of fold training on one device: the stacked engine, a plain loop and the floors between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from ceilings import Ceilings, wait
from public_shape import Records
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from mer_bench.protocols.folds import Fold
from mer_bench.training.device import device_of, torch_held
from mer_bench.training.engines.memory import fold_capacity
from mer_bench.training.folds import run_folds
from mer_bench.training.graphs import Graphs, own_stream
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.networks import StackedNetworks
from mer_bench.training.recorder import Recorder
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

PUBLISHED_EPOCHS = 800

# Capture happens in the third step of each batch size, so the first two epochs go by without.
_WARM_EPOCHS = 3


@dataclass(frozen=True)
class Case:
    """What is trained: a job, whose epochs are set by each measurement, on data, with all folds."""

    job: Job
    data: TrainingData
    folds: list[Fold]

    @cached_property
    def device(self) -> torch.device:
        """Where."""
        return device_of(self.job)

    def job_with(self, epochs: int, amp: str = "off", **training: object) -> Job:
        """Returns the job with so many epochs; `training` changes its settings."""
        recipe = self.job.network_recipe.changed(epochs=epochs, amp=amp)
        return replace(self.job, recipe=recipe, training=self.job.training.changed(**training))


def plain_loop(case: Case, network: nn.Module, epochs: int) -> float:
    """Seconds per fold-epoch of what published scripts do, with torch as it comes.

    One fold at a time, `DataLoader` over a `TensorDataset`, batches sent to the device, Adam, the held-out
    subject evaluated after every epoch. The first epoch is left out.
    """
    fold, batch = case.folds[0], case.job.network_recipe.batch_size
    x, y = torch.from_numpy(case.data.maps), torch.from_numpy(case.data.labels)
    network.to(case.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=case.job.network_recipe.lr)
    criterion = nn.CrossEntropyLoss()
    train = DataLoader(TensorDataset(x[fold.train], y[fold.train]), batch_size=batch, shuffle=True)
    held_out = DataLoader(TensorDataset(x[fold.test], y[fold.test]), batch_size=batch)
    begin = 0.0
    for epoch in range(epochs + 1):
        network.train()
        for maps, labels in train:
            optimizer.zero_grad()
            loss = criterion(network(maps.to(case.device)), labels.to(case.device))
            loss.backward()
            optimizer.step()
            loss.item()
        network.eval()
        with torch.no_grad():
            for maps, _ in held_out:
                network(maps.to(case.device)).argmax(1).cpu()
        if epoch == 0:
            wait(case.device)
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


def stacked_rate(case: Case, epochs: int, **form: object) -> StackedRate:
    """Trains and observes one chunk for some epochs; building, warming up and capturing are timed apart.

    A chunk that does not fit is halved, as the engine does. `form` changes precision and the like.
    """
    job = case.job_with(epochs + _WARM_EPOCHS, **form)  # type: ignore[arg-type]
    most = len(case.folds)
    while True:
        try:
            return _one_chunk(case, job, epochs, most)
        except torch.OutOfMemoryError:
            if most == 1:
                raise
        most = max(1, most // 2)
        torch.cuda.empty_cache()


def _one_chunk(case: Case, job: Job, epochs: int, most: int) -> StackedRate:
    begin = time.perf_counter()
    device, data, recipe = case.device, case.data, job.network_recipe
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with torch_held(job), own_stream(device):
        capacity = fold_capacity(job, data, max(len(f.train) for f in case.folds))
        pieces = -(-len(case.folds) // min(capacity, most))
        chunk = case.folds[: -(-len(case.folds) // pieces)]
        graphs = Graphs(device.type == "cuda")
        networks = StackedNetworks(job, [job.seed_of(fold.name) for fold in chunk], data.shape, graphs)
        samples = TrainingSamples(data, chunk, 3, networks)
        trainer = Trainer(networks, samples, recipe, None, graphs)
        recorder = Recorder(networks, data, chunk, recipe.epochs, 3, graphs)

        def train(count: int) -> float:
            wait(device)
            start = time.perf_counter()
            for _ in range(count):
                trainer.epoch()
                recorder.observe()
            wait(device)
            return time.perf_counter() - start

        train(_WARM_EPOCHS)
        setup = time.perf_counter() - begin
        seconds = train(epochs) / (epochs * len(chunk))
        assert np.isfinite(trainer.history()[0]).all()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return StackedRate(seconds, len(chunk), epochs, setup, peak, tuple(graphs.notes))


def full_run(case: Case, epochs: int) -> float:
    """Seconds of the real thing: `run_folds` over every fold, records included."""
    records = Records()
    begin = time.perf_counter()
    run_folds(case.job_with(epochs, engine="stacked"), case.data, case.folds, None, records)
    assert len(records) == len(case.folds)
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


def count(case: Case) -> Counts:
    """Counts on the meta device, where nothing is computed."""
    channels, size, _ = case.data.shape
    job = case.job
    with torch.device("meta"):
        network = job.spec.build(num_classes=3, in_channels=channels, map_size=size, **job.options)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, channels, size, size)).sum().backward()
    trained = sum(p.numel() for p in network.parameters() if p.grad is not None)
    return Counts(counter.get_total_flops() / 2, trained)


def floors(case: Case, ceilings: Ceilings, counts: Counts, epochs: int) -> dict[str, float]:
    """Seconds that a whole training needs at least, by each measured ceiling.

    Adam reads weight, gradient and two moments and writes all but the gradient: 7 accesses of 4 bytes per
    parameter and step; the passes read the weight twice and write the gradient: 3 more.
    """
    samples = sum(len(fold.train) for fold in case.folds)
    steps = sum(case.job.network_recipe.steps_per_epoch(len(fold.train)) for fold in case.folds)
    operations = counts.training * samples * epochs
    return {
        "Adam float32 traffic": 10 * 4 * counts.trained * steps * epochs / ceilings.bandwidth,
        "arithmetic, float32": operations / ceilings.float32,
        "arithmetic, TF32": operations / ceilings.tf32,
        "arithmetic, BF16": operations / ceilings.bf16,
    }


def activation_floor(case: Case, bytes_per_sample: float, bandwidth: float, epochs: int) -> float:
    """Seconds to write and read the largest activation once, and its gradient once."""
    return 4 * bytes_per_sample * sum(len(fold.train) for fold in case.folds) * epochs / bandwidth
