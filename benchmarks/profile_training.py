"""Where a CPU's time goes in one fold-epoch, against operations and bytes: STSTNet and AHMSA-Net tiny.

Shares are of self CPU time in torch's profiler, on one thread; seconds are processor time of the same epochs
without it. The floors: the operations of both passes at the speed of a large matrix product, what the
backward pass needs written and read once, and Adam's seven accesses to every parameter.

    python benchmarks/profile_training.py --out benchmarks/results/2026-11-20-profile.md
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ceilings import Ceilings, measure_ceilings
from machine import describe
from public_shape import composite, job_of
from torch.profiler import ProfilerActivity, profile
from training_figures import Case, count

from ahmsa_model.registration import SPECS as AHMSA
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.training.engines.memory import activation_bytes
from mer_bench.training.job import TrainingData
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.networks import OneNetwork
from mer_bench.training.recorder import Recorder
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

CPU = torch.device("cpu")


@dataclass
class Profile:
    """One model's fold-epoch.

    Attributes:
        title: Model, variant and recipe.
        milliseconds: Processor time per fold-epoch: the least and the median.
        observing: Of it, prediction of the held-out subject.
        shares: Operator, share of self CPU time, calls per step.
        floors: Milliseconds by what they are made of.
    """

    title: str
    milliseconds: tuple[float, float]
    observing: float
    shares: list[tuple[str, float, float]]
    floors: dict[str, float]

    def markdown(self) -> str:
        """Returns the profile as a heading, a sentence and a table."""
        least, median = self.milliseconds
        floors = ", ".join(f"{name} {value:.2f} ms" for name, value in self.floors.items())
        lines = [
            f"## {self.title}",
            "",
            f"{least:.1f} ms of processor time per fold-epoch (median {median:.1f}), of which the held-out "
            f"subject's prediction {self.observing:.1f}. Floors: {floors}.",
            "",
            "| operator | share of self CPU time | calls per step |",
            "|---|---|---|",
        ]
        lines += [f"| `{name}` | {100 * share:.1f} % | {calls:.1f} |" for name, share, calls in self.shares]
        return "\n".join(lines)


def profile_case(case: Case, title: str, ceilings: Ceilings, epochs: int, top: int) -> Profile:
    """Trains the first fold for some epochs, timed, then profiled."""
    job, data, folds = case.job, case.data, case.folds[:1]
    (fold,) = folds
    recipe = job.network_recipe.changed(epochs=3 * epochs + 1)
    with fold_generators(0, CPU):
        network, spare = (
            build_network(job.spec, job.options, 3, data.shape, CPU, stacked=False) for _ in range(2)
        )
    kept = activation_bytes(spare, data.shape, CPU)
    networks = OneNetwork(network, 0, recipe)
    trainer = Trainer(networks, TrainingSamples(data, folds, 3, networks), recipe, None)
    recorder = Recorder(networks, data, folds, recipe.epochs, 3)

    def timed(call: Any) -> float:
        begin = time.process_time()
        call()
        return time.process_time() - begin

    trainer.epoch()
    recorder.observe()
    training, observing = [], []
    for _ in range(2 * epochs):
        training.append(timed(trainer.epoch))
        observing.append(timed(recorder.observe))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(epochs):
            trainer.epoch()
            recorder.observe()
    events = found.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    steps = epochs * recipe.steps_per_epoch(len(fold.train))
    largest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:top]
    counts = count(case)
    trained = recipe.steps_per_epoch(len(fold.train))
    floors = {
        "arithmetic": counts.training * len(fold.train) / ceilings.float32,
        "activations": 2 * kept * len(fold.train) / ceilings.bandwidth,
        "Adam": 7 * 4 * counts.trained * trained / ceilings.bandwidth,
    }
    both = np.add(training, observing)
    return Profile(
        title,
        (1e3 * float(both.min()), 1e3 * float(np.median(both))),
        1e3 * float(np.median(observing)),
        [(event.key, event.self_cpu_time_total / whole, event.count / steps) for event in largest],
        {name: 1e3 * seconds for name, seconds in floors.items()},
    )


def main(arguments: list[str] | None = None) -> str:
    """Profiles, prints and writes; returns the text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=8, help="epochs profiled per model (default 8)")
    parser.add_argument("--top", type=int, default=12, help="operators listed (default 12)")
    parser.add_argument("--out", type=Path, help="write the profile here as well")
    parser.add_argument("--quick", action="store_true", help="a fifth of the composite: does it run?")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ceilings = measure_ceilings(CPU, options.quick)
    maps, labels, folds = composite(subjects=12, whole=False) if options.quick else composite()
    parts = [
        "# Profile of fold training",
        f"{describe()}, torch {torch.__version__}, one thread; a 1024³ float32 product at "
        f"{ceilings.float32 / 1e9:.0f} GFLOP/s, a copy at {ceilings.bandwidth / 1e9:.1f} GB/s.",
        "    python benchmarks/profile_training.py",
    ]
    chosen = ((STSTNET[0], "default", "authors"), (AHMSA[0], "tiny", "quick"), (AHMSA[0], "tiny", "lineage"))
    for spec, variant, name in chosen:
        recipe = spec.recipes[name]
        data = TrainingData(maps if spec is STSTNET[0] else maps / 255, labels)
        case = Case(job_of(spec, variant, recipe), data, folds)
        title = f"{spec.title}, {variant}, recipe {name}, batches of {recipe.batch_size}"
        parts.append(profile_case(case, title, ceilings, options.epochs, options.top).markdown())
    text = "\n\n".join(parts)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return text


if __name__ == "__main__":
    main()
