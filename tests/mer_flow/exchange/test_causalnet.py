"""Import of CausalNet's maps, four of each clip, and of HTNet's label list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mer_flow.cli import cli
from mer_flow.exchange.causalnet import SUFFIXES, import_causalnet
from mer_flow.exchange.label_list import read_label_list
from mer_flow.exchange.ststnet import import_ststnet
from mer_flow.store.reader import FlowStore
from mer_flow.views import read_view
from mer_flow.work.errors import ExchangeError, StoreMismatchError, UsageError

HEADER = "dataset,sub,filename_o,label,apex,imagename,sub_filename"
#: database, subject and clip as HTNet's list spells them, label, name of the first map, sample id.
ROWS = (
    ("casme2", "sub01", "EP02_01f", 1, "sub01_EP02_01f", "casme2/sub01/EP02_01f"),
    ("smic", "s03", "s03_sur_10", 2, "s03_s03_sur_10", "smic/s03/s3_sur_10"),
    ("samm", "006", "006_1_2", 0, "006_006_1_2", "samm/006/006_1_2"),
)


def pixels(row: int, kind: str) -> np.ndarray:
    """A map that no other is like, (28, 28, 3) uint8."""
    return (
        np.random.default_rng([row, list(SUFFIXES).index(kind)])
        .integers(0, 256, (28, 28, 3))
        .astype(np.uint8)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    maps = tmp_path / "maps"
    maps.mkdir()
    for number, row in enumerate(ROWS):
        for kind, suffix in SUFFIXES.items():
            Image.fromarray(pixels(number, kind)).save(maps / f"{row[4]}{suffix} .png")
    return maps


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "list.csv"
    lines = [f"{d},{s},{c},{label},,{s}_{c}.jpg," for d, s, c, label, *_ in ROWS]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_each_kind_of_map_is_a_store_of_its_own(
    folder: Path, labels: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.h5"
    summary = import_causalnet(folder, path, labels, kind)
    assert summary.complete and not summary.problems
    with FlowStore(path) as store:
        for number, row in enumerate(ROWS):
            assert store.table()[row[5]].emotion == ("negative", "positive", "surprise")[row[3]]
            found = np.asarray(store.read_flow(row[0], 0)).transpose(1, 2, 0)
            assert np.array_equal(found, pixels(number, kind))
        assert store.pipeline["import"]["layout"] == "causalnet"
        assert store.pipeline["import"]["maps"] == kind
        flow = store.pipeline["import"]["channels"] == ["u", "v", "strain"]
        assert flow == (kind in ("onset-apex", "apex-offset"))
        assert read_view(store, "whole-28", "minmax-255").maps.shape == (3, 3, 28, 28)


def test_a_store_keeps_to_one_kind_and_one_origin(folder: Path, labels: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    import_causalnet(folder, path, labels)
    before = path.read_bytes()
    assert import_causalnet(folder, path, labels).already == 3
    with pytest.raises(StoreMismatchError, match="'onset-apex' there, 'apex-offset' now"):
        import_causalnet(folder, path, labels, "apex-offset")
    with pytest.raises(StoreMismatchError, match=r"import\.layout"):
        import_ststnet(folder, path, labels)
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="did you mean 'apex-offset'"):
        import_causalnet(folder, tmp_path / "b.h5", labels, "apex-ofset")


def test_what_is_missing_or_left_over_is_said(folder: Path, labels: Path, tmp_path: Path) -> None:
    (folder / "006_006_1_2_1 .png").unlink()
    (folder / "sub01_EP02_01f_3 .png").unlink()  # of another kind: no matter here
    Image.fromarray(pixels(0, "onset-apex")).save(folder / "s99_s99_po_01_1 .png")
    summary = import_causalnet(folder, tmp_path / "a.h5", labels, "apex-offset")
    found = {(problem.kind, problem.where) for problem in summary.problems}
    assert found == {("no-file", "samm/006/006_1_2"), ("no-label", "s99_s99_po_01_1 .png")}
    assert "'006_006_1_2_1 .png'" in summary.problems[0].detail
    with FlowStore(tmp_path / "a.h5") as store:
        assert [failure.sample_id for failure in store.failures("samm")] == ["samm/006/006_1_2"]
        assert len(store.samples("casme2")) == len(store.samples("smic")) == 1


def test_ststnet_s_folder_is_not_taken_for_maps_after_the_apex(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    for path in folder.glob("*_[123] .png"):
        path.unlink()
    with pytest.raises(ExchangeError, match=r"no map of .*Expected names such as 'sub01_EP02_01f_1 \.png'"):
        import_causalnet(folder, tmp_path / "a.h5", labels, "apex-offset")
    assert not (tmp_path / "a.h5").exists()


def test_a_name_that_would_be_two_maps_is_refused(folder: Path, labels: Path, tmp_path: Path) -> None:
    labels.write_text(f"{labels.read_text()}samm,006,006_1,0,,x.jpg,\n")
    with pytest.raises(ExchangeError, match=r"'006_006_1 \.png'.*two of its rows|'006_006_1_2 \.png'.*two"):
        import_causalnet(folder, tmp_path / "a.h5", labels)


def test_both_importers_read_both_lists(folder: Path, labels: Path, tmp_path: Path) -> None:
    organisers = tmp_path / "organisers.csv"
    organisers.write_text("".join(f"{d},{s.lstrip('0')},{c},{n}\r\n" for d, s, c, n, *_ in ROWS))
    assert [(r.sample, r.label) for r in read_label_list(labels, ("casme2", "smic", "samm"))] == [
        (r.sample, r.label) for r in read_label_list(organisers, ("casme2", "smic", "samm"))
    ]
    digests = set()
    for number, path in enumerate((labels, organisers)):
        with FlowStore(import_causalnet(folder, tmp_path / f"{number}.h5", path).store) as store:
            digests.add(store.digest())
    assert len(digests) == 1
    # To STSTNet's importer the other three kinds are maps without a row.
    summary = import_ststnet(folder, tmp_path / "st.h5", labels)
    assert sum(summary.imported.values()) == 3 and {p.kind for p in summary.problems} == {"no-label"}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (
            "dataset,sub,filename,label\ncasme2,sub01,EP02_01f,1\n",
            "has the header 'dataset,sub,filename,label'",
        ),
        ("label,subject,clip,database\n1,sub01,EP02_01f,casme2\n", "has the header 'label,subject,clip,"),
        (f"{HEADER}\ncasme2,sub01,EP02_01f,1\n", "line 2: expected 7 cells"),
        (f"{HEADER}\ncasme2,sub01,EP02_01f,5,,a.jpg,\n", "line 2: label '5'"),
        (f"{HEADER}\n", "no row"),
    ],
)
def test_another_list_is_refused_by_name(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ExchangeError) as error:
        read_label_list(path, ("casme2",))
    assert fragment in str(error.value) and str(path) in str(error.value)


def test_the_command(folder: Path, labels: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    arguments = ["import", "causalnet", str(folder), "--labels", str(labels), "--store", str(path)]
    result = CliRunner().invoke(cli, [*arguments, "--maps", "apex-offset", "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["layout"] == "causalnet, apex-offset" and sum(summary["imported"].values()) == 3
    wrong = CliRunner().invoke(cli, [*arguments, "--maps", "onset-apx"])
    assert isinstance(wrong.exception, UsageError) and "did you mean 'onset-apex'" in str(wrong.exception)


@pytest.mark.slow
def test_published_maps_are_a_second_measurement_of_ststnet_s(shared_data: Path, tmp_path: Path) -> None:
    labels = shared_data / "combined_3_class2_for_optical_flow.csv"
    ours, theirs = tmp_path / "causalnet.h5", tmp_path / "ststnet.h5"
    summary = import_causalnet(shared_data / "causalnet-flow", ours, labels)
    assert summary.complete and not summary.problems
    assert dict(summary.imported) == {"casme2": 145, "smic": 164, "samm": 133}
    assert sum(summary.subjects.values()) == 68
    assert dict(summary.classes) == {"negative": 250, "positive": 109, "surprise": 83}
    import_ststnet(shared_data / "ststnet-flow", theirs, shared_data / "megc2019_combined_3class_gt.csv")
    one, other = read_view(str(ours), "whole-28", "minmax"), read_view(str(theirs), "whole-28", "minmax")
    order = {sample_id: row for row, sample_id in enumerate(other.sample_ids.tolist())}
    other_maps = other.maps[[order[sample_id] for sample_id in one.sample_ids.tolist()]]
    for channel, (low, high) in enumerate([(0.49, 0.51), (0.28, 0.30), (0.14, 0.16)]):
        pairs = zip(one.maps[:, channel], other_maps[:, channel], strict=True)
        median = np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
        assert low < median < high, (channel, median)
