"""Import of STSTNet's folders, and export to them and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mer_flow.cli import cli
from mer_flow.exchange.label_list import listed_sample, map_stem, read_label_list, stem_key
from mer_flow.exchange.layouts import read_map
from mer_flow.exchange.selection import Selection
from mer_flow.exchange.ststnet import import_ststnet
from mer_flow.exchange.ststnet_export import export_folders
from mer_flow.store.reader import FlowStore
from mer_flow.work.errors import ExchangeError, UsageError

#: database, subject and clip as the list spells them, label, and the file's name.
ROWS = (
    ("casme2", "sub01", "EP02_01f", 1, "sub01_EP02_01f .png"),
    ("casme2", "sub02", "EP01_11f", 0, "sub02_EP01_11f .png"),
    ("smic", "s01", "s01_ne_01", 0, "s01_s01_ne_01 .png"),
    ("smic", "s03", "s03_sur_10", 2, "s03_s03_sur_10 .png"),
    ("samm", "6", "006_1_2", 0, "006_006_1_2 .png"),
    ("samm", "11", "011_2_1", 2, "011_011_2_1 .png"),
)
IDS = (
    "casme2/sub01/EP02_01f",
    "casme2/sub02/EP01_11f",
    "smic/s01/s1_ne_01",
    "smic/s03/s3_sur_10",
    "samm/006/006_1_2",
    "samm/011/011_2_1",
)


def pixels(index: int) -> np.ndarray:
    """A map whose channels each reach from 0 to 255, as published ones do: (28, 28, 3) uint8."""
    picture = np.random.default_rng(index).integers(0, 256, (28, 28, 3)).astype(np.uint8)
    picture[0, 0], picture[0, 1] = 0, 255
    return picture


def write_list(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(f"{d},{s},{c},{label}\r\n" for d, s, c, label, _ in rows), newline="")
    return path


def lines(path: Path | str) -> list[bytes]:
    return sorted(Path(path).read_bytes().splitlines())


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    for index, row in enumerate(ROWS):
        Image.fromarray(pixels(index)).save(folder / row[4])
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_list(tmp_path / "list.csv")


@pytest.fixture
def store(flat: Path, labels: Path, tmp_path: Path) -> Path:
    path = tmp_path / "public.h5"
    import_ststnet(flat, path, labels)
    return path


def stored_pixels(path: Path) -> dict[str, np.ndarray]:
    """Every map of a store by sample id, (28, 28, 3)."""
    maps = {}
    with FlowStore(path) as store:
        for database in store.databases:
            for index, sample in enumerate(store.samples(database)):
                maps[sample.sample_id] = np.asarray(store.read_flow(database, index)).transpose(1, 2, 0)
    return maps


def test_flat_folder_becomes_a_store(store: Path) -> None:
    maps = stored_pixels(store)
    assert set(maps) == set(IDS)
    for index, sample_id in enumerate(IDS):
        assert np.array_equal(maps[sample_id], pixels(index))
    with FlowStore(store) as opened:
        assert (opened.values, opened.map_size) == ("minmax-255", 28)
        assert opened.pipeline["map_kind"]["kind"] == "imported"
        assert opened.pipeline["import"]["channels"] == ["u", "v", "strain"]
        samm = opened.table()["samm/006/006_1_2"]
    assert (samm.subject, samm.clip, samm.emotion, samm.apex, samm.apex_source) == (
        "samm/006", "006_1_2", "negative", -1, "none",
    )  # fmt: skip


def test_second_import_changes_nothing(flat: Path, labels: Path, store: Path) -> None:
    before = store.read_bytes()
    summary = import_ststnet(flat, store, labels)
    assert summary.already == 6 and store.read_bytes() == before


def test_all_faults_are_reported_at_once_and_mended_by_a_second_import(
    flat: Path, labels: Path, tmp_path: Path
) -> None:
    Image.fromarray(pixels(0)[:20]).save(flat / ROWS[0][4])
    (flat / ROWS[1][4]).write_bytes((flat / ROWS[1][4]).read_bytes()[:200])
    Image.fromarray(pixels(2)[..., 0]).save(flat / ROWS[2][4])
    (flat / ROWS[3][4]).unlink()
    Image.fromarray(pixels(9)).save(flat / "s99_s99_po_01 .png")
    (flat / "Thumbs.db").write_bytes(b"x")
    path = tmp_path / "partial.h5"
    summary = import_ststnet(flat, path, labels)
    assert sorted((p.kind, p.sample_id) for p in summary.problems) == [
        ("no-file", IDS[3]),
        ("no-label", ""),
        ("not-a-map", ""),
        ("unreadable", IDS[0]),
        ("unreadable", IDS[1]),
        ("unreadable", IDS[2]),
    ]
    assert all(p.remedy for p in summary.problems) and not summary.complete
    details = {p.sample_id: p.detail for p in summary.problems}
    assert "28x20" in details[IDS[0]] and "mode L" in details[IDS[2]]
    with FlowStore(path) as store:
        assert store.table().sample_ids == ("samm/006/006_1_2", "samm/011/011_2_1")
        assert failed(store) == set(IDS[:4])
    for index, row in enumerate(ROWS):
        Image.fromarray(pixels(index)).save(flat / row[4])
    (flat / "s99_s99_po_01 .png").unlink()
    again = import_ststnet(flat, path, labels)
    assert again.complete and again.already == 2 and sum(again.imported.values()) == 6
    with FlowStore(path) as store:
        assert failed(store) == set()


def failed(store: FlowStore) -> set[str]:
    return {failure.sample_id for database in store.databases for failure in store.failures(database)}


def test_a_corrected_label_replaces_the_sample(flat: Path, store: Path, tmp_path: Path) -> None:
    rows = [(*ROWS[0][:3], 2, ROWS[0][4]), *ROWS[1:]]
    summary = import_ststnet(flat, store, write_list(tmp_path / "new.csv", rows))
    assert summary.already == 5
    with FlowStore(store) as opened:
        assert opened.table()[IDS[0]].emotion == "surprise"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("casme2,sub01,EP02_01f\n", ["line 1", "4 filled cells"]),
        ("casme2,sub01,EP02_01f,7\n", ["line 1", "'7'"]),
        ("casme2,sub01,EP02_01f,1\ncasme2,sub01,EP02_01f,0\n", ["line 2", "line 1 already"]),
        ("cas2,sub01,EP02_01f,1\nsamm,6,006_1_2,x\n", ["2 fault(s)", "unknown database 'cas2'", "line 2"]),
        ("", ["no row"]),
    ],
)
def test_malformed_list_names_every_line(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ExchangeError) as error:
        read_label_list(path, ("casme2", "samm"))
    assert all(fragment in str(error.value) for fragment in [*fragments, str(path)])


def test_list_with_header_and_words_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\ufeffdatabase,subject,clip,label\nsmic,s1,s1_ne_01,Surprise\n", encoding="utf-8")
    (row,) = read_label_list(path, ("smic",))
    assert (row.line, row.sample.sample_id, row.label) == (2, "smic/s01/s1_ne_01", 2)


@pytest.mark.parametrize(
    ("row", "sample_id", "stem"),
    [
        (("samm", "6", "006_1_2"), "samm/006/006_1_2", "006_006_1_2"),
        (("smic", "s20", "s20_po_02"), "smic/s20/s20_po_02", "s20_s20_po_02"),
        (("smic", "s1", "s1_po_02"), "smic/s01/s1_po_02", "s01_s01_po_02"),
        (("casme3", "spNO.1", "a_28"), "casme3/spNO.1/a_28", "spNO.1_a_28"),
    ],
)
def test_names_of_lists_files_and_samples(row: tuple[str, str, str], sample_id: str, stem: str) -> None:
    sample = listed_sample(*row, 0)
    assert (sample.sample_id, map_stem(sample)) == (sample_id, stem)


def test_stem_key_keeps_different_clips_apart() -> None:
    keys = [
        stem_key(name) for name in ("sub01_EP02_01f", "sub01_EP02_10f", "sub10_EP02_01f", "s01_s01_ne_100")
    ]
    assert len(set(keys)) == 4
    assert stem_key("S01_s1_NE_01 ") == stem_key("s01_s01_ne_01")


def test_unusable_folders_say_why(flat: Path, labels: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(ExchangeError, match="no such folder"):
        import_ststnet(tmp_path / "absent", path, labels)
    with pytest.raises(ExchangeError, match="neither of STSTNet's layouts"):
        import_ststnet(tmp_path, path, labels)
    other = write_list(tmp_path / "other.csv", [("samm", "7", "007_1_1", 0, "")])
    with pytest.raises(ExchangeError, match="no map of "):
        import_ststnet(flat, path, other)
    (flat / "sub01" / "u_train").mkdir(parents=True)
    with pytest.raises(ExchangeError, match="two layouts at once"):
        import_ststnet(flat, path, labels)
    assert not path.exists()


def test_two_spellings_of_one_sample_are_a_contradiction(flat: Path, labels: Path, tmp_path: Path) -> None:
    shutil.copy(flat / ROWS[4][4], flat / "6_006_1_2.png")
    summary = import_ststnet(flat, tmp_path / "x.h5", labels)
    assert [(p.kind, p.sample_id) for p in summary.problems] == [("contradiction", IDS[4])]


def test_flat_export_gives_the_same_pixels_and_list(
    store: Path, flat: Path, labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "flat"
    with FlowStore(store) as opened:
        summary = export_folders(opened, out, layout="flat")
    assert {p.name for p in out.iterdir()} == {row[4] for row in ROWS}
    for row in ROWS:
        assert np.array_equal(read_map(out / row[4], 28), read_map(flat / row[4], 28))
    assert sorted(Path(summary["labels"]).read_bytes().splitlines()) == sorted(
        labels.read_bytes().splitlines()
    )


def test_loso_export_and_import_round_trip(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "norm_u_v_os"
    with FlowStore(store) as opened:
        summary = export_folders(opened, out)
        digest = opened.digest()
    assert (summary["samples"], summary["subjects"], summary["files"]) == (6, 6, 36)
    assert sorted(p.name for p in out.iterdir()) == ["006", "011", "s01", "s03", "sub01", "sub02"]
    for fold in out.iterdir():
        test = [p.name for p in fold.glob("u_test/*/*.png")]
        train = [p.name for p in fold.glob("u_train/*/*.png")]
        assert (
            len(test) == 1
            and test[0].startswith(f"{fold.name}_")
            and len(train) == 5
            and test[0] not in train
        )
    assert (out / "s03" / "u_test" / "2" / "s03_s03_sur_10 .png").is_file()
    again = tmp_path / "again.h5"
    assert import_ststnet(out, again, Path(summary["labels"])).complete
    with FlowStore(again) as opened:
        assert opened.digest() == digest


def test_loso_maps_are_links_unless_copies_are_asked_for(store: Path, tmp_path: Path) -> None:
    with FlowStore(store) as opened:
        linked = export_folders(opened, tmp_path / "linked")
        copied = export_folders(opened, tmp_path / "copied", copy=True)
    inodes = {p: p.stat().st_ino for p in (tmp_path / "linked").rglob("*.png")}
    assert len(inodes) == 36 and len(set(inodes.values())) == 36 - linked["linked"]
    assert (
        len({p.stat().st_ino for p in (tmp_path / "copied").rglob("*.png")}) == 36 and copied["linked"] == 0
    )


def test_contradictory_loso_folders_lose_only_their_samples(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "loso"
    with FlowStore(store) as opened:
        export_folders(opened, out, copy=True)
    (out / "sub01" / "u_train" / "1").mkdir()
    moved = out / "sub01" / "u_train" / "1" / ROWS[1][4]
    shutil.move(out / "sub01" / "u_train" / "0" / ROWS[1][4], moved)  # one label there, another elsewhere
    Image.fromarray(pixels(77)).save(out / "s01" / "u_train" / "2" / ROWS[3][4])  # a copy with other pixels
    shutil.copy(
        out / "006" / "u_test" / "0" / ROWS[4][4], out / "006" / "u_train" / "0" / ROWS[4][4]
    )  # a leak
    (out / "011" / "u_train" / "1" / ROWS[0][4]).unlink()  # a fold lacks a sample
    summary = import_ststnet(out, tmp_path / "x.h5", out.with_name("loso-labels.csv"))
    assert sorted((p.kind, p.sample_id) for p in summary.problems if not p.harmless) == [
        ("contradiction", IDS[1]),
        ("contradiction", IDS[3]),
    ]
    assert sorted(p.kind for p in summary.problems if p.harmless) == ["incomplete-fold", "leaky-fold"]
    with FlowStore(tmp_path / "x.h5") as opened:
        assert set(opened.table().sample_ids) == {IDS[0], IDS[2], IDS[4], IDS[5]}


def test_a_fold_of_another_subject_than_the_list_says_is_told(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "loso"
    with FlowStore(store) as opened:
        export_folders(opened, out)
    (out / "011").rename(out / "019")
    summary = import_ststnet(out, tmp_path / "x.h5", out.with_name("loso-labels.csv"))
    (problem,) = (p for p in summary.problems if not p.harmless)
    assert "test sample of folder 019, but of subject 011 on line" in problem.detail
    with FlowStore(tmp_path / "x.h5") as opened:
        assert problem.sample_id not in opened.table().sample_ids and len(opened.table()) == 5


def test_loso_label_folder_against_the_list(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "loso"
    with FlowStore(store) as opened:
        export_folders(opened, out)
    rows = [(*ROWS[0][:3], 0, ROWS[0][4]), *ROWS[1:]]
    summary = import_ststnet(out, tmp_path / "x.h5", write_list(tmp_path / "other.csv", rows))
    assert [(p.kind, p.sample_id) for p in summary.problems] == [("label-disagrees", IDS[0])]


def test_export_refuses_a_used_folder_and_leaves_nothing_half_done(
    store: Path, flat: Path, tmp_path: Path
) -> None:
    with FlowStore(store) as opened:
        with pytest.raises(UsageError, match="not an empty folder"):
            export_folders(opened, flat, layout="flat")
        with pytest.raises(ExchangeError, match="8-bit"):
            export_folders(opened, tmp_path / "new", Selection(normalisation="scaled"), "flat")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def test_loso_export_needs_two_subjects(flat: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.h5"
    summary = import_ststnet(flat, path, write_list(tmp_path / "one.csv", ROWS[:1]))
    assert [p.kind for p in summary.problems] == ["no-label"] * 5
    with FlowStore(path) as opened, pytest.raises(ExchangeError, match="at least two subjects"):
        export_folders(opened, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_command_reports_and_exits(flat: Path, labels: Path, tmp_path: Path) -> None:
    (flat / ROWS[5][4]).unlink()
    path = tmp_path / "c.h5"
    arguments = ["import", "ststnet", str(flat), "--labels", str(labels), "--store", str(path), "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary["imported"] == {"casme2": 2, "smic": 2, "samm": 1} and not summary["complete"]
    assert "no-file: 1" in result.stderr and "add the files and import again" in result.stderr


def test_the_command_shows_a_few_problems_of_a_kind_and_json_all(
    flat: Path, labels: Path, tmp_path: Path
) -> None:
    for i in range(25):
        shutil.copy(flat / ROWS[0][4], flat / f"sub99_EP{i:02d}_01.png")
    arguments = ["import", "ststnet", str(flat), "--labels", str(labels), "--store", str(tmp_path / "c.h5")]
    result = CliRunner().invoke(cli, arguments)
    assert "no-label: 25" in result.stderr and "... and 15 more" in result.stderr
    assert result.stderr.count("sub99_EP") == 10 and "--json lists all of them" in result.stderr
    listed = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)["problems"]
    assert len(listed) == 25


@pytest.mark.slow
def test_published_maps(shared_data: Path, tmp_path: Path) -> None:
    store, labels = tmp_path / "public.h5", shared_data / "megc2019_combined_3class_gt.csv"
    summary = import_ststnet(shared_data / "ststnet-flow", store, labels)
    assert summary.complete and not summary.problems
    assert dict(summary.imported) == {"casme2": 145, "smic": 164, "samm": 133}
    assert summary.subjects == {"casme2": 24, "smic": 16, "samm": 28}
    assert dict(summary.classes) == {"negative": 250, "positive": 109, "surprise": 83}
    out = tmp_path / "flat"
    with FlowStore(store) as opened:
        exported = export_folders(opened, out, layout="flat")
    assert sorted(Path(exported["labels"]).read_bytes().splitlines()) == sorted(
        labels.read_bytes().splitlines()
    )
    for source in (shared_data / "ststnet-flow").iterdir():
        assert np.array_equal(read_map(out / source.name, 28), read_map(source, 28)), source.name
