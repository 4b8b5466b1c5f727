"""What counts as a plausible bug, and how the runner remembers one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mutants.mutations import mutations
from tests.mutants.run import Module, Results

SOURCE = """\
import warnings

LIMIT = 3


def clipped(values, network):
    \"\"\"Clip.\"\"\"
    network.eval()
    if not values:
        raise ValueError(f"no values: {len(values) + 1}")
    warnings.warn("few" if len(values) < 2 else "many", stacklevel=2)
    tell(f"{LIMIT} at most", "a message", "name")
    return [min(v, LIMIT) for v in values]
"""


def test_behaviour_is_changed_and_speech_is_not() -> None:
    found = {(m.where, m.before, m.after) for m in mutations(SOURCE)}
    assert ("", "LIMIT = 3", "LIMIT = 4") in found
    assert ("clipped", "network.eval()", "pass") in found
    assert ("clipped", "if not values:", "if False:") in found
    assert ("clipped", "return [min(v, LIMIT) for v in values]", "return [min(v, ) for v in values]") in found
    assert not [key for key in found if "raise" in key[1] or "warn" in key[1]]
    assert {after for _, before, after in found if "tell" in before} == {
        "pass",
        'tell(f"{LIMIT} at most", "a message", None)',
        'tell(f"{LIMIT} at most", "a message", )',
    }


@pytest.mark.parametrize("mutation", mutations(SOURCE), ids=lambda m: m.after)
def test_a_mutant_is_one_changed_line_of_a_module_that_compiles(mutation) -> None:
    compile(mutation.code, "mutant", "exec")
    before, after = SOURCE.splitlines(), mutation.code.splitlines()
    assert [i + 1 for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [mutation.line]


def test_a_sample_is_drawn_by_its_seed_and_keys_outlive_a_move() -> None:
    drawn = [m.key for m in mutations(SOURCE, count=4, seed=1)]
    assert 2 <= len(drawn) <= 4  # a drawn one that only changes text does not count
    assert drawn == [m.key for m in mutations("\n\n" + SOURCE, count=4, seed=1)]
    assert set(drawn) < {m.key for m in mutations(SOURCE, count=6, seed=1)}
    assert any(drawn != [m.key for m in mutations(SOURCE, count=4, seed=seed)] for seed in range(2, 6))


def test_the_tests_that_reach_the_function_run_quickest_first() -> None:
    seconds = {"a.py::one": 2.0, "a.py::two": 1.0, "b.py::three": 0.5}
    reached = {"10": ["a.py::one", "b.py"], "3": ["a.py::two"]}
    module = Module("core.py", SOURCE, "", seconds, reached)
    assert list(module.guards(12)) == ["b.py::three", "a.py::one"]
    assert list(module.guards(3)) == [
        "b.py::three",
        "a.py::two",
        "a.py::one",
    ]  # read on import, by every test


def test_a_bug_that_slipped_through_is_tried_again_once_the_tests_change(tmp_path: Path) -> None:
    old, new = (Module("core.py", SOURCE, digest, {}, {}) for digest in ("old", "new"))
    first, second = mutations(SOURCE)[:2]
    results = Results(tmp_path / "results.jsonl")
    results.add(old, first, "killed")
    results.add(old, second, "survived")
    again = Results(tmp_path / "results.jsonl")
    assert (again.of(old, first), again.of(old, second)) == ("killed", "survived")
    assert (again.of(new, first), again.of(new, second)) == ("killed", None)
