"""Whole synthetic trees: the readers find everything, the truth is true, and bytes follow the parameters."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from mer_flow.databases import get_database
from mer_flow.databases.frames import FrameIndex, read_frame
from mer_flow.synthetic import TRUTH_FILE, find_tree, load_truth, make_tree
from mer_flow.work.errors import LayoutError, UsageError

DATABASES = ("casme2", "samm", "smic", "casme3")
SUBJECTS, CLIPS, SEED = 2, 3, 11


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    for name in DATABASES:
        make_tree(folder / name, name, subjects=SUBJECTS, clips_per_subject=CLIPS, seed=SEED)
    return folder


def folders(root, database):
    """Sample id -> frame folder, as the readers see it."""
    source = get_database(database)
    table = source.read(root, None).table
    locator = source.locate(root)
    return {sample.sample_id: locator.folder(sample) for sample in table}


@pytest.mark.parametrize("database", DATABASES)
def test_readers_find_every_clip_and_its_frames(trees, database):
    root, truth = trees / database, load_truth(trees / database)
    found = folders(root, database)
    assert set(found) == set(truth) and len(truth) == SUBJECTS * CLIPS
    table = get_database(database).read(root, None).table
    assert len(table.subjects) == SUBJECTS
    missing = set(truth.quirks.get("missing-frame", ()))
    for sample_id, folder in found.items():
        sample = truth[sample_id]
        numbers = set(FrameIndex.scan(folder).numbers)
        expected = set(range(sample.onset, sample.offset + 1))
        assert expected - numbers == set() if sample_id not in missing else len(expected - numbers) == 1


@pytest.mark.parametrize("database", DATABASES)
def test_frames_have_the_real_format(trees, database):
    suffix, shape = {
        "casme2": (".jpg", (480, 640, 3)),
        "samm": (".jpg", (432, 768)),
        "smic": (".bmp", (480, 640, 3)),
        "casme3": (".jpg", (480, 640, 3)),
    }[database]
    folder = next(iter(folders(trees / database, database).values()))
    paths = sorted(folder.iterdir())
    assert {path.suffix for path in paths} == {suffix}
    frame = read_frame(paths[0])
    assert frame.shape == shape and frame.dtype == np.uint8
    assert 40 < frame.mean() < 220 and frame.std() > 30


def brought_back(apex, displacement, head):
    """Resamples an apex at where a movement puts each pixel of the onset."""
    import cv2

    height, width = apex.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = np.stack([x + displacement[0], y + displacement[1]], -1)
    forward = (moved @ head[:, :2].T + head[:, 2]).astype(np.float32)
    return cv2.remap(apex, forward[..., 0], forward[..., 1], cv2.INTER_CUBIC)


def difference(one, other, inside):
    """Root mean square difference at equal brightness: the frames' gains flicker."""
    gain = one[inside].mean() / other[inside].mean()
    return float(np.sqrt(((gain * other - one)[inside] ** 2).mean()))


@pytest.mark.parametrize("database", DATABASES)
def test_truth_turns_the_onset_into_the_apex(trees, database):
    import cv2

    truth = load_truth(trees / database)
    found = folders(trees / database, database)
    # Two frames of noise 1, one of them interpolated; JPEG adds its own.
    noise = 1.5 if database == "smic" else 1.85
    for sample_id in set(truth) - set(truth.quirks.get("missing-frame", ())):
        sample = truth[sample_id]
        index = FrameIndex.scan(found[sample_id])
        frames = [read_frame(index.nearest(number, 0).path) for number in (sample.onset, sample.apex)]
        weights = np.array([0.299, 0.587, 0.114])
        onset, apex = (np.float32(f if f.ndim == 2 else f @ weights) for f in frames)
        face = np.zeros(onset.shape, np.uint8)
        cv2.fillConvexPoly(face, cv2.convexHull(np.rint(sample.landmarks).astype(np.int32)), [1])
        back = brought_back(apex, sample.displacement, sample.head)
        assert difference(onset, back, face > 0) < noise, sample_id
        assert difference(onset, apex, face > 0) > 1.5 * noise, sample_id
        if sample.amplitude >= 1.0:
            # Without the facial movement the moved region does not fit.
            length = np.hypot(*sample.displacement)
            moved = length > 0.5 * length.max()
            rigid = brought_back(apex, 0 * sample.displacement, sample.head)
            assert difference(onset, back, moved) < 0.8 * difference(onset, rigid, moved), sample_id


@pytest.fixture(scope="module")
def lifelike(tmp_path_factory):
    return make_tree(
        tmp_path_factory.mktemp("lifelike") / "samm",
        "samm",
        subjects=2,
        clips_per_subject=2,
        seed=SEED,
        lifelike=True,
    )


def test_a_lifelike_tree_is_true_too(lifelike):
    """The second subject has another face, and every movement something else beside it."""
    import cv2

    truth, found = load_truth(lifelike), folders(lifelike, "samm")
    onsets = {}
    for sample_id, sample in truth.items():
        index = FrameIndex.scan(found[sample_id])
        frames = [read_frame(index.nearest(number, 0).path) for number in (sample.onset, sample.apex)]
        onset, apex = np.float32(frames[0]), np.float32(frames[1])
        face = np.zeros(onset.shape, np.uint8)
        cv2.fillConvexPoly(face, cv2.convexHull(np.rint(sample.landmarks).astype(np.int32)), [1])
        back = brought_back(apex, sample.displacement, sample.head)
        assert difference(onset, back, face > 0) < 1.85, sample_id
        assert np.hypot(*sample.displacement).max() == pytest.approx(sample.amplitude, abs=2e-4)
        onsets[sample_id.split("/")[1]] = onset[120:330, 280:490]
    one, other = onsets.values()
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9


def test_a_lifelike_tree_is_another_than_the_plain_one(lifelike):
    with pytest.raises(UsageError, match="lifelike True there, False asked"):
        make_tree(lifelike, "samm", subjects=2, clips_per_subject=2, seed=SEED)


@pytest.mark.parametrize("database", DATABASES)
def test_amplitude_is_the_true_peak(trees, database):
    truth = load_truth(trees / database)
    for sample in truth.values():
        assert np.hypot(*sample.displacement).max() == pytest.approx(sample.amplitude, abs=2e-4)
        assert sample.onset < truth.apexes()[sample.sample_id] == sample.apex <= sample.offset


def test_same_parameters_give_the_same_bytes_for_any_number_of_workers(trees, tmp_path):
    done = []
    again = make_tree(
        tmp_path / "again",
        "samm",
        subjects=SUBJECTS,
        clips_per_subject=CLIPS,
        seed=SEED,
        workers=2,
        progress=lambda count, total: done.append((count, total)),
    )
    assert digests(again) == digests(trees / "samm")
    assert done == [(n, SUBJECTS * CLIPS) for n in range(1, SUBJECTS * CLIPS + 1)]
    other = make_tree(tmp_path / "other", "samm", subjects=1, clips_per_subject=1, seed=SEED + 1)
    assert digests(other) != digests(
        make_tree(tmp_path / "one", "samm", subjects=1, clips_per_subject=1, seed=SEED)
    )


def test_finished_tree_is_kept_and_another_is_refused(trees):
    root = trees / "casme2"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make_tree(root, "casme2", subjects=SUBJECTS, clips_per_subject=CLIPS, seed=SEED)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(UsageError, match="seed 11 there, 12 asked"):
        make_tree(root, "casme2", subjects=SUBJECTS, clips_per_subject=CLIPS, seed=12)


def test_interrupted_tree_is_made_again(trees, tmp_path):
    root = tmp_path / "tree"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    arguments = {"subjects": SUBJECTS, "clips_per_subject": CLIPS, "seed": SEED}
    with pytest.raises(KeyboardInterrupt):
        make_tree(root, "casme3", progress=stop, **arguments)
    assert list(tmp_path.iterdir()) == [] and find_tree(root) is None
    make_tree(root, "casme3", **arguments)
    assert digests(root) == digests(trees / "casme3")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_no_library_complains_of_the_pictures(tmp_path, capfd):
    make_tree(tmp_path / "smic", "smic", subjects=1, clips_per_subject=1, seed=SEED)
    assert not capfd.readouterr().err


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="no synthetic tree"):
        make_tree(tmp_path / "mine", "smic", subjects=1, clips_per_subject=1)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "database, options, message",
    [
        ("sam", {}, "did you mean 'samm'"),
        ("samm", {"subjects": 0}, "subjects must be at least 1"),
        ("samm", {"clips_per_subject": -1}, "clips_per_subject must be at least 1"),
        ("samm", {"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_requests(tmp_path, database, options, message):
    with pytest.raises(UsageError, match=message):
        make_tree(tmp_path / "tree", database, **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_or_damaged_truth_is_said(trees, tmp_path):
    with pytest.raises(LayoutError, match="no synthetic tree"):
        load_truth(tmp_path)
    shutil.copy(trees / "samm" / TRUTH_FILE, tmp_path / TRUTH_FILE)
    data = (tmp_path / TRUTH_FILE).read_bytes()
    (tmp_path / TRUTH_FILE).write_bytes(data[:200])
    with pytest.raises(LayoutError, match="damaged"):
        load_truth(tmp_path)


def test_detectors_find_the_faces(trees):
    """dlib finds exactly one face per subject, near the known landmarks, and MediaPipe agrees."""
    from mer_flow.extraction.extractor import PipelineConfig
    from mer_flow.faces.detect import detect_face
    from mer_flow.faces.landmarks import find_landmarks
    from mer_flow.faces.regions import get_region_backend

    pytest.importorskip("mediapipe")
    mesh = get_region_backend("auto")
    for database in DATABASES:
        truth, found = load_truth(trees / database), folders(trees / database, database)
        for sample_id in {name.split("/")[1]: name for name in truth}.values():
            sample = truth[sample_id]
            frame = read_frame(FrameIndex.scan(found[sample_id]).nearest(sample.onset, 0).path)
            face = detect_face(frame, PipelineConfig().faces)
            assert face is not None and len(face.scores) == 1, sample_id
            points = find_landmarks(frame, face.box)
            assert np.hypot(*(points - sample.landmarks)[17:].T).mean() < 4.0, sample_id
            rgb = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, -1)
            left, top, right, bottom = face.box
            grown = 60
            crop = np.ascontiguousarray(
                rgb[max(top - grown, 0) : bottom + grown, left - grown : right + grown]
            )
            offset = np.array([left - grown, max(top - grown, 0)])
            centres = mesh.centres(crop, (points - offset).astype(np.float32)) + offset
            known = sample.landmarks
            expected = [known[42:48].mean(0), known[36:42].mean(0), known[30], known[54], known[48]]
            assert np.hypot(*(centres - expected).T).max() < 12.0, sample_id
