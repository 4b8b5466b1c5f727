"""How near the flow comes to the truth, by amplitude and with each switch of the pipeline on and off.

    python benchmarks/flow_accuracy.py [--subjects 4] [--backend opencv|torch|both] [--out FILE.md]

A real face, varied into subjects, moves by known sub-pixel fields, with head motion, flicker and noise. The
onset and the apex go through the whole pipeline. Printed as Markdown: mean end-point error over the face in
px of the aligned face, beside what predicting no movement would give; the recovered share of the movement
where it is strong (gain); border against interior strain; and milliseconds per pair.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, write_out

AMPLITUDES = (0.5, 1.0, 2.0, 3.0)
MOVEMENTS = ("1+2", "4", "9", "12", "15")
FRAME = (640, 480)

Sections = dict[str, dict[str, Any]]

#: Row title -> settings. The first is the default; the others differ from it in what they name.
ROWS: dict[str, Sections] = {
    "default": {},
    "no margin cut": {"align": {"margin": 0.0}},
    "no stabilisation": {"stabilise": {"method": "none"}},
    "stabilisation by the median": {"stabilise": {"method": "median"}},
    "no prefilter": {"align": {"prefilter": False}},
    "S = 128": {"align": {"size": 128}},
    "scale_step 0.5": {"flow": {"scale_step": 0.5}},
    "scale_step 0.5, 3 warps, epsilon 0.02": {"flow": {"scale_step": 0.5, "warps": 3, "epsilon": 0.02}},
}
#: Of these, those measured where the head is still.
STILL = ("default", "no stabilisation")


@dataclass(frozen=True)
class Pair:
    """An onset, an apex and the field between them."""

    onset: np.ndarray
    apex: np.ndarray
    field: np.ndarray
    landmarks: np.ndarray


def make_pairs(amplitude: float, subjects: int, head_moves: bool) -> Iterator[Pair]:
    """Render every movement on every subject; the same subjects and heads for every amplitude."""
    from mer_flow.synthetic.movements import displacement
    from mer_flow.synthetic.portrait import make_portrait
    from mer_flow.synthetic.rendering import ClipRenderer, HeadMotion

    for subject in range(subjects):
        portrait = make_portrait(np.random.default_rng([1, subject]), FRAME, colour=True)
        for number, movement in enumerate(MOVEMENTS):
            rng = np.random.default_rng([2, subject, number])
            field = displacement(movement, portrait.landmarks, FRAME[::-1], amplitude)
            head = HeadMotion.draw(rng, portrait.centre)
            clip = ClipRenderer(portrait, field, head, rng)
            still = head.matrix(0.0)
            onset = clip.frame(0.0, still)
            yield Pair(
                onset, clip.frame(1.0, head.matrix(0.5) if head_moves else still), field, portrait.landmarks
            )


@dataclass
class Score:
    """Sums over the pairs of one cell."""

    epe: list[float]
    zero: list[float]
    gain: list[float]
    border: list[float]
    milliseconds: list[float]


def score(pair: Pair, settings: Sections, into: Score) -> None:
    """Run one pair through the pipeline and compare."""
    import cv2

    from mer_flow.config import PipelineConfig
    from mer_flow.extraction.extractor import extractor
    from mer_flow.faces.landmarks import face_mask

    engine = extractor(PipelineConfig.from_dict(settings))
    _ = engine.flow  # loaded before the clock runs
    start = time.perf_counter()
    found = engine.extract_pair(pair.onset, pair.apex)
    into.milliseconds.append(1000 * (time.perf_counter() - start))
    matrix, size = found.alignment, found.flow.shape[-1]
    moved = cv2.warpAffine(np.ascontiguousarray(pair.field.transpose(1, 2, 0)), matrix, (size, size))
    truth = np.einsum("ij,yxj->iyx", matrix[:, :2], moved)
    face = face_mask(pair.landmarks @ matrix[:, :2].T + matrix[:, 2], (size, size))
    length = np.hypot(*truth)
    strong = face & (length >= 0.5 * length.max())
    ring = np.ones((size, size), bool)
    edge = max(1, round(size * 10 / 224))
    ring[edge:-edge, edge:-edge] = False
    into.epe.append(float(np.hypot(*(found.flow[:2] - truth))[face].mean()))
    into.zero.append(float(length[face].mean()))
    into.gain.append(float((found.flow[:2] * truth)[:, strong].sum() / (truth**2)[:, strong].sum()))
    into.border.append(float(found.flow[2][ring].max() / found.flow[2][~ring].max()))


def measure(subjects: int, head_moves: bool, rows: dict[str, Sections]) -> dict[str, dict[float, Score]]:
    """Score every row at every amplitude."""
    table: dict[str, dict[float, Score]] = defaultdict(dict)
    for amplitude in AMPLITUDES:
        for row in rows:
            table[row][amplitude] = Score([], [], [], [], [])
        for pair in make_pairs(amplitude, subjects, head_moves):
            for row, settings in rows.items():
                score(pair, settings, table[row][amplitude])
    return table


def by_backend(rows: dict[str, Sections], backend: str) -> dict[str, Sections]:
    """Return the rows computed by a backend, or for `both` the defaults side by side."""
    if backend == "both":
        return {
            "opencv-tvl1": {},
            "torch-tvl1": {"flow": {"backend": "torch"}},
            "torch-tvl1, border clamp": {"flow": {"backend": "torch", "border": "clamp"}},
        }
    chosen = {"backend": backend}
    return {title: settings | {"flow": settings.get("flow", {}) | chosen} for title, settings in rows.items()}


def render(table: dict[str, dict[float, Score]]) -> list[str]:
    """Return the table as Markdown lines."""
    heads = [f"{a:g} px: EPE (gain)" for a in AMPLITUDES]
    lines = [
        f"| setting | {' | '.join(heads)} | border / interior strain | ms per pair |",
        "|---" * (len(AMPLITUDES) + 3) + "|",
    ]
    first = next(iter(table.values()))
    zeros = " | ".join(f"{np.mean(cell.zero):.3f} (0)" for cell in first.values())
    lines.append(f"| predicting no movement, S = 224 | {zeros} | | |")
    for row, cells in table.items():
        errors = " | ".join(f"{np.mean(c.epe):.3f} ({np.mean(c.gain):.2f})" for c in cells.values())
        border = np.median([value for cell in cells.values() for value in cell.border])
        spent = np.median([value for cell in cells.values() for value in cell.milliseconds])
        lines.append(f"| {row} | {errors} | {border:.2f} | {spent:.0f} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--backend", choices=("opencv", "torch", "both"), default="opencv")
    parser.add_argument("--out", type=Path, help="also write the Markdown here")
    options = parser.parse_args()

    from mer_flow.config import PipelineConfig
    from mer_flow.extraction.extractor import pipeline_record
    from mer_flow.work.libraries import load_cv2, load_torch

    load_cv2().setNumThreads(1)
    backend = "torch" if options.backend == "both" else options.backend
    if backend == "torch":
        load_torch().set_num_threads(1)
    versions = pipeline_record(PipelineConfig.from_dict({"flow": {"backend": backend}}))["versions"]
    rows = by_backend(ROWS, options.backend)
    still = rows if options.backend == "both" else {title: rows[title] for title in STILL}
    pairs = options.subjects * len(MOVEMENTS)
    lines = [
        "# Accuracy of the flow on synthetic faces",
        "",
        f"{describe()}; one thread; {backend} {versions['flow_backend']}, {versions['region_backend']}.",
        f"{pairs} pairs per cell: {options.subjects} subjects, movements AU {', AU '.join(MOVEMENTS)}; "
        "amplitude is",
        "the longest displacement in px of the 640x480 frame (about 100 px between the eyes). End-point "
        "error: mean",
        "over the face, px of the aligned face.",
        "",
        "## The head moves too (up to a few px and half a degree), as in real clips",
        "",
        *render(measure(options.subjects, True, rows)),
        "",
        "## The head is still: what stabilisation and alignment cost where nothing needs them",
        "",
        *render(measure(options.subjects, False, still)),
    ]
    write_out(lines, options.out)


if __name__ == "__main__":
    main()
