"""A whole build on synthetic trees: resume after kills, equal bytes, recorded failures, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mer_flow.config import PipelineConfig, apply_settings
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.build import build_store
from mer_flow.extraction.extractor import extractor
from mer_flow.extraction.sample import Clock, Keep, extract_record
from mer_flow.samples import UNKNOWN_FRAME
from mer_flow.store.reader import FlowStore
from mer_flow.store.encode import SampleRecord
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.synthetic import make_tree
from mer_flow.work.errors import (
    ApexError,
    LayoutError,
    MerFlowError,
    SheetError,
    StoreBusyError,
    StoreMismatchError,
    UsageError,
)

#: Small and quick, but the whole pipeline: dlib, regions, TV-L1, stabilising.
FAST = ("align.size=64", "flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05", "regions.backend=dlib")
SUBJECTS, CLIPS = 2, 3


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small synthetic tree per database."""
    root = tmp_path_factory.mktemp("trees")
    for database in ("casme2", "samm", "smic", "casme3"):
        make_tree(root / database, database, subjects=SUBJECTS, clips_per_subject=CLIPS, seed=1)
    return root


@pytest.fixture(scope="module")
def fast() -> PipelineConfig:
    """The quick configuration."""
    return apply_settings(PipelineConfig(), FAST)


@pytest.fixture(scope="module")
def whole(trees: Path, fast: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of CASME II, built without interruption by one worker."""
    store = tmp_path_factory.mktemp("whole") / "flows.h5"
    build_store("casme2", trees / "casme2", store, config=fast, workers=1)
    return store


def command(tree: Path, store: Path, workers: int) -> list[str]:
    source = ["--db", tree.name, "--root", str(tree), "--store", str(store)]
    settings = [word for setting in FAST for word in ("--set", setting)]
    options = ["--workers", str(workers), "--quiet", *settings]
    return [sys.executable, "-m", "mer_flow.cli", "build", *source, *options]


def committed(store: Path) -> int:
    return sum(1 for path in Path(f"{store}.parts").rglob("*.part"))


def test_all_four_databases_go_into_one_store(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    for database in ("samm", "smic", "casme2", "casme3"):
        summary = build_store(database, trees / database, store, config=fast, workers=2)
        assert (summary.built, summary.failed) == (SUBJECTS * CLIPS, [])
    with FlowStore(store) as found:
        assert set(found.databases) == {"casme2", "casme3", "samm", "smic"}
        assert len(found.table()) == 4 * SUBJECTS * CLIPS
        assert all(s.apex_source == "spotted:flow-peak" for s in found.samples("smic"))
        assert all(s.onset < s.apex <= s.offset for s in found.samples("smic"))
    assert verify_store(store) == []


def test_a_second_build_does_nothing_and_says_so(trees: Path, fast: PipelineConfig, whole: Path) -> None:
    before = whole.read_bytes(), whole.stat().st_mtime_ns
    summary = build_store("casme2", trees / "casme2", whole, config=fast, workers=1)
    assert (summary.built, summary.already) == (0, SUBJECTS * CLIPS)
    assert "nothing to do" in summary.text()
    assert (whole.read_bytes(), whole.stat().st_mtime_ns) == before


def test_two_workers_give_the_same_bytes_as_one(
    trees: Path, fast: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    build_store("casme2", trees / "casme2", tmp_path / "two.h5", config=fast, workers=2)
    assert (tmp_path / "two.h5").read_bytes() == whole.read_bytes()


def test_a_limited_build_is_completed_by_the_next(
    trees: Path, fast: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    assert build_store("casme2", trees / "casme2", store, config=fast, workers=1, limit=2).built == 2
    rest = build_store("casme2", trees / "casme2", store, config=fast, workers=1)
    assert rest.built == SUBJECTS * CLIPS - 2
    assert store.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_after_every_sample_ends_in_the_same_bytes(
    trees: Path, whole: Path, tmp_path: Path, workers: int
) -> None:
    store = tmp_path / "flows.h5"
    kills = 0
    for wanted in range(1, SUBJECTS * CLIPS):
        process = subprocess.Popen(command(trees / "casme2", store, workers), start_new_session=True)
        while process.poll() is None and committed(store) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3  # a quick machine may finish before the last kill points
    subprocess.run(command(trees / "casme2", store, workers), check=True)
    assert store.read_bytes() == whole.read_bytes()
    assert not Path(f"{store}.parts").exists()


def test_other_parameters_are_refused_naming_them(trees: Path, fast: PipelineConfig, whole: Path) -> None:
    other = apply_settings(fast, ["flow.tau=0.2"])
    with pytest.raises(StoreMismatchError, match=r"flow\.tau.*0\.25.*0\.2"):
        build_store("casme2", trees / "casme2", whole, config=other, workers=1)
    with pytest.raises(StoreMismatchError, match=r"keep\.faces"):
        build_store("casme2", trees / "casme2", whole, config=fast, keep=Keep(faces=True), workers=1)


def test_a_store_in_use_is_refused(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    pipeline = {"map_kind": {"kind": "computed", "map_size": 64, "values": "px"}}
    with StoreWriter(store, pipeline), pytest.raises(StoreBusyError, match=str(os.getpid())):
        build_store("casme2", trees / "casme2", store, config=fast, workers=1)


def damaged_copy(trees: Path, target: Path) -> tuple[Path, list[str]]:
    """Copies the CASME II tree and breaks one clip in each of four ways; returns the samples' ids."""
    root = Path(shutil.copytree(trees / "casme2", target / "casme2"))
    with FlowStore(build_table(root, target)) as store:
        samples = list(store.samples("casme2"))
    folders = {s.sample_id: next(root.rglob(f"{s.subject.split('/')[1]}/{s.clip}")) for s in samples}
    gone, empty, cut, missing = samples[:4]
    shutil.rmtree(folders[gone.sample_id])
    for path in folders[empty.sample_id].iterdir():
        path.unlink()
    onset = folders[cut.sample_id] / f"img{cut.onset}.jpg"
    onset.write_bytes(onset.read_bytes()[:400])
    for number in range(missing.apex - 3, missing.apex + 4):
        (folders[missing.sample_id] / f"img{number}.jpg").unlink(missing_ok=True)
    return root, [s.sample_id for s in (gone, empty, cut, missing)]


def build_table(root: Path, target: Path) -> Path:
    """Builds the tree once, to know its samples."""
    store = target / "table.h5"
    build_store("casme2", root, store, config=apply_settings(PipelineConfig(), FAST), workers=2)
    return store


def test_broken_clips_fail_alone_and_are_listed(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    root, broken = damaged_copy(trees, tmp_path)
    store = tmp_path / "flows.h5"
    summary = build_store("casme2", root, store, config=fast, workers=2)
    assert sorted(sample_id for sample_id, _, _ in summary.failed) == sorted(broken)
    assert {stage for _, stage, _ in summary.failed} == {"frames"}
    assert summary.built == SUBJECTS * CLIPS - len(broken)
    reasons = {sample_id: reason for sample_id, _, reason in summary.failed}
    assert "no folder" in reasons[broken[0]] and "doctor" in reasons[broken[0]]
    assert "no numbered image" in reasons[broken[1]]
    assert "img" in reasons[broken[2]]
    assert "apex" in reasons[broken[3]]
    with FlowStore(store) as found:
        assert len(found.failures("casme2")) == len(broken)

    again = build_store("casme2", root, store, config=fast, workers=1)
    assert (again.built, len(again.failed)) == (0, len(broken))
    shutil.rmtree(root)
    shutil.copytree(trees / "casme2", root)
    mended = build_store("casme2", root, store, config=fast, workers=2, retry_failed=True)
    assert (mended.built, mended.failed) == (len(broken), [])


def test_clips_and_faces_are_kept_on_request(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    keep = Keep(faces=True, clips=5)
    build_store("samm", trees / "samm", store, config=fast, keep=keep, workers=2, limit=2)
    with FlowStore(store) as found:
        assert found.clips("samm", 0).shape[:3] == (5, 64, 64)
        faces = found.faces("samm", 0)
        assert faces.shape[:3] == (2, 64, 64)
        # The first frame of the clip is the onset; the pair's is rendered with a margin, so grey levels
        # round apart.
        assert np.abs(found.clips("samm", 0)[0].astype(int) - faces[0]).mean() < 1


def test_every_apex_can_be_spotted_anew(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    config = apply_settings(fast, ["apex.source=midpoint"])
    store = tmp_path / "flows.h5"
    build_store("casme2", trees / "casme2", store, config=config, workers=1, limit=2)
    with FlowStore(store) as found:
        assert {s.apex_source for s in found.samples("casme2")} == {"midpoint"}


def test_wrong_requests_are_refused_with_their_remedy(
    trees: Path, fast: PipelineConfig, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        build_store("sam", trees / "casme2", store, config=fast)
    with pytest.raises(LayoutError, match="does not exist"):
        build_store("casme2", tmp_path / "nowhere", store, config=fast)
    with pytest.raises(SheetError, match="no annotation sheet"):
        build_store("samm", trees / "casme2", store, config=fast)
    header = tmp_path / "sheet.csv"
    header.write_text(
        "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion\n", encoding="utf-8"
    )
    with pytest.raises(SheetError, match=r"none of the 0 row\(s\) of .*sheet\.csv gives a sample"):
        build_store("casme2", trees / "casme2", store, sheet=header, config=fast)
    assert not store.exists()


def test_the_command_reports_in_json_and_by_exit_code(trees: Path, tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    build = command(trees / "samm", store, 1)
    done = subprocess.run([*build, "--json", "--limit", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["built"] == 1
    wrong = subprocess.run([*build, "--set", "flow.tua=1"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "did you mean 'flow.tau'" in wrong.stderr


def at_onset(trees: Path, fast: PipelineConfig, choice: str, **changes: int) -> SampleRecord:
    """Extracts a CASME II sample whose sheet would put the apex on the onset."""
    source = get_database("casme2")
    sample = next(s for s in source.read(trees / "casme2", None).table if s.apex > s.onset)
    sample = replace(sample, apex=sample.onset, **changes)
    task = ClipTask.of(source.locate(trees / "casme2"), sample)
    engine = extractor(apply_settings(fast, [f"apex.at_onset={choice}", "apex.missing=difference"]))
    return extract_record(task, engine, Keep(), Clock())


def test_an_apex_on_the_onset_is_kept_spotted_or_dropped(trees: Path, fast: PipelineConfig) -> None:
    kept = at_onset(trees, fast, "keep")
    assert kept.notes["fallbacks"] == ["apex-at-onset"] and kept.sample.apex_source == "sheet"
    assert not kept.flow.any()
    spotted = at_onset(trees, fast, "spot")
    assert spotted.notes["fallbacks"] == ["apex-at-onset-spotted"]
    assert spotted.sample.apex_source == "spotted:difference" and spotted.sample.apex > spotted.sample.onset
    assert spotted.flow.any()
    with pytest.raises(ApexError, match=r"both frame .*apex\.at_onset=drop"):
        at_onset(trees, fast, "drop")
    with pytest.raises(ApexError, match="no interval to spot"):
        at_onset(trees, fast, "spot", offset=UNKNOWN_FRAME)


def test_a_sample_unlike_the_others_fails_alone(trees: Path, fast: PipelineConfig, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trees / "casme2", tmp_path / "casme2"))
    odd = list(get_database("casme2").read(root, None).table)[1]
    for path in next(root.rglob(f"{odd.subject.split('/')[1]}/{odd.clip}")).glob("*.jpg"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    store = tmp_path / "flows.h5"
    summary = build_store("casme2", root, store, config=fast, keep=Keep(faces=True), workers=1, limit=3)
    assert summary.built == 2
    ((sample_id, stage, reason),) = summary.failed
    assert (sample_id, stage) == (odd.sample_id, "store") and "Every sample of a database" in reason
    assert verify_store(store) == []


def test_a_backend_that_cannot_start_is_named(
    trees: Path, fast: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MER_FLOW_FACE_LANDMARKER", str(tmp_path / "none.task"))
    tasks = apply_settings(fast, ["regions.backend=mediapipe-tasks"])
    with pytest.raises(MerFlowError, match=r"none\.task is missing.*models fetch"):
        build_store("casme2", trees / "casme2", tmp_path / "flows.h5", config=tasks, workers=1, limit=1)


def test_flags_override_set(trees: Path, tmp_path: Path) -> None:
    build = command(trees / "casme2", tmp_path / "flows.h5", 1)
    flags = ["--limit", "1", "--set", "apex.source=difference", "--apex", "midpoint"]
    assert subprocess.run([*build, *flags], capture_output=True).returncode == 0
    with FlowStore(tmp_path / "flows.h5") as found:
        assert [s.apex_source for s in found.samples("casme2")] == ["midpoint"]
