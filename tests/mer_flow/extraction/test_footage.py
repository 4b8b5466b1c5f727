"""Clips of one's own: what is decoded, when it is shown, and one line for what cannot be read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.videos import in_av1, plain_video, turned, variable_rate

from mer_flow.extraction.footage import open_footage
from mer_flow.work.errors import FrameError, UsageError

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_video(tmp_path_factory.mktemp("footage") / "plain.avi")


def test_frames_are_those_written_and_come_at_their_times(video: Path) -> None:
    footage = open_footage(video)
    assert len(footage) == 20 and footage.fps == pytest.approx(50)
    assert footage.notes == ()
    levels = [int(np.median(frame)) for frame in footage.frames([0, 7, 19])]
    np.testing.assert_allclose(levels, [0, 70, 190], atol=3)
    assert footage.named(7) == "frame 7 (0.14 s)"


@pytest.mark.parametrize(("moment", "position"), [("0", 0), ("12", 12), ("0.1s", 5), ("0.38 s", 19)])
def test_a_moment_is_a_frame_or_seconds(video: Path, moment: str, position: int) -> None:
    assert open_footage(video).position(moment) == position


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("20", "no frame 20: its 20 frames are 0 to 19"),
        ("2s", "lasts 0.38 s"),
        ("soon", "write 12 for frame"),
    ],
)
def test_a_moment_outside_is_refused(video: Path, moment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_footage(video).position(moment)


def test_a_folder_has_the_numbers_of_its_files_and_the_rate_that_is_said(tmp_path: Path) -> None:
    for number in (7, 8, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"img{number}.png")
    footage = open_footage(tmp_path)
    assert footage.numbers == (7, 8, 10) and footage.fps is None
    assert [frame[0, 0, 0] for frame in footage.frames([0, 2])] == [7, 10]
    assert footage.position("8") == 1 and footage.named(1) == "frame 8"
    with pytest.raises(UsageError, match="say it with --fps"):
        footage.position("0.1s")
    assert open_footage(tmp_path, fps=100).position("0.03s") == 2


def test_a_rate_that_is_said_replaces_the_files(video: Path) -> None:
    assert open_footage(video, fps=200).fps == pytest.approx(200)
    with pytest.raises(UsageError, match="positive number of frames per second"):
        open_footage(video, fps=0)


def test_a_variable_rate_is_told_and_the_stamps_count(video: Path, tmp_path: Path) -> None:
    footage = open_footage(variable_rate(video, tmp_path / "vfr.mp4"))
    assert len(footage) == 20
    (note,) = footage.notes
    assert re.fullmatch(
        "variable frame rate: 20 to [68]0 ms between frames; times are the file's stamps", note
    )
    assert footage.position("0.26s") == 11  # by the mean rate it would be 7


def test_a_turned_video_is_shown_upright(video: Path, tmp_path: Path) -> None:
    footage = open_footage(turned(video, tmp_path / "turned.mp4"))
    assert footage.notes == ("turned by 270 degrees, as the file's metadata ask",)
    frame = next(footage.frames([5]))
    assert frame.shape == (96, 64, 3)
    assert frame[-12:, :12].mean() > 200 and frame[:12, :12].mean() < 100, "the white corner went down"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.mp4", "does not exist; give a video file or a folder"),
        ("empty.mp4", r"is empty \(0 bytes\)"),
        ("text.mp4", "no video that this OpenCV can read"),
        ("cut.mp4", "no video that this OpenCV can read: damaged, cut short, or of a codec it lacks"),
        ("one.avi", "holds 1 frame, expected the onset and at least one more"),
        ("av1.mp4", r"no frame can be decoded \(codec 'AV01', which this OpenCV may lack\); convert it"),
    ],
)
def test_what_cannot_be_read_is_one_line(video: Path, tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "text.mp4":
        path.write_bytes(b"no video " * 99)
    elif name == "cut.mp4":
        whole = plain_video(tmp_path / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "one.avi":
        plain_video(path, count=1)
    elif name == "av1.mp4":
        in_av1(video, path)
    with pytest.raises(FrameError, match=message) as caught:
        open_footage(path)
    assert "\n" not in str(caught.value)


def test_opencv_and_ffmpeg_keep_their_own_complaints_to_themselves(video: Path, tmp_path: Path) -> None:
    # FFmpeg's level is read once per process, so a process of its own is asked.
    whole = plain_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    in_av1(video, tmp_path / "av1.mp4")
    code = (
        "import sys\nfrom pathlib import Path\nfrom mer_flow.extraction.footage import open_footage\n"
        "from mer_flow.work.errors import FrameError\n"
        "for name in sys.argv[1:]:\n    try:\n        open_footage(Path(name))\n"
        "    except FrameError as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", code, "cut.mp4", "av1.mp4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 2


def test_a_video_cut_short_in_its_frames_says_so(tmp_path: Path) -> None:
    whole = plain_video(tmp_path / "whole.avi", count=100)
    path = tmp_path / "short.avi"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    footage = open_footage(path)
    assert 2 <= len(footage) < 70
    assert footage.notes == (
        f"the file announces 100 frames and {len(footage)} can be decoded: it was cut short",
    )
