"""The doctor finds every kind of fault that is planted, and nothing in a sound tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mer_flow.databases import get_database
from mer_flow.databases.reading import DroppedRow
from mer_flow.doctor import KINDS, Diagnosis, examine, of_sheet
from mer_flow.synthetic import TRUTH_FILE, make_tree

CLIPS = 6


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic CASME II tree without faults of its own."""
    root = tmp_path_factory.mktemp("tree") / "casme2"
    make_tree(root, "casme2", subjects=2, clips_per_subject=CLIPS // 2, seed=3)
    return root


def kinds(diagnosis: Diagnosis) -> dict[str, int]:
    return {kind: len(problems) for kind, problems in diagnosis.by_kind().items()}


def test_planted_faults_are_all_found_with_their_samples(tree: Path, tmp_path: Path) -> None:
    sound = examine("casme2", tree, max_gap=2)
    root = Path(shutil.copytree(tree, tmp_path / "casme2"))
    samples = [s for s in get_database("casme2").read(root, None).table if s.apex > 0]
    gone, empty, cut, missing, near = samples[:5]
    folders = {s.sample_id: next(root.rglob(f"{s.subject.split('/')[1]}/{s.clip}")) for s in samples}
    shutil.rmtree(folders[gone.sample_id])
    for path in folders[empty.sample_id].iterdir():
        path.unlink()
    frame = folders[cut.sample_id] / f"img{cut.onset}.jpg"
    frame.write_bytes(frame.read_bytes()[:400])
    for number in range(missing.apex - 3, missing.apex + 4):
        (folders[missing.sample_id] / f"img{number}.jpg").unlink(missing_ok=True)
    (folders[near.sample_id] / f"img{near.onset}.jpg").unlink()
    extra = folders[near.sample_id].parent / "EP99_99"
    shutil.copytree(folders[near.sample_id], extra)

    found = examine("casme2", root, max_gap=2)
    before, after = kinds(sound), kinds(found)
    planted = ["folder-missing", "frame-missing", "frame-substituted", "frame-unreadable", "folder-unlisted"]
    for kind in planted:
        assert after.get(kind, 0) == before.get(kind, 0) + 1, kind
    by_kind = found.by_kind()
    assert gone.sample_id in {p.sample_id for p in by_kind["folder-missing"]}
    assert cut.sample_id in {p.sample_id for p in by_kind["frame-unreadable"]}
    assert missing.sample_id in {p.sample_id for p in by_kind["frame-missing"]}
    assert near.sample_id in {p.sample_id for p in by_kind["frame-substituted"]}
    # a clip folder without any image is either empty or, to the locator, no clip folder at all
    without_images = by_kind.get("folder-empty", []) + by_kind.get("folder-missing", [])
    assert empty.sample_id in {p.sample_id for p in without_images}
    assert not found.complete


def test_deep_decodes_every_frame(tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "casme2"))
    sample = next(s for s in get_database("casme2").read(root, None).table if s.apex - s.onset > 1)
    between = next(root.rglob(f"{sample.subject.split('/')[1]}/{sample.clip}")) / f"img{sample.onset + 1}.jpg"
    between.write_bytes(b"not an image")
    assert "frame-unreadable" not in kinds(examine("casme2", root, max_gap=2))
    assert kinds(examine("casme2", root, max_gap=2, deep=True))["frame-unreadable"] == 1


def test_a_wrong_root_is_one_finding(tmp_path: Path) -> None:
    found = examine("samm", tmp_path, max_gap=2)
    assert [p.severity for p in found.problems] == ["error"]
    assert not found.complete


def test_a_synthetic_tree_is_called_synthetic(tree: Path) -> None:
    found = examine("casme2", tree, max_gap=2)
    assert kinds(found).get("incomplete", 0) == 0
    (note,) = found.by_kind()["synthetic"]
    assert '"subjects": 2' in note.detail


@pytest.mark.parametrize("module", ["cv2", "dlib"])
def test_a_missing_library_is_an_error_that_names_the_remedy(tree: Path, module: str) -> None:
    code = (
        f"import sys; sys.modules['{module}'] = None; from mer_flow.cli import main; "
        f"sys.argv = ['mer-flow', 'doctor', '--db', 'casme2', '--root', {str(tree)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: library (1)" in done.stdout and "does not load" in done.stdout


def test_without_a_face_mesh_the_doctor_warns_before_the_build(tree: Path, tmp_path: Path) -> None:
    info = tmp_path / "mediapipe-1.2.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mediapipe\nVersion: 1.2.2\n")
    words = [sys.executable, "-m", "mer_flow.cli", "doctor", "--db", "casme2", "--root", str(tree)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "MER_FLOW_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "warning: no-mesh (1)" in done.stdout and "mer-flow models fetch" in done.stdout


def test_the_command_lists_findings_and_exits_with_1(tree: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(tree, tmp_path / "casme2"))
    (tree / TRUTH_FILE).unlink()  # as a copy of the real one
    arguments = [sys.executable, "-m", "mer_flow.cli", "doctor", "--db", "casme2", "--root", str(tree)]
    text = subprocess.run(arguments, capture_output=True, text=True)
    assert text.returncode == 1  # six clips are no complete CASME II
    assert "incomplete" in text.stdout and f"{CLIPS} samples, 2 subjects" in text.stdout
    parsed = json.loads(subprocess.run([*arguments, "--json"], capture_output=True, text=True).stdout)
    assert parsed["samples"] == CLIPS and parsed["release"]


def test_frames_of_different_shapes_are_found(tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "casme2"))
    sample = next(s for s in get_database("casme2").read(root, None).table if s.apex > s.onset)
    frame = next(root.rglob(f"{sample.subject.split('/')[1]}/{sample.clip}")) / f"img{sample.apex}.jpg"
    with Image.open(frame) as image:
        image.convert("L").resize((64, 48)).save(frame)
    (problem,) = examine("casme2", root, max_gap=2).by_kind()["frame-shapes"]
    assert problem.sample_id == sample.sample_id and frame.name in problem.detail


def test_what_a_complete_sheet_brings_is_no_fault_of_the_copy(shared_data: Path) -> None:
    sheet = shared_data / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    reading = get_database("casme3").read(None, sheet)
    found = list(of_sheet(replace(reading, dropped=(DroppedRow(9, "s03/s3_ne_02", "no micro-expression"),))))
    assert {p.severity for p in found} == {"note"}
    assert [p.row for p in found if p.kind == "row-without-sample"] == [9]
    assert KINDS["apex-at-onset"][0] == "note" and "--apex-at-onset" in KINDS["apex-at-onset"][1]
