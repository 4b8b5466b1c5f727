"""What a model reads: named views of a store's maps, in named normalisations."""

from __future__ import annotations

from mer_flow.views.layouts import CUT_WIDTH_IOD, HTNET_LAYOUTS, REGION_LAYOUTS
from mer_flow.views.names import IMAGE_FAMILIES, ViewName, parse_view, parse_views
from mer_flow.views.normalise import FLOW_LIMIT, NORMALISATIONS, REFERENCE_SIZE, STRAIN_LIMIT
from mer_flow.views.read import ViewData, ViewReader, missing_ingredient, read_view

__all__ = [
    "CUT_WIDTH_IOD",
    "FLOW_LIMIT",
    "HTNET_LAYOUTS",
    "IMAGE_FAMILIES",
    "NORMALISATIONS",
    "REFERENCE_SIZE",
    "REGION_LAYOUTS",
    "STRAIN_LIMIT",
    "ViewData",
    "ViewName",
    "ViewReader",
    "missing_ingredient",
    "parse_view",
    "parse_views",
    "read_view",
]
