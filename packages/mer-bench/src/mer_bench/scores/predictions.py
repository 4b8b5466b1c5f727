"""Predictions as a table: of a run, and scored, whoever made them.

Columns: `sample`; `predicted`, the name of a class, or `p_<class>` for every class of the label scheme, of
which the largest counts; `seed` where there are several. A run's have `subject`, `database`, `fold` and
`label` too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench.errors import DataError
from mer_bench.protocols.composite import composite_deviations
from mer_bench.protocols.folds import Population
from mer_bench.runs.data import find_store, read_population
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.selection import select
from mer_bench.scores.summary import PoolSummary, complete_records, pool_summaries
from mer_bench.settings import RunSettings
from mer_bench.training.result import FoldResult
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    import pandas as pd

#: Of a file of predictions: 442 samples with 1,000 seeds take some 60 MB.
MOST_BYTES, MOST_COLUMNS = 128 << 20, 256
#: Characters of a name or value that an error shows.
_SHOWN = 60


def predictions_of(
    run: RunDirectory, seeds: Sequence[int] | None = None, selection: str = ""
) -> pd.DataFrame:
    """Return a run's predictions, a row per seed and tested sample.

    Args:
        run: A complete run.
        seeds: Its seeds; all by default.
        selection: Which epochs count, as in `tail`; the run's headline unless given.

    Returns:
        Columns `sample`, `subject`, `database`, `fold`, `seed`, `label` and `predicted` (names of classes),
        and `p_<class>`, float64, which sum to 1.

    Raises:
        UsageError: No such seed or selection.
        RunError: The run is incomplete.
    """
    return predictions_from(run, complete_records(run, seeds), selection)


def predictions_from(
    run: RunDirectory, records: Mapping[int, Sequence[FoldResult]], selection: str = ""
) -> pd.DataFrame:
    """Return what `predictions_of` returns, of records by seed that were read before."""
    import pandas as pd
    from scipy.special import softmax

    manifest = run.manifest
    classes, labels = np.array(manifest.classes), run.column("labels")
    fold_of = np.empty(len(labels), object)
    for fold in manifest.folds:
        fold_of[list(fold.test)] = fold.name
    frames = []
    for seed, folds in records.items():
        rule = selection or manifest.settings.headline
        picked = select(folds, labels, rule, manifest.settings.tail_epochs)
        at = picked.index
        probabilities = softmax(picked.scores, axis=1)
        columns = {
            "sample": run.column("sample_ids")[at],
            "subject": run.column("subjects")[at],
            "database": run.column("databases")[at],
            "fold": fold_of[at],
            "seed": seed,
            "label": classes[labels[at]],
            "predicted": classes[picked.predicted],
            **{f"p_{name}": probabilities[:, c] for c, name in enumerate(classes)},
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Scores:
    """Scores of predictions, by the rules of a run's.

    Attributes:
        pools: `Full` and each database to its figures.
        seeds: As the predictions have them.
        samples: Number of samples.
        subjects: Number of subjects.
        deviations: How a composite differs from the official one.
    """

    protocol: str
    scheme: str
    classes: tuple[str, ...]
    pools: dict[str, PoolSummary]
    seeds: tuple[int, ...]
    samples: int
    subjects: int
    deviations: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return a row per pool; columns as of `pool_rows`."""
        import pandas as pd

        return pd.DataFrame(pool_rows(self.pools)).set_index("pool")

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and text."""
        told = ("protocol", "scheme", "classes", "seeds", "samples", "subjects", "deviations")
        confusions = {name: pool.confusion.tolist() for name, pool in self.pools.items()}
        return {**{name: getattr(self, name) for name in told}, "pools": pool_rows(self.pools)} | {
            "confusions": confusions
        }


def pool_rows(pools: Mapping[str, PoolSummary]) -> list[dict[str, Any]]:
    """Return `pool`, `uf1`, `uar` and `accuracy` of each pool, means over seeds.

    `<metric>_sd` is the deviation over seeds (NaN for one), `<metric>_low` and `<metric>_high` the 95 %
    interval by bootstrap over subjects.
    """
    rows = []
    for name, pool in pools.items():
        row: dict[str, Any] = {"pool": name, **{key: one.mean for key, one in pool.figures.items()}}
        for key, one in pool.figures.items():
            sd = float("nan") if one.sd is None else one.sd
            row |= {f"{key}_sd": sd, f"{key}_low": one.low, f"{key}_high": one.high}
        rows.append(row)
    return rows


def score(
    predictions: pd.DataFrame | Path | str,
    store: Path | str | None = None,
    protocol: str = "cde",
    **settings: Any,
) -> Scores:
    """Score anybody's predictions by the rules of a run: one per sample, pooled over folds, classes fixed.

    Args:
        predictions: The table, or a CSV file.
        store: Where samples and true classes are read; without one, columns `label`, `subject` and `database`
            say them, and a sample that was left out goes unnoticed.
        protocol: The protocol that they were made under: which samples must be there.
        **settings: Of the protocol, as in `scheme="samm-5", db="samm"`; fields of `RunSettings`.

    Raises:
        UsageError: An unknown protocol, scheme or setting.
        DataError: Samples are missing, doubled or unknown, were trained on (column `trained_on`, as
            `mer-bench predict` writes it), a class is none of the scheme, or a value is no number; they are
            named.
    """
    import pandas as pd

    if isinstance(predictions, (str, Path)):
        origin, frame = str(predictions), _read_csv(Path(predictions))
    else:
        origin, frame = "predictions", predictions
    run = RunSettings(protocol=protocol, **settings)
    if "sample" not in frame:
        raise DataError(
            f"{origin}: there is no column 'sample'; it has {', '.join(map(str, frame.columns))}. Expected a "
            "header with sample, and predicted or p_CLASS of every class; seed where there are several"
        )
    if "trained_on" in frame and frame["trained_on"].any():
        raise DataError(
            f"{origin}: {frame['trained_on'].sum()} row(s) are of subjects that the network was trained on "
            f"({_some(frame['sample'][frame['trained_on']])}), and what is said of them is no score"
        )
    frame = frame.assign(sample=frame["sample"].astype(str), seed=_seeds(frame, origin))
    truth = _stated(frame, run, origin) if store is None else read_population(find_store(Path(store)), run)
    folds = run.splitter().cut(truth)
    tested = np.unique(np.concatenate([fold.test for fold in folds.folds]))
    wanted = pd.Index(truth.sample_ids[tested])
    predicted = _predicted(frame, truth.classes, origin)
    if store is not None and "label" in frame:
        _check_labels(frame, truth, origin)
    seeds, rows = sorted({*frame["seed"].tolist()}), []
    for seed in seeds:
        each = frame.assign(predicted=predicted)[frame["seed"] == seed].set_index("sample")
        _check_samples(each.index, wanted, f"{origin}, seed {seed}" if len(seeds) > 1 else origin)
        rows.append(each["predicted"].loc[wanted].to_numpy(np.int64))
    labels, subjects, databases = (
        getattr(truth, name)[tested] for name in ("labels", "subjects", "databases")
    )
    return Scores(
        protocol,
        truth.scheme,
        truth.classes,
        pool_summaries(labels, np.stack(rows), subjects, databases, len(truth.classes)),
        tuple(seeds),
        len(tested),
        len(np.unique(subjects)),
        tuple(composite_deviations(truth)) if protocol == "cde" else (),
    )


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    from mer_flow.work.cells import plain_cell

    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        if (columns := len(pd.read_csv(io.BytesIO(raw), nrows=0).columns)) > MOST_COLUMNS:
            raise ValueError(f"it has {columns:,} columns, at most {MOST_COLUMNS} are read")
        frame = pd.read_csv(io.BytesIO(raw))
        if frame.empty:
            raise ValueError("it has no row")
        texts = frame.select_dtypes(exclude="number").columns
        frame[texts] = frame[texts].map(plain_cell)
        return frame
    except (OSError, ValueError) as error:
        raise DataError(
            f"predictions {path} cannot be read: {error}; expected CSV with a head line"
        ) from None


def _seeds(frame: pd.DataFrame, origin: str) -> np.ndarray:
    """Return `(N,)` int64, 0 where there is no such column."""
    if "seed" not in frame:
        return np.zeros(len(frame), np.int64)
    seeds = _number(frame["seed"]).to_numpy(float)
    bad = ~np.isfinite(seeds) | (seeds % 1 != 0)
    if bad.any():
        named = _some(frame["sample"][bad])
        raise DataError(f"{origin}, column seed: {bad.sum()} row(s) hold no whole number: {named}")
    return seeds.astype(np.int64)


def _stated(frame: pd.DataFrame, run: RunSettings, origin: str) -> Population:
    """Take samples and true classes from the predictions themselves."""
    from mer_flow.labels import get_scheme

    classes = get_scheme(run.scheme).classes
    lacking = [name for name in ("label", "subject", "database") if name not in frame]
    if lacking:
        named = ", ".join(lacking)
        raise DataError(f"{origin}: without a store they need the column(s) {named}; give the store")
    rows = frame.drop_duplicates("sample")
    labels = _class_numbers(rows["label"], rows["sample"], classes, f"{origin}, column label")
    ids, subjects, databases = (rows[name].to_numpy(str) for name in ("sample", "subject", "database"))
    return Population(ids, subjects, databases, labels, classes, run.scheme)


def _predicted(frame: pd.DataFrame, classes: Sequence[str], origin: str) -> np.ndarray:
    """Return `(N,)` int64, the predicted class of each row."""
    columns = [f"p_{name}" for name in classes]
    given = [str(name) for name in frame.columns if str(name).startswith("p_")]
    for name in given:
        if name not in columns:
            raise DataError(f"{origin}: {unknown('column of a class', name, columns)}")
    if given:
        if len(given) < len(columns):
            lacking = ", ".join(name for name in columns if name not in given)
            raise DataError(f"{origin}: there is no column {lacking}; every class of the scheme needs one")
        values = frame[columns].apply(_number).to_numpy(float)
        bad = ~np.isfinite(values).all(1)
        if bad.any():
            raise DataError(
                f"{origin}: {bad.sum()} row(s) hold NaN or what is no number in {', '.join(columns)}: "
                f"{_some(frame['sample'][bad])}"
            )
    if "predicted" in frame:
        return _class_numbers(frame["predicted"], frame["sample"], classes, f"{origin}, column predicted")
    if not given:
        raise DataError(
            f"{origin}: there is neither a column 'predicted', the name of a class, nor {', '.join(columns)}"
        )
    found: np.ndarray = values.argmax(1)
    return found


def _number(column: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")


def _class_numbers(names: pd.Series, samples: pd.Series, classes: Sequence[str], where: str) -> np.ndarray:
    import pandas as pd

    found = pd.Index(classes).get_indexer(pd.Index(names.astype(str)))
    wrong = found < 0
    if wrong.any():
        strange = _some(repr(str(name)[:_SHOWN]) for name in dict.fromkeys(names[wrong]))
        raise DataError(
            f"{where}: {wrong.sum()} row(s) say {strange}, expected one of {', '.join(classes)}: "
            f"{_some(samples[wrong])}"
        )
    return found.astype(np.int64)


def _check_labels(frame: pd.DataFrame, truth: Population, origin: str) -> None:
    """Refuse predictions that hold another class for true than the store."""
    known = dict(zip(truth.sample_ids.tolist(), truth.labels.tolist(), strict=True))
    stated = _class_numbers(frame["label"], frame["sample"], truth.classes, f"{origin}, column label")
    differ = [known.get(name, label) != label for name, label in zip(frame["sample"], stated, strict=True)]
    if any(differ):
        raise DataError(
            f"{origin}: column label differs from the store for {sum(differ)} row(s): "
            f"{_some(frame['sample'][differ])}; they were made with other labels. Leave the column out to "
            "score them by the store's"
        )


def _check_samples(samples: pd.Index, wanted: pd.Index, where: str) -> None:
    """Refuse anything but one row for each sample."""
    twice = samples[samples.duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{where}: {len(twice)} sample(s) occur more than once: {_some(twice)}; keep one row each"
        )
    strange = samples.difference(wanted)
    if len(strange):
        raise DataError(
            f"{where}: {len(strange)} sample(s) are none of the {len(wanted)} that the protocol tests: "
            f"{_some(strange)}; check protocol, scheme and store, and how samples are named"
        )
    missing = wanted.difference(samples)
    if len(missing):
        raise DataError(
            f"{where}: {len(missing)} of {len(wanted)} samples have no prediction: {_some(missing)}; "
            "each that the protocol tests needs one"
        )


def _some(names: Any, limit: int = 5) -> str:
    listed = [str(name)[:_SHOWN] for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
