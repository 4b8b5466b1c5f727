"""`mer_bench.evaluate`: a model, in whatever form, trained under a protocol and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_bench.api.result import Result
from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.given import given_model
from mer_bench.models.registry import Registry
from mer_bench.models.spec import Registered
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.protocols.splits import Protocol
from mer_bench.recipe import Recipe
from mer_bench.runs.data import find_stores
from mer_bench.runs.shown import execute_shown
from mer_bench.runs.train import prepare
from mer_bench.settings import Layers, RunSettings


def evaluate(
    model: object,
    store: object = None,
    protocol: str = "cde",
    *,
    seeds: int | Sequence[int] = 1,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    out: Path | str = "runs",
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Train a model on every fold of a protocol and score it, as `mer-bench run` does.

    Folds that are recorded already are kept, so a call that was interrupted continues.

    Args:
        model: A registered name, spelled as on the command line (`"ahmsa:tiny@quick"`, `"sklearn.svm.SVC"`,
            `"path/to/file.py:function"`); a function or class that makes an `nn.Module` from `(B, C, H, W)`
            maps to `(B, classes)` logits; or an estimator with scikit-learn's interface, which is cloned for
            every fold and fitted on the pixels. A function is told `num_classes`, `in_channels` and
            `map_size` where it has arguments of these names.
        store: The store or its path, or several for a joint input; else the variable MER_BENCH_STORE.
        protocol: `cde`, `loso`, `hde`, `cross-db` or `kfold`.
        seeds: A count, or a list.
        recipe: How a network is trained: the name of one of the model's recipes, fields to change in its
            default one, or a whole `Recipe`. A function's own default trains for 60 epochs.
        out: Folder of all runs.
        quiet: Show no progress.
        **settings: Whatever else `mer-bench run` can be told, as in `db="samm"`, `scheme="samm-5"`,
            `view="regions-28"`, `device="cuda"`, `workers=4`, `executor="dask"`; fields of the recipe, as in
            `epochs=20`; options of the model, as in `width=32`.

    Returns:
        The scores, the predictions and the run on disk.

    Raises:
        UsageError: The model cannot be built, or a setting is unknown or wrong.
        DataError: The store lacks what the protocol or the model needs.
        ProtocolError: The samples cannot be cut into folds.
        TrainingError: Folds failed; they are named, and those that did not are kept.
    """
    if isinstance(model, str):
        entry = parse_entry(model)
        registered = Registry().find(entry.model)
    else:
        registered = given_model(model)
        entry = Entry(registered.spec.name)
    registered, changed = _trained_by(registered, recipe)
    given = {"protocol": protocol, "seeds": seeds, **changed, **settings}
    layers = Layers(file={}, models={}, sets={}, flags=given)
    prepared = prepare(registered, layers.request(entry), find_stores(_paths(store)))
    outcome = execute_shown(prepared, Path(out), layers.where, quiet=quiet)
    if not outcome.status.complete:
        why = "\n".join(outcome.failures) or outcome.status.describe_gaps()
        raise TrainingError(
            f"{why}\n{outcome.run.path} keeps the other folds; the same call trains these again"
        )
    return Result(outcome.run.path, prepared.manifest.settings.seeds)


def _trained_by(
    registered: Registered, recipe: Recipe | Mapping[str, Any] | str | None
) -> tuple[Registered, dict[str, Any]]:
    """Return the model, with a recipe of the caller's added, and the settings that choose or change one."""
    if recipe is None:
        return registered, {}
    if isinstance(recipe, str):
        return registered, {"recipe": recipe}
    if isinstance(recipe, Recipe):
        spec = registered.spec
        recipes = {**spec.recipes, recipe.name: recipe}
        return replace(registered, spec=replace(spec, recipes=recipes)), {"recipe": recipe.name}
    if isinstance(recipe, Mapping):
        return registered, {f"recipe.{key}": value for key, value in recipe.items()}
    raise UsageError(f"recipe: expected a name, a table of fields or a Recipe, got {type(recipe).__name__}")


def _paths(store: Any) -> list[Path]:
    """Return the paths of a store or several, each given as one or opened."""
    several = store if isinstance(store, (list, tuple)) else [] if store is None else [store]
    return [one.path if hasattr(one, "path") else Path(one) for one in several]


def splitter(protocol: str, **options: Any) -> Protocol:
    """Return a protocol as a splitter of scikit-learn's kind, whose `groups` are the subjects.

    Args:
        protocol: `cde`, `loso`, `hde`, `cross-db` or `kfold`.
        **options: `db`, `train_db`, `test_db`, `k`, `fold_seed`, `inner` and `inner_fraction`, as of
            `mer-bench run`.

    Raises:
        UsageError: An unknown protocol or option.

    >>> import numpy as np
    >>> subjects = np.array(["samm/006", "samm/006", "samm/007"])
    >>> folds = splitter("loso", db="samm").split(np.zeros((3, 2)), [0, 1, 1], groups=subjects)
    >>> [(train.tolist(), test.tolist()) for train, test in folds]
    [([2], [0, 1]), ([0, 1], [2])]
    """
    return RunSettings(protocol=protocol, **options).splitter()
