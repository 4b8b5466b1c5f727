"""The registry: names without imports, titles, and plug-ins that fail by name while the others work."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mer_flow.databases import get_database
from mer_flow.databases.layout import resolve_root
from mer_flow.databases.registry import GROUP, database_names, database_title
from mer_flow.databases.samm import Samm
from mer_flow.labels import SCHEMES, apply_scheme
from mer_flow.work.errors import UsageError
from mer_flow.work.plugins import Plugins

#: Name, frame rate, whether its sheets give an apex, title.
OURS = [
    ("smic", 100.0, False, "SMIC"),
    ("samm", 200.0, True, "SAMM"),
    ("casme2", 200.0, True, "CASME II"),
    ("casme3", 30.0, True, "CAS(ME)^3"),
]


@pytest.mark.parametrize(("name", "fps", "has_apex", "title"), OURS)
def test_every_database_describes_itself(name, fps, has_apex, title):
    database = get_database(name)
    assert (database.name, database.fps, database.has_apex) == (name, fps, has_apex)
    assert database_title(name) == title
    assert database.synthetic and database.releases and name in database_names()


def test_unknown_databases_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'casme2'"):
        get_database("cassme2")
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        resolve_root("sam")
    assert database_title("all") == "all"


def test_names_load_no_database_and_a_database_nothing_heavy():
    code = """
import sys
from mer_flow.databases.registry import database_names, get_database
names = database_names()
print([m for m in sys.modules if m.startswith("mer_flow.databases.") and m.rpartition(".")[2] in names])
import mer_flow.labels, mer_flow.databases.completeness, mer_flow.cli.samples
mer_flow.databases.completeness.load("smic"); mer_flow.labels.get_scheme("megc3")
print([m for m in ("pandas", "numpy", "openpyxl", "xlrd", "cv2", "torch") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def plugins(make, **points):
    return Plugins("group", "thing", make, points=[EntryPoint(n, v, "group") for n, v in points.items()])


def test_a_broken_plug_in_is_named_and_the_others_work():
    found = plugins(
        lambda name, thing: thing(4),
        good="math:sqrt",
        absent="no_such_module:X",
        no_attribute="math:no_such_function",
        refused="math:pi",
    )
    assert list(found) == ["absent", "good", "no_attribute", "refused"]
    assert dict(found.usable()) == {"good": 2.0}
    for name, reason in (
        ("absent", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("no_attribute", "AttributeError"),
        ("refused", "TypeError: 'float' object is not callable"),
    ):
        with pytest.raises(
            UsageError, match=f"thing '{name}' of an unknown package cannot be used: {reason}"
        ):
            found[name]
    with pytest.raises(UsageError, match="unknown thing 'goood'; did you mean 'good'"):
        found["goood"]


def test_a_name_that_two_packages_claim_is_nobodys():
    points = [EntryPoint("one", value, "group") for value in ("math:sqrt", "math:sin")]
    found = Plugins("group", "thing", lambda name, thing: thing, points=points)
    assert list(found) == ["one"] and not dict(found.usable())
    with pytest.raises(UsageError, match=r"thing 'one' is registered 2 times.*uninstall one of them"):
        found["one"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("math:pi", "expected a subclass of mer_flow.databases.base.Database, got 3.14"),
        ("mer_flow.databases.base:Database", "abstract"),
        ("mer_flow.databases.samm:Samm", "the class calls itself 'samm'; give both the same name"),
    ],
)
def test_what_is_no_database_is_refused(value, reason):
    from mer_flow.databases.registry import DATABASES

    found = Plugins(GROUP, "database", DATABASES._make, points=[EntryPoint("mine", value, GROUP)])
    with pytest.raises(UsageError, match=f"database 'mine' .*{reason}"):
        found["mine"]


def test_schemes_of_other_packages_must_be_schemes_of_that_name():
    points = [EntryPoint("mine", value, "x") for value in ("mer_flow.labels:get_scheme",)]
    found = Plugins("x", "label scheme", SCHEMES._make, points=points)
    with pytest.raises(UsageError, match=r"label scheme 'mine' .*expected a LabelScheme of that name"):
        found["mine"]
    assert {"megc3", "objective-5"} <= set(SCHEMES) and isinstance(get_database("samm"), Samm)
    assert apply_scheme((), "megc3").counts() == (0, 0, 0)
