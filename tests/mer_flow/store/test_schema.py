"""The store's schema: what fits, in what order samples lie, and what of a pipeline decides its maps."""

from __future__ import annotations

import random

import pytest
from tests.mer_flow.store.stores import SIDE, row

from mer_flow.store.schema import (
    canonical_json,
    deciding,
    differing_keys,
    misfit,
    pipeline_hash,
    refuse_other,
    row_digest,
    sample_order,
)
from mer_flow.work.errors import StoreMismatchError

FITTING = [
    ("flow", (3, SIDE, SIDE), "float16"),
    ("flow", (3, SIDE, SIDE), "float32"),
    ("flow_sequence", (7, 2, SIDE, SIDE), "float16"),
    ("flow_sequence", (1, 2, 8, 8), "float32"),
    ("faces", (2, SIDE, SIDE), "uint8"),
    ("faces", (2, SIDE, SIDE, 3), "uint8"),
    ("clips", (1, SIDE, SIDE), "uint8"),
    ("clips", (9, SIDE, SIDE, 3), "uint8"),
    ("landmarks", (68, 2), "float32"),
    ("regions", (5, 2), "float32"),
    ("alignment", (2, 3), "float64"),
]
MISFITS = [
    ("flow", (3, SIDE, SIDE), "float64", "float16 or float32 (3, 16, 16)"),
    ("flow", (2, SIDE, SIDE), "float16", "float16 or float32 (3, 16, 16)"),
    ("flow", (3, SIDE, SIDE + 1), "float16", "float16 or float32 (3, 16, 16)"),
    ("flow_sequence", (7, 2, SIDE + 1, SIDE + 1), "float16", "(K - 1, 2, S, S), S at most 16"),
    ("flow_sequence", (7, 2, 8, 9), "float16", "(K - 1, 2, S, S), S at most 16"),
    ("flow_sequence", (7, 3, 8, 8), "float16", "(K - 1, 2, S, S), S at most 16"),
    ("flow_sequence", (2, 8, 8), "float16", "(K - 1, 2, S, S), S at most 16"),
    ("faces", (3, SIDE, SIDE), "uint8", "uint8 (2, 16, 16[, 3])"),
    ("faces", (2, SIDE, SIDE, 4), "uint8", "uint8 (2, 16, 16[, 3])"),
    ("faces", (2, SIDE, SIDE), "float32", "uint8 (2, 16, 16[, 3])"),
    ("clips", (0, SIDE, SIDE), "uint8", "uint8 (K, 16, 16[, 3])"),
    ("clips", (4, SIDE, 8), "uint8", "uint8 (K, 16, 16[, 3])"),
    ("regions", (5, 2), "float64", "float32 (5, 2)"),
    ("landmarks", (67, 2), "float32", "float32 (68, 2)"),
    ("alignment", (2, 3), "float32", "float64 (2, 3)"),
]


@pytest.mark.parametrize(("name", "shape", "dtype"), FITTING)
def test_what_fits(name: str, shape: tuple[int, ...], dtype: str) -> None:
    assert misfit(name, shape, dtype, SIDE) == ""


@pytest.mark.parametrize(("name", "shape", "dtype", "expected"), MISFITS)
def test_what_does_not_fit(name: str, shape: tuple[int, ...], dtype: str, expected: str) -> None:
    assert expected in misfit(name, shape, dtype, SIDE)


def test_samples_lie_in_the_order_that_people_count_in() -> None:
    ordered = ["a/s1/c1", "a/s1/c02", "a/s1/c2", "a/s1/c10", "a/s2/c1", "a/s2/c1_2", "a/s10/c1", "b/s1/c1"]
    for seed in range(3):
        mixed = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(mixed, key=sample_order) == ordered


def test_equal_content_has_equal_digests_whatever_its_order() -> None:
    assert pipeline_hash({"a": 1, "b": {"c": 2, "d": "ü"}}) == pipeline_hash(
        {"b": {"d": "ü", "c": 2}, "a": 1}
    )
    assert pipeline_hash({"a": 1}) != pipeline_hash({"a": 2})
    assert canonical_json({"ü": True}) == '{"ü":true}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
    assert row_digest(row(0)) == row_digest(row(0)) != row_digest(row(0, apex=6))
    assert len(row_digest(row(0))) == 16


def test_differences_are_named_by_their_path_also_where_one_side_has_none() -> None:
    stored = {"flow": {"tau": 0.25, "deep": {"a": 1}}, "same": [1, 2], "empty": {}}
    asked = {"flow": {"tau": 0.5, "deep": {"a": 1}}, "same": [1, 2], "new": {"x": None}}
    assert differing_keys(stored, asked) == [
        ("empty", {}, "absent"),
        ("flow.tau", 0.25, 0.5),
        ("new.x", "absent", None),
    ]


@pytest.mark.parametrize(
    ("backend", "made", "decides"),
    [
        ("flow", "cv2 4.11.0", "cv2 4"),
        ("flow", "torch 2.13.0+cpu", "torch 2"),
        ("region", "mediapipe 0.10.30, model 64184e22", "mediapipe, model 64184e22"),
        ("region", "mediapipe 0.10.21", "mediapipe"),
        ("region", "dlib-68", "dlib-68"),
    ],
)
def test_of_a_version_the_flows_major_number_and_the_meshs_model_decide(
    backend: str, made: str, decides: str
) -> None:
    versions = {f"{backend}_backend": made, "numpy": "2.1.0"}
    assert deciding({"flow": {"tau": 1}, "versions": versions}) == {
        "flow": {"tau": 1},
        "versions": {f"{backend}_backend": decides},
    }
    assert deciding({"flow": {}}) == {"flow": {}, "versions": {}}


def test_other_parameters_are_refused_twelve_of_them_by_name() -> None:
    refuse_other({"a": 1}, {"a": 1}, "here", "there")
    many = {f"key_{i:02d}": i for i in range(12)}
    with pytest.raises(StoreMismatchError, match=r"\(12 differ\).*key_11: 'absent' there, 11 now\. "):
        refuse_other({}, many, "here", "there")
    with pytest.raises(StoreMismatchError, match=r"\(13 differ\).*key_11.*now; and 1 more\. "):
        refuse_other({}, {**many, "key_12": 12}, "here", "there")
    kinds = [{"map_kind": {"kind": kind}, "x": kind} for kind in ("imported", "computed")]
    with pytest.raises(StoreMismatchError, match="here holds imported maps, and computed ones"):
        refuse_other(*kinds, "here", "there")
