"""TV-L1 in PyTorch, with OpenCV's parameters and their meaning."""

from __future__ import annotations

from mer_flow.flow.torch_tvl1.backend import TorchTVL1

__all__ = ["TorchTVL1"]
