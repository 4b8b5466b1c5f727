"""The benchmark scripts run: every section of `gpu.py`, tried on a CPU with tiny shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


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


def test_the_profile_names_operators_and_floors(tmp_path):
    done = run("profile_training.py", "--quick", "--epochs", "1", "--out", tmp_path / "profile.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "profile.md").read_text()
    assert text.count("Floors: arithmetic ") == 3 and "| `aten::" in text


def test_scaling_fits_a_line_and_draws_it(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pytest.importorskip("cv2.optflow", reason="opencv-contrib is not installed")
    picture = tmp_path / "scaling.png"
    done = run(
        "scaling.py", "--pairs", "1", "--folds", "4", "--epochs", "1", "--repeats", "1", "--out", picture
    )
    assert done.returncode == 0, done.stderr
    assert "| training, STSTNet 1 epochs | 1, 2, 4 folds |" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
