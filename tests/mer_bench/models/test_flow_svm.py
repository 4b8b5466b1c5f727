"""flow-SVM: histograms that mirror, its kernel against the formula, chance where labels mean nothing."""

import numpy as np
import pytest

from mer_bench.errors import UsageError
from mer_bench.models.flow_svm import FlowSVM, orientation_histograms


def flows(count: int, seed: int = 0, channels: int = 3, size: int = 12) -> np.ndarray:
    maps = np.random.default_rng(seed).normal(size=(count, channels, size, size)).astype(np.float32)
    maps[:, 2::3] = np.abs(maps[:, 2::3])
    return maps


def test_a_mirrored_map_has_mirrored_histograms() -> None:
    u, v, _ = flows(1)[0].astype(np.float64)
    of_mirror = orientation_histograms(-u[:, ::-1], v[:, ::-1]).reshape(5, 5, 8)
    # Bin k lies about k eighths of the circle from the right: mirrored, 0 is 4, 1 is 3, 5 is 7.
    back = of_mirror[:, ::-1, (4 - np.arange(8)) % 8]
    # 12 px in five blocks: edges at 0, 2, 5, 7, 10, 12 are symmetric.
    np.testing.assert_allclose(back.ravel(), orientation_histograms(u, v), atol=1e-15)


def test_histograms_weigh_directions_by_magnitude() -> None:
    u, v = np.zeros((10, 10)), np.zeros((10, 10))
    u[0, 0], v[9, 9] = 3.0, -1.0
    counts = orientation_histograms(u, v).reshape(5, 5, 8)
    assert (counts[0, 0, 0], counts[4, 4, 6]) == (0.75, 0.25) and counts.sum() == 1
    assert not orientation_histograms(0 * u, 0 * v).any()


def test_kernel_is_the_formula() -> None:
    svm, maps, labels = FlowSVM(map_size=12), flows(6), np.arange(6) % 3
    features = svm.features(maps, "whole-12:centred-rms")
    svm.fit(features, labels)
    mirrored = maps[..., ::-1] * np.array([-1, 1, 1])[:, None, None]
    groups = []
    for one in np.concatenate([maps, mirrored]).astype(np.float64):
        half = [np.array([[m[i : i + 2, j : j + 2].mean() for j in range(0, 12, 2)] for i in range(0, 12, 2)])
                for m in one]  # fmt: skip
        groups.append((np.stack(half[:2]), half[2], np.sqrt(orientation_histograms(*one[:2]))))
    d2 = np.array([[[np.square(a - b).sum() for a, b in zip(x, y, strict=True)] for y in groups]
                   for x in groups])  # fmt: skip
    expected = np.exp(-2.0 * (d2 / d2.mean((0, 1))).mean(-1))
    kernel = svm._kernel(svm._distances(svm._unfold(features)))
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


def test_probabilities_are_those_of_the_mirrored_map_and_of_the_classes_seen() -> None:
    svm, maps = FlowSVM(map_size=12), flows(20)
    svm.fit(svm.features(maps), np.arange(20) % 2 * 2)
    mirrored = maps[..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    ours, theirs = (svm.predict_proba(svm.features(m)) for m in (maps, mirrored))
    assert ours.shape == (20, 2) and svm.classes_.tolist() == [0, 2]
    np.testing.assert_allclose(ours.sum(1), 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert set(svm.predict(svm.features(maps)).tolist()) == {0, 2}


@pytest.mark.parametrize(("permuted", "low", "high"), [(False, 0.9, 1.0), (True, 0.1, 0.55)])
def test_learns_movements_and_stays_at_chance_where_labels_are_permuted(
    permuted: bool, low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    maps = 0.3 * flows(120, 1)
    maps[np.arange(120), :, 4:8, 4:8] += np.eye(3, dtype=np.float32)[labels][:, :, None, None]
    seen = rng.permutation(labels) if permuted else labels
    features = FlowSVM(map_size=12).features(maps)
    svm = FlowSVM(map_size=12).fit(features[:90], seen[:90])
    assert low <= (svm.predict(features[90:]) == seen[90:]).mean() <= high


@pytest.mark.parametrize("view", ["whole-12:minmax-255", "clips-12:raw", "whole-12+faces-12:centred-rms"])
def test_refuses_what_is_no_flow_or_has_no_zero(view: str) -> None:
    with pytest.raises(UsageError, match=f"zero is zero.*not {view.replace('+', '.')}"):
        FlowSVM(map_size=12).features(flows(1), view)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 4}, "these have 4"),
        ({"map_size": 27}, "even side from 10 px, got 27"),
        ({"cost": 0.0}, "above 0, got 0.0"),
        ({"gamma": -1.0}, "above 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FlowSVM(**options)  # type: ignore[arg-type]


def test_two_maps_weigh_alike() -> None:
    maps = flows(8, channels=6)
    svm = FlowSVM(in_channels=6, map_size=12)
    svm.fit(svm.features(maps), np.arange(8) % 2)
    assert len(svm._unit) == 6
