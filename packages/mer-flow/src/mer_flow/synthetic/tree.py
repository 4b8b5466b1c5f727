"""Making a tree: plan, frames by worker processes, sheets, truth; whole or not at all."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan
from mer_flow.synthetic.movements import displacement
from mer_flow.synthetic.portrait import Portrait, make_portrait
from mer_flow.synthetic.rendering import ClipRenderer, HeadMotion
from mer_flow.synthetic.truth import TRUTH_FILE, Truth, TruthSample, write_truth
from mer_flow.work.errors import LayoutError, MissingDependencyError, UsageError
from mer_flow.work.executor import LocalProcesses
from mer_flow.work.suggest import unknown

#: Databases whose layout can be made, in the order of their random streams.
DATABASES: tuple[str, ...] = ("casme2", "samm", "smic", "casme3")

#: Changes whenever the same parameters would give another tree.
GENERATOR = 1

JPEG_QUALITY = 95

_PLANNING, _FACES, _CLIPS = range(3)


def make_tree(
    root: Path,
    database: str,
    *,
    subjects: int = 6,
    clips_per_subject: int = 6,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes one synthetic database in its real layout, with a real-format sheet and the truth.

    The same parameters give the same bytes, for any number of workers. A tree appears whole or not at all:
    it grows in `<root>.partial` and is renamed at the end. An existing tree with the same parameters is kept.

    Args:
        root: Folder to make; its parents are made too.
        database: `casme2`, `samm`, `smic` or `casme3`.
        subjects: Number of subjects.
        clips_per_subject: Micro-expressions of each.
        seed: Seed of every choice.
        workers: Processes that render.
        progress: Called with (clips done, clips in all).

    Returns:
        The root.

    Raises:
        UsageError: The database is unknown, a number is below one, or the folder holds something else.
        MissingDependencyError: A package of the `demo` extra is absent.
    """
    root = Path(root)
    parameters = _parameters(database, subjects, clips_per_subject, seed)
    found = find_tree(root)
    if found == parameters:
        return root
    if found is not None:
        changed = [
            f"{key} {found.get(key)} there, {parameters[key]} asked"
            for key in parameters
            if found.get(key) != parameters[key]
        ]
        raise UsageError(
            f"{root} already holds a synthetic tree made with other parameters ({'; '.join(changed)}). "
            "Choose another folder, ask for the same parameters, or delete it."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is no synthetic tree; choose a folder that is new or empty")
    _require_packages()

    partial = root.with_name(f"{root.name}.partial")
    if partial.exists():
        # Only a tree in the making has this name and this file.
        if not (partial / f"{TRUTH_FILE}.tmp").is_file():
            raise UsageError(
                f"{partial} is in the way and is no unfinished synthetic tree; move it elsewhere"
            )
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    unfinished = partial / f"{TRUTH_FILE}.tmp"
    unfinished.touch()

    layout = importlib.import_module(f"mer_flow.synthetic.layouts.{database}")
    plan: Plan = layout.plan(subjects, clips_per_subject, _generator(seed, database, _PLANNING))
    layout.write_sheets(partial, plan)
    with _clip_truths(partial, plan, seed, workers) as truths:
        counted = _count(truths, len(plan.clips), progress)
        write_truth(unfinished, counted, len(plan.clips), plan.size, parameters, plan.quirks)
    unfinished.rename(partial / TRUTH_FILE)
    if root.exists():
        root.rmdir()
    partial.rename(root)
    return root


def find_tree(root: Path) -> dict[str, Any] | None:
    """Returns the parameters that a finished tree was made with, or None where there is none."""
    try:
        return Truth(Path(root) / TRUTH_FILE).parameters
    except LayoutError:
        return None


def _parameters(database: str, subjects: int, clips_per_subject: int, seed: int) -> dict[str, Any]:
    if database not in DATABASES:
        raise unknown("synthetic database", database, DATABASES)
    for name, value in (("subjects", subjects), ("clips_per_subject", clips_per_subject)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, but is {seed}")
    return {
        "database": database,
        "subjects": subjects,
        "clips_per_subject": clips_per_subject,
        "seed": seed,
        "generator": GENERATOR,
    }


def _require_packages() -> None:
    """Fails before anything is written where a package of the demo extra is absent."""
    for module in ("cv2", "skimage", "xlsxwriter"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f"the synthetic database needs {module} ({error}); "
                "install it with: pip install 'mer-flow[demo]'"
            ) from error


def _generator(seed: int, database: str, *stream: int) -> np.random.Generator:
    """Returns the random generator of one part of a tree, independent of every other part."""
    return np.random.default_rng([seed, DATABASES.index(database), *stream])


@contextmanager
def _clip_truths(root: Path, plan: Plan, seed: int, workers: int) -> Iterator[Iterator[TruthSample]]:
    """Renders every clip; yields their truths in the plan's order."""
    size, colour = plan.size, plan.colour
    jobs = [(root, plan.database, size, colour, seed, i, clip) for i, clip in enumerate(plan.clips)]
    if workers <= 1:
        yield map(_make_clip, jobs)
        return
    with LocalProcesses(workers) as pool:
        yield pool.map(_make_clip, jobs)


def _count(
    truths: Iterator[TruthSample], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[TruthSample]:
    for done, truth in enumerate(truths, start=1):
        yield truth
        if progress is not None:
            progress(done, total)


@lru_cache(maxsize=2)
def _portrait(seed: int, database: str, subject: int, size: tuple[int, int], colour: bool) -> Portrait:
    return make_portrait(_generator(seed, database, _FACES, subject), size, colour)


def _make_clip(job: tuple[Path, str, tuple[int, int], bool, int, int, Clip]) -> TruthSample:
    """Renders and writes one clip; returns its truth."""
    import cv2

    cv2.setNumThreads(1)
    root, database, size, colour, seed, index, clip = job
    portrait = _portrait(seed, database, clip.role.subject, size, colour)
    movement = displacement(clip.role.movement, portrait.landmarks, size[::-1], clip.role.amplitude)
    rng = _generator(seed, database, _CLIPS, index)
    head = HeadMotion.draw(rng, portrait.centre)
    renderer = ClipRenderer(portrait, movement, head, rng)
    folder = root / clip.folder
    folder.mkdir(parents=True, exist_ok=True)
    span = (clip.onset - clip.padding, clip.offset + clip.padding)
    for number, image in renderer.frames(*span, clip.onset, clip.apex, clip.offset):
        if number not in clip.missing:
            _write_image(folder / clip.pattern.format(n=number), image)
    return TruthSample(
        sample_id=clip.sample_id,
        onset=clip.onset,
        apex=clip.apex,
        offset=clip.offset,
        displacement=movement,
        head=head.matrix((clip.apex - clip.onset) / max(clip.offset - clip.onset, 1)),
        amplitude=clip.role.amplitude,
        emotion=clip.role.emotion,
        movement=clip.role.movement,
        landmarks=portrait.landmarks,
    )


def _write_image(path: Path, image: np.ndarray) -> None:
    import cv2

    shown = image if image.ndim == 2 else image[..., ::-1]
    done, data = cv2.imencode(path.suffix, shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise LayoutError(
            f"{path}: OpenCV cannot write {path.suffix} images; reinstall opencv-contrib-python"
        )
    path.write_bytes(data.tobytes())
