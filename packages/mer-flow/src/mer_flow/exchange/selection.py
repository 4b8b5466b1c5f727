"""What an export takes out of a store: which samples, seen how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mer_flow.store.reader import FlowStore
    from mer_flow.views import ViewData


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples an export writes, and which view of their maps.

    Attributes:
        scheme: Label scheme; samples without a class are left out and counted.
        databases: Databases to write; all where there is none.
        view: As `whole-28` or `regions-28`.
        normalisation: As in `scaled`.
    """

    scheme: str = "megc3"
    databases: tuple[str, ...] = ()
    view: str = "whole-28"
    normalisation: str = "minmax"

    def read(self, store: FlowStore, normalisation: str = "") -> ViewData:
        """Read maps and labels, in another normalisation than the selection's where one is given.

        Raises:
            UsageError: Unknown view, normalisation, scheme or database.
            ViewError: The store cannot give the view, or no sample has a class.
        """
        from mer_flow.views import read_view

        scaling = normalisation or self.normalisation
        return read_view(store, self.view, scaling, scheme=self.scheme, databases=self.databases or None)
