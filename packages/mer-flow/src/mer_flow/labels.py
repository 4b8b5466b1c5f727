"""Label schemes: what class a sample has, or why it has none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mer_flow.work.errors import UsageError
from mer_flow.work.plugins import Plugins
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.samples import Sample


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sample that a scheme gives no class, and why."""

    reason: str


#: Gives the class of a sample of one database.
Rule = Callable[["Sample"], "str | Dropped"]


@dataclass(frozen=True)
class LabelScheme:
    """A named mapping of samples to classes.

    Attributes:
        name: As in `megc3`.
        classes: Class names; a label is an index into them.
        source: Who defined it.
        rules: Database -> its rule. These databases the scheme covers; nothing else decides that.
        otherwise: The rule for samples of any other database; without one they are dropped.
    """

    name: str
    classes: tuple[str, ...]
    source: str
    rules: Mapping[str, Rule]
    otherwise: Rule | None = None

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases that the scheme covers."""
        return tuple(self.rules)

    def label(self, sample: Sample) -> int | Dropped:
        """Return a sample's class index, or the reason why the scheme drops it."""
        rule = self.rules.get(sample.database, self.otherwise)
        if rule is None:
            covered = ", ".join(self.rules)
            return Dropped(f"database '{sample.database}' is not one of this scheme's: {covered}")
        answer = rule(sample)
        return answer if isinstance(answer, Dropped) else self.classes.index(answer)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A table seen through a scheme: `sample_id` -> class index, or -> reason, both in table order."""

    scheme: str
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    dropped: Mapping[str, str]

    def counts(self) -> tuple[int, ...]:
        """Return the number of samples per class; a class without samples counts 0."""
        found = Counter(self.labels.values())
        return tuple(found[index] for index in range(len(self.classes)))

    def dropped_by_reason(self) -> dict[str, int]:
        """Return how many samples each reason dropped, the most frequent first."""
        return dict(Counter(self.dropped.values()).most_common())


def by_emotion(classes: Mapping[str, str]) -> Rule:
    """Return the rule that looks a sample's emotion up (emotion in lower case -> class)."""

    def rule(sample: Sample) -> str | Dropped:
        if not sample.emotion:
            return Dropped("the sheet gives no emotion")
        no_class = Dropped(f"emotion '{sample.emotion}' has no class in this scheme")
        return classes.get(sample.emotion) or no_class

    return rule


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_NEGATIVE, _POSITIVE, _SURPRISE = _VALENCES = ("negative", "positive", "surprise")
_VALENCE = by_emotion(_same(*_VALENCES))

#: Negative is every negative emotion of SAMM, but two of CASME II.
_MEGC_CASME2 = _same(*_VALENCES) | {"disgust": _NEGATIVE, "repression": _NEGATIVE, "happiness": _POSITIVE}
_MEGC_SAMM = {
    **_same(*_VALENCES),
    **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), _NEGATIVE),
    "happiness": _POSITIVE,
}

#: Clips with a fitting emotion that the organisers' list does not have.
_MEGC_EXCLUDED = {
    "casme2/sub04/EP12_01f": "its apex is marked '/' in the sheet",
    "casme2/sub05/EP09_05f": "its apex equals its onset",
    "casme2/sub09/EP02_02f": "the 2014 sheet has no row for it",
    "casme2/sub24/EP02_07": "the 2014 sheet has no row for it",
}

#: How the SMIC reader names a second or third micro-expression of a long clip that has no name of its own.
EXTRA_CLIP = re.compile(r"_me\d+$")

#: SMIC-HS is recorded at 100 fps, SMIC-VIS and SMIC-NIR at 25.
_SMIC_HS_FPS = 100.0


def _megc_casme2(sample: Sample) -> str | Dropped:
    if sample.sample_id in _MEGC_EXCLUDED:
        return Dropped(f"the organisers' list leaves it out: {_MEGC_EXCLUDED[sample.sample_id]}")
    return by_emotion(_MEGC_CASME2)(sample)


def _megc_smic(sample: Sample) -> str | Dropped:
    if EXTRA_CLIP.search(sample.clip):
        return Dropped("a further micro-expression of a long clip, not among the 164 of the basic release")
    if 0 < sample.fps < _SMIC_HS_FPS:
        return Dropped("the composite uses the high-speed recordings (SMIC-HS), not VIS or NIR")
    return _VALENCE(sample)


def _megc_other(sample: Sample) -> str | Dropped:
    """Take the classes themselves from maps of one's own."""
    if sample.database == "casme3":  # its `surprise` would fit
        return Dropped("database 'casme3' is not part of the MEGC2019 composite")
    return _VALENCE(sample)


_CASME3_ALIASES = {"happiness": "happy", "sadness": "sad", "other": "others"}
_CASME3_VALENCE = {
    **_same(*_VALENCES),
    **dict.fromkeys(("disgust", "fear", "anger", "sad"), _NEGATIVE),
    "happy": _POSITIVE,
}


def _casme3(classes: Mapping[str, str]) -> dict[str, Rule]:
    aliases = {alias: classes[word] for alias, word in _CASME3_ALIASES.items() if word in classes}
    return {"casme3": by_emotion({**classes, **aliases})}


_OBJECTIVE = ("I", "II", "III", "IV", "V", "VI", "VII")


def _objective5(sample: Sample) -> str | Dropped:
    if sample.objective_class == 0:
        where = "CASME II keeps them in a file of its own, to lie next to the sheet"
        return Dropped(f"no objective class ({where})")
    name = _OBJECTIVE[sample.objective_class - 1]
    return name if name in _OBJECTIVE[:5] else Dropped(f"objective class {name} is left out")


_CASME2_5 = ("happiness", "surprise", "disgust", "repression", "others")
_SAMM_5 = ("anger", "contempt", "happiness", "surprise", "other")
_CASME3_7 = ("happy", "disgust", "fear", "anger", "sad", "surprise", "others")
_CASME3 = "Li et al. 2023, CAS(ME)^3 (doi:10.1109/TPAMI.2022.3174895)"

_OWN = (
    LabelScheme(
        "megc3",
        _VALENCES,
        "See et al. 2019, MEGC2019 (doi:10.1109/FG.2019.8756611)",
        {"smic": _megc_smic, "samm": by_emotion(_MEGC_SAMM), "casme2": _megc_casme2},
        otherwise=_megc_other,
    ),
    LabelScheme(
        "casme2-5",
        _CASME2_5,
        "Yan et al. 2014, CASME II (doi:10.1371/journal.pone.0086041), without fear and sadness",
        {"casme2": by_emotion(_same(*_CASME2_5))},
    ),
    LabelScheme(
        "samm-5",
        _SAMM_5,
        "the classes with ten samples or more of Davison et al. 2018 (doi:10.1109/TAFFC.2016.2573832)",
        {"samm": by_emotion(_same(*_SAMM_5))},
    ),
    LabelScheme("casme3-3", _VALENCES, f"{_CASME3}, others left out", _casme3(_CASME3_VALENCE)),
    LabelScheme(
        "casme3-4", (*_VALENCES, "others"), _CASME3, _casme3({**_CASME3_VALENCE, "others": "others"})
    ),
    LabelScheme("casme3-7", _CASME3_7, _CASME3, _casme3(_same(*_CASME3_7))),
    LabelScheme(
        "objective-5",
        _OBJECTIVE[:5],
        "Davison et al. 2018, objective classes I to V (doi:10.3390/jimaging4100119)",
        dict.fromkeys(("samm", "casme2", "casme3"), _objective5),
    ),
)


def _scheme(name: str, found: object) -> LabelScheme:
    if not isinstance(found, LabelScheme) or found.name != name:
        raise TypeError(f"expected a LabelScheme of that name, got {found!r}")
    return found


#: Every scheme by name: ours, and those that packages bring through the entry points `mer_flow.schemes`.
SCHEMES: Plugins[LabelScheme] = Plugins(
    "mer_flow.schemes", "label scheme", _scheme, own={scheme.name: scheme for scheme in _OWN}
)


def get_scheme(name: str) -> LabelScheme:
    """Return a label scheme by name.

    Raises:
        UsageError: There is no such scheme (the message suggests the nearest), or its package is broken.

    >>> get_scheme("megc3").classes
    ('negative', 'positive', 'surprise')
    """
    return SCHEMES[name]


def apply_scheme(table: Iterable[Sample], scheme: LabelScheme | str) -> Labelled:
    """Label every sample of a table, or say why not; every sample is in exactly one of both.

    Args:
        table: The samples, such as a `SampleTable`.
        scheme: A scheme or its name.
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
    """Return the (database, subject, clip) under which the MEGC2019 organisers' list has a sample.

    Their list pads SMIC's clips (`s01_ne_01`) and does not pad SAMM's subjects (`6`).
    """
    subject, clip = sample.subject.partition("/")[2], sample.clip
    if sample.database == "samm" and subject.isdecimal():
        subject = str(int(subject))
    elif sample.database == "smic":
        clip = re.sub(r"^s(\d+)_", lambda match: f"s{int(match[1]):02d}_", clip)
    return sample.database, subject, clip


def megc_sample_id(database: str, subject: str, clip: str) -> str:
    """Return the `sample_id` of an entry of the MEGC2019 organisers' list; the inverse of `megc_key`.

    Args:
        database: One of the composite.
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
