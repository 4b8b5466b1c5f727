"""The benchmark scripts run: every section of `gpu.py`, tried on a CPU with tiny shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_every_section_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    done = run("gpu.py", "--device", "cpu", "--quick", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["missing"] == []
    figures = {row["what"]: row for row in report["rows"]}
    for start in (
        "copy bandwidth", "STSTNet, plain loop", "STSTNet cde, 3 folds × 800", "floor of STSTNet cde: arith",
        "floor of AHMSA-Net tiny cde: Adam", "AHMSA-Net tiny cde", "TV-L1 in torch, 64×64",
        "STSTNet, largest difference",
    ):  # fmt: skip
        (row,) = [row for what, row in figures.items() if what.startswith(start)][:1]
        assert row["value"] >= 0
    assert all("extrapolated" in row["how"] for what, row in figures.items() if "epochs" in what)
    assert "| what | figure |" in done.stdout


def test_without_a_gpu_it_says_what_to_do():
    done = run("gpu.py", "--sections", "ceilings", "--device", "cuda")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert "--device cpu --quick" in done.stderr
    assert "unknown section colour" in run("gpu.py", "--sections", "colour").stderr
