"""Fold training against a plain loop: STSTNet, the held-out subject evaluated every epoch, in one run.

The plain loop does what published scripts do: one fold at a time, `DataLoader` over a `TensorDataset`,
torch's default number of threads, three streams with a convolution each, Adam, and the held-out subject after
every epoch. The two take turns, so that a neighbour's load falls on both; but measure on an idle machine, as
two threads that wait for each other suffer more from neighbours than two processes do. Data are random maps
in the shape of the MEGC2019 composite: 442 samples of 68 subjects, 28×28×3 in 0 to 255 (time does not depend
on what they show).

    python benchmarks/fold_training.py --folds 8 --epochs 40
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from public_shape import Records, job_of
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mer_bench.models.ststnet import AUTHORS, SPECS
from mer_bench.protocols.folds import Fold
from mer_bench.training.folds import run_folds
from mer_bench.training.job import TrainingData
from mer_flow.work.executor import local_executor, usable_cores

SAMPLES, SUBJECTS, CLASS_SHARES = 442, 68, (250, 109, 83)
KERNELS, TAPS, SIDE = 16, 27, 30


class ThreeStreams(nn.Module):
    """STSTNet as it is usually written: three separate streams."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, k, 3, padding=2) for k in (3, 5, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(k) for k in (3, 5, 8))
        self.pool, self.mean = nn.MaxPool2d(3, 3, 1), nn.AvgPool2d(2, 2)
        self.dropout, self.relu, self.fc = nn.Dropout(0.5), nn.ReLU(), nn.Linear(400, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 3)` of maps `(B, 3, 28, 28)`."""
        streams = zip(self.convs, self.norms, strict=True)
        x = torch.cat([self.dropout(self.pool(norm(self.relu(conv(x))))) for conv, norm in streams], 1)
        return self.fc(self.mean(x).flatten(1))


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray, list[Fold]]:
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, 256, (SAMPLES, 3, 28, 28)).astype(np.float32)
    labels = generator.permutation(np.repeat(np.arange(3), CLASS_SHARES))
    # Every subject at least once, the rest as it falls.
    subjects = np.concatenate([np.arange(SUBJECTS), generator.integers(0, SUBJECTS, SAMPLES - SUBJECTS)])
    folds = [
        Fold(f"subject {s:02d}", np.flatnonzero(subjects != s), np.flatnonzero(subjects == s))
        for s in range(SUBJECTS)
    ]
    return maps, labels.astype(np.int64), folds


def plain_loop(maps: np.ndarray, labels: np.ndarray, folds: list[Fold], epochs: int) -> float:
    """Train folds as a script would; returns seconds."""
    begin = time.perf_counter()
    x, y = torch.from_numpy(maps), torch.from_numpy(labels)
    for fold in folds:
        network = ThreeStreams()
        optimizer = torch.optim.Adam(network.parameters(), lr=AUTHORS.lr)
        criterion = nn.CrossEntropyLoss()
        train = DataLoader(
            TensorDataset(x[fold.train], y[fold.train]), batch_size=AUTHORS.batch_size, shuffle=True
        )
        held_out = DataLoader(TensorDataset(x[fold.test], y[fold.test]), batch_size=AUTHORS.batch_size)
        for _ in range(epochs):
            network.train()
            for batch, target in train:
                optimizer.zero_grad()
                loss = criterion(network(batch), target)
                loss.backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                for batch, _ in held_out:
                    network(batch).argmax(1)
    return time.perf_counter() - begin


def engine_run(maps: np.ndarray, labels: np.ndarray, folds: list[Fold], epochs: int, workers: int) -> float:
    """Train folds by the engine; returns seconds."""
    begin = time.perf_counter()
    records = Records()
    job = job_of(SPECS[0], "default", AUTHORS.changed(epochs=epochs))
    with local_executor(workers) as executor:
        run_folds(job, TrainingData(maps, labels), folds, executor, records)
    assert len(records) == len(folds)
    return time.perf_counter() - begin


def per_fold_epoch(run: Callable[[int], float], folds: int, epochs: int) -> tuple[float, float]:
    """Seconds of a fold-epoch at the margin, and of starting up: two runs of unequal length part them."""
    short = max(1, epochs // 4)
    few, many = run(short), run(epochs)
    rate = (many - few) / (folds * (epochs - short))
    return rate, max(0.0, few - rate * folds * short)


def floors() -> tuple[float, float]:
    """Seconds per fold-epoch and core that arithmetic alone, and traffic alone, would take here."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    products = least_time(lambda: a @ b)
    # The convolution forwards, and its weights' gradient: two operations per tap, twice.
    positions = (SAMPLES - SAMPLES // SUBJECTS) * SIDE * SIDE
    arithmetic = 2 * 2 * positions * KERNELS * TAPS / (2 * 1024**3 / products)
    big, other = torch.zeros(positions * KERNELS), torch.zeros(positions * KERNELS)
    # A fused step still writes the activation once and reads it once: as much as one copy.
    return arithmetic, least_time(lambda: other.copy_(big))


def least_time(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(7):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folds", type=int, default=8, help="folds trained per round (default 8)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of the longer run (default 60)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each of both (default 3)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="worker processes")
    parser.add_argument("--serial", action="store_true", help="time one process as well")
    options = parser.parse_args()
    maps, labels, folds = make_data(seed=0)
    folds = folds[: options.folds]
    threads = torch.get_num_threads()
    cores = usable_cores()
    print(f"{platform.machine()}, {cores} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(f"{options.folds} folds × {options.epochs} epochs × {options.rounds} rounds, STSTNet, batch 256\n")

    engines = {"processes": options.workers, **({"one process": 1} if options.serial else {})}
    rates: dict[str, list[float]] = {name: [] for name in ("plain loop", *engines)}
    startup: list[float] = []
    # The plain loop starts nothing up, so one run is enough; fewer folds keep the rounds short.
    some, half = folds[: max(1, len(folds) // 4)], max(1, options.epochs // 2)
    for _ in range(options.rounds):
        torch.set_num_threads(threads)
        rates["plain loop"].append(plain_loop(maps, labels, some, half) / (len(some) * half))
        for name, workers in engines.items():
            rate, first = per_fold_epoch(
                lambda n, workers=workers: engine_run(maps, labels, folds, n, workers),
                len(folds),
                options.epochs,
            )
            rates[name].append(rate)
            if name == "processes":
                startup.append(first)
    arithmetic, traffic = floors()
    plain = float(np.median(rates["plain loop"]))
    for name, values in rates.items():
        rate = float(np.median(values))
        rounds = ", ".join(f"{1e3 * v:.1f}" for v in values)
        print(
            f"{name:12s} {1e3 * rate:7.1f} ms per fold-epoch (rounds {rounds}), "
            f"{1 / rate:6.1f} fold-epochs/s, {plain / rate:.2f} × plain loop"
        )
    print(f"processes' start-up, once per run: {np.median(startup):.1f} s")
    share = 1e3 / options.workers
    print(
        f"floor with {options.workers} workers: arithmetic {share * arithmetic:.1f} ms (both passes of the "
        f"convolution at the speed of a 1024³ product), traffic {share * traffic:.1f} ms (activation written "
        "and read once). Between them and the step lie the convolution's 3 input channels, which fill a "
        "vector register badly, then statistics, pooling and dropout."
    )


if __name__ == "__main__":
    main()
