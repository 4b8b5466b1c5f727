"""What the MEGC2019 composite holds, so that nothing else is read beside its published scores."""

from __future__ import annotations

import numpy as np

from mer_bench.protocols.folds import Population

#: Database -> (subjects, samples per class negative, positive, surprise).
MEGC2019 = {
    "casme2": (24, (88, 32, 25)),
    "samm": (28, (92, 26, 15)),
    "smic": (16, (70, 51, 43)),
}


def composite_deviations(population: Population) -> tuple[str, ...]:
    """Say, a sentence per database, where the samples of a `cde` run differ from the 442 of MEGC2019.

    Scores of a composite that differs must not be read beside published ones.
    """
    found = []
    for database, wanted in MEGC2019.items():
        rows = np.flatnonzero(population.databases == database)
        have = len(np.unique(population.subjects[rows])), tuple(population.counts(rows).tolist())
        if have != wanted:
            found.append(f"{database}: {_told(*have)}; the composite has {_told(*wanted)}")
    return tuple(found)


def _told(subjects: int, classes: tuple[int, ...]) -> str:
    return f"{subjects} subjects, {sum(classes)} samples ({'/'.join(map(str, classes))})"
