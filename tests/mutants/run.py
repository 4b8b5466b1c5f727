"""`make mutants`: plant one bug at a time in a copy of the core and see which tests notice.

A tool that starts pytest anew for each mutant (cosmic-ray) spends seconds on imports; mutmut's own runner
wants one package under `src/`. Here mutmut's operators change one file of a copy, and a process that has
imported the heavy libraries once forks a pytest for it. It runs the tests that reach the changed function,
the quickest first.
"""

from __future__ import annotations

import ast
import compileall
import contextlib
import hashlib
import importlib
import json
import os
import py_compile
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tests.mutants.mutations import Mutation, mutations

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "mutants"
# Loaded before the forks; nothing of ours, which must come from the copy.
HEAVY = "pytest coverage hypothesis numpy scipy.ndimage pandas h5py torch cv2 sklearn.metrics openpyxl"


@dataclass(frozen=True)
class Module:
    """A file of the core, and what a run of its tests without any bug showed."""

    path: str
    source: str
    tests_digest: str
    seconds: dict[str, float]
    """Test id -> its time without a bug."""
    reached: dict[str, list[str]]
    """Line -> ids of tests, or files of tests whose fixtures reached it."""

    def guards(self, line: int) -> dict[str, float]:
        """The tests that reach the function around a line, the quickest first, with their seconds."""
        spans = [
            range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            for node in ast.walk(ast.parse(self.source))
            if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
        ]
        lines = min(spans, key=len, default=range(0))
        names = {name for number in lines for name in self.reached.get(str(number), [])}
        chosen = {t: s for t, s in self.seconds.items() if t in names or t.partition("::")[0] in names}
        return dict(sorted((chosen or self.seconds).items(), key=lambda item: item[1]))


class _Watch:
    """Notes which test reaches which line, and how long it takes; a fixture counts for its file's tests."""

    def __init__(self, paths: list[Path]) -> None:
        import coverage

        self.paths, self.seconds = paths, Counter[str]()
        self.coverage = coverage.Coverage(
            data_file=None, include=[str(path) for path in paths], config_file=False
        )
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid.partition("::")[0])

    def pytest_pyfunc_call(self, pyfuncitem: Any) -> None:
        self.coverage.switch_context(pyfuncitem.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration

    def seen(self, folder: Path) -> dict[str, Any]:
        self.coverage.stop()
        data = self.coverage.get_data()
        reached = {str(p.relative_to(folder)): data.contexts_by_lineno(str(p)) for p in self.paths}
        return {"seconds": self.seconds, "reached": reached}


class _Choose:
    """Runs the chosen tests alone, in their order."""

    def __init__(self, ids: dict[str, float]) -> None:
        self.order = {name: i for i, name in enumerate(ids)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what git does not ignore, with compiled files that notice a change within one second."""
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder / "packages", quiet=1, invalidation_mode=mode)
    return folder


def fork(folder: Path, tests: list[str], cpu_seconds: float, plugin: _Choose | list[Path]) -> int:
    """Start pytest on the copy in a fork; returns its process id, which is also its group's."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds),) * 2)
        paths = [str(path) for path in sorted(folder.glob("packages/*/src"))]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the start of a fork
        sys.path[:] = [*paths, str(folder), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        import pytest

        watch = _Watch(plugin) if isinstance(plugin, list) else plugin
        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--basetemp=tmp"]
        code = int(pytest.main([*options, *tests], plugins=[watch]))
        if isinstance(watch, _Watch):
            Path("seen.json").write_text(json.dumps(watch.seen(folder)))
    finally:
        os._exit(code)


def look(test: str, table: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    """Run a file of tests without a bug: seconds of each, and the lines they reach in what they guard."""
    guarded = [path for path, tests in table.items() if test in tests]
    texts = (_texts(folder / path) for path in (test, *guarded))
    kept = BUILD / "seen" / f"{_digest(test, *guarded, *texts)}.json"
    if not kept.exists():
        _, status = os.waitpid(fork(folder, [test], 3600, [folder / path for path in guarded]), 0)
        if os.waitstatus_to_exitcode(status) not in (0, 5):  # 5: a module without doctests
            raise SystemExit(f"{test}: fails without a bug:\n{(folder / 'log.txt').read_text()[-3000:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "seen.json", kept)
    return json.loads(kept.read_text())


def modules(table: dict[str, list[str]], only: str, folder: Path) -> Iterator[Module]:
    """Each file of the core whose path contains `only`, with what a run of its tests without a bug shows."""
    seen: dict[str, dict[str, Any]] = {}
    for path, tests in table.items():
        if only not in path:
            continue
        seconds, reached = dict[str, float](), dict[str, list[str]]()
        for test in tests:
            seen[test] = seen.get(test) or look(test, table, folder)
            seconds |= seen[test]["seconds"]
            for line, names in seen[test]["reached"][path].items():
                reached.setdefault(line, []).extend(names)
        digest = _digest(*(_texts(folder / test) for test in tests))
        yield Module(path, (folder / path).read_text(), digest, seconds, reached)


def _texts(file: Path) -> str:
    beside = file.with_name("conftest.py")
    return file.read_text() + (beside.read_text() if beside.exists() else "")


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class Results:
    """What became of each mutant, kept in a file: a stopped run goes on where it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[str, str]()
        if path.exists():
            self.known = dict(json.loads(line) for line in path.read_text().splitlines())

    def of(self, module: Module, mutation: Mutation) -> str | None:
        """A bug once found stays found; one that slipped through is tried again when tests changed."""
        killed = self.known.get(_digest(module.path, mutation.code))
        return killed or self.known.get(_digest(module.path, mutation.code, module.tests_digest))

    def add(self, module: Module, mutation: Mutation, outcome: str) -> None:
        digest = [module.tests_digest] if outcome == "survived" else []
        key = _digest(module.path, mutation.code, *digest)
        self.known[key] = outcome
        with self.path.open("a") as file:
            file.write(json.dumps([key, outcome]) + "\n")


def run_all(todo: deque[tuple[Module, Mutation]], copies: list[Path], results: Results) -> None:
    """Try every mutant, one per copy at a time."""
    free, running = list(copies), dict[int, tuple[Module, Mutation, Path, float]]()
    total = len(todo)
    try:
        while todo or running:
            while todo and free:
                module, mutation = todo.popleft()
                folder, guards = free.pop(), module.guards(mutation.line)
                (folder / module.path).write_text(mutation.code)
                files = list(dict.fromkeys(name.partition("::")[0] for name in guards))
                seconds = sum(guards.values())
                pid = fork(folder, files, 15 + 4 * seconds, _Choose(guards))
                running[pid] = module, mutation, folder, time.monotonic() + 60 + 10 * seconds
            time.sleep(0.05)
            for pid, (module, mutation, folder, end) in list(running.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done and time.monotonic() < end:
                    continue
                _kill(pid)
                outcome = "survived" if done and status == 0 else "killed"
                if not done or (
                    os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
                ):
                    outcome = "timed out"
                if done and os.WIFEXITED(status) and os.WEXITSTATUS(status) in (5, 70):
                    raise SystemExit(
                        f"{module.path}: no test was run:\n{(folder / 'log.txt').read_text()[-3000:]}"
                    )
                (folder / module.path).write_text(module.source)
                results.add(module, mutation, outcome)
                free.append(folder)
                del running[pid]
                left = len(todo) + len(running)
                if outcome != "killed" or left % 10 == 0:
                    told = f"{outcome}: {module.path} {mutation.where}: {mutation.before} -> {mutation.after}"
                    click.echo(f"[{total - left}/{total}] {told if outcome != 'killed' else ''}")
    finally:
        for pid in running:
            _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def report(drawn: list[tuple[Module, Mutation]], reasons: dict[Any, str], results: Results) -> str:
    """Write the table, then the survivors, and the equivalent mutants with their reasons, as Markdown."""
    lines = [
        "| module | mutants | killed | timed out | survived | equivalent | kill rate |",
        "|---|---|---|---|---|---|---|",
    ]
    counts: dict[str, Counter[str]] = {}
    told: dict[str, list[str]] = {"survived": [], "equivalent": []}
    for module, mutation in drawn:
        reason = reasons.get((module.path, *mutation.key))
        outcome = "equivalent" if reason else results.of(module, mutation) or "not tried"
        for name in (module.path, "all"):
            counts.setdefault(name, Counter())[outcome] += 1
        if outcome in told:
            place = f"`{module.path}` {mutation.where}{': ' + reason if reason else ''}"
            told[outcome].append(f"{place}\n\n```diff\n-{mutation.before}\n+{mutation.after}\n```\n")
    counts["all"] = counts.pop("all")
    for name, count in counts.items():
        killed, counted = count["killed"] + count["timed out"], count.total() - count["equivalent"]
        name = name.removeprefix("packages/").replace("/src/", " ") if name != "all" else "**all**"
        cells = [count.total(), count["killed"], count["timed out"], count["survived"], count["equivalent"]]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {killed / max(counted, 1):.0%} |")
    for outcome, places in told.items():
        lines += ["", f"## {outcome.capitalize()}", "", *places]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--sample", default="20", show_default=True, help="Mutants per module, or 'all'.")
@click.option("--only", default="", help="Modules whose path contains this.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--jobs", default=2, show_default=True, help="Copies tried at once.")
def main(sample: str, only: str, seed: int, jobs: int) -> None:
    """Plant bugs in the core, one at a time, and list those that no test notices.

    Example: python -m tests.mutants.run --only mer_flow/labels --sample all
    """
    table = {
        path: [*tests, path] for path, tests in tomllib.loads((HERE / "modules.toml").read_text()).items()
    }
    equivalents = tomllib.loads((HERE / "equivalent.toml").read_text()).get("mutant", [])
    reasons = {(e["module"], e["where"], e["before"], e["after"]): e["reason"] for e in equivalents}
    for name in HEAVY.split():
        importlib.import_module(name)
    BUILD.mkdir(parents=True, exist_ok=True)
    results = Results(BUILD / "results.jsonl")
    with tempfile.TemporaryDirectory(prefix="mutants-") as root:
        copies = [copy_of_the_tree(Path(root, str(i))) for i in range(jobs)]
        drawn: list[tuple[Module, Mutation]] = []
        count = None if sample == "all" else int(sample)
        for module in modules(table, only, copies[0]):
            drawn += [(module, mutation) for mutation in mutations(module.source, count, seed)]
            click.echo(f"{module.path}: {len(module.seconds)} tests, {sum(module.seconds.values()):.0f} s")
        todo = (d for d in drawn if (d[0].path, *d[1].key) not in reasons and results.of(*d) is None)
        run_all(deque(todo), copies, results)
    text = report(drawn, reasons, results)
    (BUILD / "report.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
