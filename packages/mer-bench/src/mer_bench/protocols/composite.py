"""What the MEGC2019 composite holds, so that nothing else is read beside its published scores."""

from __future__ import annotations

import numpy as np

from mer_bench.protocols.folds import Population

#: What the organisers' composite holds: database -> (subjects, samples per class negative, positive,
#: surprise).
MEGC2019: dict[str, tuple[int, tuple[int, int, int]]] = {
    "casme2": (24, (88, 32, 25)),
    "samm": (28, (92, 26, 15)),
    "smic": (16, (70, 51, 43)),
}


def composite_deviations(population: Population) -> tuple[str, ...]:
    """Lists where a composite differs from the 442 samples of MEGC2019; empty where it does not.

    Scores of a composite that differs must not be read beside published ones.

    Args:
        population: The samples of a `cde` run.

    Returns:
        One sentence per deviating database.
    """
    found = []
    for database, (subjects, classes) in MEGC2019.items():
        index = np.flatnonzero(population.databases == database)
        have_subjects = len(set(population.subjects[index].tolist()))
        have: list[int] = population.counts(index).tolist()
        if (have_subjects, tuple(have)) != (subjects, classes):
            found.append(
                f"{database}: {have_subjects} subjects, {sum(have)} samples ({'/'.join(map(str, have))}); "
                f"the composite has {subjects} subjects, "
                f"{sum(classes)} samples ({'/'.join(map(str, classes))})"
            )
    return tuple(found)
