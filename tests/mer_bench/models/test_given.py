"""Models without a package: told from one another by their code, found in files, sent by value."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from mer_bench.errors import MerBenchError, UsageError
from mer_bench.models.code import code_digest
from mer_bench.models.given import given_model
from mer_bench.models.registry import Registry
from mer_bench.models.spelling import parse_entry
from mer_bench.resolve import option_types

FILE = """
from torch import nn
from parts import head

WIDTH = {width}

def make(num_classes, map_size, bias: bool = True):
    \"\"\"{comment}\"\"\"
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * map_size**2, WIDTH), head(WIDTH, num_classes))

def estimator():
    from sklearn.svm import SVC
    return SVC(C=2)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "parts.py").write_text("from torch import nn\ndef head(n, c): return nn.Linear(n, c)\n")
    return write(tmp_path / "my net.py")


def write(path: Path, width: int = 4, comment: str = "One.") -> Path:
    path.write_text(FILE.format(width=width, comment=comment))
    return path


def source(body: str, **names: Any) -> Any:
    """Defines `made` as a cell of a notebook would, in a module of its own."""
    space: dict[str, Any] = {"__name__": "cell", **names}
    exec(compile(body, "<cell>", "exec"), space)
    return space["made"]


SAME = [
    ("def made(x): return x + 1", "# moved\n\ndef made(x):\n    return x + 1  # and said more\n"),
    ("def made(x): return x in {'a', 'b', 'c'}", "def made(x): return x in {'c', 'b', 'a'}"),
    ("W = 3\ndef made(): return W", "V = 4\nW = 3\ndef made(): return W"),
    ("view = 1\ndef made(x): return x.view", "view = 2\ndef made(x): return x.view"),
]
OTHER = [
    ("def made(x): return x + 1", "def made(x): return x + 2"),
    ("W = 3\ndef made(): return W", "W = 4\ndef made(): return W"),
    ("def made(x=1): return x", "def made(x=2): return x"),
    ("def f(): return 1\ndef made(): return f()", "def f(): return 2\ndef made(): return f()"),
    ("class A:\n  def f(self): return 1\ndef made(): return A()",
     "class A:\n  def f(self): return 2\ndef made(): return A()"),
    ("class A: w = 1\nclass made(A): pass", "class A: w = 2\nclass made(A): pass"),
    ("def f(w):\n  return lambda: w\nmade = f(1)", "def f(w):\n  return lambda: w\nmade = f(2)"),
    ("def made(): return [w for w in range(3) if (lambda: 1)()]",
     "def made(): return [w for w in range(3) if (lambda: 2)()]"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_comments_places_and_unrelated_names_do_not_count(one: str, other: str) -> None:
    assert code_digest(source(one)) == code_digest(source(other))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_a_function_does_and_refers_to_counts(one: str, other: str) -> None:
    assert code_digest(source(one)) != code_digest(source(other))


def test_objects_are_told_apart_by_their_values() -> None:
    things = [
        SVC(), SVC(C=2), LogisticRegression(), make_pipeline(StandardScaler(), SVC()),
        make_pipeline(StandardScaler(), SVC(C=2)), np.arange(3), np.arange(3.0), torch.arange(3) + 1,
        functools.partial(nn.Linear, 2), functools.partial(nn.Linear, 3), {"a": 1}, {"a": 2}, [1], (1,),
    ]  # fmt: skip
    digests = [code_digest(thing) for thing in things]
    assert len(set(digests)) == len(digests)
    assert [code_digest(thing) for thing in things] == digests


def test_a_digest_is_the_same_in_another_process(file: Path) -> None:
    script = (
        "import sys; from mer_bench.models.registry import Registry\n"
        "print(Registry().find(sys.argv[1]).spec.name)"
    )
    command = [sys.executable, "-c", script, f"{file}:make"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert done.stdout.strip() == Registry().get(f"{file}:make").name, done.stderr


def test_a_file_gives_networks_and_estimators_and_its_name_follows_its_code(file: Path) -> None:
    found = Registry().find(f"{file}:make")
    spec = found.spec
    assert (spec.title, spec.kind, found.package) == ("make", "network", "my net.py")
    assert spec.parameters == 3 * 28 * 28 * 4 + 4 + 4 * 3 + 3
    assert option_types(spec) == ({"bias": bool}, False)
    assert spec.build(num_classes=5, in_channels=3, map_size=7)(torch.zeros(2, 3, 7, 7)).shape == (2, 5)
    write(file, width=5)
    assert Registry().get(f"{file}:make").name != spec.name
    write(file)
    assert Registry().get(f"{file}:make").name == spec.name
    classifier = Registry().get(f"{file}:estimator")
    assert classifier.kind == "classifier" and not classifier.recipes


def test_it_is_sent_by_value_to_a_process_that_knows_nothing_of_it(file: Path, tmp_path: Path) -> None:
    sent = pickle.dumps(Registry().get(f"{file}:make"))
    (tmp_path / "sent").write_bytes(sent)
    file.unlink()
    script = (
        f"import pickle, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"spec = pickle.load(open({str(tmp_path / 'sent')!r}, 'rb'))\n"
        "print(len(list(spec.build(num_classes=3, in_channels=3, map_size=28))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "3\n", done.stderr
    assert pickle.loads(sent).build == pickle.loads(sent).build


def test_a_file_runs_from_the_command_line(file: Path, small_store: Path, tmp_path: Path, call: Any) -> None:
    where = ["--store", small_store, "--protocol", "kfold", "--k", 2, "--out", tmp_path / "runs", "--quiet"]
    code, out, err = call("run", "--model", f"{file}:make", *where, "--set", "epochs=1", "--workers", 1)
    assert code == 0, err
    assert "make (plain, epochs=1): kfold" in out
    code, out, err = call("run", f"{file}:make@plain", f"{file}:estimator", *where, "--dry-run")
    assert code == 0 and "make-" in out and "estimator-" in out, err
    code, _, err = call("run", f"{file}:mak", *where)
    assert code == 2 and "unknown function of" in err and "did you mean 'make'" in err


def test_what_was_kept_of_a_file_is_used_with_it_unchanged(
    file: Path, small_store: Path, tmp_path: Path, call: Any
) -> None:
    kept, store = tmp_path / "kept", ["--store", small_store]
    assert call("fit", f"{file}:make", *store, "--out", kept, "--set", "epochs=1", "--quiet")[0] == 0
    code, out, err = call("predict", "--checkpoint", kept, "--model", f"{file}:make", *store)
    assert code == 0 and "trained on: 54 samples of 9 subjects" in out, err
    code, _, err = call("predict", "--checkpoint", kept, *store)
    assert code == 1 and "which no installed package has" in err and "give --model FILE.py:FUNCTION" in err
    write(file, width=5)
    code, _, err = call("export-model", "--checkpoint", kept, "--model", f"{file}:make", "--out", "x.onnx")
    assert code == 1 and "give the model that it was trained with, its code unchanged" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*absent.py; write path/to/file.py:function"),
        (
            "import no_such_module",
            r"model file .* fails: ModuleNotFoundError: No module named 'no_such",
        ),
        ("def make(:", "model file .* fails: SyntaxError"),
        ("make = 3", "expected a registered name, a function or class"),
    ],
)
def test_a_file_that_gives_no_model_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "absent.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        Registry().find(f"{path}:make")


def test_spellings_of_files() -> None:
    entry = parse_entry("a dir/net.py:make@plain/whole-28:scaled#one")
    assert (entry.model, entry.variant, entry.recipe) == ("a dir/net.py:make", "", "plain")
    assert (entry.view, entry.normalisation, entry.label) == ("whole-28", "scaled", "one")
    assert str(entry) == "a dir/net.py:make@plain/whole-28:scaled#one"


def test_a_lambda_and_a_partial_have_names() -> None:
    assert given_model(lambda: nn.Linear(2, 3)).spec.name.startswith("lambda-")
    assert given_model(functools.partial(nn.Linear, 2, 3)).spec.title == "Linear"
    with pytest.raises(MerBenchError, match="model 'Linear' needs in_features, out_features"):
        given_model(nn.Linear)
