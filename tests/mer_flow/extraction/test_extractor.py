"""One pair through the whole pipeline, and its configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from mer_flow.config import PipelineConfig, load_config
from mer_flow.extraction.extractor import Extractor, extract_pair, extractor, pipeline_record, resolve
from mer_flow.work.errors import FaceError, FrameError

LIP = (372.0, 268.0)  # the subject's left lip corner in the frame


def with_settings(*settings: str) -> PipelineConfig:
    """A quarter of the time, the same accuracy."""
    return load_config(sets=("flow.scale_step=0.5", "flow.warps=3", "flow.epsilon=0.02", *settings))


CONFIG = with_settings()


def turned(shape: tuple[int, int], dx: float, dy: float, degrees: float) -> np.ndarray:
    """A head motion about the face's centre, (2, H, W) px."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    moved = (np.exp(1j * np.deg2rad(degrees)) - 1) * ((x - 318) + 1j * (y - 240)) + dx + 1j * dy
    return np.stack([moved.real, moved.imag])


@pytest.fixture(scope="module")
def smile(face_frame: np.ndarray, move: Callable, bump: Callable) -> tuple[np.ndarray, np.ndarray]:
    """An apex whose left lip corner is 2 px up and out, and that field."""
    field = bump(face_frame.shape[:2], LIP, (1.6, -1.2), 18)
    return move(face_frame, field), field


def on_aligned(field: np.ndarray, matrix: np.ndarray, size: int = 224) -> np.ndarray:
    """A frame's displacement field in px of the aligned face."""
    from scipy.ndimage import map_coordinates

    inverse = np.linalg.inv(matrix[:, :2])
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    x, y = ((grid - matrix[:, 2]) @ inverse.T).T
    sampled = np.stack([map_coordinates(part, [y, x], order=1) for part in field])
    return (matrix[:, :2] @ sampled).reshape(2, size, size)


def face_error(flow: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
    from mer_flow.faces.landmarks import face_mask

    return float(np.hypot(*(flow[:2] - truth))[face_mask(landmarks, (224, 224))].mean())


def test_a_smile_is_recovered_in_the_right_place_and_size(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray]
) -> None:
    apex, field = smile
    found = extract_pair(face_frame, apex, CONFIG)
    assert found.flow.shape == (3, 224, 224) and found.flow.dtype == np.float32
    assert found.landmarks.shape == (68, 2) and found.regions.shape == (5, 2)
    assert found.alignment.shape == (2, 3) and found.alignment.dtype == np.float64
    assert found.onset_face.shape == found.apex_face.shape == (224, 224, 3)
    truth = on_aligned(field, found.alignment)
    error, still = (face_error(flow, truth, found.landmarks) for flow in (found.flow, np.zeros_like(truth)))
    assert error < 0.06 and error < 0.6 * still
    row, column = np.unravel_index(np.hypot(*found.flow[:2]).argmax(), (224, 224))
    left_lip = found.regions[3]
    assert np.hypot(column - left_lip[0], row - left_lip[1]) < 20
    strain_row, strain_column = np.unravel_index(found.flow[2].argmax(), (224, 224))
    assert np.hypot(strain_column - left_lip[0], strain_row - left_lip[1]) < 45
    assert found.notes["fallbacks"] == [] and found.notes["faces"] == 1
    json.dumps(found.notes)


def test_landmarks_and_eyes_lie_on_the_aligned_face(face_frame: np.ndarray) -> None:
    found = extract_pair(face_frame, face_frame, CONFIG)
    eyes = [found.landmarks[36:42].mean(axis=0), found.landmarks[42:48].mean(axis=0)]
    expected = [[0.3 * 224 - 0.5, 0.32 * 224 - 0.5], [0.7 * 224 - 0.5, 0.32 * 224 - 0.5]]
    np.testing.assert_allclose(eyes, expected, atol=0.01)


@pytest.mark.parametrize("size", [128, 224])
def test_alignment_adds_no_motion(face_frame: np.ndarray, size: int) -> None:
    found = extract_pair(face_frame, face_frame, with_settings(f"align.size={size}"))
    assert np.abs(found.flow).max() == 0


def test_the_same_pair_gives_the_same_bits(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray]
) -> None:
    small = with_settings("align.size=96")
    first, second = (extract_pair(face_frame, smile[0], small) for _ in range(2))
    np.testing.assert_array_equal(first.flow, second.flow)
    np.testing.assert_array_equal(first.regions, second.regions)
    assert first.notes == second.notes


def test_head_motion_is_removed_and_recorded(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray], move: Callable
) -> None:
    _, field = smile
    moved = move(move(face_frame, field), turned(field.shape[1:], 0.9, -0.6, 0.4))
    errors = {}
    for method in ("none", "median", "similarity"):
        found = extract_pair(face_frame, moved, with_settings(f"stabilise.method={method}"))
        errors[method] = face_error(found.flow, on_aligned(field, found.alignment), found.landmarks)
    assert errors["none"] > 0.8
    assert errors["median"] < 0.5 * errors["none"], "the translation is gone"
    assert errors["similarity"] < 0.5 * errors["median"] and errors["similarity"] < 0.1, "and the rotation"
    motion = found.notes["head_motion"]
    assert motion["rotation"] == pytest.approx(0.4, abs=0.05)
    assert motion["inliers"] > 0.4


def test_noise_adds_less_than_the_signal(face_frame: np.ndarray, move: Callable, bump: Callable) -> None:
    """One matrix for both frames: the landmarks' jitter, whole pixels, does not enter the flow."""
    errors, signal = [], []
    for direction, noise in (((0.6, -0.8), 1), ((-0.4, -0.9), 2), ((0.9, 0.3), 3)):
        field = bump(face_frame.shape[:2], LIP, direction, 18)
        grain = np.random.default_rng(noise).normal(size=(480, 640, 1))
        apex = np.clip(np.rint(move(face_frame, field) + grain), 0, 255).astype(np.uint8)
        found = extract_pair(face_frame, apex, with_settings("stabilise.method=none"))
        truth = on_aligned(field, found.alignment)
        errors.append(face_error(found.flow, truth, found.landmarks))
        signal.append(face_error(np.zeros_like(truth), truth, found.landmarks))
    assert np.mean(errors) < 0.06 and np.mean(errors) < np.mean(signal)


def test_without_a_margin_the_border_spoils_the_strain(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray], move: Callable
) -> None:
    apex = move(smile[0], turned((480, 640), 1.5, 1.0, 0))
    ring = np.ones((224, 224), bool)
    ring[8:-8, 8:-8] = False
    worst = {}
    for margin in ("0", "0.125"):
        found = extract_pair(face_frame, apex, with_settings(f"align.margin={margin}"))
        worst[margin] = float(found.flow[2][ring].max())
    assert worst["0.125"] < 0.5 * worst["0"]


def test_smoothing_lowers_the_strain_of_noise(face_frame: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(scale=2, size=(480, 640, 1))
    apex = np.clip(face_frame + noise, 0, 255).astype(np.uint8)
    rough, fine = (extract_pair(face_frame, apex, with_settings(f"strain.smooth_sigma={s}")) for s in (0, 2))
    assert fine.flow[2].mean() < 0.8 * rough.flow[2].mean()
    np.testing.assert_array_equal(rough.flow[:2], fine.flow[:2])


def test_a_grey_frame_stays_grey_and_moves_alike(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray]
) -> None:
    from mer_flow.faces.align import to_grey

    colour = extract_pair(face_frame, smile[0], CONFIG)
    grey = extract_pair(to_grey(face_frame), to_grey(smile[0]), CONFIG)
    assert grey.apex_face.shape == (224, 224)
    lip = tuple(np.rint(colour.regions[3]).astype(int))
    np.testing.assert_allclose(
        grey.flow[:2, lip[1] - 8 : lip[1] + 8, lip[0] - 8 : lip[0] + 8].mean(axis=(1, 2)),
        colour.flow[:2, lip[1] - 8 : lip[1] + 8, lip[0] - 8 : lip[0] + 8].mean(axis=(1, 2)),
        atol=0.15,
    )


def test_no_face_several_faces_and_crops_are_cases_of_their_own(face_frame: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (340, 280, 3), dtype=np.uint8)
    with pytest.raises(FaceError, match=r"no face found in the 280x340 px onset frame .*faces\.upsample=2"):
        extract_pair(noise, noise, CONFIG)
    crop = extract_pair(noise, noise, CONFIG, cropped=True)
    assert crop.notes["alignment"] == "whole-crop" and "no-face-in-crop" in crop.notes["fallbacks"]
    assert crop.notes["faces"] == 0 and np.isfinite(crop.flow).all()
    assert crop.notes["scale"] == pytest.approx(224 / 340, abs=1e-4)
    double = np.hstack([face_frame[:, 100:540], face_frame[:, 100:540]])
    several = extract_pair(double, double, CONFIG)
    assert several.notes["faces"] == 2 and "several-faces" in several.notes["fallbacks"]
    assert several.notes["face_score"] == max(several.notes["face_scores"])
    found = extract_pair(face_frame[140:360, 215:420], face_frame[140:360, 215:420], CONFIG, cropped=True)
    assert found.notes["alignment"] == "eyes" and "no-face-in-crop" not in found.notes["fallbacks"]


def test_a_face_far_below_its_clips_others_is_refused(face_frame: np.ndarray) -> None:
    engine = extractor(CONFIG)
    covered = face_frame.copy()
    covered[280:] = 90  # a hand before mouth and chin
    assert 0 < engine.find_face(covered).notes["face_score"] < 0.5
    with pytest.raises(FaceError, match=r"scores 0\.\d\d, those in 3 other frame\(s\) of the clip 1\.\d\d"):
        engine.find_face(covered, others=[face_frame, covered, face_frame])
    # Among others like itself it is what this clip has; so it is where the setting allows it.
    engine.find_face(covered, others=[covered, covered, face_frame])
    extractor(with_settings("faces.max_drop=2")).find_face(covered, others=[face_frame])
    with pytest.raises(FaceError, match="hidden, blurred or no face"):
        extract_pair(covered, face_frame, CONFIG)


def test_frames_of_the_clip_are_read_only_for_a_doubtful_face(face_frame: np.ndarray) -> None:
    extractor(CONFIG).find_face(face_frame, others=(1 / 0 for _ in range(1)))  # type: ignore[misc]


def test_unfit_frames_are_refused(face_frame: np.ndarray) -> None:
    with pytest.raises(
        FrameError, match="onset frame is 640x480 px colour and the apex frame 640x479 px colour"
    ):
        extract_pair(face_frame, face_frame[1:], CONFIG)
    with pytest.raises(FrameError, match="must be uint8"):
        extract_pair(face_frame, face_frame.astype(np.float32), CONFIG)


def test_a_clip_is_aligned_with_the_onsets_matrix(
    face_frame: np.ndarray, smile: tuple[np.ndarray, np.ndarray]
) -> None:
    config = with_settings("align.size=112")
    engine = extractor(config)
    clip = engine.align_clip([face_frame, smile[0], face_frame], engine.find_face(face_frame))
    pair = extract_pair(face_frame, smile[0], config)
    assert len(clip) == 3 and clip[0].shape == (112, 112, 3)
    np.testing.assert_array_equal(clip[0], clip[2])
    # The margin of the pair shifts the grid of 1/32 px on which OpenCV samples.
    assert np.abs(clip[1].astype(int) - pair.apex_face).mean() < 1.5


def test_where_dlib_and_the_mesh_disagree_the_mesh_aligns_and_gives_the_regions(
    face_frame: np.ndarray,
) -> None:
    if resolve(PipelineConfig()).regions.backend in ("dlib", "no-mesh"):
        pytest.skip("no face mesh is at hand")
    agreeing = extract_pair(face_frame, face_frame, CONFIG)
    found = extract_pair(face_frame, face_frame, with_settings("regions.max_eye_error=0"))
    assert found.notes["alignment"] == "mesh-eyes" and agreeing.notes["alignment"] == "eyes"
    assert found.notes["fallbacks"] == ["alignment-mesh", "regions-disagree"]
    assert "puts an eye" in found.notes["alignment_disagreement"]
    assert found.notes["region_backend"].startswith("mediapipe")
    # The mesh's own eyes are in their places now, and dlib's are not; dlib's are kept beside them.
    places = np.array([[0.7 * 224 - 0.5, 0.32 * 224 - 0.5], [0.3 * 224 - 0.5, 0.32 * 224 - 0.5]])
    off, dlib_off, before = (
        np.abs(np.asarray(eyes)[:2] - places).max()
        for eyes in (found.regions, found.notes["regions_dlib"], agreeing.regions)
    )
    assert off < before and off < dlib_off
    only = with_settings("regions.max_eye_error=0", "regions.fallback=none")
    with pytest.raises(FaceError, match=r"puts an eye .* limit 0\.0"):
        extract_pair(face_frame, face_frame, only)


class Wandering:
    """A region backend whose eyes lie where no face has them, and elsewhere each time the face is aligned."""

    name, version = "wandering", "1"

    def centres(self, face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        side = face.shape[0]
        return np.array([[0.60, 0.5], [0.45, 0.4], [0.5, 0.6], [0.6, 0.7], [0.4, 0.7]], np.float32) * side


def test_a_mesh_that_contradicts_itself_is_not_trusted(face_frame: np.ndarray) -> None:
    engine = Extractor(resolve(with_settings("regions.backend=dlib")))
    right = engine.prepare_pair(face_frame, face_frame, engine.find_face(face_frame))
    engine._regions = Wandering()
    found = engine.prepare_pair(face_frame, face_frame, engine.find_face(face_frame))
    assert found.notes["fallbacks"] == ["mesh-inconsistent"] and found.notes["alignment"] == "eyes"
    assert found.notes["region_backend"] == "dlib" and "puts an eye" in found.notes["alignment_disagreement"]
    np.testing.assert_array_equal(found.alignment, right.alignment)
    np.testing.assert_array_equal(found.regions, right.regions)


def test_a_turned_face_that_misleads_dlib_is_aligned_by_the_mesh(face_frame: np.ndarray) -> None:
    if resolve(PipelineConfig()).regions.backend in ("dlib", "no-mesh"):
        pytest.skip("no face mesh is at hand")
    import cv2

    turn = cv2.getRotationMatrix2D((318.0, 240.0), 38.0, 0.8)
    turned_face = cv2.warpAffine(face_frame, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE)
    places = np.array([[0.7, 0.32], [0.3, 0.32]]) * 224 - 0.5
    eyes = {}
    for name, frame in (("upright", face_frame), ("turned", turned_face)):
        face = extractor(CONFIG).find_face(frame)
        eyes[name] = (places - face.matrix[:, 2]) @ np.linalg.inv(face.matrix[:, :2]).T
    assert face.notes["alignment"] == "mesh-eyes"
    expected = eyes["upright"] @ turn[:, :2].T + turn[:, 2]
    apart = np.linalg.norm(expected[0] - expected[1])
    assert np.linalg.norm(eyes["turned"] - expected, axis=1).max() < 0.08 * apart


def test_the_record_names_versions_and_the_backend_in_use() -> None:
    record = pipeline_record(PipelineConfig())
    assert record["config"]["regions"]["backend"] == resolve(PipelineConfig()).regions.backend != "auto"
    assert record["hash"] == resolve(PipelineConfig()).hash()
    assert record["versions"]["flow_backend"].startswith("cv2 ")
    assert record["versions"]["dlib-bin"] and record["versions"]["region_backend"]
    assert extractor(CONFIG) is extractor(CONFIG)


def test_a_worker_stays_small(face_frame: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    """dlib, MediaPipe and OpenCV together, after ten extractions, under 700 MB and without jax."""
    path = tmp_path_factory.mktemp("rss") / "frame.npy"
    np.save(path, face_frame)
    code = (
        "import sys, numpy as np; from mer_flow.config import load_config; "
        "from mer_flow.extraction.extractor import worker_extractor; "
        f"f = np.load({str(path)!r}); "
        "e = worker_extractor(load_config(sets=['flow.warps=1', 'flow.nscales=2'])); "
        "[e.extract_pair(f, np.roll(f, 1, axis=1)) for _ in range(10)]; "
        "assert 'jax' not in sys.modules; "
        "from mer_flow.work.clock import peak_memory_mb; print(peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 700
