"""Making a plan's subjects move as people do, so that classes are no longer plain to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mer_flow.synthetic.casting import AMPLITUDE_BANDS, Plan

#: The weakest and the strongest subject's part of the planned amplitudes; none falls below the lowest band.
STRENGTHS = (0.3, 0.7)
#: What goes along with a movement, as part of it; and a face's weaker half, as part of the other.
ASIDES = (0.0, 0.9)
WEAKER_HALVES = (0.3, 1.0)
#: How often the half that leads in a subject does.
_LEADING = 0.75


def lifelike(plan: Plan, rng: np.random.Generator) -> Plan:
    """Weaken a plan's movements by subject, let one half of the face lead, and something else go along.

    Names, numbers, labels and sheets stay as they are.

    Args:
        plan: The tree's.
        rng: Source of every choice.
    """
    subjects = sorted({clip.role.subject for clip in plan.clips})
    strengths = dict(zip(subjects, rng.permutation(np.linspace(*STRENGTHS, len(subjects))), strict=True))
    leads = dict(zip(subjects, rng.integers(2, size=len(subjects)), strict=True))
    clips = []
    for clip in plan.clips:
        role = clip.role
        others = [other.role.movement for other in plan.clips if other.role.kind != role.kind]
        weaker = float(rng.uniform(*WEAKER_HALVES))
        left = (rng.random() < _LEADING) == (leads[role.subject] == 0)
        amplitude = max(float(strengths[role.subject]) * role.amplitude, AMPLITUDE_BANDS[0][0])
        changed = replace(
            role,
            amplitude=round(amplitude, 3),
            halves=(1.0, weaker) if left else (weaker, 1.0),
            aside=others[int(rng.integers(len(others)))] if others else "",
            share=float(rng.uniform(*ASIDES)),
        )
        clips.append(replace(clip, role=changed))
    return replace(plan, clips=tuple(clips))
