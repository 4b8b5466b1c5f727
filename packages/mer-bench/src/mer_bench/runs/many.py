"""Many models under one protocol: all are resolved and checked first, then trained one run after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mer_bench.errors import MerBenchError, RegistryError, UsageError
from mer_bench.models.registry import Registered, Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.resolve import known_keys, resolve, takes
from mer_bench.runs.data import DataCache
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.estimate import cpu_rate, estimate_seconds
from mer_bench.runs.manifest import MANIFEST, RunManifest
from mer_bench.runs.part import Part
from mer_bench.runs.train import OnProgress, Outcome, execute, prepare
from mer_bench.settings import SETTINGS, Layers, Request
from mer_flow.work.errors import MerFlowError
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.work.cluster import OnDask
    from mer_flow.work.where import Where

logger = logging.getLogger(__name__)

#: `--all` on a CPU takes the variant `small` of models with more parameters than this, where they have one.
LARGE = 5_000_000


@dataclass(frozen=True)
class Refused:
    """A model that cannot run, as it was spelled or its plug-in is named; why not, and the remedy."""

    entry: str
    reason: str


@dataclass(frozen=True)
class Chosen:
    """The models asked for, as they are spelled; `everything` where all were."""

    entries: tuple[Entry, ...]
    everything: bool = False


@dataclass(frozen=True)
class Planned:
    """A model that can run.

    Attributes:
        manifest: What its run directory says, or will say.
        path: The run directory.
        done: Folds recorded already, over all seeds.
        notes: What was decided for this model.
        seconds: Estimated time of the folds to train; None where it was not estimated.
    """

    entry: Entry
    registered: Registered
    request: Request
    manifest: RunManifest
    path: Path
    done: int
    notes: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class Finished:
    """What became of one model.

    Attributes:
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


def choose(names: Sequence[str], everything: bool, layers: Layers, registry: Registry) -> Chosen:
    """Return the models to run: those named, or all, or those that the configuration has sections for.

    Among them may be some that are broken in the registry.

    Raises:
        UsageError: Names are given along with `everything`, twice, unknown or ill spelled.
    """
    if names and everything:
        raise UsageError("give either --all or names of models")
    sections = tuple(parse_entry(key) for key in layers.models)
    for key, entry in zip(layers.models, sections, strict=True):
        _require(entry, registry, f"section [models.{key}]: ")
    if everything:
        sound = [entry.spec.name for entry in sorted(registry, key=_size)]
        broken = [*(failure.entry_point for failure in registry.failures), *registry.duplicates]
        return Chosen(tuple(Entry(name) for name in dict.fromkeys([*sound, *broken])), everything=True)
    entries = tuple(parse_entry(name) for name in names) or sections
    for entry in entries:
        if entries.count(entry) > 1:
            raise UsageError(f"'{entry}' is given twice")
        _require(entry, registry)
    return Chosen(entries)


def _require(entry: Entry, registry: Registry, where: str = "") -> None:
    """Refuse a name that nobody registered; a broken one is refused later, in company."""
    try:
        registry.find(entry.model)
    except RegistryError:
        pass
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None


def _size(entry: Registered) -> tuple[bool, int, str]:
    """Sort classifiers first, then networks by their size: what is quick comes first."""
    return entry.spec.kind == "network", entry.spec.parameters or 0, entry.spec.name


@dataclass(frozen=True)
class Leaderboard:
    """The models of one leaderboard, checked, with the data read for that; nothing has been trained."""

    stores: tuple[Path, ...]
    out: Path
    planned: tuple[Planned, ...]
    refused: tuple[Refused, ...]
    cache: DataCache

    @classmethod
    def plan(
        cls,
        chosen: Chosen,
        layers: Layers,
        registry: Registry,
        stores: tuple[Path, ...],
        out: Path,
        estimate: bool = False,
    ) -> Leaderboard:
        """Resolve and check every model, without training any.

        Args:
            chosen: The models; where all were asked for, the variant `small` of large ones is taken on a CPU
                unless another was set.
            layers: The settings; what was given for all goes to the models that know it.
            registry: Where the models are found.
            stores: The store, or those that make a joint input.
            out: Folder of all runs.
            estimate: Whether to estimate how long each will take.

        Raises:
            UsageError: A setting that no model takes, a wrong value, or two entries that are one run.
            MerBenchError: No model can run, all for this one reason.
        """
        planned: list[Planned] = []
        refused: list[Refused] = []
        errors: list[Exception] = []
        cache = DataCache()
        found = []
        for entry in chosen.entries:
            try:
                found.append((entry, registry.find(entry.model)))
            except RegistryError as error:
                refused.append(Refused(str(entry), str(error)))
        _check_common(layers, [registered.spec for _, registered in found])
        rate = cpu_rate() if estimate else 0.0
        for entry, registered in found:
            entry, request, notes = _settle(entry, registered.spec, layers, chosen.everything)
            try:
                prepared = prepare(registered, request, stores, cache)
            except (MerBenchError, MerFlowError) as error:
                refused.append(Refused(str(entry), str(error)))
                errors.append(error)
                continue
            path = prepared.manifest.path(out)
            done = _folds_done(path, request)
            missing = len(prepared.folds) * len(request.run.seeds) - done
            seconds = estimate_seconds(prepared, missing, rate) if estimate else None
            for other in planned:
                if other.path == path:
                    raise UsageError(f"'{other.entry}' and '{entry}' are the same run, {path.name}")
            planned.append(
                Planned(entry, registered, request, prepared.manifest, path, done, tuple(notes), seconds)
            )
        if errors and not planned and len({str(error) for error in errors}) == 1:
            raise errors[0]
        return cls(stores, out, tuple(planned), tuple(refused), cache)

    def train(
        self, planned: Planned, part: Part | None = None, on_progress: OnProgress | None = None
    ) -> Finished:
        """Train one of the models, as `execute` does; its failure does not keep the others from going on."""
        outcome: Outcome | None = None
        try:
            prepared = prepare(planned.registered, planned.request, self.stores, self.cache)
            part = part or Part()
            outcome = execute(prepared, self.out, part.limit, on_progress, part.shard)
            failures = outcome.failures
        except (MerBenchError, MerFlowError) as error:
            failures = (str(error),)
        except Exception as error:  # a stranger's model; the models to come are not to suffer from it
            logger.exception("model '%s' broke off", planned.entry)
            failures = (f"{type(error).__name__}: {error}",)
        return Finished(planned, outcome, failures)

    def train_on_cluster(
        self, where: Where, part: Part, shown: Callable[[OnDask], AbstractContextManager[OnProgress]]
    ) -> list[Finished]:
        """Train all models at once, as `execute_together` does.

        Args:
            where: The cluster.
            part: Which folds.
            shown: Shows progress, given the executor.
        """
        from mer_bench.runs.together import execute_together, open_cluster

        prepared, failed = {}, {}
        for planned in self.planned:
            try:
                prepared[planned.path] = prepare(planned.registered, planned.request, self.stores, self.cache)
            except (MerBenchError, MerFlowError) as error:
                failed[planned.path] = error
        runs = list(prepared.values())
        packages = [run.manifest.package for run in runs]
        workers = max((run.job.training.workers or 0 for run in runs), default=0) or None
        with open_cluster(where, packages, workers) as executor, shown(executor) as report:
            outcomes = execute_together(runs, self.out, executor, part, report)
        found = dict(zip(prepared, outcomes, strict=True))
        finished = []
        for planned in self.planned:
            one = found.get(planned.path, failed.get(planned.path))
            if isinstance(one, Outcome):
                finished.append(Finished(planned, one, one.failures))
            else:
                finished.append(Finished(planned, None, (str(one),)))
        return finished


def _folds_done(path: Path, request: Request) -> int:
    if not (path / MANIFEST).exists():
        return 0
    return sum(map(len, RunDirectory(path).status(request.run.seeds).done.values()))


def _left_out(spec: ModelSpec, layers: Layers) -> list[str]:
    """Return the keys given for every model that this one does not know."""
    known: dict[str, Iterable[str]] = {"variant": spec.variants, "recipe": spec.recipes}
    return [
        key
        for key, value in layers.common.items()
        if (key in known and value and value not in known[key])
        or (key not in SETTINGS and not takes(spec, key))
    ]


def _check_common(layers: Layers, specs: Sequence[ModelSpec]) -> None:
    """Refuse what was given for every model and none knows."""
    left_out = [_left_out(spec, layers) for spec in specs]
    for key in layers.common if specs else ():
        if not all(key in keys for keys in left_out):
            continue
        if key in ("variant", "recipe"):
            known = {name for spec in specs for name in getattr(spec, f"{key}s")}
            raise UsageError(str(unknown(f"{key} of the chosen models", str(layers.common[key]), known)))
        keys = {name for spec in specs for name in known_keys(spec)}
        raise UsageError(f"{unknown('setting', key.rpartition('.')[2], keys)}; no chosen model takes it")


def _settle(
    entry: Entry, spec: ModelSpec, layers: Layers, spare_cpu: bool
) -> tuple[Entry, Request, list[str]]:
    """Return a model's entry and request, checked against the model, and what was decided on the way."""
    from mer_bench.training.device import resolve_device

    left_out = _left_out(spec, layers)
    request = layers.request(entry, left_out)
    spelled = [f"{key} {layers.common[key]}" if key in ("variant", "recipe") else key for key in left_out]
    notes = [f"does not know {', '.join(spelled)}, so its own settings hold"] if spelled else []
    large = (spec.parameters or 0) > LARGE and "small" in spec.variants and spec.default_variant != "small"
    if spare_cpu and large and not request.run.variant and resolve_device(request.training.device) == "cpu":
        entry = replace(entry, variant="small")
        request = layers.request(entry, left_out)
        notes.append(
            f"variant small, as {spec.default_variant} has {spec.parameters:,} parameters and this is a CPU; "
            f"{entry.model}:{spec.default_variant} asks for it"
        )
    resolve(spec, request)
    return entry, request, notes
