"""One pair through the whole pipeline, and its configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from mer_flow.extraction.extractor import (
    PipelineConfig,
    align_clip,
    apply_settings,
    extract_pair,
    extractor,
    pipeline_record,
    resolve,
    setting_keys,
)
from mer_flow.work.errors import FaceError, FrameError, UsageError

QUICK = (
    "flow.scale_step=0.5",
    "flow.warps=3",
    "flow.epsilon=0.02",
)  # a quarter of the time, the same accuracy
CONFIG = apply_settings(PipelineConfig(), QUICK)
LIP = (372.0, 268.0)  # the subject's left lip corner in the frame


def with_settings(*settings: str) -> PipelineConfig:
    return apply_settings(CONFIG, settings)


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
    assert set(found.seconds) == {"detect", "landmarks", "align", "mesh", "flow", "stabilise", "strain"}
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


def test_aligning_each_frame_by_itself_is_worse_than_the_signal(
    face_frame: np.ndarray, move: Callable, bump: Callable
) -> None:
    """dlib's landmarks jitter by whole pixels; one matrix for both frames does not."""
    errors: dict[str, list[float]] = {"onset": [], "each": []}
    signal = []
    for direction, noise in (((0.6, -0.8), 1), ((-0.4, -0.9), 2), ((0.9, 0.3), 3)):
        field = bump(face_frame.shape[:2], LIP, direction, 18)
        apex = move(face_frame, field).astype(np.float64) + np.random.default_rng(noise).normal(
            size=(480, 640, 1)
        )
        apex8 = np.clip(np.rint(apex), 0, 255).astype(np.uint8)
        for reference, collected in errors.items():
            config = with_settings(f"align.reference={reference}", "stabilise.method=none")
            found = extract_pair(face_frame, apex8, config)
            truth = on_aligned(field, found.alignment)
            collected.append(face_error(found.flow, truth, found.landmarks))
        signal.append(face_error(np.zeros_like(truth), truth, found.landmarks))
    assert np.mean(errors["onset"]) < 0.06
    assert np.mean(errors["each"]) > 3 * np.mean(errors["onset"])
    assert np.mean(errors["each"]) > np.mean(signal) > np.mean(errors["onset"])


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
    clip = align_clip([face_frame, smile[0], face_frame], face_frame, config)
    pair = extract_pair(face_frame, smile[0], config)
    assert len(clip) == 3 and clip[0].shape == (112, 112, 3)
    np.testing.assert_array_equal(clip[0], clip[2])
    # The margin of the pair shifts the grid of 1/32 px on which OpenCV samples.
    assert np.abs(clip[1].astype(int) - pair.apex_face).mean() < 1.5


def test_the_hash_follows_every_parameter() -> None:
    plain = PipelineConfig()
    hashes = {plain.hash()}
    words = {
        "align.reference": "each", "stabilise.method": "median", "regions.backend": "dlib",
        "regions.fallback": "none", "apex.source": "midpoint", "apex.missing": "difference",
        "apex.at_onset": "spot", "flow.backend": "torch-tvl1", "flow.border": "clamp", "flow.device": "cpu",
        "flow.compile": "off",
    }  # fmt: skip
    checked = 0
    for key in setting_keys():
        section, name = key.split(".")
        value = getattr(getattr(plain, section), name)
        if isinstance(value, bool):
            other: object = not value
        elif isinstance(value, str):
            other = words[key]
        elif key == "flow.median_filtering":
            other = 3
        else:
            other = value + 1 if isinstance(value, int) else value * 0.5 + 0.01
        changed = apply_settings(plain, [f"{key}={other}"])
        assert getattr(getattr(changed, section), name) == other
        hashes.add(changed.hash())
        checked += 1
    assert len(hashes) == checked + 1 and checked > 25
    assert PipelineConfig().hash() == plain.hash()


def test_configuration_survives_json() -> None:
    config = apply_settings(
        PipelineConfig(), ["flow.tau=0.125", "align.size=128", "align.prefilter=false"]
    )
    again = PipelineConfig.from_json(config.to_json())
    assert again == config and again.hash() == config.hash()
    assert PipelineConfig.from_dict({"flow": {"tau": 1}}).flow.tau == 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("flow.tua=0.2", "unknown setting 'flow.tua'; did you mean 'flow.tau'"),
        ("flow.tau", "lacks '='"),
        ("flow.tau=fast", "flow.tau must be of type float"),
        ("flow.nscales=2.5", "flow.nscales must be of type int"),
        ("align.prefilter=maybe", "must be true or false"),
        ("align.reference=apex", "unknown value of align.reference 'apex'"),
        ("regions.backend=mediapip", "did you mean 'mediapipe-"),
        ("align.size=4", "align.size must lie between 28 and"),
        ("apex.missing=flowpeak", "did you mean 'flow-peak'"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_settings(PipelineConfig(), [setting])
    assert message in str(caught.value)


def test_wrong_dictionaries_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'flow'"):
        PipelineConfig.from_dict({"flwo": {}})
    with pytest.raises(UsageError, match=r"did you mean 'flow\.lambda_'"):
        PipelineConfig.from_dict({"flow": {"lambda": 0.1}})
    with pytest.raises(UsageError, match="must hold keys and values"):
        PipelineConfig.from_dict({"flow": 3})
    with pytest.raises(UsageError, match=r"align\.size must be of type int, got True"):
        PipelineConfig.from_dict({"align": {"size": True}})


def test_the_record_names_versions_and_the_backend_in_use() -> None:
    record = pipeline_record(PipelineConfig())
    assert record["config"]["regions"]["backend"] == resolve(PipelineConfig()).regions.backend != "auto"
    assert record["hash"] == resolve(PipelineConfig()).hash()
    assert record["versions"]["flow_backend"].startswith("cv2 ")
    assert record["versions"]["dlib-bin"] and record["versions"]["region_backend"]
    assert extractor(CONFIG) is extractor(CONFIG)


def test_configuration_needs_no_heavy_library() -> None:
    code = (
        "import sys; from mer_flow.extraction.extractor import PipelineConfig, apply_settings; "
        "apply_settings(PipelineConfig(), ['flow.tau=0.2']).hash(); "
        "heavy = {'cv2', 'dlib', 'mediapipe', 'PIL', 'pandas', 'torch', 'h5py'}; "
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_worker_stays_small(face_frame: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    """dlib, MediaPipe and OpenCV together, after ten extractions, under 700 MB and without jax."""
    path = tmp_path_factory.mktemp("rss") / "frame.npy"
    np.save(path, face_frame)
    code = (
        "import sys, numpy as np; from mer_flow.extraction.extractor import *; "
        f"f = np.load({str(path)!r}); "
        "e = prepare_worker(apply_settings(PipelineConfig(), ['flow.warps=1', 'flow.nscales=2'])); "
        "[e.extract_pair(f, np.roll(f, 1, axis=1)) for _ in range(10)]; "
        "assert 'jax' not in sys.modules; "
        "from mer_flow.work.executor import peak_memory_mb; print(peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 700
