"""Pictures a person can judge: contact sheets and colour-coded flow, drawn with Pillow and numpy alone."""

from mer_flow.pictures.colours import flow_to_colour
from mer_flow.pictures.maps import flow_maps
from mer_flow.pictures.sheet import Scale, common_scale, contact_sheet

__all__ = ["Scale", "common_scale", "contact_sheet", "flow_maps", "flow_to_colour"]
