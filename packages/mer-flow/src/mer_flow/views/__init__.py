"""What a model reads: named views of a store's maps, in named normalisations."""

from __future__ import annotations

from mer_flow.views.names import ViewName, parse_view, parse_views
from mer_flow.views.normalise import NORMALISATIONS
from mer_flow.views.read import ViewData, ViewReader, missing_ingredient, read_view

__all__ = [
    "NORMALISATIONS",
    "ViewData",
    "ViewName",
    "ViewReader",
    "missing_ingredient",
    "parse_view",
    "parse_views",
    "read_view",
]
