"""`mb.evaluate` with names, functions, classes, files and estimators: the run that the command line makes."""

from __future__ import annotations

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
from torch import Tensor, nn

import mer_bench as mb
from mer_bench.runs.directory import RunDirectory

KFOLD: dict[str, Any] = {"protocol": "kfold", "k": 3, "quiet": True, "workers": 1}


class Small(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, map_size: int, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, stride=3)
        self.head = nn.Linear(width * (map_size // 3) ** 2, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(maps)).flatten(1))


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, num_classes))


def logits_of(run: Path) -> list[np.ndarray]:
    directory = RunDirectory(run)
    return [record.logits for seed in directory.seeds for record in directory.records(seed)]


def test_a_class_is_trained_and_its_run_has_table_predictions_and_a_directory(
    small_store: Path, tmp_path: Path
) -> None:
    result = mb.evaluate(Small, small_store, **KFOLD, seeds=2, epochs=8, lr=0.02, width=3, out=tmp_path)
    table = result.table()
    assert table.index[0] == ("last", "Full") and table.loc[("last", "Full"), "uf1"] > 0.8
    assert {"uf1", "uar", "accuracy", "uf1_sd", "uf1_low", "uf1_high"} <= set(table.columns)
    assert table.loc["oracle", "leaks"].all() and not table.loc["last", "leaks"].any()
    found = result.predictions
    assert len(found) == 2 * 54 and found.groupby("seed")["sample"].nunique().tolist() == [54, 54]
    assert {"sample", "subject", "database", "fold", "label"} <= set(found.columns)
    chances = found[["p_negative", "p_positive", "p_surprise"]]
    assert np.allclose(chances.sum(axis=1), 1)
    assert (chances.idxmax(axis=1) == "p_" + found.predicted).all()
    right = (found.label == found.predicted).groupby(found.seed).mean().mean()
    assert right == pytest.approx(table.loc[("last", "Full"), "accuracy"])
    manifest = RunDirectory(result.run).manifest
    assert manifest.identity.options == {"width": 3} and manifest.identity.recipe.epochs == 8
    assert "Small (plain, width=3, epochs=8, lr=0.02): kfold" in repr(result) and "oracle (LEAKS)" in repr(
        result
    )
    assert mb.Result(result.run).table().equals(table)


def test_an_evaluation_is_resumed_and_another_code_is_another_run(small_store: Path, tmp_path: Path) -> None:
    first = mb.evaluate(linear, small_store, **KFOLD, epochs=1, out=tmp_path)
    record = next(first.run.glob("records/*/*.npz"))
    written = record.stat().st_mtime_ns
    assert mb.evaluate(linear, small_store, **KFOLD, epochs=1, out=tmp_path).run == first.run
    assert record.stat().st_mtime_ns == written

    def linear_2(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, num_classes, bias=False))

    linear_2.__name__ = "linear"
    assert mb.evaluate(linear_2, small_store, **KFOLD, epochs=1, out=tmp_path).run != first.run


def test_a_name_gives_the_run_of_the_command_line(small_store: Path, tmp_path: Path, call: Any) -> None:
    result = mb.evaluate("ststnet", small_store, **KFOLD, epochs=2, out=tmp_path / "api")
    options = ["--protocol", "kfold", "--k", 3, "--set", "epochs=2", "--out", tmp_path / "cli", "--quiet"]
    assert call("run", "ststnet", "--store", small_store, *options, "--workers", 1)[0] == 0
    other = tmp_path / "cli" / result.run.name
    for ours, theirs in zip(logits_of(result.run), logits_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "estimator",
    [SVC(C=10), make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), SVC],
    ids=["svc", "pipeline", "class"],
)
def test_an_estimator_is_cloned_for_every_fold(small_store: Path, tmp_path: Path, estimator: Any) -> None:
    result = mb.evaluate(estimator, small_store, **KFOLD, out=tmp_path)
    assert result.table().loc[("last", "Full"), "uf1"] > 0.9
    assert set(result.table().index.get_level_values(0)) == {"last"}
    assert not hasattr(estimator, "classes_") or isinstance(estimator, type)


def test_an_estimator_predicts_what_scikit_learn_predicts_with_the_protocol_as_splitter(
    small_store: Path, tmp_path: Path
) -> None:
    from sklearn.model_selection import cross_val_predict

    import mer_flow as mf

    found = mb.evaluate(SVC(), small_store, "cde", quiet=True, out=tmp_path).predictions
    view = mf.read_view(small_store, "whole-28", "scaled")
    cde = mb.splitter("cde")
    features = view.maps.reshape(len(view), -1)
    predicted = cross_val_predict(SVC(), features, view.labels, groups=view.subjects, cv=cde)
    expected = dict(zip(view.sample_ids.tolist(), np.array(view.classes)[predicted].tolist(), strict=True))
    assert dict(zip(found["sample"], found["predicted"], strict=True)) == expected
    assert cde.get_n_splits(features, view.labels, view.subjects) == 9 == found["fold"].nunique()


@pytest.mark.parametrize(
    "recipe",
    [{"epochs": 1, "lr": 0.01}, mb.Recipe(name="mine", epochs=1, lr=0.01), "plain"],
    ids=["fields", "whole", "name"],
)
def test_a_recipe_is_a_name_fields_or_whole(small_store: Path, tmp_path: Path, recipe: Any) -> None:
    more = {"epochs": 1} if recipe == "plain" else {}
    result = mb.evaluate(linear, small_store, **KFOLD, recipe=recipe, out=tmp_path, **more)
    found = RunDirectory(result.run).manifest.identity.recipe
    assert found.epochs == 1 and found.lr == (0.001 if recipe == "plain" else 0.01)
    assert found.name == ("mine" if isinstance(recipe, mb.Recipe) else "plain")
    assert found.optimizer == ("adam" if isinstance(recipe, mb.Recipe) else "adamw")


def test_a_confusion_is_drawn_of_each_pool(small_store: Path, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    result = mb.evaluate("majority", small_store, **KFOLD, out=tmp_path)
    ax = result.plot_confusion("samm")
    counts = [int(text.get_text()) for text in ax.texts]
    assert counts == result.summary.selections["last"]["samm"].confusion.ravel().tolist()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["negative", "positive", "surprise"]
    with pytest.raises(mb.MerBenchError, match="unknown pool 'sam'; did you mean 'samm'"):
        result.plot_confusion("sam")


SCRIPT = """
import sys
import mer_bench as mb
from torch import nn
print("ran")
SIDE = 28
class Net(nn.Sequential):
    def __init__(self, num_classes=3):
        super().__init__(nn.Flatten(), nn.Linear(3 * SIDE**2, num_classes))
for workers in (1, 2):
    result = mb.evaluate(Net, sys.argv[1], "loso", db="samm", epochs=1, workers=workers,
                         out=sys.argv[2] + f"/{workers}", quiet=True, recipe={"lr": 0.01})
    print(result.run.name, result.predictions.p_negative.tolist())
"""


@pytest.mark.parametrize("how", ["file", "standard input"])
def test_a_script_or_a_notebook_sends_its_own_class_to_workers(
    small_store: Path, tmp_path: Path, how: str
) -> None:
    # No `if __name__ == "__main__":` in it; standard input is no file, as a notebook's cells are none.
    (tmp_path / "script.py").write_text(SCRIPT)
    first = str(tmp_path / "script.py") if how == "file" else "-"
    command = [sys.executable, first, str(small_store), str(tmp_path)]
    done = subprocess.run(command, input=None if how == "file" else SCRIPT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    began, alone, spread = done.stdout.splitlines()
    assert began == "ran" and alone == spread and alone.startswith("net-")


def test_lazy_layers_see_a_map_before_they_are_trained(small_store: Path, tmp_path: Path) -> None:
    def lazy(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(2, 3, stride=3), nn.Flatten(), nn.LazyLinear(num_classes))

    result = mb.evaluate(lazy, small_store, **KFOLD, epochs=8, lr=0.02, out=tmp_path)
    assert result.table().loc[("last", "Full"), "uf1"] > 0.8
    assert RunDirectory(result.run).manifest.parameters == 2 * 3 * 9 + 2 + 3 * 2 * 81 + 3


def shared_network() -> Any:
    layer = nn.Linear(3 * 28 * 28, 3)
    return lambda: nn.Sequential(nn.Flatten(), layer)


def shared_estimator() -> Any:
    one = SVC()
    return lambda: one


def fails(num_classes: int) -> nn.Module:
    raise RuntimeError("no such file: weights.pt")


class Late(nn.Module):
    """Fails once it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 28 * 28, 3)

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no gradient of this")
        return self.head(maps.flatten(1))


def counting() -> Any:
    calls: list[int] = []

    def make() -> nn.Module:
        calls.append(1)
        network = linear(3)
        nn.init.constant_(network[1].bias, len(calls))
        return network

    return make


def drawing() -> nn.Module:
    network = linear(3)
    network[1].bias.data = torch.from_numpy(np.random.default_rng().normal(size=3)).float()
    return network


def holding_a_file() -> Any:
    file = Path(__file__).open()  # noqa: SIM115

    def make() -> nn.Module:
        print(file.name)
        return linear(3)

    return make


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 3), "a Linear that is built would carry its weights.*the class or a function"),
        (shared_network(), "gives the same weights at every call.*make every layer anew"),
        (shared_estimator(), "gives the same estimator at every call.*make a new one"),
        (counting(), "begins with other weights at a second call.*keeps something between calls"),
        (drawing, "begins with other weights at a second call.*draws otherwise than from torch"),
        (lambda: nn.Flatten(), r"gives logits of shape \(2, 2352\) for 2 samples, expected \(2, 3\)"),
        (fails, r"fails-\w+' .*cannot be built or run: no such file: weights\.pt"),
        (Late, "fold '.*': model 'late-.*ValueError: no gradient of this; check the model.*keeps the other"),
        (lambda width: linear(3), "needs width; the bench tells.*any other argument a default"),
        (lambda: "text", "makes a str; return an nn.Module"),
        (3, "expected a registered name, a function or class.*got int"),
        (holding_a_file(), "refers to a TextIOWrapper.*make that inside the function"),
        ("ststnett", "unknown model 'ststnett'; did you mean 'ststnet'"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_evaluated_is_refused_in_a_line(
    small_store: Path, tmp_path: Path, model: Any, message: str
) -> None:
    with pytest.raises(mb.MerBenchError, match=f"(?s){message}"):
        mb.evaluate(model, small_store, **KFOLD, out=tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"recipe": 3}, "recipe: expected a name, a table of fields or a Recipe, got int"),
        ({"recipe": {"lrr": 1}}, "unknown setting 'lrr'; did you mean 'lr'"),
        ({"seeds": -1}, "seeds: expected a count"),
    ],
)
def test_settings_that_cannot_be_are_answered_with_the_nearest(
    small_store: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(mb.MerBenchError, match=message):
        mb.evaluate(linear, small_store, **KFOLD, out=tmp_path, **given)


def test_importing_it_imports_nothing_heavy_and_it_lists_its_names() -> None:
    heavy = ("numpy", "torch", "sklearn", "pandas", "pydantic", "matplotlib", "click")
    script = (
        "import sys, mer_bench as mb\n"
        f"assert not [name for name in {heavy!r} if name in sys.modules]\n"
        "assert set(mb.__all__) <= set(dir(mb)) and all(getattr(mb, name) for name in mb.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        mb.evalute  # noqa: B018
