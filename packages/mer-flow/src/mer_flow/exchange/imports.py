"""What an import does, whatever it reads: samples go into a store, what is wrong is gathered and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_flow.samples import Sample, SampleTable, row_fault

if TYPE_CHECKING:
    from mer_flow.store.encode import EncodeOptions, SampleRecord
    from mer_flow.store.schema import MapKind


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """One thing that is wrong with foreign data, or only worth knowing.

    Attributes:
        kind: Short name of the fault, as in `unreadable`, `no-file`, `no-label`.
        where: The file, list row or sample it concerns.
        detail: What was expected and what was found.
        sample_id: The sample that cannot be imported because of it; empty where none is lost.
        harmless: True for a note that takes nothing away, as a skipped `Thumbs.db`.
    """

    kind: str
    where: str
    detail: str
    remedy: str
    sample_id: str = ""
    harmless: bool = False


def report(problems: Iterable[ImportProblem], limit: int | None = None) -> str:
    """Render problems grouped by kind, each group with its count, at most `limit` cases and its remedies.

    >>> print(report([ImportProblem("no-file", "samm/006/006_1_2", "no map of this row", "add the file")]))
    no-file: 1
      samm/006/006_1_2: no map of this row
      -> add the file
    """
    kinds: dict[str, list[ImportProblem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    lines = []
    for kind, cases in kinds.items():
        lines.append(f"{kind}: {len(cases)}")
        lines += [f"  {case.where}: {case.detail}" for case in cases[:limit]]
        if limit is not None and len(cases) > limit:
            lines.append(f"  ... and {len(cases) - limit} more")
        lines += [f"  -> {remedy}" for remedy in dict.fromkeys(case.remedy for case in cases)]
    return "\n".join(lines)


@dataclass
class ImportSummary:
    """What one import did.

    Attributes:
        samples: Samples asked for, per database.
        imported: Samples that the store now holds, per database.
        already: How many of them it held before.
        subjects: Their subjects, per database.
        classes: Samples imported, per class.
    """

    source: Path
    store: Path
    layout: str
    samples: Counter[str] = field(default_factory=Counter)
    imported: Counter[str] = field(default_factory=Counter)
    already: int = 0
    subjects: dict[str, int] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)
    problems: list[ImportProblem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True where every sample asked for was imported and nothing was left over."""
        return all(problem.harmless for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for `--json`."""
        texts = {"source": str(self.source), "store": str(self.store), "complete": self.complete}
        return {**vars(self), **texts, "problems": [asdict(problem) for problem in self.problems]}


def fill_store(
    summary: ImportSummary,
    pipeline: Mapping[str, Any],
    samples: Iterable[Sample],
    read: Callable[[Sample], SampleRecord | ImportProblem],
    options: EncodeOptions | None = None,
) -> None:
    """Write samples into the summary's store and count them; one that `read` has a problem with has failed.

    `samples` are the rows of the source's whole table; what the store holds of them already is not read.
    """
    from mer_flow.store.encode import encode_sample
    from mer_flow.store.schema import MapKind
    from mer_flow.store.writer import StoreWriter

    whole, kind = SampleTable(samples), MapKind.of(pipeline)
    with StoreWriter(summary.store, pipeline, options) as writer:
        for database in whole.databases:
            table = SampleTable(sample for sample in whole if sample.database == database)
            done = writer.begin(database, table)
            kept = []
            for sample in table:
                if sample.sample_id not in done:
                    found = _checked(read(sample), kind)
                    if isinstance(found, ImportProblem):
                        if found not in summary.problems:
                            summary.problems.append(found)
                        where = "" if found.where == sample.sample_id else f"{found.where}: "
                        reason = f"{where}{found.detail}; {found.remedy}"
                        writer.fail(sample.sample_id, "import", reason)
                        continue
                    writer.commit(sample.sample_id, encode_sample(found, options))
                kept.append(sample)
            summary.already += sum(sample_id in done for sample_id in table.sample_ids)
            summary.samples[database] = len(table)
            summary.imported[database] = len(kept)
            summary.subjects[database] = len({sample.subject for sample in kept})
            summary.classes.update(sample.emotion for sample in kept)
        writer.finish()


def _checked(found: SampleRecord | ImportProblem, kind: MapKind) -> SampleRecord | ImportProblem:
    """Return what was read, or the problem that its values are none that `mer-flow verify` would pass."""
    from mer_flow.store.values import wrong_values

    if isinstance(found, ImportProblem):
        return found
    where, remedy = found.sample.sample_id, "mend or export the map again; its unit may be another"
    problems = [*filter(None, [row_fault(found.sample)]), *wrong_values({"flow": found.flow}, kind)]
    return ImportProblem("value", where, problems[0], remedy, where) if problems else found
