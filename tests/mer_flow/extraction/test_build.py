"""A whole build on synthetic trees: resume after kills, equal bytes, recorded failures, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mer_flow.config import PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.databases.source import Source
from mer_flow.extraction.build import BuildOptions, BuildSummary, build_store, inherit, store_pipeline
from mer_flow.extraction.extractor import extractor
from mer_flow.extraction.sample import Keep, extract_record
from mer_flow.samples import UNKNOWN_FRAME, Sample, SampleTable
from mer_flow.store.encode import SampleRecord
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.synthetic import load_truth
from mer_flow.work.clock import Clock
from mer_flow.work.errors import (
    ApexError,
    LayoutError,
    ModelFileError,
    SheetError,
    StoreBusyError,
    StoreError,
    StoreMismatchError,
    UsageError,
)

SAMPLES = 6


@pytest.fixture(scope="module")
def casme2(tree: Callable[[str], Path]) -> Path:
    return tree("casme2")


@pytest.fixture(scope="module")
def whole(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store of CASME II, built without interruption by one worker."""
    store = tmp_path_factory.mktemp("whole") / "flows.h5"
    build(casme2, store, quick())
    return store


def build(
    root: Path, store: Path, config: PipelineConfig, keep: Keep | None = None, **options: int | bool
) -> BuildSummary:
    how = BuildOptions(**{"workers": 1, **options})  # type: ignore[arg-type]
    return build_store(Source(root.name, root), store, config, keep, how)


def samples_of(root: Path) -> list[Sample]:
    return list(get_database("casme2").read(root, None).table)


def folder_of(root: Path, sample: Sample) -> Path:
    return next(root.rglob(f"{sample.subject.split('/')[1]}/{sample.clip}"))


@pytest.fixture(scope="module")
def command(fast: tuple[str, ...]) -> Callable[..., list[str]]:
    """Returns command(tree, store, *options): the words of a quick build on a command line."""
    settings = [word for setting in fast for word in ("--set", setting)]

    def words(root: Path, store: Path, *options: str) -> list[str]:
        source = ["--db", root.name, "--root", str(root), "--store", str(store)]
        return [sys.executable, "-m", "mer_flow.cli", "build", *source, "--quiet", *settings, *options]

    return words


def test_all_four_databases_go_into_one_store(
    tree: Callable[[str], Path], quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    for database in ("samm", "smic", "casme2", "casme3"):
        summary = build(tree(database), store, quick(), workers=1)
        assert (summary.built, summary.failed) == (SAMPLES, [])
    with FlowStore(store) as found:
        assert set(found.databases) == {"casme2", "casme3", "samm", "smic"}
        assert len(found.table()) == 4 * SAMPLES
        assert all(s.apex_source == "spotted:flow-peak" for s in found.samples("smic"))
        assert all(s.onset < s.apex <= s.offset for s in found.samples("smic"))
    assert verify_store(store) == []


def test_a_second_build_does_nothing_and_says_so(
    casme2: Path, quick: Callable[..., PipelineConfig], whole: Path
) -> None:
    before = whole.read_bytes(), whole.stat().st_mtime_ns
    summary = build(casme2, whole, quick())
    assert (summary.built, summary.already) == (0, SAMPLES)
    assert "nothing to do" in summary.text()
    assert (whole.read_bytes(), whole.stat().st_mtime_ns) == before


def test_a_limited_build_completed_by_two_workers_has_the_same_bytes(
    casme2: Path, quick: Callable[..., PipelineConfig], whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    assert build(casme2, store, quick(), limit=2).built == 2
    assert build(casme2, store, quick(), workers=2).built == SAMPLES - 2
    assert store.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_after_every_sample_ends_in_the_same_bytes(
    casme2: Path, command: Callable[..., list[str]], whole: Path, tmp_path: Path, workers: int
) -> None:
    store = tmp_path / "flows.h5"
    words = command(casme2, store, "--workers", str(workers))
    kills = 0
    for wanted in range(1, SAMPLES, workers):  # two begin two at a time
        process = subprocess.Popen(words, start_new_session=True)
        while process.poll() is None and sum(1 for _ in Path(f"{store}.parts").rglob("*.part")) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 4 - workers  # a quick machine may finish before the last kill points
    subprocess.run(words, check=True)
    assert store.read_bytes() == whole.read_bytes()
    assert not Path(f"{store}.parts").exists()


def test_a_sample_that_workers_die_over_fails_alone(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    """A lease on one frame tells when a worker opens it; like the kernel short of memory, we kill it then."""
    fcntl = pytest.importorskip("fcntl")
    if not hasattr(fcntl, "F_SETLEASE"):
        pytest.skip("no file leases here")
    root = Path(shutil.copytree(casme2, tmp_path / "casme2"))
    victim = samples_of(root)[1]
    frame = (folder_of(root, victim) / f"img{victim.onset}.jpg").open("r+b")
    deaths = 0

    def kill(*_: object) -> None:
        nonlocal deaths
        deaths += 1
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
        fcntl.fcntl(frame, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        time.sleep(0.2)  # until the opener is gone
        fcntl.fcntl(frame, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    before = signal.signal(signal.SIGIO, kill)
    try:
        with frame:
            try:
                fcntl.fcntl(frame, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                pytest.skip("this file system knows no leases")
            summary = build(root, tmp_path / "flows.h5", quick())
    finally:
        signal.signal(signal.SIGIO, before)
    assert deaths == 2
    ((sample_id, stage, reason),) = summary.failed
    assert (sample_id, stage) == (victim.sample_id, "worker")
    assert "killed by SIGKILL" in reason and "fewer --workers" in reason
    assert summary.built == SAMPLES - 1
    assert build(root, tmp_path / "flows.h5", quick(), retry_failed=True).failed == []


def test_a_repair_builds_what_is_damaged_and_nothing_else(
    casme2: Path, quick: Callable[..., PipelineConfig], whole: Path, tmp_path: Path
) -> None:
    store, content = tmp_path / "flows.h5", bytearray(whole.read_bytes())
    with h5py.File(whole) as file:
        flow, points = (file[f"casme2/{name}"].id.get_chunk_info(0) for name in ("flow", "landmarks"))
    content[flow.byte_offset + flow.size // 2] ^= 1
    store.write_bytes(content)
    assert build(casme2, store, quick()).built == 0, "a plain build takes what is there"
    mended = build(casme2, store, quick(), repair=True)
    assert (mended.built, mended.already) == (1, SAMPLES - 1)
    assert store.read_bytes() == whole.read_bytes()
    assert build(casme2, store, quick(), repair=True).built == 0
    content[points.byte_offset + points.size // 2] ^= 1  # a column of every sample
    store.write_bytes(content)
    assert build(casme2, store, quick(), repair=True).built == SAMPLES
    assert store.read_bytes() == whole.read_bytes()
    store.write_bytes(content[:4000])
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        build(casme2, store, quick(), repair=True)


def test_other_parameters_are_refused_naming_them(
    casme2: Path, quick: Callable[..., PipelineConfig], whole: Path
) -> None:
    with pytest.raises(StoreMismatchError, match=r"flow\.tau.*0\.25.*0\.2"):
        build(casme2, whole, quick("flow.tau=0.2"))
    with pytest.raises(StoreMismatchError, match=r"keep\.faces"):
        build(casme2, whole, quick(), Keep(faces=True))


def test_a_store_in_use_is_refused(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    pipeline = {"map_kind": {"kind": "computed", "map_size": 64, "values": "px"}}
    with StoreWriter(store, pipeline), pytest.raises(StoreBusyError, match=str(os.getpid())):
        build(casme2, store, quick())


def test_broken_clips_fail_alone_and_are_listed(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(casme2, tmp_path / "casme2"))
    gone, empty, cut, missing = samples_of(root)[:4]
    shutil.rmtree(folder_of(root, gone))
    for path in folder_of(root, empty).iterdir():
        path.unlink()
    onset = folder_of(root, cut) / f"img{cut.onset}.jpg"
    onset.write_bytes(onset.read_bytes()[:400])
    for number in range(missing.apex - 3, missing.apex + 4):
        (folder_of(root, missing) / f"img{number}.jpg").unlink(missing_ok=True)

    store = tmp_path / "flows.h5"
    summary = build(root, store, quick(), workers=2)
    reasons = {sample_id: reason for sample_id, _, reason in summary.failed}
    assert set(reasons) == {s.sample_id for s in (gone, empty, cut, missing)}
    assert {stage for _, stage, _ in summary.failed} == {"frames"}
    assert summary.built == SAMPLES - 4
    assert "no folder" in reasons[gone.sample_id] and "doctor" in reasons[gone.sample_id]
    assert "no numbered image" in reasons[empty.sample_id]
    assert "img" in reasons[cut.sample_id]
    assert "apex" in reasons[missing.sample_id]
    with FlowStore(store) as found:
        assert len(found.failures("casme2")) == 4

    again = build(root, store, quick())
    assert (again.built, len(again.failed)) == (0, 4)
    shutil.rmtree(root)
    shutil.copytree(casme2, root)
    mended = build(root, store, quick(), workers=2, retry_failed=True)
    assert (mended.built, mended.failed) == (4, [])


def test_clips_and_faces_are_kept_on_request(
    tree: Callable[[str], Path], quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    build(tree("samm"), store, quick(), Keep(faces=True, clips=5), workers=2, limit=2)
    with FlowStore(store) as found:
        assert found.clips("samm", 0).shape[:3] == (5, 64, 64)
        faces = found.faces("samm", 0)
        assert faces.shape[:3] == (2, 64, 64)
        # The first frame of the clip is the onset; the pair's is rendered with a margin, so grey levels
        # round apart.
        assert np.abs(found.clips("samm", 0)[0].astype(int) - faces[0]).mean() < 1


def test_wrong_requests_are_refused_with_their_remedy(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    header = tmp_path / "sheet.csv"
    header.write_text(
        "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion\n", encoding="utf-8"
    )
    for source, error, message in (
        (Source("sam", casme2), UsageError, "did you mean 'samm'"),
        (Source("casme2", tmp_path / "nowhere"), LayoutError, "does not exist"),
        (Source("samm", casme2), SheetError, "no annotation sheet"),
        (
            Source("casme2", casme2, header),
            SheetError,
            r"none of the 0 row\(s\) of .*sheet\.csv gives a sample",
        ),
    ):
        with pytest.raises(error, match=message):
            build_store(source, store, quick())
    assert not store.exists()


def test_the_command_reports_in_json_and_by_exit_code(
    tree: Callable[[str], Path], command: Callable[..., list[str]], tmp_path: Path
) -> None:
    words = command(tree("samm"), tmp_path / "flows.h5", "--workers", "1")
    done = subprocess.run([*words, "--json", "--limit", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["built"] == 1
    wrong = subprocess.run([*words, "--set", "flow.tua=1"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "did you mean 'flow.tau'" in wrong.stderr


def test_flags_override_set_and_set_the_file(
    casme2: Path, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    store, file = tmp_path / "flows.h5", tmp_path / "pipeline.toml"
    file.write_text("[apex]\nsource = 'flow-peak'\nat_onset = 'drop'\n[stabilise]\nmethod = 'median'\n")
    layers = ["--config", str(file), "--set", "apex.source=difference", "--set", "apex.at_onset=spot"]
    words = command(casme2, store, "--limit", "1", "--workers", "1", *layers, "--apex", "midpoint")
    subprocess.run(words, check=True)
    with FlowStore(store) as found:
        assert [s.apex_source for s in found.samples("casme2")] == ["midpoint"]
        config = found.pipeline["config"]
    assert (config["apex"]["at_onset"], config["stabilise"]["method"]) == ("spot", "median")


def test_a_later_build_does_as_the_first_and_says_so(
    tree: Callable[[str], Path], command: Callable[..., list[str]], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    first = command(
        tree("casme2"), store, "--limit", "1", "--workers", "1", "--keep-faces", "--apex", "midpoint"
    )
    subprocess.run(first, check=True)
    bare = [sys.executable, "-m", "mer_flow.cli", "build", "--db", "samm", "--root", str(tree("samm"))]
    bare += ["--store", str(store), "--limit", "1", "--workers", "1", "--quiet", "--json"]
    done = subprocess.run(bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "align.size=64" in done.stderr and "keep.faces=True" in done.stderr
    taken = json.loads(done.stdout)["inherited"]
    assert taken["config.apex.source"] == "midpoint" and taken["config.flow.warps"] == 2
    assert "config.strain.smooth_sigma" not in taken
    with FlowStore(store) as found:
        assert found.has("samm", "faces")
        assert [sample.apex_source for sample in found.samples("samm")] == ["midpoint"]
    other = subprocess.run([*bare, "--set", "flow.warps=3"], capture_output=True, text=True)
    assert other.returncode == 1
    assert "(1 differ): config.flow.warps: 2 there, 3 now" in other.stderr


def test_an_unfinished_build_is_continued_as_it_was_begun(tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    config = PipelineConfig(flow={"tau": 0.2})
    sample = Sample("samm/006/c", "samm", "samm/006", "c", 1, 5, 9, "sheet", "anger", "4", 1, 200.0)
    with StoreWriter(store, store_pipeline(config, Keep(clips=3))) as writer:
        writer.begin("samm", SampleTable([sample]))
        writer.fail(sample.sample_id, "frames", "no folder")
    again, keep, taken = inherit(store, {"flow": {"warps": "7"}}, {"faces": True})
    assert (again.flow.tau, again.flow.warps, keep) == (0.2, 7, Keep(clips=3, faces=True))
    assert taken == {"config.flow.tau": 0.2, "keep.clips": 3}
    assert inherit(tmp_path / "new.h5", {}, {}) == (PipelineConfig(), Keep(), {})


def test_an_apex_on_the_onset_is_kept_spotted_or_dropped(
    casme2: Path, quick: Callable[..., PipelineConfig]
) -> None:
    source = get_database("casme2")
    sample = next(s for s in samples_of(casme2) if s.apex > s.onset)

    def record(choice: str, **changes: int) -> SampleRecord:
        still = replace(sample, apex=sample.onset, **changes)
        engine = extractor(quick(f"apex.at_onset={choice}", "apex.missing=difference"))
        return extract_record(ClipTask.of(source.locate(casme2), still), engine, Keep(), Clock())

    kept = record("keep")
    assert kept.notes["fallbacks"] == ["apex-at-onset"] and kept.sample.apex_source == "sheet"
    assert not kept.flow.any()
    spotted = record("spot")
    assert spotted.notes["fallbacks"] == ["apex-at-onset-spotted"]
    assert spotted.sample.apex_source == "spotted:difference" and spotted.sample.apex > spotted.sample.onset
    assert spotted.flow.any()
    with pytest.raises(ApexError, match=r"both frame .*apex\.at_onset=drop"):
        record("drop")
    with pytest.raises(ApexError, match="no interval to spot"):
        record("spot", offset=UNKNOWN_FRAME)


def test_a_sample_unlike_the_others_fails_alone(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(casme2, tmp_path / "casme2"))
    odd = samples_of(root)[1]
    for path in folder_of(root, odd).glob("*.jpg"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    store = tmp_path / "flows.h5"
    summary = build(root, store, quick(), Keep(faces=True), limit=3)
    assert summary.built == 2
    ((sample_id, stage, reason),) = summary.failed
    assert (sample_id, stage) == (odd.sample_id, "store") and "use the same --keep-faces" in reason
    assert verify_store(store) == []


def test_a_hidden_face_in_the_onset_fails_its_sample(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(casme2, tmp_path / "casme2"))
    sample = samples_of(root)[0]
    onset = folder_of(root, sample) / f"img{sample.onset}.jpg"
    mouth = round(load_truth(root)[sample.sample_id].landmarks[48:68, 1].mean())
    with Image.open(onset) as image:
        image.paste((90, 90, 90), (0, mouth, *image.size))
        image.save(onset)
    summary = build(root, tmp_path / "flows.h5", quick(), limit=1)
    ((sample_id, stage, reason),) = summary.failed
    assert (sample_id, stage) == (sample.sample_id, "face")
    assert "in 4 other frame(s) of the clip" in reason and "--set faces.max_drop" in reason


def test_a_backend_that_cannot_start_ends_the_build(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MER_FLOW_FACE_LANDMARKER", str(tmp_path / "none.task"))
    config = quick().changed(regions=quick().regions.changed(backend="mediapipe-tasks"))
    with pytest.raises(ModelFileError, match=r"none\.task is missing.*models fetch"):
        build(casme2, tmp_path / "flows.h5", config)
    assert not (tmp_path / "flows.h5").exists()
