"""`import mer_flow as mf`: light, complete, and the same as the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.mer_flow.stores import sample_of, write_store

import mer_flow as mf
from mer_flow.synthetic import make_tree

EMOTIONS = ("negative", "positive", "surprise")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        (sample_of("smic", f"s{i}", "c", EMOTIONS[i % 3]), np.random.default_rng(i).uniform(size=(3, 28, 28)))
        for i in range(7)
    ]
    return write_store(tmp_path_factory.mktemp("api") / "flows.h5", rows).path


def test_importing_it_imports_nothing_heavy_and_it_lists_its_names() -> None:
    heavy = ("numpy", "h5py", "pandas", "torch", "pydantic", "cv2")
    script = (
        "import sys, mer_flow as mf\n"
        f"assert not [name for name in {heavy!r} if name in sys.modules]\n"
        "assert set(mf.__all__) <= set(dir(mf)) and all(getattr(mf, name) for name in mf.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'read_vew'"):
        mf.read_vew  # noqa: B018


def test_a_view_is_arrays_a_dataset_and_a_table(path: Path) -> None:
    view = mf.read_view(path, "whole-14", "scaled", scheme="megc3")
    assert view.maps.shape == (7, 3, 14, 14) and len(view) == 7
    assert "whole-14:scaled" in repr(view) and "negative 3, positive 2, surprise 2" in repr(view)
    table = view.table()
    assert table.sample_id.tolist() == view.sample_ids.tolist() == list(view.samples.sample_ids)
    assert table.label.tolist() == [view.classes[label] for label in view.labels]
    assert {"onset", "apex", "offset", "emotion", "action_units", "fps"} <= set(table.columns)
    torch = pytest.importorskip("torch")
    dataset = view.dataset()
    assert isinstance(dataset, torch.utils.data.Dataset) and len(dataset) == 7
    for i, (tensor, label) in enumerate(dataset):
        assert tensor.dtype == torch.float32 and np.array_equal(tensor.numpy(), view.maps[i])
        assert label == view.labels[i]
    assert np.shares_memory(dataset.tensors[0].numpy(), view.maps)


def test_a_store_is_opened_or_what_is_wrong_with_it_said(path: Path, tmp_path: Path) -> None:
    with mf.open_store(str(path)) as store:
        assert store.databases == ("smic",)
        assert mf.read_view(store).source_digest == store.digest()
    with pytest.raises(mf.MerFlowError, match=r"no store at .*absent\.h5\. Build one"):
        mf.open_store(tmp_path / "absent.h5")


def test_databases_are_listed_also_after_the_package_of_that_name_was_imported() -> None:
    import mer_flow.databases.samm  # noqa: F401

    listed = mf.databases()
    assert {"smic", "samm", "casme2", "casme3"} <= set(listed.index)
    assert listed.loc["samm", "title"] == "SAMM" and listed.loc["smic", "fps"] == 100


def test_a_build_is_that_of_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    make_tree(tmp_path / "smic", "smic", subjects=1, clips_per_subject=1, seed=1)
    settings = {"align.size": 64, "regions.backend": "dlib", "flow.warps": 2, "flow.scale_step": 0.5}
    summary = mf.build("smic", tmp_path / "smic", tmp_path / "a.h5", settings=settings, workers=1)
    assert (summary.built, summary.failed) == (1, [])
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [*(sys.executable, "-m", "mer_flow.cli", "build", "--db", "smic", "--workers", "1", "--quiet")]
    places = ["--root", str(tmp_path / "smic"), "--store", str(tmp_path / "b.h5")]
    subprocess.run([*command, *places, *words], check=True)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"worker": 2}, "unknown option of a build 'worker'; did you mean 'workers'"),
        ({"settings": {"flow.tua": 1}}, r"unknown setting 'flow\.tua'; did you mean 'flow\.tau'"),
        ({"keep": {"face": True}}, r"unknown setting 'keep\.face'; did you mean 'keep\.faces'"),
    ],
)
def test_what_a_build_does_not_know_is_answered_with_the_nearest(
    given: dict[str, object], message: str, tmp_path: Path
) -> None:
    build: Callable[..., object] = mf.build
    with pytest.raises(mf.MerFlowError, match=message):
        build("smic", tmp_path, tmp_path / "x.h5", **given)
