"""Pages that tests follow to the letter: their files are written, their commands and their Python run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

#: A file's name on a line of its own, then its content.
_FILE = re.compile(r"^`([\w./-]+)`:\n\n```(?:toml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What a page tells a reader to type, in its order: a shell's lines, or Python.
_TYPED = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


#: Calls each argument as a command line of ours, up to the first that ends otherwise than the page says;
#: writes what each left: `[command, exit code, standard output]`.
_ONE_BY_ONE = """
import contextlib, importlib, io, json, shlex, sys
modules = {"mer-flow": "mer_flow.cli", "mer-bench": "mer_bench.cli"}
failing, *commands = sys.argv[1:]
left = []
for command in commands:
    sys.argv, code = shlex.split(command), 0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            importlib.import_module(modules[sys.argv[0]]).main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    left.append((command, code, out.getvalue()))
    if code != bool(failing and failing in command):
        break
json.dump(left, sys.stdout)
"""


class Page:
    """One page.

    Attributes:
        files: Name -> content, where the page names a file above a block.
        commands: Commands of its `console` blocks, each with the output that is promised.
        typed: Its `sh` blocks, line by line, and its `python` blocks: `("sh", line)`, `("python", block)`.
    """

    def __init__(self, path: Path):
        self.text = path.read_text(encoding="utf-8")
        self.files: dict[str, str] = dict(_FILE.findall(self.text))
        self.commands: list[tuple[str, str]] = []
        for block in _CONSOLE.findall(self.text):
            for line in block.splitlines(keepends=True):
                if line.startswith("$ "):
                    self.commands.append((line[2:].strip(), ""))
                else:
                    command, output = self.commands[-1]
                    self.commands[-1] = (command, output + line)

        self.typed: list[tuple[str, str]] = []
        for language, block in _TYPED.findall(_FILE.sub("", self.text)):
            if language == "python":
                self.typed.append((language, block))
                continue
            lines = block.replace("\\\n", " ").splitlines()
            self.typed += [(language, line) for line in lines if line.strip() and not line.startswith("#")]

    def blocks(self) -> list[str]:
        """The languages of all fenced blocks that have one, sorted."""
        return sorted(re.findall(r"^```(\w+)$", self.text, re.MULTILINE))

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def run(self, folder: Path, failing: str = "") -> dict[str, str]:
        """Runs every command in a folder; those that contain `failing` must end with 1, the others with 0.

        `pip install` comes first, into a folder of its own, without dependencies and without a network. Our
        own commands then follow one another in one fresh interpreter, which loads torch once.
        """
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",
            "PIP_TARGET": str(folder / "site"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        commands = [command for command, _ in self.commands]
        ours = [command for command in commands if not command.startswith("pip ")]
        for command in (command for command in commands if command not in ours):
            words = [sys.executable, "-m", *shlex.split(command)]
            subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
        done = subprocess.run(
            [sys.executable, "-c", _ONE_BY_ONE, failing, *ours],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        left, promised = json.loads(done.stdout), dict(self.commands)
        for command, code, output in left:
            assert code == bool(failing and failing in command), f"{command}\n{output}{done.stderr}"
            assert _promised(promised[command]).search(output), f"{command}\n{output}"
        assert [command for command, _, _ in left] == ours
        return {command: output for command, _, output in left}


def _promised(output: str) -> re.Pattern[str]:
    """`...` stands for anything, on a line of its own for any lines."""
    return re.compile(".*".join(re.escape(part) for part in output.strip().split("...")), re.DOTALL)
