"""Label schemes: every emotion's class or reason, and the organisers' spelling of clips."""

from __future__ import annotations

import pytest

from mer_flow.databases.completeness import load, megc2019
from mer_flow.labels import SCHEMES, Dropped, apply_scheme, get_scheme, megc_key, megc_sample_id
from mer_flow.samples import Sample, SampleTable
from mer_flow.work.errors import UsageError

FPS = {"smic": 100.0, "samm": 200.0, "casme2": 200.0, "casme3": 30.0}


def sample(database, emotion="", clip="clip", subject="s", objective=0, fps=None):
    return Sample(
        sample_id=f"{database}/{subject}/{clip}",
        database=database,
        subject=f"{database}/{subject}",
        clip=clip,
        onset=1,
        apex=2,
        offset=3,
        apex_source="sheet",
        emotion=emotion,
        action_units="",
        objective_class=objective,
        fps=FPS.get(database, 0.0) if fps is None else fps,
    )


def named(scheme, *args, **kwargs):
    answer = get_scheme(scheme).label(sample(*args, **kwargs))
    return None if isinstance(answer, Dropped) else get_scheme(scheme).classes[answer]


MEGC3 = {
    "casme2": {
        **dict.fromkeys(("disgust", "repression"), "negative"),
        "happiness": "positive",
        "surprise": "surprise",
        **dict.fromkeys(("others", "sadness", "fear")),
    },
    "samm": {
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), "negative"),
        "happiness": "positive",
        "surprise": "surprise",
        "other": None,
    },
    "smic": {"negative": "negative", "positive": "positive", "surprise": "surprise", "happiness": None},
}


@pytest.mark.parametrize(("database", "mapping"), MEGC3.items())
def test_megc3_per_database(database, mapping):
    assert {emotion: named("megc3", database, emotion) for emotion in mapping} == mapping


@pytest.mark.parametrize("database", ["smic", "samm", "casme2", "my-own"])
def test_megc3_takes_the_three_classes_themselves_from_any_database(database):
    assert [named("megc3", database, e) for e in ("negative", "positive", "surprise")] == list(
        SCHEMES["megc3"].classes
    )


def test_megc3_leaves_casme3_out_even_where_an_emotion_fits():
    answer = get_scheme("megc3").label(sample("casme3", "surprise"))
    assert answer == Dropped("database 'casme3' is not part of the MEGC2019 composite")


@pytest.mark.parametrize(
    ("subject", "clip"),
    [("sub04", "EP12_01f"), ("sub05", "EP09_05f"), ("sub09", "EP02_02f"), ("sub24", "EP02_07")],
)
def test_megc3_drops_the_clips_the_organisers_dropped(subject, clip):
    assert ("casme2", subject, clip) not in megc2019()
    answer = get_scheme("megc3").label(sample("casme2", "disgust", clip, subject))
    assert isinstance(answer, Dropped)
    assert answer.reason.startswith("the organisers' list leaves it out: ")


def test_meb_drops_a_clip_that_the_organisers_have():
    assert named("megc3", "casme2", "surprise", "EP12_03f", "sub05") == "surprise"
    assert megc2019()[("casme2", "sub05", "EP12_03f")] == 2


@pytest.mark.parametrize(
    ("fps", "clip", "reason"),
    [
        (25.0, "s1_ne_01", "SMIC-HS"),  # VIS and NIR
        (0.5, "s1_ne_01", "SMIC-HS"),
        (100.0, "s1_ne_01_me2", "further micro-expression"),
        (100.0, "s1_ne_01", None),
        (0.0, "s1_ne_01", None),  # a rate that nobody knows decides nothing
        (100.0, "me2_ne_01", None),
    ],
)
def test_megc3_takes_the_first_expression_of_each_high_speed_recording(fps, clip, reason):
    answer = get_scheme("megc3").label(sample("smic", "negative", clip, "s01", fps=fps))
    assert answer == 0 if reason is None else reason in answer.reason


def test_megc_keys_drop_the_zeros_of_samm_alone():
    assert megc_key(sample("samm", clip="006_1_2", subject="006")) == ("samm", "6", "006_1_2")
    assert megc_key(sample("samm", clip="c", subject="x06")) == ("samm", "x06", "c")
    assert megc_key(sample("casme2", clip="s1_c", subject="006")) == ("casme2", "006", "s1_c")
    assert megc_key(sample("smic", clip="s3_ne_01", subject="006")) == ("smic", "006", "s03_ne_01")


CASME3 = ("happy", "disgust", "fear", "anger", "sad", "surprise", "others")


def test_the_other_schemes_map_every_emotion_of_their_manifest():
    assert [named("casme3-3", "casme3", e) for e in CASME3] == [
        *("positive", "negative", "negative", "negative", "negative", "surprise", None)
    ]
    assert [named("casme3-4", "casme3", e) for e in CASME3][-1] == "others"
    assert [named("casme3-7", "casme3", e) for e in CASME3] == list(CASME3)
    assert named("casme3-7", "casme3", "sadness") == "sad"
    assert [named("casme2-5", "casme2", e) for e in load("casme2").versions[0].emotions] == [
        *("others", "disgust", "happiness", "repression", "surprise", None, None)
    ]
    assert [named("samm-5", "samm", e) for e in ("anger", "other", "disgust")] == ["anger", "other", None]


@pytest.mark.parametrize(
    ("scheme", "database"), [("casme2-5", "samm"), ("samm-5", "casme2"), ("casme3-3", "casme2")]
)
def test_a_scheme_of_one_database_drops_the_others(scheme, database):
    answer = get_scheme(scheme).label(sample(database, "surprise"))
    assert isinstance(answer, Dropped)
    assert f"database '{database}' is not one of this scheme's" in answer.reason


def test_objective_5():
    found = [named("objective-5", "samm", objective=n) for n in range(8)]
    assert found == [None, "I", "II", "III", "IV", "V", None, None]
    answer = get_scheme("objective-5").label(sample("casme2"))
    assert isinstance(answer, Dropped)
    assert "file of its own" in answer.reason
    assert named("objective-5", "smic", "surprise", objective=1) is None


def test_classes_and_order_are_fixed():
    assert {name: SCHEMES[name].classes for name in SCHEMES} == {
        "megc3": ("negative", "positive", "surprise"),
        "casme2-5": ("happiness", "surprise", "disgust", "repression", "others"),
        "samm-5": ("anger", "contempt", "happiness", "surprise", "other"),
        "casme3-3": ("negative", "positive", "surprise"),
        "casme3-4": ("negative", "positive", "surprise", "others"),
        "casme3-7": CASME3,
        "objective-5": ("I", "II", "III", "IV", "V"),
    }
    assert all(SCHEMES[name].source for name in SCHEMES)


def test_apply_scheme_places_every_sample_once_in_order():
    table = SampleTable(
        [
            sample("samm", e, clip=f"006_1_{i}")
            for i, e in enumerate(["other", "fear", "happiness", "other", "other", ""])
        ]
    )
    labelled = apply_scheme(table, "megc3")
    assert dict(labelled.labels) == {"samm/s/006_1_1": 0, "samm/s/006_1_2": 1}
    assert list(labelled.labels) + list(labelled.dropped) == [f"samm/s/006_1_{i}" for i in (1, 2, 0, 3, 4, 5)]
    assert labelled.counts() == (1, 1, 0)
    assert labelled.dropped_by_reason() == {
        "emotion 'other' has no class in this scheme": 3,
        "the sheet gives no emotion": 1,
    }


def test_an_unknown_scheme_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="unknown label scheme 'megc-3'; did you mean 'megc3'"):
        get_scheme("megc-3")


def test_megc_keys_and_sample_ids_are_inverse_over_the_whole_list():
    for key in megc2019():
        sample_id = megc_sample_id(*key)
        database, subject, clip = sample_id.split("/")
        assert megc_key(sample(database, clip=clip, subject=subject)) == key
    assert len({megc_sample_id(*key) for key in megc2019()}) == 442
    assert megc_sample_id("samm", "006", "006_1_2") == "samm/006/006_1_2"
    with pytest.raises(UsageError, match="is not a samm subject"):
        megc_sample_id("samm", "six", "006_1_2")
    with pytest.raises(UsageError, match="unknown MEGC2019 database"):
        megc_sample_id("casme3", "spNO.1", "a_1")
