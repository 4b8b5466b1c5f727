"""Optical flow behind one call, strain, and the removal of head motion."""

from __future__ import annotations

from mer_flow.flow.base import FlowBackend
from mer_flow.flow.factory import get_backend
from mer_flow.flow.params import BackendOptions, TVL1Params

__all__ = ["BackendOptions", "FlowBackend", "TVL1Params", "get_backend"]
