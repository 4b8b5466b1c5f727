"""Every registered model, ours and any installed plug-in's, keeps what a model must keep."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.faults.kills import in_child

from mer_bench.conformance import Check, Subject, checks_for, write_reference_store
from mer_bench.errors import UsageError
from mer_bench.models.registry import Registry
from mer_bench.resolve import option_types, resolve
from mer_bench.runs.train import job_of, try_model
from mer_bench.settings import Request, RunSettings
from mer_flow.views import parse_views

OURS = ("mer-bench ", "ahmsa-model ")
CASES = [
    pytest.param(entry.spec.name, check, id=f"{entry.spec.name}-{check.name}")
    for entry in Registry()
    for check in checks_for(entry.spec)
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Returns subject(name): a model of the registry, under test, read from one reference store."""
    store = write_reference_store(tmp_path_factory.mktemp("conformance") / "reference.h5")
    registry, known = Registry(), dict[str, Subject]()

    def of(name: str) -> Subject:
        if name not in known:
            known[name] = Subject(registry.get(name), store)
        return known[name]

    return of


@pytest.mark.parametrize(("name", "check"), CASES)
def test_model_conforms(name: str, check: Check, subject: Callable[[str], Subject]) -> None:
    check(subject(name))


@pytest.mark.parametrize("name", Registry().names)
def test_absurd_whole_numbers_are_refused_or_built_in_little_memory(
    name: str, subject: Callable[[str], Subject]
) -> None:
    """Every whole number among the options, at -1, 0, a million and a billion."""
    spec, data = subject(name).spec, subject(name).data_of(subject(name).spec.inputs()[0])
    kinds = {option: str(kind) for option, kind in option_types(spec)[0].items()}
    counts = {option: len(re.findall(r"\bint\b", kind)) for option, kind in kinds.items()}
    torch.set_num_threads(1)  # or a forked child would wait for threads that it has not

    def work() -> list[str]:
        now = int(re.findall(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])
        resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + (1 << 30),) * 2)
        odd = []
        for option, count in counts.items():
            for value in (-1, 0, 10**6, 10**9) if count else ():
                request = Request(
                    RunSettings(model=name), {f"options.{option}": ",".join([str(value)] * count)}
                )
                try:
                    try_model(job_of(spec, request, resolve(spec, request), data), data)
                except UsageError as refused:
                    if "\n" in str(refused) or "emory" in str(refused):
                        odd.append(f"{option}={value}: {refused}")
                else:
                    if value == 10**9:
                        odd.append(f"{option}={value} was built")
        return odd

    ended = in_child(work)
    assert ended.answer == [], (ended.answer, ended.said)


def test_every_plugin_gives_its_models() -> None:
    registry = Registry()
    assert registry.failures == ()
    assert registry.duplicates == {}


@pytest.mark.parametrize("name", [e.spec.name for e in Registry() if e.package.startswith(OURS)])
def test_ours_read_what_the_published_maps_can_give(name: str) -> None:
    """Flow models run on STSTNet's published maps, which are whole faces, min-max scaled."""
    views = Registry().get(name).views
    reads_flow = all(part.family not in ("faces", "clips") for part in parse_views(views[0].split(":")[0]))
    assert not reads_flow or {"whole-28:minmax", "whole-28:minmax-255", "whole-28:centred-rms"} & set(views)
