"""Seals of a manifest: what was changed is refused by name, and so are records of another manifest."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.errors import RunError
from mer_bench.models.majority import SPECS
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import read_manifest
from mer_bench.training.result import FoldResult

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def run(tmp_path: Path, prepared_with: Any, record: Callable[..., FoldResult]) -> RunDirectory:
    """A run with one record."""
    prepared = prepared_with(SPECS[0], protocol="kfold", k=3)
    run = RunDirectory.create_or_resume(tmp_path, prepared.manifest)
    fold = prepared.folds.folds[0]
    run.write(record(fold.name, fold.test.tolist(), [[0] * len(fold.test)]))
    return run


def rewrite(run: RunDirectory, change: Change) -> None:
    path = run.path / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=3))


def put(*keys: Any, value: Any) -> Change:
    """Puts a value somewhere into a manifest."""

    def change(content: Any) -> None:
        *above, last = keys
        for key in above:
            content = content[key]
        content[last] = value

    return change


CHANGES = {
    "samples.labels": put("samples", "labels", 0, value=2),
    "samples.subjects": put("samples", "subjects", 0, value="casme2/s99"),
    "samples.sample_ids": put("samples", "sample_ids", 0, value="casme2/another"),
    "folds": lambda content: content["folds"][0]["train"].pop(),
    "settings": put("settings", "headline", value="tail"),
    "identity": put("identity", "shuffle_labels", value=3),
    "digest": put("digest", value="0" * 64),
    "dropped": put("dropped", "because", value=4),
    "warnings": put("warnings", value=["all is well"]),
    "classes": lambda content: content["classes"].reverse(),
}


@pytest.mark.parametrize("part", CHANGES)
def test_what_was_changed_is_refused_by_name(run: RunDirectory, part: str) -> None:
    rewrite(run, CHANGES[part])
    with pytest.raises(
        RunError, match=rf"manifest\.json was changed after it was written: .*{part}.*Restore"
    ):
        read_manifest(run.path)


def test_layout_and_seeds_may_change(run: RunDirectory) -> None:
    rewrite(run, put("seeds", value=[0, 4]))
    assert read_manifest(run.path) == run.manifest.with_seeds((4,))
    assert not RunDirectory(run.path).status().damaged[0]
    rewrite(run, put("seeds", value=[4, 0]))
    with pytest.raises(RunError, match=r"a wrong seeds: .*ascending"):
        read_manifest(run.path)


def test_a_run_from_before_a_setting_was_added_grows(run: RunDirectory, tmp_path: Path) -> None:
    def without(content: dict[str, Any]) -> None:
        del content["settings"]["train_subjects"]
        content["seal"]["settings"] = hashlib.sha256(
            json.dumps(content["settings"], sort_keys=True).encode()
        ).hexdigest()

    rewrite(run, without)
    (run.path / "records").rename(tmp_path / "records")  # they are of another seal
    before = json.loads((run.path / "manifest.json").read_text())
    asked = run.manifest.with_seeds((3,))
    assert RunDirectory.create_or_resume(tmp_path, asked).seeds == (0, 3)
    assert json.loads((run.path / "manifest.json").read_text()) == before | {"seeds": [0, 3]}


def test_a_record_of_another_manifest_is_refused(run: RunDirectory) -> None:
    changed = run.manifest.model_copy(update={"dropped": {"none of its": 1}}).sealed()
    (run.path / "manifest.json").write_bytes(changed.to_json())
    ((_, reason),) = RunDirectory(run.path).status().damaged[0]
    assert "written under another manifest.json" in reason


def test_a_subject_on_two_sides_is_refused_even_with_a_seal(run: RunDirectory) -> None:
    first, *others = run.manifest.folds
    train = tuple(sorted((*first.train[1:], first.test[0])))
    folds = (first.model_copy(update={"train": train, "test": first.test[1:]}), *others)
    changed = run.manifest.model_copy(update={"folds": folds}).sealed()
    (run.path / "manifest.json").write_bytes(changed.to_json())
    with pytest.raises(RunError, match=r"subject 'casme2/s.*' is in both train and test"):
        read_manifest(run.path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, '{"schema_version": 1' + "0" * 5000 + "}"]
)
def test_nested_or_endless_content_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=r"manifest\.json cannot be read: ") as refusal:
        read_manifest(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_deep_options_are_one_line(run: RunDirectory) -> None:
    path = run.path / "manifest.json"
    deep = "[" * 700 + "]" * 700
    path.write_text(path.read_text().replace('"options": {}', f'"options": {{"a": {deep}}}', 1))
    with pytest.raises(RunError, match=r"changed after it was written|cannot be read"):
        read_manifest(run.path)


def archive(arrays: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """An array's header with no values behind it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": header((10**12,))}, r"header claims \(1000000000000,\) of float32"),
        ({"logits": header((10**6, 10**6), "|O")}, "of object"),
        ({"meta": header((), "<U1000000000")}, "header claims"),
        ({"strange": header((0,))}, "it holds .*strange"),
        ({"logits": b"junk"}, "damaged"),
        (zipfile.ZIP_DEFLATED, "is compressed"),
    ],
)
def test_a_hostile_record_is_refused_before_it_takes_memory(
    run: RunDirectory, change: Any, message: str
) -> None:
    path = run.record_path(0, run.fold_names[0])
    with zipfile.ZipFile(path) as file:
        arrays = {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}
    if isinstance(change, dict):
        path.write_bytes(archive(arrays | change))
    else:
        path.write_bytes(archive(arrays, change))
    ((_, reason),) = run.status().damaged[0]
    assert len(reason.splitlines()) == 1 and "damaged" in reason
    with pytest.raises(RunError, match=message):
        run.read(0, run.fold_names[0])
