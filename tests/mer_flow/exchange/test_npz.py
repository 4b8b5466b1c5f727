"""Export to one file of arrays or of metadata, and import back."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mer_flow.cli import cli
from mer_flow.exchange.npz import export_npz, import_npz, read_npz
from mer_flow.exchange.parquet import export_parquet
from mer_flow.exchange.selection import Selection
from mer_flow.samples import COLUMNS, Sample, SampleTable
from mer_flow.store.encode import EncodeOptions, SampleRecord, encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import ExchangeError, MissingDependencyError, UsageError

SIDE = 16
EMOTIONS = ("anger", "happiness", "surprise", "other")


def rows() -> list[Sample]:
    return [
        Sample(
            f"samm/{n:03d}/{n:03d}_1_1", "samm", f"samm/{n:03d}", f"{n:03d}_1_1", n, n + 9, n + 20, "sheet",
            emotion, "4+7", n, 200.0,
        )
        for n, emotion in enumerate(EMOTIONS, start=1)
    ]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four samples of flow in px; the scheme megc3 drops the last."""
    path = tmp_path / "flows.h5"
    random = np.random.default_rng(0)
    options = EncodeOptions(dtype="float32")
    pipeline = {"map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"}, "made_by": "a test"}
    with StoreWriter(path, pipeline, options) as writer:
        writer.begin("samm", SampleTable(rows()))
        for n, sample in enumerate(rows()):
            flow = random.normal(size=(3, SIDE, SIDE)).astype(np.float32)
            flow[2] = np.abs(flow[2])  # a strain
            writer.commit(
                sample.sample_id, encode_sample(SampleRecord(sample, flow, notes={"n": n}), options)
            )
        writer.finish()
    return path


def exported(store: Path, out: Path, **options: str) -> Path:
    with FlowStore(store) as opened:
        export_npz(opened, out, Selection(**options))  # type: ignore[arg-type]
    return out


def test_raw_whole_maps_come_back_exactly(store: Path, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "a.npz", view=f"whole-{SIDE}", normalisation="raw")
    again = tmp_path / "again.h5"
    summary = import_npz(file, again)
    assert summary.complete and summary.imported == {"samm": 3}
    with FlowStore(store) as first, FlowStore(again) as second:
        assert second.values == "px" and second.map_size == SIDE
        assert second.pipeline["import"]["source_pipeline"] == first.pipeline
        assert list(second.table()) == rows()[:3]
        assert np.array_equal(second.read_flow("samm", slice(0, 3)), first.read_flow("samm", slice(0, 3)))
    before = again.read_bytes()
    assert import_npz(file, again).already == 3 and again.read_bytes() == before


def test_scaled_maps_come_back_as_scaled_maps(store: Path, tmp_path: Path) -> None:
    plain = exported(store, tmp_path / "b.npz", view="whole-8", normalisation="minmax")
    byte = exported(store, tmp_path / "c.npz", view="whole-8", normalisation="minmax-255")
    for file in (plain, byte):
        path = file.with_suffix(".h5")
        import_npz(file, path)
        with FlowStore(path) as opened:
            assert opened.values == "minmax-255"
            maps = opened.read_flow("samm", 0)
        assert np.allclose(maps, read_npz(byte)["maps"][0], atol=1e-4)
        assert maps.min() == 0 and maps.max() == pytest.approx(255)


def test_keys_and_order(store: Path, tmp_path: Path) -> None:
    arrays = read_npz(exported(store, tmp_path / "a.npz", view="whole-8", normalisation="scaled"))
    extra = ("maps", "labels", "classes", "channels", "view", "normalisation", "scheme", "pipeline")
    assert set(arrays) == {*COLUMNS, *extra, "source_digest", "format_version"}
    assert arrays["maps"].shape == (3, 3, 8, 8) and arrays["maps"].dtype == np.float32
    assert [arrays["classes"][n] for n in arrays["labels"]] == ["negative", "positive", "surprise"]
    assert arrays["emotion"].tolist() == list(EMOTIONS[:3]) and arrays["apex"].tolist() == [10, 11, 12]
    assert not any(array.dtype.hasobject for array in arrays.values())


def test_same_store_gives_same_bytes(store: Path, tmp_path: Path) -> None:
    first, second = (
        exported(store, tmp_path / "a.npz", view="whole-8"),
        exported(store, tmp_path / "b.npz", view="whole-8"),
    )
    assert first.read_bytes() == second.read_bytes()
    with FlowStore(store) as opened, pytest.raises(UsageError, match="exists already"):
        export_npz(opened, first, Selection(view="whole-8"))


def minimal(**changes: object) -> dict[str, object]:
    content: dict[str, object] = {
        "maps": np.zeros((2, 3, 8, 8), np.float32),
        "database": np.array(["samm", "samm"]),
        "subject": np.array(["006", "007"]),
        "clip": np.array(["a", "b"]),
        "emotion": np.array(["Negative ", "surprise"]),
        "view": "whole-8",
        "normalisation": "raw",
    }
    content.update(changes)
    return {name: value for name, value in content.items() if value is not None}


def test_a_foreign_file_with_the_required_keys_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **minimal())  # type: ignore[arg-type]
    assert import_npz(tmp_path / "a.npz", tmp_path / "a.h5").imported == {"samm": 2}
    with FlowStore(tmp_path / "a.h5") as opened:
        sample = opened.table()["samm/006/a"]
    assert (sample.subject, sample.emotion, sample.onset, sample.apex_source) == (
        "samm/006",
        "negative",
        -1,
        "none",
    )


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"clip": None, "view": None}, ["['clip', 'view'] are missing"]),
        ({"maps": np.zeros((2, 8, 8))}, ["(2, 8, 8)", "expected (N, 3, S, S)"]),
        (
            {"view": "regions-8", "normalisation": "scaled"},
            ["'regions-8'", "'scaled'", "recovered"],
        ),
        ({"subject": np.array(["006"])}, ["['subject']", "one entry per map"]),
        ({"clip": np.array(["a", None], dtype=object)}, ["object arrays are refused"]),
    ],
)
def test_unusable_files_name_every_fault(
    tmp_path: Path, changes: dict[str, object], fragments: list[str]
) -> None:
    np.savez(tmp_path / "a.npz", **minimal(**changes))  # type: ignore[arg-type]
    with pytest.raises(ExchangeError) as error:
        import_npz(tmp_path / "a.npz", tmp_path / "a.h5")
    assert all(fragment in str(error.value) for fragment in [*fragments, "a.npz"])
    assert not (tmp_path / "a.h5").exists()


def test_truncated_or_absent_file(store: Path, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "a.npz", view="whole-8")
    file.write_bytes(file.read_bytes()[:-100])
    for path in (file, tmp_path / "absent.npz"):
        with pytest.raises(ExchangeError, match="cannot read"):
            import_npz(path, tmp_path / "a.h5")


def test_map_with_holes_is_a_recorded_failure(tmp_path: Path) -> None:
    maps = np.zeros((2, 3, 8, 8), np.float32)
    maps[1, 0, 3, 3] = np.nan
    np.savez(tmp_path / "a.npz", **minimal(maps=maps))  # type: ignore[arg-type]
    summary = import_npz(tmp_path / "a.npz", tmp_path / "a.h5")
    assert not summary.complete and summary.imported == {"samm": 1}
    with FlowStore(tmp_path / "a.h5") as opened:
        assert [failure.sample_id for failure in opened.failures("samm")] == ["samm/007/b"]


def test_commands(store: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "a.npz")
    arguments = [
        "export",
        "npz",
        str(store),
        "--view",
        "whole-8",
        "--normalisation",
        "raw",
        "--out",
        out,
        "--json",
    ]
    result = run(cli, arguments, catch_exceptions=False)
    summary = json.loads(result.stdout)
    assert summary["samples"] == 3 and sum(summary["dropped"].values()) == 1
    result = run(cli, ["import", "npz", out, "--store", str(tmp_path / "b.h5")], catch_exceptions=False)
    assert result.exit_code == 0 and "3 of 3 samples" in result.stdout


def test_parquet_without_pyarrow_names_the_command(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        FlowStore(store) as opened,
        pytest.raises(MissingDependencyError, match=r"pip install .*mer-flow\[parquet\]'"),
    ):
        export_parquet(opened, tmp_path / "a.parquet")


def test_parquet_holds_every_sample(store: Path, tmp_path: Path) -> None:
    try:
        from pyarrow import parquet
    except ImportError as error:
        pytest.skip(f"pyarrow cannot be imported: {error}")
    out = tmp_path / "a.parquet"
    with FlowStore(store) as opened:
        summary = export_parquet(opened, out)
        digest = opened.digest()
    table = parquet.read_table(out)
    assert table.column_names == [*COLUMNS, "label", "class", "dropped", "notes"]
    assert table["sample_id"].to_pylist() == [sample.sample_id for sample in rows()]
    assert table["label"].to_pylist() == [0, 1, 2, None]
    assert table["class"].to_pylist() == ["negative", "positive", "surprise", None]
    assert [reason is None for reason in table["dropped"].to_pylist()] == [True, True, True, False]
    assert [json.loads(note)["n"] for note in table["notes"].to_pylist()] == [0, 1, 2, 3]
    about = json.loads(table.schema.metadata[b"mer_flow"])
    assert about["store_digest"] == digest and about["pipeline"]["made_by"] == "a test"
    assert (summary["samples"], summary["labelled"]) == (4, 3)
