"""Cost grows linearly: 1, 4 and 16 times the pairs of flow, and 17, 34 and 68 folds of training, plotted.

Flow is TV-L1 of 112×112 pixels on one thread; training is STSTNet and AHMSA-Net tiny, one fold after the
other on one thread, for a few epochs. Times are processor time, which neighbours disturb least. A straight
line through the origin is fitted; what is printed is how far each point lies from it.

    python benchmarks/scaling.py --out benchmarks/results/2026-11-20-scaling.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gpu_flow
import numpy as np
import torch
from machine import describe
from public_shape import Records, composite, job_of

from ahmsa_model.registration import SPECS as AHMSA
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.training.folds import run_folds
from mer_bench.training.job import TrainingData


@dataclass(frozen=True)
class Series:
    """Processor seconds over a growing amount of the same work.

    Attributes:
        name: The work.
        unit: What is counted.
        amounts: How much.
        seconds: Least of the repeats.
    """

    name: str
    unit: str
    amounts: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def each(self) -> float:
        """Seconds per unit of the line through the origin that fits best in relative terms."""
        rates = np.divide(self.seconds, self.amounts)
        return float(rates.sum() / np.square(rates).sum()) ** -1

    @property
    def deviations(self) -> tuple[float, ...]:
        """How far each point lies from the line, as a share of it."""
        return tuple(s / (n * self.each) - 1.0 for n, s in zip(self.amounts, self.seconds, strict=True))


def measure(
    name: str, unit: str, amounts: tuple[int, ...], work: Callable[[int], object], repeats: int
) -> Series:
    """Times work of each amount, taking turns, and keeps the least of each."""
    work(amounts[0])
    taken: dict[int, list[float]] = {amount: [] for amount in amounts}
    for _ in range(repeats):
        for amount in amounts:
            begin = time.process_time()
            work(amount)
            taken[amount].append(time.process_time() - begin)
    return Series(name, unit, amounts, tuple(min(taken[amount]) for amount in amounts))


def flow_series(backend: str, pairs: int, repeats: int) -> Series:
    """Flow of 1, 4 and 16 times so many pairs."""
    onset, apex = gpu_flow.faces(16 * pairs, 112)
    computes = gpu_flow.backend(backend, "cpu")
    return measure(
        f"flow, {backend}", "pairs", (pairs, 4 * pairs, 16 * pairs),
        lambda n: computes.compute(onset[:n], apex[:n]), repeats,
    )  # fmt: skip


def training_series(spec: ModelSpec, variant: str, epochs: int, folds: int, repeats: int) -> Series:
    """Training of a quarter, half and all of the folds."""
    maps, labels, every = composite()
    # Folds differ by a few samples; in random order, a quarter of them costs a quarter.
    order = np.random.default_rng(0).permutation(len(every))[:folds]
    job = job_of(spec, variant, spec.recipes[spec.default_recipe].changed(epochs=epochs))
    data = TrainingData(maps / 255, labels)

    def train(count: int) -> None:
        run_folds(job, data, [every[i] for i in order[:count]], None, Records())

    name = f"training, {spec.title} {'' if variant == 'default' else variant + ' '}{epochs} epochs"
    return measure(name, "folds", (folds // 4, folds // 2, folds), train, repeats)


def draw(series: list[Series], path: Path) -> None:
    """Plots each series with its line, both axes logarithmic."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("the picture needs matplotlib: python -m pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), constrained_layout=True)
    for axis, unit in zip(axes, ("pairs", "folds"), strict=True):
        for one in (s for s in series if s.unit == unit):
            amounts = np.array(one.amounts)
            (dots,) = axis.loglog(amounts, one.seconds, "o", label=one.name)
            axis.loglog(amounts, one.each * amounts, "-", color=dots.get_color(), linewidth=1)
            axis.set_xticks(one.amounts, [str(amount) for amount in one.amounts])
            axis.xaxis.minorticks_off()
        axis.set_xlabel(unit)
        axis.set_ylabel("processor time, s")
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8, title="dots measured, line proportional", title_fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> list[Series]:
    """Measures, prints and draws; returns the series."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=2, help="pairs of the smallest flow (default 2)")
    parser.add_argument("--folds", type=int, default=68, help="folds of the largest training (default 68)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training (default 3)")
    parser.add_argument("--repeats", type=int, default=2, help="how often each is timed (default 2)")
    parser.add_argument("--out", type=Path, help="where to draw the picture (PNG)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    series = [flow_series(name, options.pairs, options.repeats) for name in ("opencv-tvl1", "torch-tvl1")]
    for spec, variant in ((STSTNET[0], "default"), (AHMSA[0], "tiny")):
        series.append(training_series(spec, variant, options.epochs, options.folds, options.repeats))
    print(f"{describe()}, torch {torch.__version__}, one thread\n")
    print("| work | amounts | processor time, s | per unit, ms | off the line |\n|---|---|---|---|---|")
    for one in series:
        amounts = ", ".join(map(str, one.amounts))
        seconds = ", ".join(f"{s:.2f}" for s in one.seconds)
        off = ", ".join(f"{100 * d:+.0f} %" for d in one.deviations)
        print(f"| {one.name} | {amounts} {one.unit} | {seconds} | {1e3 * one.each:.1f} | {off} |")
    if options.out:
        draw(series, options.out)
    return series


if __name__ == "__main__":
    main()
