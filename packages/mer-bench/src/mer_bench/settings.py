"""Settings of a run: a TOML file below `--set key=value` below the flags; typed, unknown keys are errors."""

from __future__ import annotations

import inspect
import tomllib
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field, create_model, field_validator

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.protocols.splits import Protocol, ProtocolOptions, get_protocol
from mer_bench.recipe import Recipe
from mer_flow.work.settings import Settings, parse_sets, read_toml
from mer_flow.work.suggest import unknown
from mer_flow.work.where import Where

#: Above, a mistake; a seed is a training of every fold.
MOST_SEEDS = 1000
#: What a random generator takes as it is.
LARGEST_SEED = 2**63 - 1

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Read seeds: a count, or a list.

    >>> parse_seeds("3"), parse_seeds("7,"), parse_seeds("0,5")
    ((0, 1, 2), (7,), (0, 5))
    """
    text = isinstance(value, str) and "," in value
    listed = [part for part in value.split(",") if part.strip()] if text else value
    try:
        several = listed if isinstance(listed, (list, tuple)) else range(int(listed))
        seeds = tuple(map(int, several)) if len(several) <= MOST_SEEDS else ()
    except (TypeError, ValueError, OverflowError):
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) != len(seeds):
        raise UsageError(
            f"seeds: expected a count (3 means 0,1,2) or a list of different ones, none negative (0,1,2; a "
            f"single one is written 7,), at most {MOST_SEEDS:,} in all, got '{str(value)[:60]}'"
        )
    return seeds


class RunSettings(Settings):
    """What decides a run. Empty text means the model's or the protocol's default.

    Attributes:
        model: Registry name.
        protocol: `cde`, `loso`, `hde`, `cross-db` or `kfold`.
        scheme: Label scheme.
        db: Databases of `loso`, `hde` and `kfold`.
        train_db: Training databases of `cross-db`.
        test_db: Test databases of `cross-db`.
        k: Folds of `kfold`.
        fold_seed: Decides `kfold`'s assignment, the inner and the kept training subjects.
        inner: Reserve whole training subjects to choose the epoch.
        inner_fraction: Their share of the training subjects.
        train_subjects: Train every fold on so many of its subjects, for a learning curve; None for all.
        variant: The model's named option set.
        recipe: The model's named recipe.
        view: What the model reads, as in `whole-28`.
        normalisation: How it is scaled, as in `scaled`.
        seeds: Training seeds; a run is repeated for each.
        shuffle_labels: Seed of the label-shuffle control; None for the true labels.
        headline: The selection that is told first and compared by: `last` or `tail`. Fixed before a run, so
            that nobody takes the better of the two afterwards; no part of what is trained.
        tail_epochs: How many of the last epochs `tail` averages; None for half of them, at least one.
    """

    error = UsageError

    model: str = ""
    protocol: str = ""
    scheme: str = "megc3"
    db: tuple[str, ...] = ()
    train_db: tuple[str, ...] = ()
    test_db: tuple[str, ...] = ()
    k: int = Field(default=5, ge=2)
    fold_seed: Seed = 0
    inner: bool = False
    inner_fraction: float = Field(default=0.2, gt=0, lt=1)
    train_subjects: int | None = Field(default=None, ge=1)
    variant: str = ""
    recipe: str = ""
    view: str = ""
    normalisation: str = ""
    seeds: tuple[int, ...] = (0,)
    shuffle_labels: Seed | None = None
    headline: Literal["last", "tail"] = "last"
    tail_epochs: int | None = Field(default=None, ge=1)

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> tuple[int, ...]:
        return parse_seeds(value)

    def splitter(self) -> Protocol:
        """Return the protocol with its options."""
        databases = self.db, self.train_db, self.test_db
        subjects = self.inner, self.inner_fraction, self.train_subjects
        return get_protocol(self.protocol, ProtocolOptions(*databases, self.k, self.fold_seed, *subjects))


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


#: Largest whole number among a builder's options.
MAX_OPTION = 1 << 20
#: Every setting that is not of a recipe or a model.
SETTINGS = (*RunSettings.model_fields, *TrainingSettings.model_fields, *Where.model_fields)

#: What a file's section of one model may set; the protocol, its data and its folds are the same for all.
OF_ONE_MODEL = ("variant", "recipe", "seeds", "view", "normalisation", *TrainingSettings.model_fields)


@dataclass(frozen=True)
class Request:
    """A model as asked for.

    Attributes:
        overrides: Fields of the recipe and options of the model, by their keys as `--set` takes them: `lr`,
            `recipe.epochs` or `options.width`.
    """

    run: RunSettings
    overrides: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)


@dataclass(frozen=True)
class Layers:
    """Settings as given, by their names; keys of recipe and model as `--set` takes them. Later layers win.

    Attributes:
        file: What the configuration file says for every model.
        models: What it says for one, by entry as it is spelled, in the order of the file.
        sets: Of `--set`.
        flags: Of the command line.
    """

    file: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, Any]
    flags: Mapping[str, Any]

    @classmethod
    def read(cls, config: Path | None, sets: Sequence[str], flags: Mapping[str, Any]) -> Layers:
        """Read the layers.

        In the file, top-level keys are settings of the run, and `[set]` holds keys as `--set` takes them.
        `[models.ahmsa]`, or `[models."ahmsa:tiny"]` for one entry of a leaderboard, holds settings of that
        model, its own `set` too.

        Args:
            config: A TOML file, or None.
            sets: Texts of `--set`.
            flags: Settings from the command line that were given.

        Raises:
            UsageError: The file cannot be read or sets what it may not, or a `--set` is no key=value.
        """
        content = read_toml(config, UsageError) if config else {}
        where = f"configuration {config}"
        sections = _table(content.pop("models", {}), f"{where}: [models]")
        models = {}
        for name, section in sections.items():
            here = f"{where}, section [models.{name}]"
            models[name] = _flat(_table(section, here), OF_ONE_MODEL, here)
        return cls(_flat(content, SETTINGS, where), models, parse_sets(sets, UsageError), flags)

    @property
    def common(self) -> dict[str, Any]:
        """What was given for every model, each key with the value of its highest layer."""
        return {**self.file, **self.sets, **self.flags}

    @property
    def where(self) -> Where:
        """Where folds are trained, the same for every model."""
        return Where.among(self.common)

    def named(self) -> Request:
        """Merge the layers for the model that they name, as spelled."""
        name = str(self.common.get("model", ""))
        return self.request(parse_entry(name) if name else Entry(""))

    def request(self, entry: Entry, leave_out: Collection[str] = ()) -> Request:
        """Merge the layers for one model; what its spelling says wins.

        Args:
            entry: The model.
            leave_out: Keys that this model does not take from what was given for every model.
        """
        file, sets, flags = (
            {key: value for key, value in layer.items() if key not in leave_out}
            for layer in (self.file, self.sets, self.flags)
        )
        # The model's own section lies below that of the entry as it is spelled.
        own = [self.models.get(key, {}) for key in (entry.model, str(entry))]
        spelled = {key: value for key, value in asdict(entry).items() if value and key != "label"}
        merged = {k: v for layer in (file, *own, sets, flags, spelled) for k, v in layer.items()}
        run, training, _ = (
            {name: merged.pop(name) for name in kind.model_fields if name in merged}
            for kind in (RunSettings, TrainingSettings, Where)
        )
        return Request(RunSettings(**run), merged, TrainingSettings(**training))


def gather(config: Path | None, sets: Sequence[str], flags: Mapping[str, Any]) -> Request:
    """Merge the layers for the model that they name, as spelled; errors as those of `Layers`."""
    return Layers.read(config, sets, flags).named()


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table of key = value")
    return value


def _flat(content: Mapping[str, Any], known: Collection[str], where: str) -> dict[str, Any]:
    """Check one part of a file, and lay what its `set` holds over its settings."""
    flat = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if key == "set":
            continue
        if isinstance(value, dict):
            raise UsageError(
                f"{where}: unknown table [{key}]; settings of the recipe and the model go under [set], "
                'as in lr = 1e-4 or "options.width" = 32, those of one model under [models.NAME]'
            )
        if name not in known:
            hint = "fields of the recipe and options of the model go under set"
            raise UsageError(f"{where}: {unknown('setting', name, known)}; {hint}")
        flat[name] = value
    return flat | _dotted(_table(content.get("set", {}), f"{where}: [set]"))


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


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
