"""Nothing that a file can hold is unpickled: pickle passes between our own processes, and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

#: What carries a model from one of our processes to another, or examines whether it can be carried.
BETWEEN_PROCESSES = {
    "mer_flow/work/cluster.py",
    "mer_bench/training/engines/local.py",
    "mer_bench/models/code.py",
    "mer_bench/models/given.py",
    "mer_bench/conformance/description.py",
}
PICKLES = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def sources(repository: Path) -> dict[str, Path]:
    folders = [*(repository / "packages").glob("*/src")]
    found = {str(path.relative_to(folder)): path for folder in folders for path in folder.rglob("*.py")}
    assert len(found) > 200
    return found


def test_pickle_is_imported_for_messages_between_processes_alone(repository: Path) -> None:
    importing = set()
    for name, path in sources(repository).items():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if PICKLES & {module.partition(".")[0] for module in modules}:
                importing.add(name)
    assert importing == BETWEEN_PROCESSES


@pytest.mark.parametrize(
    ("function", "keyword", "wanted"), [("load", "weights_only", True), ("load", "allow_pickle", False)]
)
def test_no_call_asks_for_pickle(repository: Path, function: str, keyword: str, wanted: bool) -> None:
    for name, path in sources(repository).items():
        for call in calls(path):
            if not isinstance(call.func, ast.Attribute):
                continue
            said = {one.arg: getattr(one.value, "value", None) for one in call.keywords}
            assert said.get(keyword, wanted) == wanted, f"{name}:{call.lineno}"
            of_torch = call.func.attr == function and ast.unparse(call.func.value) == "torch"
            assert not of_torch or said.get("weights_only") is True, f"{name}:{call.lineno}"
