"""The list of checks, and a runner that turns each into a finding.

A check takes the model under test, returns what it saw in a few words, and raises where the model does not
conform: ConformanceError, or the error that a run would end with. Its message says how to mend it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mer_bench.conformance import classifier, description, network, training
from mer_bench.conformance.subject import Subject
from mer_bench.errors import MerBenchError
from mer_bench.models.spec import ModelSpec
from mer_flow.work.errors import MerFlowError
from mer_flow.work.plugins import contained


@dataclass(frozen=True)
class Check:
    """One thing that every model of a kind must keep; call it with the model.

    Attributes:
        name: Short, for a test's id and a list.
        trains: Whether it is repeated for each of the model's ways to be trained.
    """

    name: str
    run: Callable[[Subject], str]
    trains: bool = False

    def __call__(self, subject: Subject) -> str:
        """Return what was seen."""
        if not self.trains:
            return self.run(subject)
        seen = {name: self.run(subject.of_variant(name)) for name in subject.ways_to_train}
        return "; ".join(f"{name}: {text}" if len(seen) > 1 else text for name, text in seen.items())


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        passed: Whether the model conforms.
        detail: What was seen, or why it does not conform.
        seconds: Wall time.
    """

    check: str
    passed: bool
    detail: str
    seconds: float


_COMMON = (
    Check("describes-itself", description.describes_itself),
    Check("is-fed", description.is_fed),
    Check("pickles", description.pickles),
    Check("other-maps", description.refuses_other_maps),
)

#: Cheap checks first.
_NETWORK = (
    *_COMMON,
    Check("recipes", description.recipes_are_valid),
    Check("variants", description.variants_build),
    Check("parameter-count", description.counts_parameters),
    Check("logits", network.gives_logits, trains=True),
    Check("gradients", network.every_parameter_learns, trains=True),
    Check("companions", network.ignores_companions, trains=True),
    Check("saving", network.saves_and_loads, trains=True),
    Check("stacking", network.stacks, trains=True),
    Check("same-seed", training.repeats_itself, trains=True),
    Check("recipes-train", training.every_recipe_trains),
    Check("stacked-training", training.trains_stacked, trains=True),
    Check("memorising", training.memorises, trains=True),
)

_CLASSIFIER = (
    *_COMMON,
    Check("features", classifier.describes_each_alone),
    Check("classes", classifier.predicts_classes),
    Check("fitting", classifier.fits),
    Check("companions", classifier.predicts_each_alone),
    Check("absent-class", classifier.misses_a_class),
    Check("same-seed", classifier.repeats_itself),
)


def checks_for(spec: ModelSpec) -> tuple[Check, ...]:
    """Return the checks of a model's kind."""
    return _NETWORK if spec.kind == "network" else _CLASSIFIER


def examine(subject: Subject) -> Iterator[Finding]:
    """Yield a finding as soon as a check is done; one that fails does not keep the others from running."""
    for check in checks_for(subject.spec):
        begin = time.perf_counter()
        try:
            with contained():
                passed, detail = True, check(subject)
        except Exception as error:  # a stranger's model may raise anything
            ours = isinstance(error, (MerBenchError, MerFlowError))
            passed, detail = False, str(error) if ours else f"{type(error).__name__}: {error}"
        yield Finding(check.name, passed, detail, time.perf_counter() - begin)
