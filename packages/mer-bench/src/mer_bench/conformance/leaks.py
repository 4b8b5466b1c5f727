"""What of a held-out person may have reached training by another name: looked for fold by fold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from mer_bench.errors import ConformanceError
from mer_bench.runs.manifest import RunManifest

#: How a finding begins that a run's files cannot tell.
NOT_VISIBLE = "NOT VISIBLE"
#: What sheets write before a subject's number.
_BEFORE_NUMBER = {"s", "sub", "subj", "subject", "sp", "spno", "p", "participant", "id", "no"}
#: How copies of a clip are named that somebody made of it.
_COPY = re.compile(
    r"[-_#.~ ](?:aug(?:mented)?|flip(?:ped)?|mirror(?:ed)?|rot(?:ated)?|nois[ey]|shift(?:ed)?|copy|dup)"
    r"[-_]?\d*$",
    re.IGNORECASE,
)


def person(subject: str) -> tuple[str, ...]:
    """Return what stays of a subject's name whatever way it is spelled: its database, letters and numbers.

    >>> person("samm/006") == person("SAMM/ 6") == person("samm/sub06")
    True
    >>> person("casme3/spNO.1") == person("casme3/spNO.10")
    False
    """
    plain = unicodedata.normalize("NFKC", subject).casefold()
    database, _, name = plain.rpartition("/")
    parts = [str(int(p)) if p.isdecimal() else p for p in re.findall(r"[^\W\d_]+|\d+", name)]
    return database.strip(), *(parts[1:] if len(parts) > 1 and parts[0] in _BEFORE_NUMBER else parts)


def spelled_two_ways(manifest: RunManifest) -> str:
    """Look for one person under two names on two sides of a fold.

    Raises:
        ConformanceError: There is one.
    """
    subjects = manifest.samples.subjects
    for fold, trained, held_out in _both_sides(manifest, lambda row: person(subjects[row])):
        raise ConformanceError(
            f"fold '{fold}' holds out '{subjects[held_out]}' and trains on '{subjects[trained]}', which is "
            "the same subject spelled another way; give both one spelling in the sheet, and build anew"
        )
    return f"{len(set(subjects))} subjects, none spelled two ways"


def seen_twice(manifest: RunManifest) -> str:
    """Look for one clip, or its mirror image, on two sides of a fold, whatever it is called.

    Raises:
        ConformanceError: There is one.
    """
    inputs, ids = manifest.samples.inputs, manifest.samples.sample_ids
    if not inputs:
        return f"{NOT_VISIBLE}: this run has no digests of its inputs, as those before 0.2"
    for fold, trained, held_out in _both_sides(manifest, lambda row: inputs[row]):
        raise ConformanceError(
            f"fold '{fold}' holds out {ids[held_out]} and trains on {ids[trained]}, whose maps are the same "
            "or mirrored; keep one of the two clips"
        )
    return f"{len(inputs)} inputs, none on two sides under two names"


def copied(manifest: RunManifest) -> str:
    """Look for samples that are named as copies of a clip on the other side of a fold.

    Raises:
        ConformanceError: There is one.
    """
    ids = manifest.samples.sample_ids
    clips = [_COPY.sub("", one.rpartition("/")[2]) for one in ids]
    marked = {
        (database, clip)
        for database, clip, one in zip(manifest.samples.databases, clips, ids, strict=True)
        if clip != one.rpartition("/")[2]
    }

    def clip_of(row: int) -> tuple[str, str] | str:
        clip = manifest.samples.databases[row], clips[row]
        return clip if clip in marked else ""

    for fold, trained, held_out in _both_sides(manifest, clip_of):
        raise ConformanceError(
            f"fold '{fold}' holds out {ids[held_out]} and trains on {ids[trained]}, by its name a copy of "
            "the same clip; augment in training (recipe fields flip, shift, rotate, noise), not in the data"
        )
    return "no sample is named as a copy of one on the other side"


def _both_sides(manifest: RunManifest, key: Callable[[int], object]) -> Iterator[tuple[str, int, int]]:
    """Yield fold, trained row and held-out row of samples that share a key; empty keys say nothing."""
    keys = [key(row) for row in range(len(manifest.samples.sample_ids))]
    for fold in manifest.folds:
        trained = {keys[row]: row for row in (*fold.train, *fold.inner)}
        for row in fold.test:
            if keys[row] and keys[row] in trained:
                yield fold.name, trained[keys[row]], row
