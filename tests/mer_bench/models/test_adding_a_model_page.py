"""docs/adding-a-model.md, followed to the letter: its files are written, installed and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-model.md"

#: A file's name on a line of its own, then its content.
_FILE = re.compile(r"^`([\w./-]+)`:\n\n```(?:toml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    return dict(_FILE.findall(PAGE.read_text(encoding="utf-8")))


def commands() -> list[tuple[str, str]]:
    """Every command of the page with the output that is promised."""
    found: list[tuple[str, str]] = []
    for block in _CONSOLE.findall(PAGE.read_text(encoding="utf-8")):
        for line in block.splitlines(keepends=True):
            if line.startswith("$ "):
                found.append((line[2:].strip(), ""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def promised(output: str) -> re.Pattern[str]:
    """`...` stands for anything, on a line of its own for any lines."""
    return re.compile(".*".join(re.escape(part) for part in output.strip().split("...")), re.DOTALL)


def test_every_block_of_the_page_is_followed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)$", text, re.MULTILINE)
    assert len(files()) == 4
    assert sorted(blocks) == sorted(["toml", "python", "python", "python", "console"])
    # The tree at the top names what the page then writes.
    tree = text[text.index("mer-bench-linear/\n") : text.index("## 1.")]
    assert {Path(name).name for name in files()} == set(re.findall(r"[\w.]+\.(?:py|toml)", tree))
    assert [command.split()[0] for command, _ in commands()].count("mer-bench") == len(commands()) - 1


@pytest.mark.slow
def test_the_page_works_as_it_stands(small_store: Path, tmp_path: Path) -> None:
    for name, content in files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    shutil.copy(small_store, tmp_path / "maps.h5")
    site = tmp_path / "site"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        # pip, as it is called on the page: into a folder of our own, and without a network.
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    for command, output in commands():
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        # The page says so: a run that is not whole ends with 1.
        assert done.returncode == ("--limit" in command), f"{command}\n{done.stdout}{done.stderr}"
        assert promised(output).search(done.stdout), f"{command}\n{done.stdout}"
    # The board: honest order, every model of the page, the whole of each run.
    rows = [line for line in done.stdout.splitlines() if re.match(r"\d  ", line)]
    assert len(rows) == 8
    figures = [float(re.findall(r"0\.\d{4}|1\.0000", line)[0]) for line in rows[:4]]
    assert figures == sorted(figures, reverse=True)
    assert [line[3:] for line in rows if "Majority" in line] and figures[0] > 0.9
