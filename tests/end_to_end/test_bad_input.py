"""What a user may hand the bench by mistake or bad luck: a clear error, the right exit code, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample

#: Subject -> emotions of its clips. s0 has one clip; s3 alone has surprise.
CLIPS = {
    "s0": ("disgust",),
    "s1": ("disgust", "happiness", "disgust"),
    "s2": ("happiness", "disgust", "happiness"),
    "s3": ("surprise", "disgust", "happiness"),
}


Call = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "small.h5"
    rng = np.random.default_rng(0)
    rows = [(subject, clip, emotion) for subject, each in CLIPS.items() for clip, emotion in enumerate(each)]
    samples = [
        Sample(f"casme2/{s}/c{c}", "casme2", f"casme2/{s}", f"c{c}", 1, 5, 9, "sheet", emotion, "", 0, 200.0)
        for s, c, emotion in rows
    ]
    with StoreWriter(path, {"map_kind": {"kind": "computed", "map_size": 28, "values": "px"}}) as writer:
        writer.begin("casme2", SampleTable(samples))
        for sample in samples:
            record = SampleRecord(sample, np.abs(rng.normal(0, 0.3, (3, 28, 28))), notes={"fallbacks": []})
            writer.commit(sample.sample_id, encode_sample(record))
        writer.finish()
    return path


def loso(store: Path, out: Path, *more: object) -> tuple[object, ...]:
    """Arguments of a short run; as the command line splits them."""
    settings = ("--set", "epochs=30", "--workers", 1, "--quiet")
    return (
        "run", "ststnet", "--protocol", "loso", "--db", "casme2", "--store", store, "--out", out, *settings,
        *more,
    )  # fmt: skip


def test_a_subject_with_one_sample_and_a_class_of_one_subject_are_scored_and_said(
    call: Call, store: Path, tmp_path: Path
) -> None:
    code, out, err = call("mer-bench", *loso(store, tmp_path, "--json"))
    assert code == 0, err
    done = json.loads(out)
    assert done["complete"] and done["trained"] == len(CLIPS)
    assert done["summary"]["warnings"] == [
        "fold 'casme2/s3': class 'surprise' has no training sample, so it cannot be predicted there"
    ]
    (run,) = tmp_path.iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    tested = {fold["name"]: len(fold["test"]) for fold in manifest["folds"]}
    assert tested == {f"casme2/{subject}": len(clips) for subject, clips in CLIPS.items()}
    code, out, _ = call("mer-bench", "report", run, "--format", "csv")
    assert code == 0 and "nan" not in out.lower()


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX")
def test_a_disk_that_fills_in_the_middle_loses_nothing(call: Call, store: Path, tmp_path: Path) -> None:
    code, _, err = call("mer-bench", *loso(store, tmp_path / "full", "--limit", 2))
    assert code == 1, err
    records = {name: data for name, data in contents(tmp_path / "full").items() if name.endswith(".npz")}
    assert len(records) == 2

    # A process whose files may not grow: with the signal ignored, its writes fail as they do on a full disk.
    largest = min(map(len, records.values())) // 2
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest})); "
        "from mer_bench.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, loso(store, tmp_path / "full"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Free some space; every record written before is kept" in done.stderr
    assert "Traceback" not in done.stderr
    after = contents(tmp_path / "full")
    assert {name: data for name, data in after.items() if name.endswith((".npz", ".tmp"))} == records

    code, out, err = call("mer-bench", *loso(store, tmp_path / "full", "--json"))
    assert code == 0, err
    assert (json.loads(out)["trained"], json.loads(out)["kept"]) == (2, 2)
    whole = json.loads(call("mer-bench", *loso(store, tmp_path / "whole", "--json"))[1])
    assert json.loads(out)["summary"]["selections"] == whole["summary"]["selections"]


def test_a_run_directory_of_another_configuration_is_left_alone(
    call: Call, store: Path, tmp_path: Path
) -> None:
    assert call("mer-bench", *loso(store, tmp_path / "one"))[0] == 0
    assert call("mer-bench", *loso(store, tmp_path / "other", "--set", "lr=1e-3", "--limit", 1))[0] == 1
    (mine,), (theirs,) = (tmp_path / "one").iterdir(), (tmp_path / "other").iterdir()
    assert mine.name != theirs.name
    shutil.copytree(mine, tmp_path / "mixed" / theirs.name)
    before = contents(tmp_path / "mixed")
    code, _, err = call("mer-bench", *loso(store, tmp_path / "mixed", "--set", "lr=1e-3"))
    assert code == 1
    assert "recipe.lr: 5e-05 there, 0.001 asked for" in err and "Traceback" not in err
    assert contents(tmp_path / "mixed") == before


def test_nan_in_a_map_names_the_sample_and_trains_nothing(call: Call, store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "nan.h5"
    shutil.copyfile(store, damaged)
    with h5py.File(damaged, "r+") as file:
        flow = file["casme2/flow"][2]
        flow[0, 3, 4] = np.nan
        file["casme2/flow"][2] = flow
    code, _, err = call("mer-bench", *loso(damaged, tmp_path / "runs"))
    assert code == 1
    assert "casme2/s1/c1" in err and "mer-flow verify" in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_diverges_is_listed_with_the_remedy(call: Call, store: Path, tmp_path: Path) -> None:
    code, out, err = call("mer-bench", *loso(store, tmp_path, "--set", "lr=1e38"))
    assert code == 1
    assert "the training loss became" in out + err and "lower lr" in out + err
    assert "Traceback" not in err
    (run,) = tmp_path.iterdir()
    code, _, err = call("mer-bench", "report", run)
    assert code == 1 and "incomplete and cannot be tabulated" in err


def test_a_checkpoint_of_another_shape_is_refused_and_kept(call: Call, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("ahmsa_model")
    checkpoint = tmp_path / "checkpoint"
    code, _, err = call(
        "mer-bench", "fit", "ahmsa", "--variant", "tiny", "--recipe", "quick", "--set", "epochs=1",
        "--store", store, "--view", "whole-28", "--out", checkpoint,
    )  # fmt: skip
    assert code == 0, err
    config = json.loads((checkpoint / "config.json").read_text())
    config["config"]["width"] *= 2
    (checkpoint / "config.json").write_text(json.dumps(config))
    before = contents(checkpoint)
    picture = tmp_path / "frame.png"
    picture.write_bytes(b"")
    predict = ("predict", "--checkpoint", checkpoint, "--onset", picture, "--apex", picture)
    code, _, err = call("ahmsa", *predict)
    assert code == 1
    assert "config.width is 32, and the weights were saved with 16" in err and "Traceback" not in err
    assert contents(checkpoint) == before
