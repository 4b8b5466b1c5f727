"""Subjects that move as people do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mer_flow.synthetic.casting import AMPLITUDE_BANDS
from mer_flow.synthetic.people import lifelike
from mer_flow.synthetic.tree import synthetic_databases, twin_of

DATABASES = ("casme2", "samm", "smic", "casme3")


def plan_of(database):
    return twin_of(database).plan(6, 6, np.random.default_rng(0))


@pytest.mark.parametrize("database", DATABASES)
def test_no_class_is_plain_to_see(database):
    assert database in synthetic_databases()
    roles = [clip.role for clip in lifelike(plan_of(database), np.random.default_rng(1)).clips]
    assert min(min(role.halves) for role in roles) < 0.5 and all(max(role.halves) == 1 for role in roles)
    shares = [role.share for role in roles]
    assert min(shares) < 0.2 and 0.6 < max(shares) < 0.9
    kinds = {}
    for role in roles:
        kinds.setdefault(role.movement, set()).add(role.kind)
    assert all(kinds[role.aside] != {role.kind} for role in roles)
    strength = {s: np.mean([r.amplitude for r in roles if r.subject == s]) for s in range(6)}
    assert max(strength.values()) > 1.3 * min(strength.values())
    assert min(role.amplitude for role in roles) >= AMPLITUDE_BANDS[0][0]


def test_all_else_stays_as_it_was():
    plan = plan_of("casme2")
    changed = lifelike(plan, np.random.default_rng(1))
    for before, after in zip(plan.clips, changed.clips, strict=True):
        assert replace(after, role=before.role) == before
        assert (after.role.emotion, after.role.movement) == (before.role.emotion, before.role.movement)
    assert changed == lifelike(plan, np.random.default_rng(1)) != lifelike(plan, np.random.default_rng(2))


def test_a_single_clip_has_nothing_to_go_along():
    plan = twin_of("smic").plan(1, 1, np.random.default_rng(0))
    assert lifelike(plan, np.random.default_rng(0)).clips[0].role.aside == ""
