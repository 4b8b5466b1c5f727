"""Synthetic videos move where and when they are told to, and are written as they were drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mer_flow.synthetic.video import Event, video_frames, write_video
from mer_flow.work.errors import UsageError

pytest.importorskip("cv2")
pytest.importorskip("skimage")


def test_a_movement_peaks_at_its_apex_and_the_rest_is_noise() -> None:
    def changes(events: list[Event]) -> list[float]:
        first, *others = (frame.astype(int) for frame in video_frames(events, 0.5, 12, seed=2))
        return [float(np.abs(frame - first)[150:330, 220:430].mean()) for frame in others]

    still, moved = changes([]), changes([Event("1+2", 0.0, 0.25, 3.0)])
    extra = np.array(moved) - np.array(still)
    assert int(extra.argmax()) + 1 == 3, "the apex is frame 3"
    assert extra.max() > 0.3 and extra[-1] < 0.3 * extra.max()


def test_a_video_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    from mer_flow.extraction.footage import open_footage

    frames = [np.full((48, 64, 3), 40 * k, np.uint8) for k in range(5)]
    read = open_footage(write_video(tmp_path / "v.avi", iter(frames), 40.0))
    assert len(read) == 5 and read.fps == pytest.approx(40)
    for frame, written in zip(read.frames(range(5)), frames, strict=True):
        np.testing.assert_allclose(frame.astype(int), written, atol=3)
    with pytest.raises(UsageError, match=r"expected one of \.avi, \.mp4"):
        write_video(tmp_path / "v.mov", iter(frames))
