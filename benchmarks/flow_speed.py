"""How fast TV-L1 in PyTorch is beside OpenCV's, one thread each, and how near both come to the truth.

    python benchmarks/flow_speed.py [--device cpu|cuda] [--rounds 3] [--out FILE.md]

Real faces moved by known fields (those of flow_accuracy.py, the head still) at 224x224 px, and with the
pipeline's margin at 280x280 px. The backends take turns pair by pair, so a busy machine slows both alike; the
ratio is of process time, wall time stands beside it. Target: at least 2 times OpenCV's pairs per second at an
end-point error no worse (CPU); at least 1,000 pairs per second (H200). Also printed: where the time goes
against the bytes that it moves, and the cost of 1, 4 and 16 pairs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from flow_accuracy import AMPLITUDES, make_pairs
from machine import describe, write_out

#: Planes read and written by one iteration: by its 17 kernels, and by one that fused them all.
PLANES_EAGER, PLANES_FUSED = 96, 17


@dataclass(frozen=True)
class Aligned:
    """An aligned pair, margin included, and the truth on it."""

    onset: np.ndarray
    apex: np.ndarray
    truth: np.ndarray
    face: np.ndarray

    def cut(self, margin: int) -> Aligned:
        """Return it without so many px on each side."""
        inner = slice(margin, self.onset.shape[0] - margin)
        planes = (np.ascontiguousarray(plane[..., inner, inner]) for plane in
                  (self.onset, self.apex, self.truth, self.face))  # fmt: skip
        return Aligned(*planes)


def aligned_pairs(subjects: int) -> tuple[list[Aligned], int]:
    """Render and align the pairs as the pipeline does; return them and the margin in px."""
    import cv2

    from mer_flow.config import PipelineConfig
    from mer_flow.extraction.extractor import extractor
    from mer_flow.faces.align import to_grey, warp
    from mer_flow.faces.landmarks import face_mask

    engine = extractor(PipelineConfig())
    align, margin = engine.config.align, engine.config.align.margin_px
    side = align.size + 2 * margin
    found = []
    for amplitude in AMPLITUDES:
        for pair in make_pairs(amplitude, subjects, head_moves=False):
            matrix = engine.find_face(pair.onset).matrix
            wide = matrix + np.array([[0, 0, margin], [0, 0, margin]])
            moved = cv2.warpAffine(np.ascontiguousarray(pair.field.transpose(1, 2, 0)), wide, (side, side))
            found.append(
                Aligned(
                    to_grey(warp(pair.onset, matrix, align, margin)),
                    to_grey(warp(pair.apex, matrix, align, margin)),
                    np.einsum("ij,yxj->iyx", wide[:, :2], moved),
                    face_mask(pair.landmarks @ wide[:, :2].T + wide[:, 2], (side, side)),
                )
            )
    return found, margin


@dataclass
class Tally:
    """What one backend took and gave."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    epe: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)


def compare(pairs: list[Aligned], backends: dict[str, Any], rounds: int) -> dict[str, Tally]:
    """Let the backends take turns on every pair; OpenCV, the first, is what the others are held against."""
    tallies = {name: Tally() for name in backends}
    for backend in backends.values():
        backend.compute(pairs[0].onset[None], pairs[0].apex[None])
    for turn in range(rounds):
        for number, pair in enumerate(pairs):
            flows = {}
            names = list(backends)
            for name in names if (turn + number) % 2 == 0 else reversed(names):
                cpu, wall = time.process_time(), time.perf_counter()
                flows[name] = backends[name].compute(pair.onset[None], pair.apex[None])[0]
                tallies[name].cpu.append(time.process_time() - cpu)
                tallies[name].wall.append(time.perf_counter() - wall)
            for name in names:
                tallies[name].epe.append(float(np.hypot(*(flows[name] - pair.truth))[pair.face].mean()))
                apart = np.hypot(*(flows[name] - flows[names[0]]))[pair.face]
                tallies[name].apart.append(float(apart.mean()))
    return tallies


def render(tallies: dict[str, Tally]) -> list[str]:
    """Return the comparison as Markdown lines."""
    lines = [
        "| backend | ms of process time per pair | ms of wall time | times OpenCV (process, wall) | EPE, px "
        "| from OpenCV, px |",
        "|---|---|---|---|---|---|",
    ]
    base = next(iter(tallies.values()))
    for name, tally in tallies.items():
        times = (1000 * np.median(tally.cpu), 1000 * np.median(tally.wall))
        ratios = (sum(base.cpu) / sum(tally.cpu), sum(base.wall) / sum(tally.wall))
        lines.append(
            f"| {name} | {times[0]:.0f} | {times[1]:.0f} | {ratios[0]:.2f}, {ratios[1]:.2f} | "
            f"{np.mean(tally.epe):.4f} | {np.mean(tally.apart):.4f} |"
        )
    return lines


@contextmanager
def timed(owner: Any, name: str, into: dict[str, list[float]], label: str) -> Iterator[None]:
    """Add up the process time of every call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        result = original(*arguments, **named)
        into[label].append(time.process_time() - start)
        return result

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, original)


def profile(pairs: list[Aligned], backend: Any) -> list[str]:
    """Return where the CPU's time goes, per pair, beside the bytes that it moves, as Markdown lines."""
    import torch

    from mer_flow.flow.torch_tvl1.median import MedianFilter
    from mer_flow.flow.torch_tvl1.solver import Level
    from mer_flow.flow.torch_tvl1.steps import State

    spent: dict[str, list[float]] = defaultdict(list)
    side = pairs[0].onset.shape[0]
    moved = [0]
    original = State.iterate

    def counted(state: State, weights: Any) -> None:
        moved[0] += 4 * state.offset.numel()
        original(state, weights)

    State.iterate = counted  # type: ignore[method-assign]
    with (
        timed(State, "iterate", spent, "iterations"),
        timed(MedianFilter, "__call__", spent, "median filter"),
        timed(Level, "_linearise", spent, "warps"),
    ):
        start = time.process_time()
        for pair in pairs:
            backend.compute(pair.onset[None], pair.apex[None])
        whole = time.process_time() - start
    State.iterate = original  # type: ignore[method-assign]
    rest = whole - sum(sum(times) for times in spent.values())
    # What this core can copy when the data lie where an iteration's lie.
    source, target = torch.zeros(2, 10, side, side).unbind(0)
    best = 1e9
    for _ in range(20):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    rate = 2 * source.numel() * 4 / best
    count = len(pairs)
    iterated = sum(spent["iterations"]) / count
    lines = [f"At {side}x{side} px, {whole / count * 1000:.0f} ms per pair:", ""]
    lines += ["| part | calls per pair | ms per pair | share |", "|---|---|---|---|"]
    for label, times in [*spent.items(), ("stop, pyramid, rest", [rest])]:
        calls = f"{len(times) / count:.0f}" if label in spent else ""
        lines.append(f"| {label} | {calls} | {1000 * sum(times) / count:.1f} | {sum(times) / whole:.0%} |")
    eager, fused = (moved[0] / count * planes for planes in (PLANES_EAGER, PLANES_FUSED))
    lines += [
        "",
        f"Iterations move {eager / 1e9:.2f} GB per pair ({PLANES_EAGER} planes each) in "
        f"{iterated * 1000:.0f} ms, {eager / iterated / 1e9:.0f} GB/s;",
        f"this core copies {rate / 1e9:.0f} GB/s at that size. One fused kernel would move "
        f"{fused / 1e9:.2f} GB ({PLANES_FUSED} planes): floor {1000 * fused / rate:.0f} ms.",
    ]
    return lines


def scaling(pairs: list[Aligned], backend: Any) -> list[str]:
    """Return the cost of 1, 4 and 16 pairs in one call, as Markdown lines."""
    lines = [
        "| pairs in one call | s of process time | s of wall time | pairs per s (wall) |",
        "|---|---|---|---|",
    ]
    for count in (1, 4, 16):
        chosen = [pairs[i % len(pairs)] for i in range(count)]
        onset, apex = np.stack([p.onset for p in chosen]), np.stack([p.apex for p in chosen])
        backend.compute(onset, apex)  # prepares this batch size on CUDA
        cpu, wall = time.process_time(), time.perf_counter()
        backend.compute(onset, apex)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        lines.append(f"| {count} | {cpu:.2f} | {wall:.2f} | {count / wall:.1f} |")
    return lines


def throughput(pairs: list[Aligned], backend: Any, batch: int) -> float:
    """Return pairs per second of wall time in one large call, after one that prepares it."""
    chosen = [pairs[i % len(pairs)] for i in range(batch)]
    onset, apex = np.stack([p.onset for p in chosen]), np.stack([p.apex for p in chosen])
    backend.compute(onset, apex)
    start = time.perf_counter()
    for _ in range(3):
        backend.compute(onset, apex)
    return 3 * batch / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--subjects", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256, help="pairs of one call on CUDA")
    parser.add_argument("--out", type=Path, help="also write the Markdown here")
    options = parser.parse_args()

    import torch

    from mer_flow.flow import BackendOptions, get_backend
    from mer_flow.work.libraries import load_cv2

    torch.set_num_threads(1)
    load_cv2().setNumThreads(1)
    wide, margin = aligned_pairs(options.subjects)
    sizes = [[pair.cut(margin) for pair in wide], wide]

    def backend(**chosen: Any) -> Any:
        return get_backend("torch", options=BackendOptions(device=options.device, **chosen))

    backends = {"opencv-tvl1": get_backend("opencv"), "torch-tvl1": backend()}
    backends["torch-tvl1, border clamp"] = backend(border="clamp")
    name = torch.cuda.get_device_name() if options.device == "cuda" else "one thread"
    lines = [
        "# TV-L1: PyTorch beside OpenCV",
        "",
        f"{describe()}; {name}; {backends['opencv-tvl1'].version}; torch-tvl1 "
        f"{backends['torch-tvl1'].version}.",
        f"{len(wide)} pairs of real faces, {options.rounds} rounds, OpenCV's default parameters; end-point "
        "error and difference: means over the face.",
    ]
    for pairs in sizes:
        side = pairs[0].onset.shape[0]
        lines += ["", f"## {side}x{side} px", ""]
        if options.device == "cpu":
            lines += render(compare(pairs, backends, options.rounds))
            continue
        rounds = compare(pairs, backends, 1)
        for title, tally in rounds.items():
            lines.append(
                f"- {title}: EPE {np.mean(tally.epe):.4f}, from OpenCV {np.mean(tally.apart):.4f} px"
            )
        for title in list(backends)[1:]:
            rate = throughput(pairs, backends[title], options.batch)
            lines.append(f"- {title}: {rate:.0f} pairs/s in calls of {options.batch}")
        one = np.median(rounds["opencv-tvl1"].wall)
        lines.append(f"- opencv-tvl1, one thread: {1 / one:.1f} pairs/s")
    lines += ["", "## Cost against the number of pairs", "", *scaling(sizes[0], backends["torch-tvl1"])]
    if options.device == "cpu":
        lines += ["", "## Where the time goes", "", *profile(sizes[0], backends["torch-tvl1"])]
    write_out(lines, options.out)


if __name__ == "__main__":
    main()
