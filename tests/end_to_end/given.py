"""What the pages take as given, made small: trees, sheets, frames, published maps, stores."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mer_flow.databases.completeness import megc2019
from mer_flow.exchange.causalnet import SUFFIXES

#: A small face and a short descent. Builds go on as a store was begun, so the pages' own are quick too.
FAST = (
    "align.size=112", "flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05", "regions.backend=dlib",
)  # fmt: skip

Call = Callable[..., tuple[int, str, str]]


def settings() -> list[str]:
    """`FAST` as options."""
    return [part for setting in FAST for part in ("--set", setting)]


def make_given(folder: Path, call: Call) -> None:
    """Fills a folder; a page's commands run in a copy of it."""
    import cv2

    trees = ("mer-flow", "demo", "--out", folder, "--subjects", 2, "--clips", 3, "--trees-only", "--quiet")
    assert call(*trees)[0] == 0
    for name in ("SMIC", "SAMM", "CASME2", "CASME3"):
        (folder / name.lower()).rename(folder / name)
    (sheet,) = (folder / "CASME3").glob("*.xlsx")
    shutil.copy(sheet, folder / "SHEET.xlsx")

    for store, databases, options in (
        ("flows.h5", ("casme2", "samm", "smic"), ("--limit", 5)),  # of 6: a page's build has something to do
        ("clips.h5", ("casme2",), ("--limit", 1, "--keep-clips", 6, "--keep-faces")),
    ):
        for database in databases:
            where = ("--db", database, "--root", folder / database.upper(), "--store", folder / store)
            code, out, err = call("mer-flow", "build", *where, *options, *settings(), "--quiet")
            assert code == 0, out + err
    (folder / "demo").mkdir()  # as `make demo` leaves it
    for copy in ("maps.h5", "new.h5", "demo/flows.h5"):
        shutil.copy(folder / "flows.h5", folder / copy)

    clip = next(path for path in sorted((folder / "CASME2").rglob("*.jpg"))).parent
    frames = sorted(clip.iterdir())
    Image.open(frames[0]).save(folder / "onset.png")
    Image.open(frames[len(frames) // 2]).save(folder / "apex.png")

    height, width = cv2.imread(str(frames[0])).shape[:2]
    video = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 200, (width, height))
    for frame in frames:
        video.write(cv2.imread(str(frame)))
    video.release()

    _published_maps(folder)


def _published_maps(folder: Path) -> None:
    """The layouts of STSTNet's and CausalNet's maps, filled with noise, and the lists beside them."""
    rng = np.random.default_rng(0)
    rows = [(*clip, label) for clip, label in megc2019().items()]
    for name, kinds in (("ststnet-maps", [""]), ("causalnet-maps", [*SUFFIXES.values()])):
        (folder / name).mkdir()
        for _, subject, clip, _ in rows:
            for suffix in kinds:
                maps = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
                Image.fromarray(maps).save(folder / name / f"{subject}_{clip}{suffix} .png")
    with (folder / "combined_3class_gt.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with (folder / "combined_3_class2_for_optical_flow.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"))
        writer.writerows((d, s, c, label, "", f"{s}_{c}.jpg", "") for d, s, c, label in rows)
