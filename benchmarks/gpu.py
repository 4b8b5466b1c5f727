"""Every GPU figure in one call, beside its floor and a plain baseline, in under eight minutes on an H200.

    python benchmarks/gpu.py                       # on a GPU; needs no data and no installation
    python benchmarks/gpu.py --device cpu --quick  # the script itself, tried on a CPU

Sections: ceilings, ststnet, ahmsa, flow, agreement, compiled; `--sections` chooses. Each has a share of
`--budget` and shortens itself to keep it; what was not measured is said to be missing. A figure from fewer
epochs than published is named an extrapolation: epochs cost alike, as every shape is fixed. Prints JSON, then
Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
for package in ("mer-flow", "mer-bench", "ahmsa-model"):
    # From a checkout alone, as on a machine that was lent for an hour.
    sys.path.append(str(HERE.parent / "packages" / package / "src"))

import gpu_flow  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import training_figures as figures  # noqa: E402
from ceilings import Ceilings, measure_ceilings, median_time  # noqa: E402
from fold_training import ThreeStreams  # noqa: E402
from machine import describe  # noqa: E402
from public_shape import composite, job_of  # noqa: E402

from mer_bench.models.spec import ModelSpec  # noqa: E402
from mer_bench.models.ststnet import SPECS as STSTNET  # noqa: E402
from mer_bench.training.job import TrainingData  # noqa: E402

SHARES = {"ceilings": 0.05, "ststnet": 0.25, "ahmsa": 0.25, "flow": 0.15, "agreement": 0.1, "compiled": 0.2}

# Making the compiled step's kernels takes a minute or two.
_COMPILE_SECONDS = 100.0


@dataclass
class Report:
    """What was measured.

    Attributes:
        machine: Processor, GPU and versions.
        rows: Figures: what, value, unit, floor or baseline, how it came about.
        missing: What could not be measured, and why.
    """

    machine: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, beside: str = "", how: str = "") -> None:
        """Keeps a figure, and shows it at once."""
        self.rows.append({"what": what, "value": value, "unit": unit, "beside": beside, "how": how})
        print(f"  {what}: {value:.4g} {unit} {beside} {how}", file=sys.stderr, flush=True)

    def markdown(self) -> str:
        """Returns the figures as a table."""
        lines = [self.machine, "", "| what | figure | beside | how |", "|---|---|---|---|"]
        for row in self.rows:
            figure = f"{row['value']:.4g} {row['unit']}".strip()
            lines.append(f"| {row['what']} | {figure} | {row['beside']} | {row['how']} |")
        return "\n".join(lines + [f"\nMissing: {what}." for what in self.missing])


class Bench:
    """The sections, sharing a device and the clock."""

    def __init__(self, device: torch.device, quick: bool, budget: float) -> None:
        self.device, self.quick, self.budget = device, quick, budget
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
        self.report = Report(f"{name}; {describe()}; torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}")
        self._end = time.monotonic() + budget
        self._section_end = self._end
        self._plain_rates: dict[str, float] = {}

    @cached_property
    def ceiling(self) -> Ceilings:
        """What the device can do at most."""
        return measure_ceilings(self.device, self.quick)

    def run(self, sections: list[str]) -> None:
        """Runs sections; one that fails is said to be missing, and costs the others nothing."""
        for name in sections:
            print(f"{name}:", file=sys.stderr, flush=True)
            self._section_end = min(self._end, time.monotonic() + self.budget * SHARES[name])
            try:
                getattr(self, f"_{name}")()
            except Exception as error:  # whatever a new machine comes up with
                traceback.print_exc()
                first = (str(error).splitlines() or [""])[0]
                self.report.missing.append(f"{name}: {type(error).__name__}: {first}")

    def _left(self) -> float:
        return self._section_end - time.monotonic()

    def _ceilings(self) -> None:
        self.report.add("copy bandwidth", self.ceiling.bandwidth / 1e12, "TB/s", how="bytes read and written")
        for name in ("float32", "tf32", "bf16"):
            self.report.add(f"matrix product, {name}", getattr(self.ceiling, name) / 1e12, "TFLOP/s")

    def _ststnet(self) -> None:
        case, epochs = self._case(STSTNET[0], "default", "authors"), figures.PUBLISHED_EPOCHS
        folds = case.folds
        plain = self._plain("STSTNet", case, ThreeStreams(), 2 if self.quick else 15)
        first = 2 if self.quick else 100
        rate = self._stacked(case, first)
        self.report.add(
            "STSTNet, stacked", 1e3 * rate.seconds, "ms per fold-epoch",
            f"{plain / rate.seconds:.0f} × plain loop", f"{rate.folds} folds stacked, {rate.epochs} epochs",
        )  # fmt: skip
        seconds = rate.seconds * len(folds) * epochs + rate.setup
        how = f"extrapolated from {rate.epochs} epochs"
        if not self.quick and seconds < 0.7 * self._left():
            seconds, how = figures.full_run(case, epochs), "measured, from maps in memory to records"
        self.report.add(
            f"STSTNet cde, {len(folds)} folds × {epochs} epochs", seconds, "s",
            f"{plain * len(folds) * epochs / seconds:.0f} × plain loop; targets 30 s and 50 ×", how,
        )  # fmt: skip
        floors = figures.floors(case, self.ceiling, figures.count(case), epochs)
        activation = figures.activation_floor(case, 4 * 16 * 30 * 30, self.ceiling.bandwidth, epochs)
        floors = {"activation and gradient written and read once": activation} | floors
        del floors["Adam float32 traffic"], floors["arithmetic, BF16"]
        for name, floor in floors.items():
            self.report.add(f"floor of STSTNet cde: {name}", floor, "s")

    def _ahmsa(self) -> None:
        case, variant = self._ahmsa_case()
        for name, floor in self._ahmsa_floors(case).items():
            self.report.add(f"floor of AHMSA-Net {variant} cde: {name}", floor, "s")
        forms: dict[str, dict[str, Any]] = {
            "TF32": {},
            "TF32, BF16 autocast": {"amp": "bf16"},
            "float32": {"precision": "float32"},
        }
        for name, form in list(forms.items())[: 1 if self.quick else None]:
            if self._left() < 10:
                self.report.missing.append(f"AHMSA-Net {variant} in {name}: out of time")
                continue
            self._ahmsa_form(case, variant, name, form)

    def _compiled(self) -> None:
        if self.quick:
            return
        case, variant = self._ahmsa_case()
        if self._end - time.monotonic() < _COMPILE_SECONDS:
            self.report.missing.append(f"AHMSA-Net {variant}, compiled: out of time")
            return
        self._ahmsa_form(case, variant, "TF32, torch.compile", {"compile": True})

    def _ahmsa_case(self) -> tuple[figures.Case, str]:
        from ahmsa_model.registration import SPECS

        variant = "tiny" if self.quick else "paper"
        return self._case(SPECS[0], variant, "paper"), variant

    def _ahmsa_floors(self, case: figures.Case) -> dict[str, float]:
        return figures.floors(case, self.ceiling, figures.count(case), figures.PUBLISHED_EPOCHS)

    def _ahmsa_form(self, case: figures.Case, variant: str, name: str, form: dict[str, Any]) -> None:
        if "ahmsa" not in self._plain_rates:
            network = case.job.spec.build(num_classes=3, **case.job.options)
            self._plain_rates["ahmsa"] = self._plain(
                f"AHMSA-Net {variant}", case, network, 1 if self.quick else 8
            )
        rate = self._stacked(case, 1 if self.quick else 8, **form)
        epochs, floors = figures.PUBLISHED_EPOCHS, self._ahmsa_floors(case)
        seconds = rate.seconds * len(case.folds) * epochs
        faster = self._plain_rates["ahmsa"] / rate.seconds
        least = max(floors["Adam float32 traffic"], floors["arithmetic, TF32"])
        self.report.add(
            f"AHMSA-Net {variant} cde, {len(case.folds)} folds × {epochs} epochs, {name}", seconds, "s",
            f"{seconds / least:.2f} × the larger floor (target 2), {faster:.1f} × plain loop (target 5)",
            f"extrapolated from {rate.epochs} epochs of {rate.folds} stacked folds, "
            f"{1e3 * rate.seconds:.2f} ms per fold-epoch, set up in {rate.setup:.0f} s, "
            f"peak {rate.peak_bytes / 2**30:.0f} GiB",
        )  # fmt: skip

    def _case(self, spec: ModelSpec, variant: str, recipe: str) -> figures.Case:
        maps, labels, folds = composite(subjects=3, whole=False) if self.quick else composite()
        data = TrainingData(maps if spec is STSTNET[0] else maps / 255, labels)
        return figures.Case(job_of(spec, variant, spec.recipes[recipe], device=str(self.device)), data, folds)

    def _plain(self, name: str, case: figures.Case, network: torch.nn.Module, epochs: int) -> float:
        seconds = figures.plain_loop(case, network, epochs)
        how = f"one fold at a time, DataLoader, {epochs} epochs of one fold"
        self.report.add(f"{name}, plain loop", 1e3 * seconds, "ms per fold-epoch", how=how)
        return seconds

    def _stacked(self, case: figures.Case, epochs: int, **form: Any) -> figures.StackedRate:
        rate = figures.stacked_rate(case, epochs, **form)
        self.report.missing.extend(note for note in rate.notes if note not in self.report.missing)
        return rate

    def _flow(self) -> None:
        onset, apex = gpu_flow.faces(2 if self.quick else 256, 64 if self.quick else 224)
        backend = gpu_flow.backend("torch-tvl1", str(self.device))
        repeats = 1 if self.quick else 3
        seconds = median_time(lambda: backend.compute(onset, apex), self.device, repeats)
        rate = len(onset) / seconds
        self.report.add(
            f"TV-L1 in torch, {onset.shape[1]}×{onset.shape[2]}, {len(onset)} pairs", rate, "pairs/s",
            "target 1,000", "OpenCV's default parameters, from and to host memory",
        )  # fmt: skip
        few = onset[:2], apex[:2]
        try:
            reference = gpu_flow.backend("opencv-tvl1", "cpu")
        except Exception as error:  # no opencv-contrib on this machine
            self.report.missing.append(f"TV-L1 beside OpenCV: {str(error).splitlines()[0]}")
            return
        slow = median_time(lambda: reference.compute(*few), torch.device("cpu"), repeats) / len(few[0])
        self.report.add("TV-L1 in torch over OpenCV on one core", rate * slow, "×")
        apart = gpu_flow.endpoint_difference(backend.compute(*few), reference.compute(*few))
        self.report.add(
            "TV-L1, end-point difference to OpenCV", apart, "px", "target 0.05", "moving textures"
        )

    def _agreement(self) -> None:
        """The same trainings on the CPU and on the device, both in float32; and the same flow."""
        from ahmsa_model.registration import SPECS

        maps, labels, folds = composite(subjects=3, seed=1, whole=not self.quick)
        for spec, variant in ((STSTNET[0], "default"), (SPECS[0], "tiny")):
            case = figures.Case(
                job_of(spec, variant, spec.recipes[spec.default_recipe]),
                TrainingData(maps / 255, labels),
                folds,
            )
            epochs = 1 if self.quick else 10
            here, there = (gpu_flow.trained(case, epochs, device) for device in ("cpu", str(self.device)))
            self.report.add(
                f"{spec.title}, largest difference of logits between CPU and {self.device.type}",
                float(np.abs(here - there).max()), "", "tolerance 0.01",
                f"float32, {epochs} epochs, logits up to {np.abs(here).max():.1f}",
            )  # fmt: skip
        onset, apex = gpu_flow.faces(2, 64 if self.quick else 224)
        flows = [gpu_flow.backend("torch-tvl1", d).compute(onset, apex) for d in ("cpu", str(self.device))]
        self.report.add(
            f"TV-L1, end-point difference between CPU and {self.device.type}",
            gpu_flow.endpoint_difference(*flows), "px", "tolerance 0.01",
            "the stopping rule is looked at less often on a GPU",
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> Report:
    """Measures, prints and returns the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<n> or cpu (default cuda)")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to try the script itself")
    parser.add_argument("--budget", type=float, default=440.0, help="seconds for all sections (default 440)")
    parser.add_argument("--sections", default=",".join(SHARES), help=f"some of {','.join(SHARES)}")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args(arguments)
    sections = options.sections.split(",")
    if unknown := [name for name in sections if name not in SHARES]:
        parser.error(f"unknown section {unknown[0]}; there are {', '.join(SHARES)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu --quick tries the script itself")
    if options.quick and options.device == "cpu":
        torch.set_num_threads(1)
    bench = Bench(torch.device(options.device), options.quick, options.budget)
    begin = time.monotonic()
    bench.run(sections)
    text = json.dumps({**asdict(bench.report), "seconds": time.monotonic() - begin}, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    print("\n" + bench.report.markdown())
    return bench.report


if __name__ == "__main__":
    sys.exit(1 if main().missing else 0)
