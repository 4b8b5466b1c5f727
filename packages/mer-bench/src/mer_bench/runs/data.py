"""BenchData: what one run trains and tests on, read from a store through the view that the model asks for."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mer_bench.errors import DataError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Population
from mer_bench.settings import RunSettings
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.store.reader import FlowStore

STORE_VARIABLE = "MER_BENCH_STORE"


@dataclass(frozen=True)
class BenchData:
    """Maps and labels, rows in the order of their sample ids.

    Attributes:
        maps: `(N, C, H, W)` float32; channels u, v, strain, in the units of the normalisation; of several
            stores one after another.
        population: Who the rows are, and their labels.
        view: As in `whole-28`; of several stores `whole-28+whole-28`, a part each. `colours-28` is `whole-28`
            of a store whose maps are pictures, without a u to mirror.
        normalisation: As in `scaled`.
        passed_over: Inputs that the model would rather have had, as `(view:normalisation, why not)`.
        dropped: Why samples of these databases have no label, with counts.
        store: Path of the store; empty for data made in memory.
        store_digest: The store's content digest.
        joined: Path and digest of the further stores.
        shuffle_seed: Seed of the label-shuffle control; None for the true labels.
    """

    maps: np.ndarray
    population: Population
    view: str
    normalisation: str
    passed_over: tuple[tuple[str, str], ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    store: str = ""
    store_digest: str = ""
    joined: tuple[tuple[str, str], ...] = ()
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        if self.maps.ndim != 4 or len(self.maps) != len(self.population.labels):
            raise DataError(
                f"maps have shape {self.maps.shape}, expected ({len(self.population.labels)}, C, H, W): "
                "one map per sample"
            )
        bad = np.flatnonzero(~np.isfinite(self.maps).reshape(len(self.maps), -1).all(1))
        if bad.size:
            named = ", ".join(map(str, self.population.sample_ids[bad[:5]]))
            raise DataError(
                f"{bad.size} map(s) hold NaN or infinite values: {named}{' ...' if bad.size > 5 else ''} "
                f"(view {self.input}, store {self.store or 'in memory'}). "
                "Run `mer-flow verify` on the store and build these samples again"
            )

    @property
    def input(self) -> str:
        """What was read, as in `whole-28:scaled`."""
        return f"{self.view}:{self.normalisation}"

    @property
    def num_classes(self) -> int:
        """Number of classes of the label scheme."""
        return len(self.population.classes)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of ids, labels and maps: all that training can see."""
        digest = hashlib.sha256()
        digest.update("\n".join(self.population.sample_ids.tolist()).encode())
        digest.update(np.ascontiguousarray(self.population.labels, np.int64).tobytes())
        digest.update(str(self.maps.shape).encode())
        digest.update(np.ascontiguousarray(self.maps, np.float32).tobytes())
        return digest.hexdigest()

    def inputs(self) -> tuple[str, ...]:
        """Return `input_digest` of every map, in the order of rows."""
        return tuple(input_digest(sample) for sample in self.maps)

    def shuffled(self, seed: int) -> BenchData:
        """Return the same maps with labels permuted over all samples, a control to score at chance."""
        labels = np.random.default_rng(seed).permutation(self.population.labels)
        return replace(self, population=replace(self.population, labels=labels), shuffle_seed=seed)


def input_digest(sample: np.ndarray) -> str:
    """Return 16 hex digits that a map shares with its mirror image and with no other.

    They are of the channels but the first, u, whose sign a mirror turns. A map of one value says nothing of
    its clip, and has none.

    >>> one = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    >>> input_digest(one) == input_digest(one[:, :, ::-1]), input_digest(np.zeros((3, 2, 2), np.float32))
    (True, '')
    """
    seen = sample[1:] if len(sample) > 1 else sample
    if (seen == seen.flat[0]).all():
        return ""
    sides = (np.ascontiguousarray(side, np.float32).tobytes() for side in (seen, seen[:, :, ::-1]))
    return min(hashlib.sha256(side).hexdigest() for side in sides)[:16]


class DataCache:
    """What was read, kept so that models of one input share it; the longest unused goes first.

    Args:
        limit: Bytes of maps to keep; the last that were read are kept in any case.
    """

    def __init__(self, limit: int = 2**28):
        self._limit = limit
        self._kept: dict[Hashable, BenchData] = {}

    def read(self, key: Hashable, read: Callable[[], BenchData]) -> BenchData:
        """Return what is kept under a key, or read and keep it."""
        data = self._kept.pop(key, None) or read()
        self._kept[key] = data
        while len(self._kept) > 1 and sum(kept.maps.nbytes for kept in self._kept.values()) > self._limit:
            del self._kept[next(iter(self._kept))]
        return data


def find_store(given: Path | None) -> Path:
    """Return the path of the store: the one given, else the environment's.

    Raises:
        UsageError: Neither names one.
        DataError: The file does not exist.
    """
    named = given or (Path(os.environ[STORE_VARIABLE]) if os.environ.get(STORE_VARIABLE) else None)
    if named is None:
        raise UsageError(
            f"no store given; pass --store FILE or set {STORE_VARIABLE}. A store is made by "
            "`mer-flow build --db NAME --root DIR --store FILE`, "
            "or without any database by `mer-flow demo --out DIR`"
        )
    if not named.is_file():
        origin = "--store" if given else STORE_VARIABLE
        if named.is_dir():
            raise DataError(
                f"store {named} (from {origin}) is a folder; give the HDF5 file, as {named / 'flows.h5'}"
            )
        raise DataError(
            f"store {named} (from {origin}) does not exist; "
            f"make it with `mer-flow build --db NAME --root DIR --store {named}`"
        )
    return named


def find_stores(given: Sequence[Path]) -> tuple[Path, ...]:
    """Return the paths of the stores, as `find_store` does; UsageError where one is given twice."""
    found = tuple(find_store(path) for path in given or (None,))
    seen: dict[Path, Path] = {}
    for path in found:
        if seen.setdefault(path.resolve(), path) is not path:
            raise UsageError(f"store {path} is given twice; --store names each store of a joint input once")
    return found


def wanted_inputs(spec: ModelSpec, run: RunSettings) -> tuple[tuple[str, str], ...]:
    """Return the inputs to try, best first, as `(view, normalisation)`.

    A view given without a normalisation takes the model's normalisations, its own pairing of that view first.
    """
    view, normalisation = run.view, run.normalisation
    listed = [(v, n) for v, _, n in (entry.partition(":") for entry in spec.inputs(run.variant, run.recipe))]
    if view and normalisation:
        return ((view, normalisation),)
    if view:
        paired = [pair for pair in listed if pair[0] == view]
        return tuple(dict.fromkeys(paired + [(view, n) for _, n in listed]))
    return tuple(dict.fromkeys((v, normalisation or n) for v, n in listed))


def load_data(
    stores: Path | Sequence[Path], spec: ModelSpec, run: RunSettings, cache: DataCache | None = None
) -> BenchData:
    """Read what a model needs under a protocol.

    Several stores make one input: each is read in the same view and normalisation, and the channels of one
    follow those of the other, samples matched by id. Each must hold the same samples with the same labels.

    Args:
        stores: The store, or several.
        spec: The model; its inputs are tried in order unless the run names one.
        run: Gives protocol, scheme, variant and input; without a protocol, its databases or else all of the
            store are read.
        cache: Where other models' data are kept, to be shared.

    Raises:
        UsageError: An unknown protocol or scheme, or options that do not fit.
        DataError: A store lacks a database, none of the inputs can be had of every store, or stores hold
            other samples than each other.
    """
    from mer_flow.labels import get_scheme
    from mer_flow.store.reader import FlowStore
    from mer_flow.views import missing_ingredient

    get_scheme(run.scheme)
    cache = cache or DataCache()
    with contextlib.ExitStack() as stack:
        paths = (stores,) if isinstance(stores, Path) else tuple(stores)
        opened = [stack.enter_context(FlowStore(path)) for path in paths]
        needed = _shared_databases(opened, run)
        passed_over = []
        for wanted in wanted_inputs(spec, run):
            lacking = (missing_ingredient(store, *wanted, list(needed)) for store in opened)
            reason = next(filter(None, lacking), None)
            if reason is None:
                break
            passed_over.append((":".join(wanted), reason))
        else:
            tried = " ".join(reason for _, reason in passed_over)
            raise DataError(f"{spec.name} cannot be fed: the store can give none of its inputs. {tried}")
        key = (*map(str, paths), *wanted, run.scheme, needed)
        data = cache.read(key, lambda: join([_read(store, *wanted, run.scheme, needed) for store in opened]))
    return replace(data, passed_over=tuple(passed_over))


def join(parts: Sequence[BenchData]) -> BenchData:
    """Put the channels of one store behind those of another; DataError where their samples differ."""
    first, *others = parts
    if not others:
        return first
    _check_shared(parts)
    for other in others:
        ours, theirs = first.population, other.population
        differing = np.flatnonzero((ours.labels != theirs.labels) | (ours.subjects != theirs.subjects))
        if differing.size:
            raise DataError(
                f"stores {first.store} and {other.store} give {differing.size} of {len(ours.labels)} shared "
                f"samples another label or subject: {_some(ours.sample_ids[differing].tolist())}. "
                "Stores of a joint input come from one list of labels: import or build one of them again"
            )
        if other.maps.shape != first.maps.shape:
            raise DataError(
                f"maps of {first.store} have shape {first.maps.shape[1:]}, those of {other.store} "
                f"{other.maps.shape[1:]}; stores of a joint input need one shape: build them alike"
            )
    return replace(
        first,
        maps=np.concatenate([part.maps for part in parts], axis=1),
        view="+".join(part.view for part in parts),
        joined=tuple((other.store, other.store_digest) for other in others),
    )


def _check_shared(parts: Sequence[BenchData]) -> None:
    """Refuse stores that do not hold the same samples: a fold must be the same for all maps of a sample."""
    held = [set(part.population.sample_ids.tolist()) for part in parts]
    shared, every = set.intersection(*held), set.union(*held)
    if shared == every:
        return
    lacking = "; ".join(
        f"{part.store} lacks {len(every - ids)} of them: {_some(sorted(every - ids))}"
        for part, ids in zip(parts, held, strict=True)
        if ids != every
    )
    raise DataError(
        f"the stores share {len(shared)} of {len(every)} labelled samples, and a joint input needs every one "
        f"in each. {lacking}. Add them, or choose with --db databases that all stores hold whole"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _read(store: FlowStore, view: str, normalisation: str, scheme: str, needed: tuple[str, ...]) -> BenchData:
    from mer_flow.views import ViewReader

    reader = ViewReader(store, view, normalisation, scheme=scheme, databases=list(needed))
    _check_labelled(set(reader.databases.tolist()), needed, reader.dropped, scheme)
    # In the order of sample ids nothing downstream can depend on a store's row order; sorted before they are
    # read, the maps of video models are held once.
    order = np.argsort(reader.sample_ids, kind="stable")
    population = Population(
        reader.sample_ids[order],
        reader.subjects[order],
        reader.databases[order],
        reader.labels[order],
        tuple(reader.classes),
        scheme,
    )
    return BenchData(
        reader.read(order),
        population,
        _named(str(reader.view), store),
        normalisation,
        dropped=tuple(sorted(reader.dropped.items())),
        store=str(store.path),
        store_digest=store.digest(needed),
    )


def _named(view: str, store: FlowStore) -> str:
    """Return the view's name, another where its maps are pictures in which nothing knows how to mirror u."""
    channels = store.pipeline.get("import", {}).get("channels", ["u", "v", "strain"])
    return view if list(channels) == ["u", "v", "strain"] else view.replace("whole-", "colours-")


def _shared_databases(stores: Sequence[FlowStore], run: RunSettings) -> tuple[str, ...]:
    """Return the databases that a run reads of every store, or raise where they differ."""
    found = [_databases(store, run) for store in stores]
    if len(set(found)) > 1:
        listed = "; ".join(f"{s.path}: {', '.join(names)}" for s, names in zip(stores, found, strict=True))
        raise DataError(f"the stores hold different databases ({listed}); name those to read with --db")
    return found[0]


def _databases(store: FlowStore, run: RunSettings) -> tuple[str, ...]:
    """Return the databases that a run reads, or raise where the store lacks one."""
    from mer_flow.databases.registry import database_names
    from mer_flow.labels import get_scheme

    if run.protocol:
        run.splitter().check_scheme(run.scheme)
    # Unless told otherwise, databases that the scheme has no classes for are left out.
    labelled = [name for name in store.databases if name in get_scheme(run.scheme).databases]
    needed = run.splitter().databases(labelled) if run.protocol else tuple(sorted({*(run.db or labelled)}))
    for name in needed:
        if name not in (*database_names(), *store.databases):
            raise UsageError(str(unknown("database", name, {*database_names(), *store.databases})))
    missing = [name for name in needed if name not in store.databases]
    if missing:
        wish = f"protocol '{run.protocol}' needs" if run.protocol else "--db asks for"
        raise DataError(
            f"{wish} {', '.join(needed)}; store {store.path} holds "
            f"{', '.join(store.databases) or 'nothing'} and lacks {', '.join(missing)}. Add with: "
            + "; ".join(f"mer-flow build --db {name} --root DIR --store {store.path}" for name in missing)
        )
    return needed


def read_population(path: Path, run: RunSettings) -> Population:
    """Read who a run's samples are, without their maps, in the order of their ids.

    Raises:
        DataError: The store lacks a database, or a database has no sample with a class in the scheme.
    """
    from mer_flow.labels import apply_scheme, get_scheme
    from mer_flow.store.reader import FlowStore

    chosen = get_scheme(run.scheme)
    rows = []
    dropped: Counter[str] = Counter()
    with FlowStore(path) as store:
        needed = _databases(store, run)
        for database in needed:
            table = store.samples(database)
            labelled = apply_scheme(table, chosen)
            dropped.update(labelled.dropped.values())
            rows += [(i, table[i].subject, database, label) for i, label in labelled.labels.items()]
    _check_labelled({row[2] for row in rows}, needed, dropped, run.scheme)
    ids, subjects, databases, labels = zip(*sorted(rows), strict=True)
    return Population(
        np.array(ids),
        np.array(subjects),
        np.array(databases),
        np.array(labels, np.int64),
        chosen.classes,
        run.scheme,
    )


def _check_labelled(found: set[str], needed: Sequence[str], dropped: Mapping[str, int], scheme: str) -> None:
    bare = sorted(set(needed) - found)
    if bare:
        why = "; ".join(
            f"{reason} ({count})" for reason, count in sorted(dropped.items(), key=lambda d: -d[1])[:3]
        )
        raise DataError(
            f"no sample of {', '.join(bare)} has a class in label scheme '{scheme}'"
            f"{f' (dropped: {why})' if why else ''}; choose a scheme that covers it with --scheme"
        )
