"""The commands that mend a missing library."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from mer_flow.work.libraries import extra_command


class _Distribution:
    def __init__(self, origin: dict[str, object] | None):
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            {"url": "file:///data/a%20lab/packages/mer-flow", "dir_info": {"editable": True}},
            "pip install -e '/data/a lab/packages/mer-flow[faces]'",
        ),
        (
            {"url": "file:///tmp/mer_flow-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install '/tmp/mer_flow-0.1.0-py3-none-any.whl[faces]'",
        ),
        (None, "pip install 'mer-flow[faces]'"),
    ],
)
def test_an_extra_comes_from_where_the_package_came_from(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, command: str
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: _Distribution(origin))
    assert extra_command("faces") == command


@pytest.mark.parametrize(("package", "extra"), [("mer-flow", "faces"), ("mer-bench", "export")])
def test_the_command_names_a_folder_that_declares_the_extra(package: str, extra: str) -> None:
    """As the packages are installed here, from a checkout: what the message says can be run."""
    source = extra_command(extra, package).partition("'")[2].rpartition("[")[0]
    if source == package:
        pytest.skip(f"{package} was installed from an index")
    assert f'name = "{package}"' in Path(source, "pyproject.toml").read_text(encoding="utf-8")
