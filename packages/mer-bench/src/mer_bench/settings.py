"""Settings of a run: a TOML file below `--set key=value` below the flags; typed, unknown keys are errors."""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from mer_bench.errors import UsageError
from mer_bench.protocols import ProtocolOptions
from mer_bench.spec import ModelSpec
from mer_bench.training.recipes import Recipe
from mer_bench.values import coerce, literal, parse_seeds
from mer_flow.suggest import unknown


@dataclass(frozen=True)
class RunSettings:
    """Everything a run can be told. Empty text means the model's or the protocol's default.

    Attributes:
        model: Registry name.
        protocol: `cde`, `loso`, `hde`, `cross-db` or `kfold`.
        scheme: Label scheme; `megc3` unless told otherwise.
        db: Databases of `loso`, `hde` and `kfold`.
        train_db: Training databases of `cross-db`.
        test_db: Test databases of `cross-db`.
        k: Folds of `kfold`.
        fold_seed: Decides `kfold`'s assignment and the inner subjects.
        inner: Reserve whole training subjects to choose the epoch.
        inner_fraction: Their share of the training subjects.
        variant: The model's named option set.
        recipe: The model's named recipe.
        view: What the model reads, as in `whole-28`.
        normalisation: How it is scaled, as in `scaled`.
        seeds: Training seeds; a run is repeated for each.
        shuffle_labels: Seed of the label-shuffle control; None for the true labels.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        engine: `auto`, `stacked`, `processes` or `serial`.
        workers: Processes; None lets the engine decide.
        chunk: Folds stacked at once; None lets the engine decide.
        deterministic: Ask for bit-identical repetition on the same machine.
    """

    model: str = ""
    protocol: str = ""
    scheme: str = "megc3"
    db: tuple[str, ...] = ()
    train_db: tuple[str, ...] = ()
    test_db: tuple[str, ...] = ()
    k: int = 5
    fold_seed: int = 0
    inner: bool = False
    inner_fraction: float = 0.2
    variant: str = ""
    recipe: str = ""
    view: str = ""
    normalisation: str = ""
    seeds: tuple[int, ...] = (0,)
    shuffle_labels: int | None = None
    device: str = "auto"
    engine: Literal["auto", "stacked", "processes", "serial"] = "auto"
    workers: int | None = None
    chunk: int | None = None
    deterministic: bool = False

    def protocol_options(self) -> ProtocolOptions:
        """Returns the part that the protocol reads."""
        return ProtocolOptions(
            databases=self.db,
            train_databases=self.train_db,
            test_databases=self.test_db,
            k=self.k,
            fold_seed=self.fold_seed,
            inner=self.inner,
            inner_fraction=self.inner_fraction,
        )


@dataclass(frozen=True)
class Request:
    """Settings as given: the run's own, and those meant for the recipe or the model.

    Attributes:
        run: The run's settings.
        overrides: Key to value of everything else, as in `lr`, `recipe.epochs` or `options.width`.
    """

    run: RunSettings
    overrides: Mapping[str, Any] = field(default_factory=dict)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a configuration file.

    Top-level keys are the run's settings; `[set]` holds keys as `--set` takes them.

    Args:
        path: The TOML file.

    Returns:
        The top-level settings, and those of `[set]`.

    Raises:
        UsageError: The file cannot be read or is not TOML.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"configuration {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration {path} is not TOML: {error}") from None
    overrides = content.pop("set", {})
    if not isinstance(overrides, dict):
        raise UsageError(f"configuration {path}: [set] must be a table of key = value")
    tables = [key for key, value in content.items() if isinstance(value, dict)]
    if tables:
        raise UsageError(
            f"configuration {path}: unknown table [{tables[0]}]; settings of the recipe and the model go "
            'under [set], as in lr = 1e-4 or "options.width" = 32'
        )
    return {key.replace("-", "_"): value for key, value in content.items()}, _flatten(overrides)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_sets(pairs: Sequence[str]) -> dict[str, str]:
    """Splits `key=value` texts of `--set`.

    Raises:
        UsageError: One has no `=`, or a key is given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        key = key.strip()
        if not sign or not key:
            raise UsageError(f"--set {pair}: expected key=value, as in --set lr=1e-4")
        if key in found:
            raise UsageError(f"--set {key} is given twice")
        found[key] = value.strip()
    return found


def gather(config: Path | None, sets: Sequence[str], flags: Mapping[str, Any]) -> Request:
    """Merges the three layers into one request: file below `--set` below flags.

    Args:
        config: A TOML file, or None.
        sets: Texts of `--set`.
        flags: Settings from the command line; None means not given.

    Returns:
        Typed run settings, and what is meant for the recipe or the model (resolved later against both).

    Raises:
        UsageError: An unknown setting in the file, or a value of a wrong type.
    """
    hints = get_type_hints(RunSettings)
    top, overrides = read_config(config) if config else ({}, {})
    for key in top:
        if key not in hints:
            raise UsageError(f"configuration {config}: {unknown('setting', key, hints)}")
    layered = dict(top)
    for layer in (overrides, parse_sets(sets)):
        layered.update({key: value for key, value in layer.items() if key in hints})
    rest = {key: value for key, value in {**overrides, **parse_sets(sets)}.items() if key not in hints}
    layered.update({key: value for key, value in flags.items() if value is not None})
    values: dict[str, Any] = {
        key: parse_seeds(value) if key == "seeds" else coerce(key, value, hints[key])
        for key, value in layered.items()
    }
    return Request(RunSettings(**values), rest)


@dataclass(frozen=True)
class Resolved:
    """A model's settings after every override.

    Attributes:
        variant: The variant's name.
        options: Keyword arguments of the model's builder.
        recipe: The training recipe; None for a classifier.
        changes: What was set apart from the named variant and recipe, as in `{"epochs": 5}`.
    """

    variant: str
    options: dict[str, Any]
    recipe: Recipe | None
    changes: dict[str, Any] = field(default_factory=dict)


def option_types(spec: ModelSpec) -> tuple[dict[str, Any], bool]:
    """Returns the builder's options with their types, and whether it takes others too.

    The options are the builder's keyword parameters, the fields of its `config` attribute where it has one (a
    dataclass), and whatever the variants name.
    """
    types_of: dict[str, Any] = {}
    for options in spec.variants.values():
        types_of.update({key: type(value) for key, value in options.items()})
    open_ended = False
    try:
        parameters = inspect.signature(spec.build).parameters
        # A class's own hints are those of its attributes; its options are its constructor's.
        hints = get_type_hints(vars(spec.build)["__init__"] if isinstance(spec.build, type) else spec.build)
    except (TypeError, ValueError, NameError, KeyError):
        parameters, hints, open_ended = {}, {}, True  # type: ignore[assignment]
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif name not in ("num_classes", "in_channels", "map_size"):
            guess = type(parameter.default) if parameter.default not in (None, parameter.empty) else object
            types_of[name] = hints.get(name, guess)
    config = getattr(spec.build, "config", None)
    if isinstance(config, type) and hasattr(config, "__dataclass_fields__"):
        open_ended = False
        hints = get_type_hints(config)
        fixed = ("num_classes", "in_channels", "map_size")
        types_of.update({f.name: hints[f.name] for f in fields(config) if f.name not in fixed})
    return types_of, open_ended


def resolve(spec: ModelSpec, request: Request) -> Resolved:
    """Applies a request to a model.

    A key may be written `recipe.<field>` or `options.<name>`; a bare key is looked up in both.

    Args:
        spec: The model.
        request: What was asked for.

    Returns:
        The variant, the builder's options and the recipe.

    Raises:
        UsageError: An unknown variant, recipe or key (with a suggestion), or a value of a wrong type or
            range.
    """
    variant = request.run.variant or spec.default_variant
    if variant not in spec.variants:
        raise UsageError(str(unknown(f"variant of {spec.name}", variant, spec.variants)))
    options = dict(spec.variants[variant])
    recipe: Recipe | None = None
    if spec.kind == "network":
        name = request.run.recipe or spec.default_recipe
        if name not in spec.recipes:
            raise UsageError(str(unknown(f"recipe of {spec.name}", name, spec.recipes)))
        recipe = spec.recipes[name]
    elif request.run.recipe:
        raise UsageError(f"{spec.name} is a classifier and takes no recipe")
    recipe_types = {k: v for k, v in get_type_hints(Recipe).items() if k != "name" and recipe is not None}
    known_options, open_ended = option_types(spec)
    changes: dict[str, Any] = {}
    for key, value in request.overrides.items():
        group, dot, bare = key.partition(".")
        if not dot:
            group, bare = "", key
        elif group not in ("recipe", "options"):
            raise UsageError(f"{unknown('setting group', group, ('recipe', 'options'))} (in '{key}')")
        in_recipe = bare in recipe_types and group != "options"
        in_options = bare in known_options and group != "recipe"
        if in_recipe and in_options:
            raise UsageError(
                f"'{key}' is both a recipe field and a model option; write recipe.{key} or options.{key}"
            )
        if in_recipe:
            changes[bare] = coerce(key, value, recipe_types[bare])
        elif in_options:
            options[bare] = coerce(key, value, known_options[bare])
        elif group == "options" and open_ended:
            options[bare] = literal(value) if isinstance(value, str) else value
        else:
            known = {
                "recipe": list(recipe_types),
                "options": list(known_options),
                "": [*recipe_types, *known_options, *get_type_hints(RunSettings)],
            }[group]
            hint = f" (an option that only the model knows is written options.{bare})" if open_ended else ""
            raise UsageError(f"{unknown('setting', bare, known)}{hint}")
    named = spec.variants[variant]
    apart = {
        f"options.{key}" if key in recipe_types else key: value
        for key, value in options.items()
        if key not in named or named[key] != value
    }
    if recipe is not None:
        apart |= {key: value for key, value in changes.items() if value != getattr(recipe, key)}
        recipe = replace(recipe, **changes)
        check_recipe(recipe)
    return Resolved(variant, options, recipe, apart)


def check_recipe(recipe: Recipe) -> None:
    """Refuses values that no training can use.

    Raises:
        UsageError: One is out of range.
    """
    at_least = {"epochs": 1, "batch_size": 1, "step_epochs": 1, "weight_decay": 0, "warmup_epochs": 0}
    at_least |= {"shift": 0, "clip_norm": 0, "final_lr": 0, "focal_gamma": 0, "gamma": 0, "noise": 0}
    for name, low in at_least.items():
        if not getattr(recipe, name) >= low:
            raise UsageError(f"recipe.{name} must be at least {low}, got {getattr(recipe, name)}")
    for name in ("lr", "eps"):
        if not getattr(recipe, name) > 0:
            raise UsageError(f"recipe.{name} must be above 0, got {getattr(recipe, name)}")
    for name in ("flip", "label_smoothing"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise UsageError(f"recipe.{name} must lie in [0, 1], got {getattr(recipe, name)}")
    # At 1 a moving average never moves, and all effective numbers of samples are alike: 0/0.
    for name in ("momentum", "beta1", "beta2", "cb_beta"):
        if not 0 <= getattr(recipe, name) < 1:
            raise UsageError(f"recipe.{name} must lie in [0, 1), got {getattr(recipe, name)}")
    for name, value in asdict(recipe).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"recipe.{name} must be a finite number, got {value}")
