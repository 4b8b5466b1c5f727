"""What an import did: counted, comparable, printable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.exchange.problems import Problem


@dataclass
class ImportSummary:
    """What one import did.

    Attributes:
        source: The folder or file that was read.
        store: The store written.
        layout: What the source was recognised as.
        samples: Samples asked for, per database.
        imported: Samples that the store now holds, per database.
        already: How many of them it held before.
        subjects: Subjects imported, per database.
        classes: Samples imported per class.
        problems: What was wrong or worth knowing.
    """

    source: Path
    store: Path
    layout: str
    samples: Counter[str] = field(default_factory=Counter)
    imported: Counter[str] = field(default_factory=Counter)
    already: int = 0
    subjects: dict[str, int] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True where every sample asked for was imported and nothing was left over."""
        return not any(not problem.harmless for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary for `--json`."""
        return {
            "source": str(self.source),
            "store": str(self.store),
            "layout": self.layout,
            "complete": self.complete,
            "samples": dict(self.samples),
            "imported": dict(self.imported),
            "already": self.already,
            "subjects": self.subjects,
            "classes": dict(self.classes),
            "problems": [
                {
                    "kind": p.kind,
                    "where": p.where,
                    "detail": p.detail,
                    "remedy": p.remedy,
                    "sample_id": p.sample_id,
                }
                for p in self.problems
            ],
        }
