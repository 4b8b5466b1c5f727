"""Export to the folder that HTNet's script runs in, read back the way the script reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from mer_flow.cli import cli
from mer_flow.exchange.htnet_export import APEXES, FOLDS, LIST, WEIGHTS, WHOLE, export_htnet
from mer_flow.exchange.label_list import listed_sample
from mer_flow.exchange.selection import Selection
from mer_flow.exchange.ststnet import import_ststnet
from mer_flow.samples import SampleTable
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import ExchangeError

#: database, subject, clip, label, and the picture's name in HTNet's own list.
ROWS = (
    ("casme2", "sub01", "EP02_01f", 1, "sub01_EP02_01f.jpg"),
    ("samm", "6", "006_1_2", 0, "006_006_1_2.jpg"),
    ("smic", "s01", "s01_ne_01", 0, "s01_s1_ne_01.jpg"),
    ("smic", "s03", "s03_sur_10", 2, "s03_s3_sur_10.jpg"),
)


def write_store(path: Path, values: str = "px", without: str = "") -> Path:
    """A store of `ROWS` with faces, but for the database `without`."""
    rng = np.random.default_rng(0)
    kind = {"kind": "computed" if values == "px" else "imported", "map_size": 28, "values": values}
    with StoreWriter(path, {"map_kind": kind}) as writer:
        for database in dict.fromkeys(row[0] for row in ROWS):
            samples = [listed_sample(*row[:4]) for row in ROWS if row[0] == database]
            writer.begin(database, SampleTable(samples))
            for sample in samples:
                maps = np.round(rng.uniform(0, 255, (3, 28, 28))).astype(np.float32)
                maps[:, 0, 0], maps[:, 0, 1] = 0, 255
                faces = rng.integers(60, 200, (2, 28, 28, 3)).astype(np.uint8)
                faces[1, 14:] = 250  # the apex, bright below
                held = None if database == without else faces
                writer.commit(sample.sample_id, encode_sample(SampleRecord(sample, maps, faces=held)))
        writer.finish()
    return path


def run(store: Path, out: Path, *arguments: str):
    return CliRunner().invoke(cli, ["export", "htnet", str(store), "--out", str(out), *arguments])


def test_the_script_finds_all_that_it_reads(tmp_path: Path) -> None:
    out = tmp_path / "htnet"
    result = run(write_store(tmp_path / "flows.h5"), out)
    assert result.exit_code == 0 and "warning" not in result.stderr
    # As main_HTNet.py: names of maps from two columns of the list, a picture for each, folders of folds.
    table = pd.read_csv(out / LIST)
    assert list(table.columns) == [
        "dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename",
    ]  # fmt: skip
    assert list(table["imagename"]) == [row[4] for row in ROWS]
    pictures = {f"{row['sub']}_{row['filename_o']} .png": row["imagename"] for _, row in table.iterrows()}
    assert set(pictures) == {path.name for path in (out / WHOLE).iterdir()}
    for name in pictures.values():
        with Image.open(out / APEXES / name) as picture:
            pixels = np.asarray(picture.convert("L"), dtype=float)
        assert pixels[20:].mean() > 240 > 200 > pixels[:8].mean()  # the apex, not the onset
    folds = sorted(path.name for path in (out / FOLDS).iterdir())
    assert folds == ["006", "s01", "s03", "sub01"]
    labels = dict(zip(pictures, table["label"], strict=True))
    for fold in folds:
        parts = {part: list((out / FOLDS / fold / part).glob("*/*")) for part in ("u_train", "u_test")}
        assert {path.name for paths in parts.values() for path in paths} == set(pictures)
        assert all(
            path.name.startswith(f"{fold}_") == (part == "u_test") for part in parts for path in parts[part]
        )
        assert all(int(path.parent.name) == labels[path.name] for paths in parts.values() for path in paths)
    assert (out / WEIGHTS).is_dir()


def test_its_maps_and_list_come_back_as_they_were(tmp_path: Path) -> None:
    store, out = write_store(tmp_path / "public.h5", "minmax-255"), tmp_path / "htnet"
    with FlowStore(store) as opened:
        export_htnet(opened, out)
    for folder in (WHOLE, FOLDS):
        again = tmp_path / f"{folder.name}.h5"
        assert import_ststnet(out / folder, again, out / LIST).complete
        with FlowStore(store) as one, FlowStore(again) as other:
            for name in one.databases:
                assert one.samples(name).sample_ids == other.samples(name).sample_ids
                assert np.array_equal(one.read_flow(name, slice(None)), other.read_flow(name, slice(None)))


def test_apexes_that_the_store_has_not_are_grey_and_told(tmp_path: Path) -> None:
    store, out = write_store(tmp_path / "flows.h5", without="smic"), tmp_path / "htnet"
    result = run(store, out, "--json")
    assert json.loads(result.stdout)["grey_apexes"] == 2
    assert "warning: 2 of 4 apex pictures are grey" in result.stderr and "--keep-faces" in result.stderr
    flat = {
        path.name for path in (out / APEXES).iterdir() if Image.open(path).convert("L").getextrema()[0] > 100
    }
    assert {row[4] for row in ROWS if row[0] == "smic"} <= flat and ROWS[0][4] not in flat


def test_what_the_script_would_misread_is_refused(tmp_path: Path) -> None:
    with FlowStore(write_store(tmp_path / "flows.h5")) as store:
        with pytest.raises(ExchangeError, match="reads the subject '006' as the number 6"):
            export_htnet(store, tmp_path / "out", Selection(databases=("samm",)))
        with pytest.raises(ExchangeError, match="at least two subjects"):
            export_htnet(store, tmp_path / "out", Selection(databases=("casme2",)))
    assert not (tmp_path / "out").exists()
