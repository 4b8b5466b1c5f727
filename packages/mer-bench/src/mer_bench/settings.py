"""Settings of a run: a TOML file below `--set key=value` below the flags; typed, unknown keys are errors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import Field

from mer_bench.config_file import ConfigFile, read_config
from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.protocols.splits import ProtocolOptions
from mer_bench.recipe import Recipe
from mer_bench.values import coerce, literal, parse_seeds
from mer_flow.work.settings import Settings
from mer_flow.work.suggest import unknown


class TrainingSettings(Settings):
    """Where and how folds are trained; none of it is part of what a run is.

    Attributes:
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:<n>`.
        engine: `local`: one fold per task, spread by an executor; `stacked`: many folds in one vmapped step;
            `auto`: stacked on CUDA, local on a CPU.
        workers: Processes of `local`; None for one per core, 1 for none but this one.
        chunk: Folds stacked at once; None for as many as memory holds.
        deterministic: Hold torch to deterministic algorithms: bit-identical repetition on the same machine.
        precision: How a GPU multiplies float32 matrices: `float32`, `tf32`, or `auto`, which is TF32 where it
            knows it.
        compile: Train stacked folds through `torch.compile`.
    """

    error = UsageError

    device: str = "auto"
    engine: Literal["auto", "local", "stacked"] = "auto"
    workers: int | None = Field(default=None, ge=1)
    chunk: int | None = Field(default=None, ge=1)
    deterministic: bool = False
    precision: Literal["auto", "float32", "tf32"] = "auto"
    compile: bool = False


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
        precision: How a GPU multiplies float32 matrices: `float32`, `tf32`, or `auto`, which is TF32 where it
            knows it.
        compile: Train stacked folds through `torch.compile`.
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
    precision: Literal["auto", "float32", "tf32"] = "auto"
    compile: bool = False

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


@dataclass(frozen=True)
class Layers:
    """Settings as given, in three layers: file below `--set` below flags.

    Attributes:
        file: The configuration file.
        sets: Of `--set`: key to text.
        flags: Settings from the command line that were given.
    """

    file: ConfigFile
    sets: Mapping[str, str]
    flags: Mapping[str, Any]

    @classmethod
    def read(cls, config: Path | None, sets: Sequence[str], flags: Mapping[str, Any]) -> Layers:
        """Reads the layers.

        Args:
            config: A TOML file, or None.
            sets: Texts of `--set`.
            flags: Settings from the command line; None means not given.

        Raises:
            UsageError: The file cannot be read or has an unknown setting, or a `--set` is no key=value.
        """
        file = read_config(config) if config else ConfigFile()
        hints = get_type_hints(RunSettings)
        for key in file.common.settings:
            if key not in hints:
                raise UsageError(f"configuration {config}: {unknown('setting', key, hints)}")
        given = {key: value for key, value in flags.items() if value is not None}
        return cls(file, parse_sets(sets), given)

    @property
    def common(self) -> dict[str, Any]:
        """What was given for every model, each key with the value of its highest layer."""
        return {**self.file.common.settings, **self.file.common.overrides, **self.sets, **self.flags}

    def request(self, entry: Entry, leave_out: Collection[str] = ()) -> Request:
        """Merges the layers into the request of one model; what its spelling says wins.

        Args:
            entry: The model, with variant and recipe where they are spelled.
            leave_out: Keys that this model does not take from what was given for every model.

        Returns:
            Typed run settings, and what is meant for the recipe or the model (resolved later against both).

        Raises:
            UsageError: A value of a wrong type.
        """
        hints = get_type_hints(RunSettings)
        own = self.file.section(entry)
        spelled = {key: value for key, value in asdict(entry).items() if value}
        common: list[Mapping[str, Any]] = [
            {key: value for key, value in layer.items() if key not in leave_out}
            for layer in (self.file.common.settings, self.file.common.overrides, self.sets, self.flags)
        ]
        layers = [*common[:2], own.settings, own.overrides, *common[2:], spelled]
        merged = {key: value for layer in layers for key, value in layer.items()}
        values: dict[str, Any] = {
            key: parse_seeds(value) if key == "seeds" else coerce(key, value, hints[key])
            for key, value in merged.items()
            if key in hints
        }
        return Request(
            RunSettings(**values), {key: value for key, value in merged.items() if key not in hints}
        )


def gather(config: Path | None, sets: Sequence[str], flags: Mapping[str, Any]) -> Request:
    """Merges the three layers into the request of one model: file below `--set` below flags.

    Args:
        config: A TOML file, or None.
        sets: Texts of `--set`.
        flags: Settings from the command line; None means not given. `model` may spell variant and recipe too.

    Returns:
        As `Layers.request`.

    Raises:
        UsageError: An unknown setting in the file, or a value of a wrong type.
    """
    layers = Layers.read(config, sets, flags)
    name = coerce("model", layers.common.get("model", ""), str)
    return layers.request(parse_entry(name) if name else Entry(""))


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
        is_class = isinstance(spec.build, type)
        hints = get_type_hints(spec.build.__init__ if is_class else spec.build)
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


def _recipe_types(spec: ModelSpec) -> dict[str, Any]:
    if spec.kind != "network":
        return {}
    return {name: kind for name, kind in get_type_hints(Recipe).items() if name != "name"}


def _place(spec: ModelSpec, key: str) -> tuple[str, str]:
    """Returns where a key of `--set` belongs, `recipe` or `options`, and its bare name; or raises."""
    recipe_types, (known_options, open_ended) = _recipe_types(spec), option_types(spec)
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
        return "recipe", bare
    if in_options or (group == "options" and open_ended):
        return "options", bare
    known = {
        "recipe": list(recipe_types),
        "options": list(known_options),
        "": [*recipe_types, *known_options, *get_type_hints(RunSettings)],
    }[group]
    hint = f" (an option that only the model knows is written options.{bare})" if open_ended else ""
    raise UsageError(f"{unknown('setting', bare, known)}{hint}")


def known_keys(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the keys that `--set` takes for a model: fields of its recipe, options of its builder."""
    return (*_recipe_types(spec), *option_types(spec)[0])


def takes(spec: ModelSpec, key: str) -> bool:
    """Whether a model knows a key of `--set`, as a field of its recipe or an option of its builder."""
    try:
        _place(spec, key)
    except UsageError:
        return False
    return True


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
    recipe_types, known_options = _recipe_types(spec), option_types(spec)[0]
    changes: dict[str, Any] = {}
    for key, value in request.overrides.items():
        group, bare = _place(spec, key)
        if group == "recipe":
            changes[bare] = coerce(key, value, recipe_types[bare])
        elif bare in known_options:
            options[bare] = coerce(key, value, known_options[bare])
        else:
            options[bare] = literal(value) if isinstance(value, str) else value
    named = spec.variants[variant]
    apart = {
        f"options.{key}" if key in recipe_types else key: value
        for key, value in options.items()
        if key not in named or named[key] != value
    }
    if recipe is not None:
        apart |= {key: value for key, value in changes.items() if value != getattr(recipe, key)}
        recipe = recipe.changed(**changes)
        check_recipe(recipe)
    return Resolved(variant, options, recipe, apart)


def check_recipe(recipe: Recipe) -> None:
    """Refuses values that no training can use.

    Raises:
        UsageError: One is out of range.
    """
    from_zero = (
        *("weight_decay", "warmup_epochs", "shift", "clip_norm", "final_lr", "focal_gamma", "gamma"),
        *("noise", "isda", "rotate", "decay_epochs"),
    )
    at_least = {"epochs": 1, "batch_size": 1, "step_epochs": 1, **dict.fromkeys(from_zero, 0)}
    for name, low in at_least.items():
        if not getattr(recipe, name) >= low:
            raise UsageError(f"recipe.{name} must be at least {low}, got {getattr(recipe, name)}")
    for name in ("lr", "eps"):
        if not getattr(recipe, name) > 0:
            raise UsageError(f"recipe.{name} must be above 0, got {getattr(recipe, name)}")
    for name in ("flip", "label_smoothing"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise UsageError(f"recipe.{name} must lie in [0, 1], got {getattr(recipe, name)}")
    if not 0 < recipe.layer_decay <= 1:
        raise UsageError(f"recipe.layer_decay must lie in (0, 1], got {recipe.layer_decay}")
    # A batch whose samples all weigh nothing would have no mean.
    if not all(weight > 0 and math.isfinite(weight) for weight in recipe.class_weights):
        raise UsageError(f"recipe.class_weights must be finite and above 0, got {recipe.class_weights}")
    if recipe.class_weights and recipe.loss != "cross-entropy":
        raise UsageError(
            f"recipe.class_weights belongs to loss = 'cross-entropy', but recipe.loss is '{recipe.loss}'; "
            "class-balanced has weights of its own"
        )
    # At 1 a moving average never moves, and all effective numbers of samples are alike: 0/0.
    for name in ("momentum", "beta1", "beta2", "cb_beta"):
        if not 0 <= getattr(recipe, name) < 1:
            raise UsageError(f"recipe.{name} must lie in [0, 1), got {getattr(recipe, name)}")
    for name, value in asdict(recipe).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"recipe.{name} must be a finite number, got {value}")
