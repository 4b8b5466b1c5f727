"""What an export takes out of a store: which samples, seen how."""

from __future__ import annotations

from dataclasses import dataclass

from mer_flow.store.reader import FlowStore
from mer_flow.views import ViewData, read_view


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples an export writes, and which view of their maps.

    Attributes:
        scheme: Label scheme; samples without a class are left out and counted.
        databases: Databases to write; all unless given.
        view: As `whole-28` or `regions-28`.
        normalisation: As `raw`, `scaled`, `minmax` or `minmax-255`.
    """

    scheme: str = "megc3"
    databases: tuple[str, ...] | None = None
    view: str = "whole-28"
    normalisation: str = "minmax"

    def read(self, store: FlowStore, normalisation: str = "") -> ViewData:
        """Reads the maps and labels.

        Args:
            store: The store.
            normalisation: Read in place of the selection's own, where given.

        Returns:
            The labelled view.

        Raises:
            UsageError: Unknown view, normalisation, scheme or database.
            ViewError: The store cannot give the view, or no sample has a class.
        """
        return read_view(
            store,
            self.view,
            normalisation or self.normalisation,
            scheme=self.scheme,
            databases=self.databases,
        )
