"""Every command, and every line of Python, of every README and guide is run as it is written.

Pages run one after another in copies of one folder that holds what they take as given (`given.py`). What
cannot be run here is in `LEFT_OUT`, what would take hours in `ADDED`, each with its reason. The two pages on
adding a model and a database have tests of their own, which follow them further.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.end_to_end.conftest import MODULES
from tests.end_to_end.given import make_given, settings
from tests.pages import Page

ROOT = Path(__file__).parents[2]
FOLLOWED_ELSEWHERE = {"docs/adding-a-model.md", "docs/adding-a-database.md"}
PAGES = {
    str(path.relative_to(ROOT)): Page(path)
    for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/**/*.md")))
}

#: What is found in a line or block that is not run -> why.
LEFT_OUT = {
    r"^pip ": "an installation; make's are the same, and CI makes them",
    r"^make ": "sets up an environment; CI runs each",
    r"^source .venv/bin/activate": "the tests run in an environment already",
    r"^dask ": "starts a cluster of several machines; test_cluster.py has one of processes",
    "--scheduler tcp://": "needs that cluster",
    "mer-bench run --all --protocol cde --store flows.h5": "hours; mer-bench/README.md plans it",
    "--sample samm/006/006_1_2": "a sample of the real SAMM",
    "explain --run": "trains folds again; test_explain.py does",
    "push_to_hub": "needs a network and an account",
    "benchmarks/|study_figures": "half an hour of training, and what draws it; both read the real maps",
    "records_that_are_not_in": "an excerpt of a program",
}
#: What a line contains -> what is added to it, and why.
ADDED = {
    "run hsta --": ("--dry-run", "82 million parameters: hours on a CPU"),
    "mer-flow demo": ("--db casme2 --subjects 2 --clips 3", "144 clips: minutes"),
    "--store synthetic.h5 --keep": (shlex.join(settings()), "faces of 224 px: a minute"),
    "run ststnet": ("--set epochs=2", "800 epochs a fold: minutes"),
    "fit ststnet": ("--set epochs=2", "the same"),
    "run majority ststnet ahmsa": ("--set epochs=2", "the same"),
    "run causalnet": ("--set epochs=2 --limit 2", "68 folds"),
    "--store public.h5 --store": ("--limit 2", "68 folds"),
}
#: What a line contains that may end with 1 -> why.
ENDS_WITH_1 = {
    "--all": "the store holds no clips, which the video models read",
    "doctor": "a synthetic copy is smaller than a complete one",
    "--limit 2": "a run of some folds is no table",
}


#: What only a shell understands.
SHELL = re.compile(r"[$>|~]")


def commands(text: str) -> Iterator[str]:
    """Every command of ours in a page or a help text: in blocks, and between backticks."""
    names, text = "|".join(MODULES), text.replace("\\\n", " ")
    for code in re.findall(r"`([^`]+)`", text, re.DOTALL) + re.findall(r"^\s*\$? ?(.+)$", text, re.MULTILINE):
        code = " ".join(code.split())
        if re.match(rf"({names}) [a-z]", code) and "..." not in code and "…" not in code:
            yield code


def unknown_options(command: str) -> list[str]:
    """The options of a command line that its program does not have."""
    words = shlex.split(command.replace("'", "").replace('"', ""), comments=True)
    found: click.Command = import_module(MODULES[words[0]]).cli
    context = click.Context(found)
    words = words[1:]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        following = found.get_command(context, words[0])
        if following is None:
            return [words[0]]
        found, words = following, words[1:]
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    return sorted(given - known - {"--help"})


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists(page: str) -> None:
    wrong = {code: unknown_options(code) for code in commands(PAGES[page].text)}
    assert not {code: options for code, options in wrong.items() if options}


def helps(group: click.Group, name: str) -> Iterator[tuple[str, str]]:
    """Every command of a program, in full, with the text of its help."""
    yield name, group.help or ""
    for part in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), part)
        if isinstance(found, click.Group):
            yield from helps(found, f"{name} {part}")
        elif found is not None:
            yield f"{name} {part}", found.help or ""


@pytest.mark.parametrize("program", MODULES)
def test_every_example_of_a_help_exists(program: str) -> None:
    wrong = {}
    for name, text in helps(import_module(MODULES[program]).cli, program):
        wrong |= {f"{name}: {code}": bad for code in commands(text) if (bad := unknown_options(code))}
    assert not wrong


def test_commands_stand_in_blocks_that_are_run() -> None:
    for name, page in PAGES.items():
        if name in FOLLOWED_ELSEWHERE:
            continue
        outside = re.sub(r"^```(sh|python|toml)\n.*?^```$", "", page.text, flags=re.MULTILINE | re.DOTALL)
        scripts = re.findall(r"^```bash\n(.*?)^```$", outside, re.MULTILINE | re.DOTALL)
        outside = re.sub(r"^```bash\n.*?^```$", "", outside, flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(rf"^\s*(?:\$ )?(?:{'|'.join(MODULES)}) [a-z].*--.*$", outside, re.MULTILINE), (
            name
        )
        for script in scripts:  # of a cluster: run where there is one, read by the shell here
            done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
            assert done.returncode == 0, f"{name}: {done.stderr}"


def test_no_exception_is_left_over() -> None:
    typed = [text for page in PAGES.values() for _, text in page.typed]
    for part in (*LEFT_OUT, *ADDED):
        assert any(re.search(part, text) for text in typed), part


@pytest.fixture(scope="module")
def given(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of given things, made on one core, as all that follows here."""
    for module in ("cv2", "dlib", "skimage", "xlsxwriter"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("given")

    def call(program: str, *arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(import_module(MODULES[program]).cli, list(map(str, arguments)))
        return done.exit_code, done.stdout, done.stderr

    make_given(folder, call)
    return folder


RUN = {name: page for name, page in PAGES.items() if page.typed and name not in FOLLOWED_ELSEWHERE}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_is_written(
    page: str,
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., tuple[int, str, str]],
) -> None:
    shutil.copytree(given, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    for store in tmp_path.rglob("*.h5"):  # which a page may extend
        shutil.copy(store, tmp_path / "own")
        (tmp_path / "own").replace(store)
    if any(text.startswith("mer-flow demo") for _, text in RUN[page].typed):
        shutil.rmtree(tmp_path / "demo")  # which the page makes
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names = {"__name__": "__main__"}  # of the page's Python, which goes on from block to block
    for language, text in RUN[page].typed:
        if any(re.search(part, text) for part in LEFT_OUT):
            continue
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        line = shlex.join(shlex.split(text, comments=True)) if not SHELL.search(text) else text
        line = " ".join([line, *(added for part, (added, _) in ADDED.items() if part in line)])
        code, out, err = run(line, call)
        wanted = (0, 1) if any(part in line for part in ENDS_WITH_1) else (0,)
        assert code in wanted, f"{line}\n{out}\n{err}"


def run(line: str, call: Callable[..., tuple[int, str, str]]) -> tuple[int, str, str]:
    """Runs a line: a command of ours in this process, which spares a start; all else by bash."""
    program, *words = shlex.split(line) if not SHELL.search(line) else [""]
    if program in MODULES:
        found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
        return call(program, *(word for group in found for word in group))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
