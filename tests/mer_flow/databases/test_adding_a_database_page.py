"""docs/adding-a-database.md, followed to the letter: its files are written, installed and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import Page

from mer_flow.store.reader import FlowStore

PAGE = Page(Path(__file__).parents[3] / "docs" / "adding-a-database.md")


def test_every_block_of_the_page_is_followed() -> None:
    assert len(PAGE.files) == 4
    assert PAGE.blocks() == ["console", "python", "python", "toml", "toml"]
    # The tree at the top names what the page then writes.
    tree = PAGE.text[PAGE.text.index("mer-flow-alma/\n") : PAGE.text.index("## 1.")]
    assert {Path(name).name for name in PAGE.files} == set(re.findall(r"[\w.]+\.(?:py|toml)", tree))
    assert [command.split()[0] for command, _ in PAGE.commands].count("mer-flow") == len(PAGE.commands) - 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    PAGE.write(tmp_path)
    outputs = PAGE.run(tmp_path)
    listed = next(out for command, out in outputs.items() if command == "mer-flow databases")
    assert [line.split(":")[0] for line in listed.splitlines()] == sorted(
        ["alma", "casme2", "casme3", "samm", "smic"]
    )
    with FlowStore(tmp_path / "alma.h5") as store:
        assert store.databases == ("alma",)
        table = store.samples("alma")
        flow = store.flow("alma")[:]
    assert table.sample_ids == tuple(f"alma/p0{p}/c{c}" for p in (1, 2) for c in (1, 2, 3))
    assert {sample.fps for sample in table} == {60.0}
    assert flow.shape == (6, 3, 224, 224) and (abs(flow).max((1, 2, 3)) > 0.1).all()
