"""A model's settings after every override: the keys it knows; its variant, options and recipe."""

from __future__ import annotations

import inspect
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, create_model

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.settings import SETTINGS, Request
from mer_flow.work.settings import Settings
from mer_flow.work.suggest import unknown

#: Largest whole number among a builder's options.
MAX_OPTION = 1 << 20


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
    """Return the builder's options with their types, and whether it takes others too.

    The options are the builder's keyword parameters, the fields of its `config` attribute where it has one (a
    dataclass or a pydantic model), and whatever the variants name.
    """
    found = {key: type(value) for options in spec.variants.values() for key, value in options.items()}
    open_ended = False
    try:
        parameters = inspect.signature(spec.build).parameters
        # A class's own hints are those of its attributes; its options are its constructor's.
        build: Any = spec.build
        hints = get_type_hints(build.__init__ if isinstance(build, type) else build)  # type: ignore[misc]
    except (TypeError, ValueError, NameError, KeyError):
        parameters, hints, open_ended = {}, {}, True  # type: ignore[assignment]
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        else:
            guess = object if parameter.default in (None, parameter.empty) else type(parameter.default)
            found[name] = hints.get(name, guess)
    config: Any = getattr(spec.build, "config", None)
    own = {}
    if hasattr(config, "model_fields"):
        own = {n: Annotated[(f.annotation, *f.metadata, None)] for n, f in config.model_fields.items()}
    elif is_dataclass(config):
        hints = get_type_hints(config)
        own = {f.name: hints[f.name] for f in fields(config)}
    told = ("num_classes", "in_channels", "map_size")  # by the bench
    return {n: kind for n, kind in (found | own).items() if n not in told}, open_ended and not own


def _fields_of_recipe(spec: ModelSpec) -> tuple[str, ...]:
    return tuple(name for name in Recipe.model_fields if name != "name") if spec.kind == "network" else ()


def known_keys(spec: ModelSpec) -> tuple[str, ...]:
    """Return the keys that `--set` takes for a model: fields of its recipe, options of its builder."""
    return (*_fields_of_recipe(spec), *option_types(spec)[0])


def _place(spec: ModelSpec, key: str) -> tuple[str, str]:
    """Return where a key of `--set` belongs, `recipe` or `options`, and its bare name; or raise."""
    group, dot, bare = key.partition(".")
    if not dot:
        group, bare = "", key
    options, open_ended = option_types(spec)
    names = {"recipe": _fields_of_recipe(spec), "options": tuple(options)}
    if group and group not in names:
        raise UsageError(f"{unknown('setting group', group, names)} (in '{key}')")
    homes = [home for home in names if bare in names[home] and group in ("", home)]
    if len(homes) == 2:
        raise UsageError(
            f"'{key}' is both a recipe field and a model option; write recipe.{key} or options.{key}"
        )
    if homes or (group == "options" and open_ended):
        return homes[0] if homes else group, bare
    known = names[group] if group else (*known_keys(spec), *SETTINGS)
    hint = f" (an option that only the model knows is written options.{bare})" if open_ended else ""
    raise UsageError(f"{unknown('setting', bare, known)}{hint}")


def takes(spec: ModelSpec, key: str) -> bool:
    """Whether a model knows a key of `--set`, as a field of its recipe or an option of its builder."""
    try:
        return bool(_place(spec, key))
    except UsageError:
        return False


def resolve(spec: ModelSpec, request: Request) -> Resolved:
    """Apply a request to a model; a bare key is looked up in both recipe and options.

    Raises:
        UsageError: An unknown variant, recipe or key, or a value of a wrong type or range.
    """
    variant = request.run.variant or spec.default_variant
    if variant not in spec.variants:
        raise UsageError(str(unknown(f"variant of {spec.name}", variant, spec.variants)))
    named = None
    if spec.kind == "network":
        name = request.run.recipe or spec.default_recipe
        if name not in spec.recipes:
            raise UsageError(str(unknown(f"recipe of {spec.name}", name, spec.recipes)))
        named = spec.recipes[name]
    elif request.run.recipe:
        raise UsageError(f"{spec.name} is a classifier and takes no recipe")
    given: dict[str, dict[str, Any]] = {"recipe": {}, "options": {}}
    for key, value in request.overrides.items():
        group, bare = _place(spec, key)
        given[group][bare] = value
    recipe = named and named.changed(**given["recipe"])
    options = _typed(given["options"], option_types(spec)[0])
    before = {**spec.variants[variant], **spec.recipe_options.get(named.name if named else "", {})}
    changes = {
        f"options.{key}" if key in _fields_of_recipe(spec) else key: value
        for key, value in options.items()
        if key not in before or before[key] != value
    }
    for key in given["recipe"]:
        if getattr(recipe, key) != getattr(named, key):
            changes[key] = getattr(recipe, key)
    tail = request.run.tail_epochs
    if recipe and tail and tail > recipe.epochs:
        raise UsageError(f"tail_epochs is {tail}, but {spec.name} trains for {recipe.epochs} epochs only")
    return Resolved(variant, {**before, **options}, recipe, changes)


class _Options(Settings):
    where = "options"
    error = UsageError


def _typed(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Read options of a builder as their types."""
    kinds: Any = {name: (_readable(known.get(name, object)), ...) for name in options}
    read = create_model("Options", __base__=_Options, **kinds)(**options)
    for name in options:
        given = getattr(read, name)
        several = given if isinstance(given, (list, tuple)) else (given,)
        if any(isinstance(value, int) and value > MAX_OPTION for value in several):
            raise UsageError(f"options.{name} must be at most {MAX_OPTION}, got {given}")
    return {name: getattr(read, name) for name in options}


def _readable(hint: Any) -> Any:
    """Return a type that `Settings` can read; what is of any other type is read as TOML would."""
    if get_origin(hint) in (list, Sequence):
        hint = tuple[get_args(hint)[0], ...]  # type: ignore[misc]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plain = (bool, int, float, str, types.NoneType)
    if all(kind in plain or get_origin(kind) in (tuple, Literal, Annotated) for kind in kinds):
        return hint
    return Annotated[Any, BeforeValidator(_literal)]


def _literal(value: Any) -> Any:
    """Read text as TOML would (a number, a truth value, a list), else leave it as text."""
    try:
        return tomllib.loads(f"value = {value}")["value"] if isinstance(value, str) else value
    except (tomllib.TOMLDecodeError, RecursionError):
        return value
