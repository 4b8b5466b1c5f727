"""Where a database lies, and the registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mer_flow.databases import DATABASES, get_database
from mer_flow.databases.layout import image_numbers, resolve_root
from mer_flow.work.errors import UsageError


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in DATABASES:
        monkeypatch.delenv(f"MER_FLOW_{name.upper()}_ROOT", raising=False)
    return tmp_path


def write_config(home, text):
    path = home / "config" / "mer-flow" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_option_wins_over_the_environment_over_the_config_file(home, monkeypatch):
    write_config(home, "[roots]\nsamm = '/from/config'\n")
    assert resolve_root("samm") == Path("/from/config")
    monkeypatch.setenv("MER_FLOW_SAMM_ROOT", "~/samm")
    assert resolve_root("samm") == Path.home() / "samm"
    assert resolve_root("samm", "/given") == Path("/given")


def test_without_any_the_error_names_all_three(home):
    with pytest.raises(UsageError) as caught:
        resolve_root("casme3")
    message = str(caught.value)
    assert "--root" in message
    assert "MER_FLOW_CASME3_ROOT" in message
    assert str(home / "config" / "mer-flow" / "config.toml") in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[roots\n", "not valid TOML"),
        ("[roots]\nsam = '/x'\n", "unknown database 'sam'; did you mean 'samm'"),
        ("roots = 3\n", "must be a table"),
    ],
)
def test_a_broken_config_file_is_named(home, text, message):
    path = write_config(home, text)
    with pytest.raises(UsageError, match=message) as caught:
        resolve_root("smic")
    assert str(path) in str(caught.value)


def test_unknown_databases_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'casme2'"):
        get_database("cassme2")
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        resolve_root("sam")


@pytest.mark.parametrize("name", DATABASES)
def test_every_database_describes_itself(name):
    database = get_database(name)
    assert (database.name, database.has_apex) == (name, name != "smic")
    assert database.fps == {"smic": 100.0, "samm": 200.0, "casme2": 200.0, "casme3": 30.0}[name]


def test_listing_the_databases_loads_nothing_heavy():
    code = (
        "import sys, mer_flow.databases, mer_flow.labels, mer_flow.databases.completeness, mer_flow.cli.samples\n"
        "mer_flow.databases.completeness.load('smic'); mer_flow.labels.get_scheme('megc3')\n"
        "print([m for m in ('pandas', 'numpy', 'openpyxl', 'xlrd', 'cv2', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_image_numbers_take_the_last_digits_of_image_files_only(tmp_path):
    for name in (
        "reg_img12.jpg",
        "006_05562.PNG",
        "3.bmp",
        "Thumbs.db",
        "Desktop - Shortcut 9.lnk",
        "cover.jpg",
    ):
        (tmp_path / name).touch()
    assert image_numbers(tmp_path) == [3, 12, 5562]
