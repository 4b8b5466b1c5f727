"""Many models under one protocol: all are resolved and checked first, then trained one run after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from mer_bench.errors import MerBenchError, RegistryError, UsageError
from mer_bench.models.registry import Registered, Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.runs.data import DataCache
from mer_bench.runs.directory import MANIFEST, RunDirectory
from mer_bench.runs.train import Outcome, Prepared, execute, prepare
from mer_bench.settings import Layers, Request, RunSettings, known_keys, resolve, takes
from mer_flow.work.errors import MerFlowError
from mer_flow.work.suggest import unknown

logger = logging.getLogger(__name__)

#: `--all` on a CPU takes the variant `small` of models with more parameters than this, where they have one.
LARGE = 5_000_000

#: Called with (place in the plan, seed, fold-epochs done, their total of that seed).
OnProgress = Callable[[int, int, int, int], None]


@dataclass(frozen=True)
class Refused:
    """A model that cannot run.

    Attributes:
        entry: As it was spelled, or the plug-in's name.
        reason: Why not, and the remedy.
    """

    entry: str
    reason: str


@dataclass(frozen=True)
class Planned:
    """A model that can run.

    Attributes:
        entry: As it is spelled.
        registered: The model and its package.
        request: Its settings.
        manifest: What its run directory says, or will say.
        path: The run directory.
        done: Folds recorded already, over all seeds.
        notes: What was decided for this model.
        seconds: Estimated time of the folds to train; None where it was not estimated.
    """

    entry: Entry
    registered: Registered
    request: Request
    manifest: dict[str, Any]
    path: Path
    done: int
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def epochs(self) -> int:
        """Epochs per fold; a classifier is fitted once."""
        recipe = self.manifest["identity"]["recipe"]
        return 1 if recipe is None else int(recipe["epochs"])

    @property
    def folds(self) -> int:
        """Folds over all seeds."""
        return len(self.manifest["folds"]) * len(self.request.run.seeds)


@dataclass(frozen=True)
class Trained:
    """What became of one model.

    Attributes:
        planned: The model.
        outcome: What `execute` did; None where it could not be begun or broke off.
        failures: What went wrong, one sentence or more each.
    """

    planned: Planned
    outcome: Outcome | None
    failures: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every fold of every seed has a sound record."""
        return self.outcome is not None and self.outcome.status.complete


def choose_entries(
    names: Sequence[str], everything: bool, layers: Layers, registry: Registry
) -> tuple[list[Entry], list[Refused]]:
    """Returns the models to run: those named, or all, or those that the configuration has sections for.

    Args:
        names: Spellings from the command line.
        everything: Take every registered model.
        layers: The settings.
        registry: The models.

    Returns:
        The entries, and what of the registry is broken where all were asked for.

    Raises:
        UsageError: Names are given along with `everything`, twice, unknown or ill spelled.
    """
    if names and everything:
        raise UsageError("give either --all or names of models")
    for key in layers.file.models:
        name = parse_entry(key).model
        if name not in registry.names and not _is_broken(registry, name):
            raise UsageError(f"section [models.{key}]: {unknown('model', name, registry.names)}")
    if everything:
        refused = [Refused(failure.entry_point, str(failure)) for failure in registry.failures]
        for name in registry.duplicates:
            try:
                registry.find(name)
            except RegistryError as error:
                refused.append(Refused(name, str(error)))
        return [Entry(entry.spec.name) for entry in sorted(registry, key=_size)], refused
    entries = [parse_entry(name) for name in names or layers.file.models]
    for entry in entries:
        if entries.count(entry) > 1:
            raise UsageError(f"'{entry}' is given twice")
        if entry.model not in registry.names and not _is_broken(registry, entry.model):
            registry.find(entry.model)
    return entries, []


def _size(entry: Registered) -> tuple[bool, int, str]:
    """Sorts classifiers first, then networks by their size: what is quick comes first."""
    return entry.spec.kind == "network", entry.spec.parameters or 0, entry.spec.name


def _is_broken(registry: Registry, name: str) -> bool:
    return name in registry.duplicates or any(name == failure.entry_point for failure in registry.failures)


@dataclass(frozen=True)
class Leaderboard:
    """The models of one leaderboard, checked; nothing has been trained.

    Attributes:
        store: The store.
        out: Folder of all runs.
        planned: What will be trained, in order.
        refused: What cannot run, and why.
        cache: Data that were read for checking.
    """

    store: Path
    out: Path
    planned: tuple[Planned, ...]
    refused: tuple[Refused, ...]
    cache: DataCache

    @classmethod
    def plan(
        cls,
        entries: Iterable[Entry],
        layers: Layers,
        registry: Registry,
        store: Path,
        out: Path,
        *,
        spare_cpu: bool = False,
        estimate: bool = False,
    ) -> Leaderboard:
        """Resolves and checks every model, without training any.

        Args:
            entries: The models.
            layers: The settings; what was given for all goes to the models that know it.
            registry: Where the models are found.
            store: The store.
            out: Folder of all runs.
            spare_cpu: On a CPU, take variant `small` of large models unless a variant was asked for.
            estimate: Estimate how long each will take.

        Returns:
            The plan.

        Raises:
            UsageError: A setting that no model takes, a wrong value, or two entries that are one run.
            MerBenchError: No model can run, all for this one reason.
        """
        planned: list[Planned] = []
        refused: list[Refused] = []
        errors: list[Exception] = []
        cache = DataCache()
        found = []
        for entry in entries:
            try:
                found.append((entry, registry.find(entry.model)))
            except RegistryError as error:
                refused.append(Refused(str(entry), str(error)))
        _check_common(layers, [registered.spec for _, registered in found])
        rate = 0.0
        for entry, registered in found:
            entry, request, notes = _settle(entry, registered.spec, layers, spare_cpu)
            try:
                prepared = prepare(registered, request, store, cache)
            except (MerBenchError, MerFlowError) as error:
                refused.append(Refused(str(entry), str(error)))
                errors.append(error)
                continue
            path, done = _progress_on_disk(out, prepared)
            seconds = None
            if estimate:
                from mer_bench.runs.estimate import cpu_rate, estimate_seconds

                rate = rate or cpu_rate()
                missing = len(prepared.folds) * len(request.run.seeds) - done
                seconds = estimate_seconds(prepared, missing, rate)
            model = Planned(entry, registered, request, prepared.manifest, path, done, tuple(notes), seconds)
            for other in planned:
                if other.path == path:
                    raise UsageError(f"'{other.entry}' and '{entry}' are the same run, {path.name}")
            planned.append(model)
        if errors and not planned and len({str(error) for error in errors}) == 1:
            raise errors[0]
        return cls(store, out, tuple(planned), tuple(refused), cache)

    def train(
        self,
        *,
        limit: int | None = None,
        on_model: Callable[[int, Planned], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterable[Trained]:
        """Trains one model after another; one that fails does not keep the others from going on.

        Args:
            limit: Train no more than the first so many folds of each.
            on_model: Called with the place of a model before it is trained.
            on_progress: Told how far the model in training has come.

        Yields:
            What became of each, as soon as it is known.

        Raises:
            UsageError: `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"--limit must be at least 1, got {limit}")
        for place, planned in enumerate(self.planned):
            if on_model is not None:
                on_model(place, planned)

            def report(seed: int, done: int, total: int, place: int = place) -> None:
                if on_progress is not None:
                    on_progress(place, seed, done, total)

            outcome: Outcome | None = None
            try:
                prepared = prepare(planned.registered, planned.request, self.store, self.cache)
                outcome = execute(prepared, self.out, limit=limit, on_progress=report)
                failures = outcome.failures
            except (MerBenchError, MerFlowError) as error:
                failures = (str(error),)
            except Exception as error:  # a stranger's model; the models to come are not to suffer from it
                logger.exception("model '%s' broke off", planned.entry)
                failures = (f"{type(error).__name__}: {error}",)
            yield Trained(planned, outcome, failures)


def _progress_on_disk(out: Path, prepared: Prepared) -> tuple[Path, int]:
    manifest = prepared.manifest
    path = out / f"{manifest['model']}-{manifest['protocol']}-{manifest['digest'][:12]}"
    if not (path / MANIFEST).exists():
        return path, 0
    status = RunDirectory(path).status(prepared.settings.seeds)
    return path, sum(len(names) for names in status.done.values())


def _left_out(spec: ModelSpec, common: dict[str, Any]) -> list[str]:
    """Returns the keys given for every model that this one does not know."""
    of_run = get_type_hints(RunSettings)
    known: dict[str, Iterable[str]] = {"variant": spec.variants, "recipe": spec.recipes}
    return [
        key
        for key, value in common.items()
        if (key in known and value and value not in known[key])
        or (key not in of_run and not takes(spec, key))
    ]


def _check_common(layers: Layers, specs: Sequence[ModelSpec]) -> None:
    """Refuses what was given for every model and none knows."""
    common = layers.common
    if not specs:
        return
    for key in set.intersection(*(set(_left_out(spec, common)) for spec in specs)):
        if key in ("variant", "recipe"):
            known = {name for spec in specs for name in getattr(spec, f"{key}s")}
            raise UsageError(str(unknown(f"{key} of the chosen models", str(common[key]), known)))
        keys = {name for spec in specs for name in known_keys(spec)}
        raise UsageError(f"{unknown('setting', key.rpartition('.')[2], keys)}; no chosen model takes it")


def _settle(
    entry: Entry, spec: ModelSpec, layers: Layers, spare_cpu: bool
) -> tuple[Entry, Request, list[str]]:
    """Returns a model's entry and request, checked against the model, and what was decided on the way."""
    common = layers.common
    left_out = _left_out(spec, common)
    request = layers.request(entry, left_out)
    spelled = [f"{key} {common[key]}" if key in ("variant", "recipe") else key for key in left_out]
    notes = [f"does not know {', '.join(spelled)}, so its own settings hold"] if spelled else []
    large = (spec.parameters or 0) > LARGE and "small" in spec.variants and spec.default_variant != "small"
    if spare_cpu and large and not request.run.variant and _on_cpu(request):
        entry = Entry(entry.model, "small", entry.recipe)
        request = layers.request(entry, left_out)
        notes.append(
            f"variant small, as {spec.default_variant} has {spec.parameters:,} parameters and this is a CPU; "
            f"{entry.model}:{spec.default_variant} asks for it"
        )
    resolve(spec, request)
    return entry, request, notes


def _on_cpu(request: Request) -> bool:
    from mer_bench.training.folds import resolve_device

    return resolve_device(request.run.device) == "cpu"
