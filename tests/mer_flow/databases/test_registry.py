"""The registry: names without imports, titles, and plug-ins that fail by name while the others work."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mer_flow.databases import get_database
from mer_flow.databases.layout import resolve_root
from mer_flow.databases.registry import database_names, database_title
from mer_flow.work.errors import UsageError

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


def test_a_broken_package_is_named_and_the_others_work(tmp_path):
    info = tmp_path / "stranger-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("""
[mer_flow.databases]
absent = no_such_module:X
number = math:pi
hollow = mer_flow.databases.base:Database
double = mer_flow.databases.samm:Samm
[mer_flow.schemes]
strange = mer_flow.labels:get_scheme
""")

    def run(code):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    listed = run("from mer_flow.cli import cli; cli(['databases', '--json'])")
    assert listed.returncode == 1
    entries = {entry["name"]: entry for entry in json.loads(listed.stdout)}
    assert [name for name in entries if "error" not in entries[name]] == ["casme2", "casme3", "samm", "smic"]
    for name, reason in (
        ("absent", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("number", "TypeError: expected a subclass of mer_flow.databases.base.Database, got 3.14"),
        ("hollow", "TypeError: Can't instantiate abstract class Database"),
        ("double", "ValueError: the class calls itself 'samm'; give both the same name"),
    ):
        assert f"database '{name}' of stranger 1.2 cannot be used: {reason}" in entries[name]["error"]

    schemes = run(
        "from mer_flow.labels import SCHEMES, get_scheme\n"
        "print('strange' in SCHEMES, len(dict(SCHEMES.usable()))); get_scheme('strange')"
    )
    assert schemes.stdout.split() == ["True", "7"]
    assert "label scheme 'strange' of stranger 1.2 cannot be used: TypeError" in schemes.stderr
