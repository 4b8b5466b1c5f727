"""LBP-TOP and Bi-WOOF from a synthetic tree to scores, through the command lines."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_flow.synthetic import make_tree

#: Small and quick, but the whole pipeline.
FAST = ("align.size=64", "flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05", "regions.backend=dlib")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("cv2", "dlib", "skimage", "xlsxwriter"):
        pytest.importorskip(module)
    root = tmp_path_factory.mktemp("tree")
    make_tree(root, "samm", subjects=3, clips_per_subject=3, seed=1)
    return root


def build(call: Call, tree: Path, store: Path, *more: object) -> None:
    settings = [part for setting in FAST for part in ("--set", setting)]
    code, _, err = call(
        "mer-flow", "build", "--db", "samm", "--root", tree, "--store", store, "--workers", 1, "--quiet",
        *settings, *more,
    )  # fmt: skip
    assert code == 0, err


def test_from_a_tree_to_scores(call: Call, tree: Path, tmp_path: Path) -> None:
    store, runs = tmp_path / "clips.h5", tmp_path / "runs"
    build(call, tree, store, "--keep-clips", 12)
    options = ("--protocol", "loso", "--db", "samm", "--store", store, "--out", runs, "--json")
    for model, view, values in (("lbp-top", "clips-56", 1200), ("bi-woof", "whole-28", 200)):
        code, out, err = call("mer-bench", "run", model, *options)
        assert code == 0, err
        done = json.loads(out)
        assert done["complete"] and done["trained"] == 3
        manifest = json.loads((Path(done["run"]) / "manifest.json").read_text())
        assert (manifest["identity"]["view"], manifest["identity"]["normalisation"]) == (view, "raw")
        again = json.loads(call("mer-bench", "run", model, *options)[1])
        assert (again["trained"], again["kept"]) == (0, 3)
        _, _, told = call("mer-bench", "run", model, *options[:-1], "--set", "cost=2")
        assert f"features of 9 samples: {values} values each" in told


def test_a_store_without_clips_is_refused_with_the_remedy(call: Call, tree: Path, tmp_path: Path) -> None:
    store, runs = tmp_path / "flow.h5", tmp_path / "runs"
    build(call, tree, store)
    code, _, err = call(
        "mer-bench", "run", "lbp-top", "--protocol", "loso", "--db", "samm", "--store", store, "--out", runs
    )
    assert code == 1
    assert "clips-56:raw" in err and "samm" in err
    assert "--keep-clips" in err
    assert not runs.exists()
