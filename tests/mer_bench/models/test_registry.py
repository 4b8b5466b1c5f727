"""The registry: lazy, strict about duplicates, robust against plug-ins that fail, open to third parties."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mer_bench.errors import RegistryError, UsageError
from mer_bench.models.registry import GROUP, Registry

PLUGIN = Path(__file__).parents[1] / "plugins" / "centroid"


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


MAJORITY = point("majority", "mer_bench.models.majority:SPECS")


def test_ours_enter_through_entry_points() -> None:
    registry = Registry()
    assert {"majority", "ststnet", "ahmsa"} <= set(registry.names)
    assert registry.failures == ()
    assert registry.find("ststnet").package.startswith("mer-bench ")
    assert registry.find("ahmsa").package.startswith("ahmsa-model ")


def test_nothing_is_imported_before_the_first_question() -> None:
    code = (
        "import sys; from mer_bench.models.registry import Registry; Registry();"
        "assert 'torch' not in sys.modules and 'mer_bench.models.ststnet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_is_there_before_a_plugin_s_time_runs() -> None:
    """Stopped within its first import, torch cannot be imported again in that process."""
    script = (
        "import sys\n"
        "from mer_bench.models.registry import Registry\n"
        "class Point:\n"
        "    name, value, dist = 'p', 'p:SPECS', None\n"
        "    def load(self):\n"
        "        return print('torch' in sys.modules) or ()\n"
        "Registry([Point()]).names"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_an_unknown_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean 'ststnet'"):
        Registry().get("ststnett")


def test_a_name_claimed_twice_is_an_error_for_that_name_only() -> None:
    registry = Registry([MAJORITY, point("other", "mer_bench.models.majority:SPECS"), *ststnet()])
    assert registry.names == ("ststnet",)
    assert list(registry.duplicates) == ["majority"]
    with pytest.raises(RegistryError, match="registered 2 times"):
        registry.get("majority")
    assert registry.get("ststnet").name == "ststnet"


def ststnet() -> list[EntryPoint]:
    return [point("ststnet", "mer_bench.models.ststnet:SPECS")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no licence file')", "RuntimeError: no licence file"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("SPECS = 3", "expected a ModelSpec"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise BaseException('odd')", "it raised BaseException: odd"),
        ("import time\nwhile True:\n    time.sleep(0.01)", "it took longer than 0.5 s"),
        (
            "from mer_bench.models.majority import SPECS as S\nfrom dataclasses import replace\n"
            "SPECS = replace(S[0], name='../../outside')",
            "model '../../outside': a name has",
        ),
        ("pass", "AttributeError"),
    ],
)
def test_a_failing_plugin_is_listed_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    monkeypatch.setattr("mer_bench.models.registry.IMPORT_LIMIT", 0.5)
    module = f"broken_{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry([MAJORITY, point("broken", f"{module}:SPECS")])
    assert registry.names == ("majority",)
    (failure,) = registry.failures
    assert failure.entry_point == "broken"
    assert message in failure.reason
    with pytest.raises(RegistryError, match="the other models work"):
        registry.get("broken")
    with pytest.raises(UsageError, match="Failed plug-ins: plug-in 'broken'"):
        registry.get("something")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The third-party package, installed by pip into a folder of its own, without a network."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    offline = ["--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, *offline, str(PLUGIN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def bench(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mer_bench.cli", *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_a_third_party_package_is_listed_described_and_run(
    installed: Path, small_store: Path, tmp_path: Path
) -> None:
    listed = bench(installed, "models", "--json")
    assert listed.returncode == 0, listed.stderr
    models = {model["name"]: model for model in json.loads(listed.stdout)["models"]}
    assert models["linear"]["package"] == "mer-bench-centroid 1.2.3"
    assert models["centroid"]["variants"] == {"default": {}, "shrunk": {"shrink": 0.3}}
    assert models["centroid"]["options"] == ["shrink"]
    assert "ststnet" in models

    common = ["--protocol", "cde", "--store", str(small_store), "--out", str(tmp_path), "--json"]
    run = bench(installed, "run", "centroid", "--variant", "shrunk", *common)
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)["summary"]
    assert summary["selections"]["last"]["Full"]["figures"]["uf1"]["mean"] > 0.95

    run = bench(
        installed, "run", "linear", "--set", "epochs=3", "--engine", "local", "--workers", "2", *common
    )
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)["summary"]
    assert summary["epochs"] == 3
    assert summary["parameters"] == 7059
    assert summary["selections"]["last"]["Full"]["figures"]["uf1"]["mean"] > 0.9


def test_a_broken_package_does_not_stop_the_command_line(installed: Path, tmp_path: Path) -> None:
    info = tmp_path / "broken_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[mer_bench.models]\nbroken = broken_plugin:SPECS\n")
    (tmp_path / "broken_plugin.py").write_text("raise ImportError('built for another torch')\n")
    found = bench(Path(f"{installed}{os.pathsep}{tmp_path}"), "models")
    assert found.returncode == 1
    assert "centroid" in found.stdout
    assert "ststnet" in found.stdout
    assert (
        "failed: plug-in 'broken' of broken-plugin 0.1: ImportError: built for another torch" in found.stderr
    )
    checked = bench(Path(f"{installed}{os.pathsep}{tmp_path}"), "check")
    assert checked.returncode == 1
    assert "built for another torch" in checked.stdout
