"""Two sites: runs of a small store with its maps, and runs of the official composite without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.report.site.write import Site, write_site
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory, runs_below
from mer_bench.runs.train import prepare, prepare_data
from mer_bench.settings import Request, RunSettings

HOSTILE = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Written:
    """A site, its runs by name, and the store of its maps."""

    site: Site
    runs: dict[str, RunDirectory]
    store: Path

    @property
    def folder(self) -> Path:
        return self.site.page.parent

    def text(self, page: str = "index.html") -> str:
        return (self.folder / page).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def small_runs() -> list[tuple[str, ModelSpec, dict[str, object], int, float]]:
    """Name, model, settings, epochs, share of right answers."""
    ststnet = STSTNET[0]
    return [
        ("majority", MAJORITY[0], {}, 1, 0.0),
        ("network", ststnet, {"seeds": (0, 1)}, 12, 0.5),
        ("hostile", replace(ststnet, name="hostile", title=HOSTILE), {"headline": "tail"}, 12, 0.9),
        ("control", ststnet, {"seeds": (0, 1), "shuffle_labels": 3}, 12, 0.0),
        ("broken", ststnet, {"fold_seed": 1, "inner": True}, 12, 0.9),
    ]


@pytest.fixture(scope="session")
def small(
    small_store: Path,
    small_runs: list[tuple[str, ModelSpec, dict[str, object], int, float]],
    with_records: Callable[..., RunDirectory],
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    """Four runs of nine subjects, one a control; one run that lacks a record, one without a manifest."""
    out, runs = tmp_path_factory.mktemp("runs"), {}
    for name, spec, settings, epochs, right in small_runs:
        request = Request(RunSettings(model=spec.name, protocol="cde", **settings), {})
        prepared = prepare(Registered(spec, "test 1.0"), request, small_store)
        runs[name] = with_records(prepared, out, epochs, right)
    runs["broken"].record_path(0, runs["broken"].fold_names[0]).unlink()
    damaged = out / "<img src=x onerror=alert(2)>"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    site = write_site(runs_below(out), tmp_path_factory.mktemp("site") / "small", store=small_store)
    return Written(site, runs, small_store)


@pytest.fixture(scope="module")
def official(
    official_data: BenchData,
    with_records: Callable[..., RunDirectory],
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    """Two runs of the official composite, beside which published scores stand; without a store."""
    out, runs = tmp_path_factory.mktemp("runs"), {}
    data = replace(official_data, maps=np.zeros((442, 3, 28, 28), np.float32))
    for spec, epochs, right in ((MAJORITY[0], 1, 0.0), (STSTNET[0], 4, 0.6)):
        request = Request(RunSettings(model=spec.name, protocol="cde"), {})
        prepared = prepare_data(Registered(spec, "test 1.0"), request, data)
        runs[spec.name] = with_records(prepared, out, epochs, right)
    site = write_site(runs_below(out), tmp_path_factory.mktemp("site") / "official")
    return Written(site, runs, out)
