"""Making a tree: plan, frames by worker processes, sheets, truth; whole or not at all."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from mer_flow.databases.registry import DATABASES, get_database
from mer_flow.synthetic import people
from mer_flow.synthetic.casting import Clip, Plan
from mer_flow.synthetic.movements import Habits, Manner, displacement, draw_habits
from mer_flow.synthetic.portrait import Portrait, make_portrait
from mer_flow.synthetic.rendering import ClipRenderer, HeadMotion
from mer_flow.synthetic.truth import TRUTH_FILE, Truth, TruthSample, write_truth
from mer_flow.work.errors import LayoutError, MissingDependencyError, UsageError
from mer_flow.work.executor import local_executor, run_all
from mer_flow.work.files import new_folder
from mer_flow.work.libraries import extra_command
from mer_flow.work.settings import Settings

JPEG_QUALITY = 95

_PLANNING, _FACES, _CLIPS, _PEOPLE, _HABITS = range(5)


class _Parameters(Settings):
    """What a tree is made with; `generator` changes whenever the same ones would give another tree."""

    database: str
    subjects: int = Field(ge=1)
    clips_per_subject: int = Field(ge=1)
    seed: int = Field(ge=0)
    lifelike: bool
    generator: int = 1


def synthetic_databases() -> tuple[str, ...]:
    """Return the databases that have a synthetic twin, in the order of their random streams."""
    twins = [name for name, database in DATABASES.usable() if database.synthetic]
    return tuple(sorted(twins, key=lambda name: int(twin_of(name).STREAM)))


def twin_of(database: str) -> Any:
    """Import the synthetic twin of a database.

    Returns:
        A module with `STREAM`, a whole number that no other twin has, which keeps their random choices apart;
        `plan(subjects, clips_per_subject, rng)`, which returns a `Plan`; and `write_sheets(root, plan)`.

    Raises:
        UsageError: There is no such database, or it has no twin.
    """
    module = get_database(database).synthetic
    if not module:
        raise UsageError(
            f"database '{database}' has no synthetic twin; these have: {', '.join(synthetic_databases())}"
        )
    return importlib.import_module(module)


def make_tree(
    root: Path,
    database: str,
    *,
    subjects: int = 6,
    clips_per_subject: int = 6,
    seed: int = 0,
    lifelike: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one synthetic database in its real layout, with a real-format sheet and the truth.

    The same parameters give the same bytes, for any number of workers. A tree appears whole or not at all,
    and an existing one with the same parameters is kept.

    Args:
        root: Folder to make; its parents are made too.
        database: One that has a synthetic twin.
        subjects: How many.
        clips_per_subject: Micro-expressions of each.
        seed: Of every choice.
        lifelike: Several faces, movements that are weak and uneven, each subject's own and mixed with others;
            else one face and movements as in the books.
        workers: Processes that render.
        progress: Called with (clips done, clips in all).

    Raises:
        UsageError: The database is unknown, a number is below one, or the folder holds something else.
        MissingDependencyError: A package of the `demo` extra is absent.
    """
    root, twin = Path(root), twin_of(database)
    parameters = _Parameters(
        database=database,
        subjects=subjects,
        clips_per_subject=clips_per_subject,
        seed=seed,
        lifelike=lifelike,
    ).model_dump()
    if _is_there(root, parameters):
        return root
    _require_packages()
    stream = (seed, twin.STREAM)
    plan: Plan = twin.plan(subjects, clips_per_subject, _generator(*stream, _PLANNING))
    if lifelike:
        plan = people.lifelike(plan, _generator(*stream, _PEOPLE))
    with new_folder(root) as growing:
        twin.write_sheets(growing, plan)
        truths = _truths(partial(_render, growing, plan, stream, lifelike), plan, workers, progress)
        write_truth(growing / TRUTH_FILE, truths, plan, parameters)
    return root


def find_tree(root: Path) -> dict[str, Any] | None:
    """Return the parameters that a finished tree was made with, or None where there is none."""
    try:
        return Truth(Path(root) / TRUTH_FILE).parameters
    except LayoutError:
        return None


def _is_there(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether the wanted tree exists; a UsageError says that something else does."""
    found = find_tree(root)
    if found is not None and found != parameters:
        pairs = [(key, found.get(key), value) for key, value in parameters.items()]
        changed = "; ".join(f"{key} {old} there, {new} asked" for key, old, new in pairs if old != new)
        raise UsageError(
            f"{root} already holds a synthetic tree made with other parameters ({changed}). "
            "Choose another folder, ask for the same parameters, or delete it."
        )
    if found is None and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is no synthetic tree; choose a folder that is new or empty")
    return found is not None


def _require_packages() -> None:
    """Fail before anything is written where a package of the demo extra is absent."""
    for module in ("cv2", "matplotlib", "skimage", "xlsxwriter"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f"the synthetic database needs {module} ({error}); install it with: {extra_command('demo')}"
            ) from error


def _generator(*stream: int) -> np.random.Generator:
    """Return the random generator of one part of a tree, independent of every other."""
    return np.random.default_rng(stream)


def _truths(
    render: Callable[[int], dict[int, TruthSample]],
    plan: Plan,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[TruthSample]:
    """Render every clip; yield their truths in the plan's order."""
    done: dict[int, TruthSample] = {}
    turn = 0
    # One subject's clips are one task, so that its face is made once.
    subjects = dict.fromkeys(clip.role.subject for clip in plan.clips)
    with local_executor(workers) as executor:
        for _, future in run_all(executor, render, subjects):
            done |= future.result()
            while turn in done:
                yield done.pop(turn)
                turn += 1
                if progress is not None:
                    progress(turn, len(plan.clips))


def _render(
    root: Path, plan: Plan, stream: tuple[int, int], lifelike: bool, subject: int
) -> dict[int, TruthSample]:
    """Render and write one subject's clips; return their truths by place in the plan."""
    if multiprocessing.parent_process() is not None:
        import cv2

        cv2.setNumThreads(1)  # a worker beside others
    person = subject if lifelike else 0
    portrait = make_portrait(_generator(*stream, _FACES, subject), plan.size, plan.colour, person)
    habits = draw_habits(_generator(*stream, _HABITS, subject)) if lifelike else {}
    return {
        i: _make_clip(root, clip, portrait, habits, _generator(*stream, _CLIPS, i))
        for i, clip in enumerate(plan.clips)
        if clip.role.subject == subject
    }


def _make_clip(
    root: Path, clip: Clip, portrait: Portrait, habits: Habits, rng: np.random.Generator
) -> TruthSample:
    role, shape = clip.role, portrait.size[::-1]
    manner = Manner(habits, role.halves, role.aside, role.share)
    movement = displacement(role.movement, portrait.landmarks, shape, role.amplitude, manner)
    head = HeadMotion.draw(rng, portrait.centre)
    renderer = ClipRenderer(portrait, movement, head, rng)
    folder = root / clip.folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in renderer.frames(clip):
        if number not in clip.missing:
            _write_image(folder / clip.pattern.format(n=number), image)
    until_apex = head.matrix((clip.apex - clip.onset) / max(clip.offset - clip.onset, 1))
    return TruthSample.of(clip, movement, until_apex, portrait.landmarks)


def _write_image(path: Path, image: np.ndarray) -> None:
    import cv2

    shown = image if image.ndim == 2 else image[..., ::-1]
    # Newer releases of OpenCV complain of a quality given to a format that has none.
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, shown, quality)
    if not done:
        raise LayoutError(
            f"{path}: OpenCV cannot write {path.suffix} images; reinstall opencv-contrib-python"
        )
    path.write_bytes(data.tobytes())
