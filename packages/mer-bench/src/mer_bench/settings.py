"""Settings of a run: a TOML file below `--set key=value` below the flags; typed, unknown keys are errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mer_bench.errors import UsageError
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.protocols.splits import Protocol, ProtocolOptions, get_protocol
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
