"""Plug-ins: known by name without an import; a faulty one fails by name while the others work."""

from __future__ import annotations

import math
import signal
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mer_flow.work.errors import UsageError
from mer_flow.work.plugins import Plugins, contained


def plugins(*points):
    """Things that are called with 4."""
    return Plugins(
        "group",
        "thing",
        lambda name, found: found(4),
        points=[EntryPoint(*point, "group") for point in points],
    )


def test_a_broken_plug_in_is_named_and_the_others_work():
    found = plugins(
        ("good", "math:sqrt"),
        ("absent", "no_such_module:X"),
        ("unnamed", "math:no_such_function"),
        ("refused", "math:pi"),
    )
    assert list(found) == ["absent", "good", "refused", "unnamed"]
    assert "absent" in found and "other" not in found
    assert dict(found.usable()) == {"good": 2.0}
    for name, reason in (
        ("absent", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("unnamed", "AttributeError"),
        ("refused", "TypeError: 'float' object is not callable"),
    ):
        with pytest.raises(
            UsageError, match=f"thing '{name}' of an unknown package cannot be used: {reason}"
        ):
            found[name]
    with pytest.raises(UsageError, match="unknown thing 'goood'; did you mean 'good'"):
        found["goood"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(0)", "it raised SystemExit: 0"),
        ("raise BaseException('odd')", "it raised BaseException: odd"),
        ("while True:\n    pass", r"it took longer than 0\.3 s"),
        ("import time\nwhile True:\n  try: time.sleep(9)\n  except Exception: pass", "longer than"),
    ],
)
def test_a_module_that_exits_or_hangs_is_contained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    monkeypatch.setattr("mer_flow.work.plugins.IMPORT_LIMIT", 0.3)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"stranger_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"{body}\nX = 1\n")
    found = plugins(("bad", f"{name}:X"), ("good", "math:sqrt"))
    with pytest.raises(UsageError, match=f"thing 'bad' .* cannot be used: RuntimeError: .*{reason}"):
        found["bad"]
    assert found["good"] == 2.0


def test_an_alarm_of_others_survives() -> None:
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    left = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with contained(30.0):
            pass
        time.sleep(0.4)
        assert rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_stays_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), contained():
        raise KeyboardInterrupt


def test_a_name_that_two_packages_claim_is_nobodys():
    found = plugins(("one", "math:sqrt"), ("one", "math:sin"))
    assert list(found) == ["one"] and not dict(found.usable())
    with pytest.raises(UsageError, match=r"thing 'one' is registered 2 times.*uninstall one of them"):
        found["one"]


def test_a_thing_of_this_process_is_made_as_an_entry_point_would_be():
    found = plugins(("one", "math:sqrt"))
    found.add("two", math.cos)
    assert set(found) == {"one", "two"} and found["two"] == math.cos(4) and not found.packages("two")
