"""Who shows what: emotions, movements, amplitudes and timing of every clip, before any layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Peak displacement in px is drawn evenly from these bands, from well under a pixel to three.
AMPLITUDE_BANDS: tuple[tuple[float, float], ...] = ((0.4, 0.8), (0.8, 1.5), (1.5, 2.3), (2.3, 3.0))

#: What one subject shows, over and over: negative, positive, surprise, and `x` and `y`, which alternate
#: between subjects (positive or surprise; negative or an emotion that the composite scheme drops).
_PATTERN = "npsnxy"

#: Emotions and movements of one kind: `((emotion, movements), ...)`.
Vocabulary = Mapping[str, Sequence[tuple[str, Sequence[str]]]]

#: Subject and clip, both from 0.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Role:
    """What one clip shows.

    Attributes:
        kind: `n` negative, `p` positive, `s` surprise, `d` dropped by the composite scheme.
        movement: Action units that move, as in `4+7`.
        amplitude: Peak displacement in px of a frame.
        length: Frames from onset to offset, both included.
        rise: Frames from onset to apex.
        halves: Strength of the face's image-left and image-right half.
        aside: Movement of another kind that goes along, which no sheet tells of.
        share: Its strength, as part of the movement's.
    """

    subject: int
    kind: str
    emotion: str
    movement: str
    amplitude: float
    length: int
    rise: int
    halves: tuple[float, float] = (1.0, 1.0)
    aside: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Clip:
    """One clip of a tree: what it shows, where its frames lie and what its sheet says.

    Attributes:
        sample_id: The id that the database's reader gives it.
        folder: Of its frames, relative to the tree's root, with `/`.
        pattern: Format string of a frame's file name, with the field `n`.
        onset: True file number, as apex and offset.
        padding: Frames written before the onset and after the offset.
        missing: File numbers left out.
        cells: What the sheet shows of it, by a name of the layout's own.
    """

    sample_id: str
    role: Role
    folder: str
    pattern: str
    onset: int
    apex: int
    offset: int
    padding: int = 0
    missing: tuple[int, ...] = ()
    cells: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything about a tree but its pixels.

    Attributes:
        clips: In the order of the sheet.
        quirks: What was made odd on purpose: quirk -> sample ids.
        size: Width and height of its frames in px.
        colour: Whether its frames have colour.
    """

    clips: tuple[Clip, ...]
    quirks: Mapping[str, tuple[str, ...]]
    size: tuple[int, int] = (640, 480)
    colour: bool = True


def cast(
    vocabulary: Vocabulary,
    subjects: int,
    clips_per_subject: int,
    lengths: tuple[int, int],
    rng: np.random.Generator,
) -> dict[Place, Role]:
    """Give every subject its clips, in a random order.

    Classes follow the movement, so that a model can learn them; amplitude does not depend on the class.

    Args:
        vocabulary: Kind (`n`, `p`, `s`, `d`) -> its emotions and their movements; no `d` where nothing is
            dropped.
        subjects: Number of subjects.
        clips_per_subject: Clips of each.
        lengths: Fewest and most frames from onset to offset.
        rng: Source of every choice.
    """
    seen: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    turns = {kind: int(rng.integers(0, len(words))) for kind, words in vocabulary.items()}
    bands = {kind: rng.permutation(len(AMPLITUDE_BANDS)) for kind in vocabulary}
    roles: dict[Place, Role] = {}
    for subject in range(subjects):
        second = "d" if "d" in vocabulary and subject % 2 == 0 else "n"
        swap = {"x": "ps"[subject % 2], "y": second}
        own = []
        for i in range(clips_per_subject):
            kind = _PATTERN[i % len(_PATTERN)]
            kind = swap.get(kind, kind)
            count = seen[kind]
            seen[kind] += 1
            emotion, movements = vocabulary[kind][(turns[kind] + count) % len(vocabulary[kind])]
            # Each emotion goes through its movements in turn.
            shown[kind, emotion] += 1
            low, high = AMPLITUDE_BANDS[int(bands[kind][count % len(AMPLITUDE_BANDS)])]
            movement = movements[shown[kind, emotion] % len(movements)]
            length = int(rng.integers(lengths[0], lengths[1] + 1))
            amplitude = round(float(rng.uniform(low, high)), 3)
            rise = round(length * float(rng.uniform(0.35, 0.65)))
            own.append(Role(subject, kind, emotion, movement, amplitude, length, rise))
        roles |= {(subject, c): own[i] for c, i in enumerate(rng.permutation(len(own)))}
    return roles


class Quirks:
    """Chooses the clips that get a database's oddities: each at most one, and none in a tiny tree."""

    #: Fewer clips than this stay free of oddities.
    FEWEST = 6

    def __init__(self, rng: np.random.Generator, total: int):
        self._rng = rng
        self._total = total
        self._used: set[Any] = set()
        self._marked: dict[str, set[Any]] = {}

    def choose(
        self, candidates: Iterable[Any], mark: str = "", wish: Callable[[Any], bool] = lambda key: True
    ) -> Any | None:
        """Choose one unused key; None where there is none.

        Args:
            candidates: Keys, such as places.
            mark: Under which quirk the truth lists it; empty for no mention.
            wish: A key that meets it is preferred.
        """
        free = [key for key in candidates if key not in self._used]
        wished = [key for key in free if wish(key)] or free
        if self._total < self.FEWEST or not wished:
            return None
        key = wished[int(self._rng.integers(len(wished)))]
        self._used.add(key)
        self.mark(mark, key)
        return key

    def mark(self, quirk: str, key: Any) -> None:
        """List a key under a quirk."""
        if quirk:
            self._marked.setdefault(quirk, set()).add(key)

    def marked(self, clips: Mapping[Any, Clip]) -> dict[str, tuple[str, ...]]:
        """Return quirk -> sample ids of the clips (key -> clip), in their order."""
        found = {
            name: tuple(clip.sample_id for key, clip in clips.items() if key in keys)
            for name, keys in self._marked.items()
        }
        return {name: names for name, names in found.items() if names}


def take_numbers(known: Sequence[int], count: int) -> list[int]:
    """Take the first of the known subjects' numbers, rising; beyond the known ones count on.

    >>> take_numbers((1, 3, 20), 4)
    [1, 3, 20, 21]
    """
    after = max(known)
    return sorted([*known, *range(after + 1, after + 1 + count)][:count])
