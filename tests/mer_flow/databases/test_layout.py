"""Where a database lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from mer_flow.databases.layout import resolve_root
from mer_flow.databases.registry import database_names
from mer_flow.work.errors import UsageError


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in database_names():
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
        ("[roots\n", "is not TOML"),
        ("[roots]\nsam = '/x'\n", "unknown database 'sam'; did you mean 'samm'"),
        ("roots = 3\n", "must be a table"),
    ],
)
def test_a_broken_config_file_is_named(home, text, message):
    path = write_config(home, text)
    with pytest.raises(UsageError, match=message) as caught:
        resolve_root("smic")
    assert str(path) in str(caught.value)
