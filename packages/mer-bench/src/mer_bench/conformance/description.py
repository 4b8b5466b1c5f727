"""Checks of what a model says of itself: metadata, inputs, variants, recipes, parameter count."""

from __future__ import annotations

import itertools
import pickle
import re
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mer_bench.conformance.subject import Subject, count_trainable
from mer_bench.errors import ConformanceError, MerBenchError
from mer_bench.resolve import option_types
from mer_bench.runs.train import try_network
from mer_bench.training.demands import meet_recipe
from mer_bench.training.folds import check_job
from mer_bench.training.optim import check_layer_depths


def describes_itself(subject: Subject) -> str:
    """A table and a reader of its scores find what they need."""
    spec = subject.spec
    problems = []
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", spec.name):
        problems.append(f"name '{spec.name}' is not kebab-case (lower-case letters, digits, single hyphens)")
    if not spec.title.strip():
        problems.append("title is empty; tables print it")
    if not spec.citation.strip():
        problems.append("citation is empty; name authors, title, venue and DOI, or say that it is your own")
    if not spec.licence.strip():
        problems.append("licence is empty; state that of the authors' code and weights, or say 'none found'")
    if spec.exactness == "reconstructed" and not spec.filled_in:
        problems.append("it is 'reconstructed', but filled_in names no choice; one sentence for each")
    if any(not sentence.strip().endswith(".") for sentence in spec.filled_in):
        problems.append("filled_in: each entry is a sentence and ends with a full stop")
    if spec.kind == "network" and not spec.parameters:
        problems.append("parameters is not given; state the count of the default variant with 3 classes")
    if spec.kind == "classifier" and spec.recipes:
        problems.append("a classifier has no recipes; fit takes none")
    problems += [
        f"recipe '{recipe.name}' is listed as '{name}'; a run's record would name it otherwise"
        for name, recipe in spec.recipes.items()
        if recipe.name != name
    ]
    known, open_ended = option_types(spec)
    foreign = {key for options in spec.variants.values() for key in options} - set(known)
    if not open_ended:
        problems += [f"variants set '{key}', which the builder does not take" for key in sorted(foreign)]
    if problems:
        raise ConformanceError("; ".join(problems))
    return f"{spec.exactness}, {len(spec.filled_in)} choices filled in"


def is_fed(subject: Subject) -> str:
    """Every input it lists is a view that a store with flow, faces and clips can give."""
    spec = subject.spec
    views = dict.fromkeys((*spec.views, *itertools.chain.from_iterable(spec.variant_views.values())))
    shapes = {view: subject.data_of(view).maps.shape[1:] for view in views}
    return ", ".join(f"{view} {'x'.join(map(str, shape))}" for view, shape in shapes.items())


def recipes_are_valid(subject: Subject) -> str:
    """Every recipe passes what a run checks before training, for every input and for its network."""
    network = subject.on_meta(subject.spec.default_variant)
    for recipe in subject.spec.recipes.values():
        check_layer_depths(network, recipe)
        meet_recipe(network, recipe)
        for view in subject.spec.views:
            check_job(replace(subject.job(recipe), view=view))
    return ", ".join(subject.spec.recipes)


def variants_build(subject: Subject) -> str:
    """Every variant is built for every input and gives logits of the right shape, without using memory."""
    for name, options in subject.spec.variants.items():
        inputs = [subject.data_of(view) for view in reversed(subject.spec.inputs(name))]
        for data in {data.maps.shape: data for data in inputs}.values():
            try_network(subject.spec, options, data)
    return ", ".join(f"{name} {count:,}" for name, count in subject.sizes.items())


def counts_parameters(subject: Subject) -> str:
    """The default variant has as many parameters as `ModelSpec.parameters` says, and runs on meta."""
    spec = subject.spec
    network = subject.on_meta(spec.default_variant)
    count = count_trainable(network)
    if count != spec.parameters:
        raise ConformanceError(
            f"variant '{spec.default_variant}' has {count:,} trainable parameters on {spec.inputs()[0]}, but "
            f"ModelSpec.parameters says {spec.parameters}; correct one of them"
        )
    with torch.no_grad():
        logits = network.eval()(torch.zeros(2, *subject.shape_of(spec.default_variant), device="meta"))
    if tuple(logits.shape) != (2, 3):
        raise ConformanceError(f"two maps give an output of shape {tuple(logits.shape)}, expected (2, 3)")
    return f"{count:,} in variant '{spec.default_variant}'"


def refuses_other_maps(subject: Subject) -> str:
    """Maps of a size or with channels that it cannot take are refused on building, in words."""
    channels, side, _ = subject.shape
    taken, refused = [], []
    for wanted in ((channels, side - 1), (channels, side // 2), (channels, 2 * side), (channels, 1),
                   (channels + 1, side), (1, side)):  # fmt: skip
        if wanted == (channels, side):
            continue
        shown = f"{wanted[0]}x{wanted[1]}x{wanted[1]}"
        try:
            found = _try(subject, *wanted)
        except MerBenchError:
            refused.append(shown)
            continue
        except Exception as error:
            raise ConformanceError(
                f"maps of {shown} end in {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; "
                "let the builder raise a mer_bench.errors.UsageError that says which map_size and in_channels"
                " it can take"
            ) from error
        if found is not None and tuple(found.shape) != (2, 3):
            raise ConformanceError(
                f"two maps of {shown} give logits of shape {tuple(found.shape)}, expected (2, 3)"
            )
        taken.append(shown)
    return f"refused: {', '.join(refused) or 'none'}; taken: {', '.join(taken) or 'none'}"


def _try(subject: Subject, channels: int, side: int) -> Tensor | None:
    """Build the model for other maps and show it two; a network's logits come back."""
    options = {"num_classes": 3, "in_channels": channels, "map_size": side, **subject.options}
    if subject.spec.kind == "network":
        with torch.device("meta"), torch.no_grad():
            logits: Tensor = subject.spec.build(**options).eval()(torch.zeros(2, channels, side, side))
            return logits
    classifier = subject.spec.build(**options)
    if hasattr(classifier, "features"):
        noise = np.random.default_rng(0).uniform(-1, 1, (2, channels, side, side))
        classifier.features(noise.astype(np.float32), "")
    return None


def pickles(subject: Subject) -> str:
    """What a worker process is told of the training survives pickling, so that folds can be spread."""
    try:
        copied = pickle.loads(pickle.dumps(subject.job()))
    except Exception as error:  # pickle raises many kinds
        raise ConformanceError(
            f"the spec cannot be pickled ({type(error).__name__}: {error}); "
            "define the builder at the top level of a module"
        ) from error
    if copied.spec.build != subject.spec.build or copied.spec.recipes != subject.spec.recipes:
        raise ConformanceError(
            "the spec comes back from pickling as another one; its builder must be importable"
        )
    return "spec and job"
