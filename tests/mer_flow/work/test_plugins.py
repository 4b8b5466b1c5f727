"""Plug-ins: known by name without an import; a faulty one fails by name while the others work."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from mer_flow.work.errors import UsageError
from mer_flow.work.plugins import Plugins


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


def test_a_name_that_two_packages_claim_is_nobodys():
    found = plugins(("one", "math:sqrt"), ("one", "math:sin"))
    assert list(found) == ["one"] and not dict(found.usable())
    with pytest.raises(UsageError, match=r"thing 'one' is registered 2 times.*uninstall one of them"):
        found["one"]
