"""The majority class: the floor of the composite."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mer_bench.models.majority import MajorityClass


def test_floor_of_the_composite():
    """Labels in the composite's proportions, 68 subjects; maps without meaning."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat([0, 1, 2], [250, 109, 83])).astype(np.int64)
    subjects = np.concatenate([np.arange(68), generator.integers(0, 68, 442 - 68)])
    maps, predicted = np.zeros((442, 3, 2, 2), np.float32), np.full(442, -1)
    for subject in range(68):
        held_out = subjects == subject
        model = MajorityClass(3).fit(maps[~held_out], labels[~held_out])
        predicted[held_out] = model.predict(maps[held_out])
        np.testing.assert_allclose(
            model.predict_proba(maps[:1])[0], np.bincount(labels[~held_out]) / (~held_out).sum()
        )
    assert f1_score(labels, predicted, average="macro") == pytest.approx(0.241, abs=5e-4)
