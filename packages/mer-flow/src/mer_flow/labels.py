"""Label schemes: what class a sample has, or why it has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.samples import Sample


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sample that a scheme gives no class, and why."""

    reason: str


@dataclass(frozen=True)
class LabelScheme:
    """A named mapping of samples to classes.

    Attributes:
        name: As in `megc3`.
        classes: Class names; a label is an index into them.
        databases: The databases the scheme is for.
        source: Who defined it.
        rule: Gives the class of a sample of these databases.
    """

    name: str
    classes: tuple[str, ...]
    databases: tuple[str, ...]
    source: str
    rule: Callable[[Sample], str | Dropped]

    def label(self, sample: Sample) -> int | Dropped:
        """Returns a sample's class index, or the reason why the scheme drops it."""
        answer = self.rule(sample)
        return answer if isinstance(answer, Dropped) else self.classes.index(answer)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A table seen through a scheme.

    Attributes:
        scheme: The scheme's name.
        classes: Its class names.
        labels: `sample_id` -> class index, in table order.
        dropped: `sample_id` -> reason, in table order.
    """

    scheme: str
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    dropped: Mapping[str, str]

    def counts(self) -> tuple[int, ...]:
        """Returns the number of samples per class; a class without samples counts 0."""
        values = list(self.labels.values())
        return tuple(values.count(index) for index in range(len(self.classes)))

    def dropped_by_reason(self) -> dict[str, int]:
        """Returns how many samples each reason dropped, the most frequent first."""
        reasons = list(self.dropped.values())
        return dict(
            sorted(((r, reasons.count(r)) for r in dict.fromkeys(reasons)), key=lambda item: -item[1])
        )


_NEGATIVE, _POSITIVE, _SURPRISE = "negative", "positive", "surprise"
_VALENCE = {name: name for name in (_NEGATIVE, _POSITIVE, _SURPRISE)}

#: Emotion -> class of the composite; negative is every negative emotion of SAMM, but two of CASME II.
_MEGC: Mapping[str, Mapping[str, str]] = {
    "smic": _VALENCE,
    "casme2": {
        **_VALENCE,
        "disgust": _NEGATIVE,
        "repression": _NEGATIVE,
        "happiness": _POSITIVE,
    },
    "samm": {
        **_VALENCE,
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), _NEGATIVE),
        "happiness": _POSITIVE,
    },
}

#: Clips with a fitting emotion that the organisers' list does not have.
_MEGC_EXCLUDED: Mapping[str, str] = {
    "casme2/sub04/EP12_01f": "the organisers' list leaves it out: its apex is marked '/' in the sheet",
    "casme2/sub05/EP09_05f": "the organisers' list leaves it out: its apex equals its onset",
    "casme2/sub09/EP02_02f": "the organisers' list leaves it out: the 2014 sheet has no row for it",
    "casme2/sub24/EP02_07": "the organisers' list leaves it out: the 2014 sheet has no row for it",
}

#: How the SMIC reader names a second or third micro-expression of a long clip that has no name of its own.
EXTRA_CLIP = re.compile(r"_me\d+$")

#: SMIC-HS is recorded at 100 fps, SMIC-VIS and SMIC-NIR at 25.
_SMIC_HS_FPS = 100.0

_CASME3_ALIASES = {"happiness": "happy", "sadness": "sad", "other": "others"}
_CASME3_VALENCE = {
    **_VALENCE,
    **dict.fromkeys(("disgust", "fear", "anger", "sad"), _NEGATIVE),
    "happy": _POSITIVE,
}
_OBJECTIVE = ("I", "II", "III", "IV", "V", "VI", "VII")


def _no_class(emotion: str) -> Dropped:
    if not emotion:
        return Dropped("the sheet gives no emotion")
    return Dropped(f"emotion '{emotion}' has no class in this scheme")


def _by_emotion(databases: tuple[str, ...], mapping: Mapping[str, str]) -> Callable[[Sample], str | Dropped]:
    def rule(sample: Sample) -> str | Dropped:
        if sample.database not in databases:
            return Dropped(
                f"database '{sample.database}' is not one of this scheme's: {', '.join(databases)}"
            )
        emotion = (
            _CASME3_ALIASES.get(sample.emotion, sample.emotion)
            if databases == ("casme3",)
            else sample.emotion
        )
        return mapping.get(emotion) or _no_class(sample.emotion)

    return rule


def _megc3(sample: Sample) -> str | Dropped:
    if sample.database == "casme3":
        return Dropped("database 'casme3' is not part of the MEGC2019 composite")
    if sample.sample_id in _MEGC_EXCLUDED:
        return Dropped(_MEGC_EXCLUDED[sample.sample_id])
    if sample.database == "smic" and EXTRA_CLIP.search(sample.clip):
        return Dropped("a further micro-expression of a long clip, not among the 164 of the basic release")
    if sample.database == "smic" and 0 < sample.fps < _SMIC_HS_FPS:
        return Dropped("the composite uses the high-speed recordings (SMIC-HS), not VIS or NIR")
    return _MEGC.get(sample.database, _VALENCE).get(sample.emotion) or _no_class(sample.emotion)


def _objective5(sample: Sample) -> str | Dropped:
    if sample.database not in ("casme2", "samm", "casme3"):
        return Dropped(f"database '{sample.database}' has no objective classes")
    number = sample.objective_class
    if number == 0:
        return Dropped(
            "no objective class (CASME II keeps them in a file of its own, to lie next to the sheet)"
        )
    return (
        _OBJECTIVE[number - 1]
        if number <= 5
        else Dropped(f"objective class {_OBJECTIVE[number - 1]} is left out")
    )


def _scheme(
    name: str,
    databases: tuple[str, ...],
    source: str,
    mapping: Mapping[str, str],
    classes: Iterable[str] = (),
) -> LabelScheme:
    order = tuple(classes) or tuple(dict.fromkeys(mapping.values()))
    return LabelScheme(name, order, databases, source, _by_emotion(databases, mapping))


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


SCHEMES: Mapping[str, LabelScheme] = {
    scheme.name: scheme
    for scheme in (
        LabelScheme(
            "megc3",
            (_NEGATIVE, _POSITIVE, _SURPRISE),
            ("smic", "samm", "casme2"),
            "See et al. 2019, MEGC2019 (doi:10.1109/FG.2019.8756611)",
            _megc3,
        ),
        _scheme(
            "casme2-5",
            ("casme2",),
            "Yan et al. 2014, CASME II (doi:10.1371/journal.pone.0086041), without fear and sadness",
            _same("happiness", "surprise", "disgust", "repression", "others"),
        ),
        _scheme(
            "samm-5",
            ("samm",),
            "the classes with ten samples or more of Davison et al. 2018 (doi:10.1109/TAFFC.2016.2573832)",
            _same("anger", "contempt", "happiness", "surprise", "other"),
        ),
        _scheme(
            "casme3-3",
            ("casme3",),
            "Li et al. 2023, CAS(ME)^3 (doi:10.1109/TPAMI.2022.3174895), others left out",
            _CASME3_VALENCE,
            (_NEGATIVE, _POSITIVE, _SURPRISE),
        ),
        _scheme(
            "casme3-4",
            ("casme3",),
            "Li et al. 2023, CAS(ME)^3 (doi:10.1109/TPAMI.2022.3174895)",
            {**_CASME3_VALENCE, "others": "others"},
            (_NEGATIVE, _POSITIVE, _SURPRISE, "others"),
        ),
        _scheme(
            "casme3-7",
            ("casme3",),
            "Li et al. 2023, CAS(ME)^3 (doi:10.1109/TPAMI.2022.3174895)",
            _same("happy", "disgust", "fear", "anger", "sad", "surprise", "others"),
        ),
        LabelScheme(
            "objective-5",
            _OBJECTIVE[:5],
            ("samm", "casme2", "casme3"),
            "Davison et al. 2018, objective classes I to V (doi:10.3390/jimaging4100119)",
            _objective5,
        ),
    )
}


def get_scheme(name: str) -> LabelScheme:
    """Returns a label scheme by name.

    Raises:
        UsageError: There is no such scheme; the message suggests the nearest.

    >>> get_scheme("megc3").classes
    ('negative', 'positive', 'surprise')
    """
    if name not in SCHEMES:
        raise unknown("label scheme", name, SCHEMES)
    return SCHEMES[name]


def apply_scheme(table: Iterable[Sample], scheme: LabelScheme | str) -> Labelled:
    """Labels every sample of a table, or says why not.

    Args:
        table: The samples, such as a `SampleTable`.
        scheme: A scheme or its name.

    Returns:
        Labels and dropped samples, both in table order; every sample is in exactly one of them.
    """
    chosen = get_scheme(scheme) if isinstance(scheme, str) else scheme
    labels: dict[str, int] = {}
    dropped: dict[str, str] = {}
    for sample in table:
        answer = chosen.label(sample)
        if isinstance(answer, Dropped):
            dropped[sample.sample_id] = answer.reason
        else:
            labels[sample.sample_id] = answer
    return Labelled(chosen.name, chosen.classes, labels, dropped)


def megc_key(sample: Sample) -> tuple[str, str, str]:
    """Returns the (database, subject, clip) under which the MEGC2019 organisers' list has a sample.

    Their list pads SMIC's clips (`s01_ne_01`) and does not pad SAMM's subjects (`6`).
    """
    subject = sample.subject.partition("/")[2]
    clip = sample.clip
    if sample.database == "samm":
        subject = str(int(subject)) if subject.isdigit() else subject
    elif sample.database == "smic":
        match = re.fullmatch(r"s(\d+)(_.+)", clip)
        clip = f"s{int(match[1]):02d}{match[2]}" if match else clip
    return sample.database, subject, clip


def megc_sample_id(database: str, subject: str, clip: str) -> str:
    """Returns the `sample_id` of an entry of the MEGC2019 organisers' list; the inverse of `megc_key`.

    Args:
        database: `casme2`, `smic` or `samm`.
        subject: As in the list: `sub01`, `s01`, `6` (or `006`).
        clip: As in the list: `EP02_01f`, `s01_ne_01` (or `s1_ne_01`), `006_1_2`.

    Raises:
        UsageError: The database is not part of the composite.

    >>> megc_sample_id("samm", "6", "006_1_2"), megc_sample_id("smic", "s01", "s01_ne_01")
    ('samm/006/006_1_2', 'smic/s01/s1_ne_01')
    """
    if database not in SCHEMES["megc3"].databases:
        raise unknown("MEGC2019 database", database, SCHEMES["megc3"].databases)
    try:
        if database == "samm":
            subject = f"{int(subject):03d}"
        elif database == "smic":
            subject = f"s{int(subject.lstrip('s')):02d}"
            clip = re.sub(r"^s0*(\d+)_", r"s\1_", clip)
    except ValueError:
        raise UsageError(
            f"'{subject}' is not a {database} subject of the MEGC2019 list (clip {clip})"
        ) from None
    return f"{database}/{subject}/{clip}"
