"""AHMSA-Net (arXiv 2501.02539): adaptive hierarchical multi-scale attention for micro-expression recognition.

Importing this package imports neither torch nor pydantic; its names do, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ahmsa_model.errors import AHMSAError, CheckpointError, ConfigError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import AHMSANet, Checkpoint, CheckpointMetadata, from_pretrained
    from ahmsa_model.config import VARIANTS, AHMSAConfig, variant_config
    from ahmsa_model.network import count_parameters
    from ahmsa_model.predict import Prediction, predict_pair
    from ahmsa_model.video import Looking, VideoPrediction, predict_video

__version__ = "0.1.0"

_LAZY = {
    **dict.fromkeys(("AHMSANet", "Checkpoint", "CheckpointMetadata", "from_pretrained"), "checkpoint"),
    **dict.fromkeys(("VARIANTS", "AHMSAConfig", "variant_config"), "config"),
    "count_parameters": "network",
    **dict.fromkeys(("Prediction", "predict_pair"), "predict"),
    **dict.fromkeys(("Looking", "VideoPrediction", "predict_video"), "video"),
}

__all__ = [
    "VARIANTS", "AHMSAConfig", "AHMSAError", "AHMSANet", "Checkpoint", "CheckpointError",
    "CheckpointMetadata", "ConfigError", "InputError", "Looking", "MissingDependencyError", "Prediction",
    "VideoPrediction", "count_parameters", "from_pretrained", "predict_pair", "predict_video",
    "variant_config",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ahmsa_model' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ahmsa_model.{_LAZY[name]}"), name)
