"""Videos: the moment, its frames, the answer; what is warned of, and one line for what cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.ahmsa_model.parts import CLASSES, Built
from tests.videos import turned

from ahmsa_model import AHMSANet, CheckpointMetadata, InputError, Looking, predict_pair, predict_video
from ahmsa_model.pictures.annotated import FRAME, SIZE, annotated_frames
from ahmsa_model.pictures.prediction import MARK

pytest.importorskip("cv2", reason="videos need ahmsa-model[predict]")
pytest.importorskip("dlib", reason="videos need ahmsa-model[predict]")

FPS = 40.0
#: Both brows are lowered: the apex is frame 10.
BROW = [("4", 0.0, 0.25, 2.0)]


def synthetic(path: Path, events: list, seconds: float, fps: float = FPS, seed: int = 1) -> Path:
    from mer_flow.synthetic.video import Event, video_frames, write_video

    return write_video(path, video_frames([Event(*event) for event in events], seconds, fps, seed), fps)


@pytest.fixture(scope="module")
def brow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(tmp_path_factory.mktemp("video") / "brow.avi", BROW, 0.5)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint whose pipeline takes a tenth of a second."""
    from mer_flow.config import PipelineConfig
    from mer_flow.store.schema import pipeline_hash

    config = PipelineConfig(
        align={"size": 112},
        flow={"scale_step": 0.5, "warps": 2, "epsilon": 0.05},
        regions={"backend": "dlib"},
    )
    torch.manual_seed(0)
    metadata = {"classes": CLASSES, "scheme": "megc3", "view": "regions-28", "normalisation": "scaled"}
    pipeline = {"config": config.to_dict()}
    made = {"pipeline": pipeline, "pipeline_hash": pipeline_hash(pipeline)}
    network = AHMSANet.from_variant("tiny")
    network.metadata = CheckpointMetadata(**metadata, **made)
    folder = tmp_path_factory.mktemp("checkpoint")
    network.save_pretrained(folder)
    return folder


def test_a_video_gives_what_its_onset_and_apex_give(fast: Path, brow: Path) -> None:
    from mer_flow.extraction.footage import open_footage

    result = predict_video(fast, brow)
    (moment,) = result.moments
    assert moment.onset == 0 and abs(moment.apex - 10) <= 1
    assert moment.prediction.apex_source == "spotted:flow-peak"
    frames = list(open_footage(brow).frames([0, moment.apex]))
    same = predict_pair(fast, *frames)
    np.testing.assert_array_equal(moment.prediction.logits, same.logits)
    curve = dict(result.curve)
    assert max(curve, key=lambda position: curve[position]) in range(8, 13) and curve[0] < 0.15
    assert result.warnings == ()


def test_a_folder_spots_its_apex_and_predicts_from_it(built: Built) -> None:
    from mer_flow.databases.frames import FrameIndex

    index = FrameIndex.scan(built.folder)
    result = predict_video(built.checkpoint, built.folder, Looking(spotter="midpoint"))
    (moment,) = result.moments
    assert moment.prediction.apex_source == "spotted:midpoint"
    middle = index.numbers[len(index) // 2]
    assert moment.prediction.apex == f"frame {middle}"
    same = predict_pair(built.checkpoint, index.path(index.numbers[0]), index.path(middle))
    np.testing.assert_array_equal(moment.prediction.logits, same.logits)


@pytest.mark.parametrize(
    ("looking", "places"),
    [
        (Looking(onset="3", apex="0.25s"), (3, 10)),
        (Looking(onset="0.1s", apex="12"), (4, 12)),
        (Looking(apex="2s", fps=5), (0, 10)),
    ],
)
def test_moments_are_given_in_frames_or_seconds(
    fast: Path, brow: Path, looking: Looking, places: tuple[int, int]
) -> None:
    (moment,) = predict_video(fast, brow, looking).moments
    assert (moment.onset, moment.apex) == places
    assert moment.prediction.apex_source == "given"
    assert moment.end == min(19, 2 * places[1] - places[0])


@pytest.mark.parametrize(
    ("looking", "message"),
    [
        (Looking(onset="9", apex="9"), "does not follow the onset, frame 9"),
        (Looking(onset="19"), "is the last; an onset has frames after it"),
        (Looking(apex="40"), "has no frame 40"),
        (Looking(spotter="flow"), "did you mean 'flow-peak'"),
        (Looking(every=0.1, onset="3"), "leave --onset and --apex out"),
        (Looking(every=0.1, window=0.04), "expected at least 3"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(fast: Path, brow: Path, looking: Looking, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        predict_video(fast, brow, looking)
    assert "\n" not in str(caught.value)


def test_a_still_face_is_told_from_a_movement(fast: Path, tmp_path: Path) -> None:
    still = synthetic(tmp_path / "still.avi", [], 0.2)
    result = predict_video(fast, still)
    (warning,) = result.warnings
    assert "within the noise of a still face" in warning
    assert result.strongest.movement < 0.12


def test_a_video_without_a_face_is_one_line(fast: Path, tmp_path: Path) -> None:
    from mer_flow.synthetic.video import write_video

    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (240, 320, 3)).astype(np.uint8) for _ in range(4))
    path = write_video(tmp_path / "noise.avi", noise)
    for looking in (Looking(), Looking(every=0.01, window=0.03)):
        with pytest.raises(InputError, match=r"noise\.avi.*no face") as caught:
            predict_video(fast, path, looking)
        assert "\n" not in str(caught.value)


def test_a_video_turned_by_its_metadata_is_seen_upright(fast: Path, brow: Path, tmp_path: Path) -> None:
    from mer_flow.extraction.footage import open_footage
    from mer_flow.synthetic.video import write_video

    lying = (np.rot90(frame) for frame in open_footage(brow).frames(range(12)))
    written = write_video(tmp_path / "lying.avi", (np.ascontiguousarray(frame) for frame in lying), FPS)
    result = predict_video(fast, turned(written, tmp_path / "turned.mp4", degrees=-90))
    assert result.warnings[0] == "turned by 90 degrees, as the file's metadata ask"
    assert result.strongest.movement > 0.2


def test_the_face_leaving_the_picture_and_the_head_turning_are_warnings(fast: Path, tmp_path: Path) -> None:
    import cv2

    from mer_flow.synthetic.video import video_frames, write_video

    frame = next(video_frames([], 0.1, 10, seed=1))
    rows, columns = np.mgrid[0:480, 0:640].astype(np.float32)

    def turning(share: float) -> np.ndarray:
        # The middle of the face goes sideways over its rim, as in a turn of the head.
        bump = np.exp(-(((columns - 325) / 70) ** 2 + ((rows - 275) / 90) ** 2)).astype(np.float32)
        return cv2.remap(frame, columns - 40 * share * bump, rows, cv2.INTER_LINEAR)

    def leaving(way: int) -> np.ndarray:
        return np.roll(frame, -way, axis=1) * (columns < 640 - way)[..., None].astype(np.uint8)

    gone = predict_video(fast, write_video(tmp_path / "gone.avi", map(leaving, range(0, 480, 60)), 30))
    assert any("leaves the picture" in warning for warning in gone.warnings)
    turned_head = (turning(i / 7) for i in range(8))
    found = predict_video(fast, write_video(tmp_path / "turn.avi", turned_head, 30))
    assert any("the head turns (the nose moves" in warning for warning in found.warnings)


def test_every_frame_of_the_annotated_video_shows_where_it_is(fast: Path, brow: Path) -> None:
    result = predict_video(fast, brow, Looking(onset="2", apex="6"))
    drawn = [np.asarray(frame) for frame in islice(annotated_frames(result), 20)]
    assert len(drawn) == 20 and {frame.shape for frame in drawn} == {(SIZE[1], SIZE[0], 3)}
    border = [(frame[FRAME[1] + 200, FRAME[0]] == MARK).all() for frame in drawn]
    assert border == [2 <= position <= 10 for position in range(20)], "framed from onset to after the apex"
    flags = [
        int((frame[FRAME[1] : FRAME[1] + 30, FRAME[0] : FRAME[0] + 60] == MARK).all(-1).sum())
        for frame in drawn
    ]
    assert [position for position, count in enumerate(flags) if count > 500] == [2, 6]


def ahmsa(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ahmsa_model.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_the_command_writes_json_a_picture_and_a_video(fast: Path, brow: Path, tmp_path: Path) -> None:
    from mer_flow.extraction.footage import open_footage

    out, picture = tmp_path / "out" / "a.mp4", tmp_path / "p.png"
    done = ahmsa(
        "predict", "--checkpoint", fast, "--video", brow, "--picture", picture,
        "--annotated", out, "--json", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    (moment,) = facts["moments"]
    assert facts["frames"] == 20 and facts["fps"] == pytest.approx(FPS)
    assert moment["onset_at"] == {"frame": 0, "seconds": 0.0}
    assert moment["apex_at"]["seconds"] == pytest.approx(moment["apex_at"]["frame"] / FPS)
    assert sum(moment["probabilities"].values()) == pytest.approx(1) and set(moment["probabilities"]) == set(
        CLASSES
    )
    assert len(facts["curve"]) == 20
    written = open_footage(out)
    assert len(written) == 20 and written.fps == pytest.approx(25), "in slow motion"
    assert next(written.frames([0])).shape == (SIZE[1], SIZE[0], 3)
    assert Image.open(picture).size[0] > 900
    assert [path.name for path in out.parent.iterdir()] == ["a.mp4"]
    refused = ahmsa("predict", "--checkpoint", fast, "--video", brow, "--annotated", "o.mov")
    assert refused.returncode == 1 and "expected one of .mp4, .webm, .avi" in refused.stderr


@pytest.mark.slow
def test_a_window_slid_along_a_long_video_finds_both_movements(fast: Path, tmp_path: Path) -> None:
    events = [("4", 0.6, 0.2, 2.0), ("12", 1.8, 0.2, 2.0)]
    video = synthetic(tmp_path / "long.avi", events, 2.6, fps=25)
    result = predict_video(fast, video, Looking(every=0.12, window=0.4))
    assert len(result.moments) == 2
    for moment, apex in zip(result.moments, (0.8, 2.0), strict=True):
        assert result.footage.times is not None
        assert abs(result.footage.times[moment.apex] - apex) <= 0.12
    places = [position for position, _ in result.curve]
    assert len(places) > 10 and places == sorted(set(places)) and 0.1 < result.threshold < 1
    still = synthetic(tmp_path / "still.avi", [], 0.8, fps=25)
    nothing = predict_video(fast, still, Looking(every=0.12, window=0.4))
    assert nothing.moments == () and "no moment stands out" in nothing.warnings[-1]
    assert nothing.to_dict()["moments"] == []
