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
    from ahmsa_model.predict import Prediction, predict_clip, predict_pair

__version__ = "0.2.0"

_LAZY = {
    **dict.fromkeys(("AHMSANet", "Checkpoint", "CheckpointMetadata", "from_pretrained"), "checkpoint"),
    **dict.fromkeys(("VARIANTS", "AHMSAConfig", "variant_config"), "config"),
    "count_parameters": "network",
    **dict.fromkeys(("Prediction", "predict_clip", "predict_pair"), "predict"),
}

__all__ = [
    "VARIANTS", "AHMSAConfig", "AHMSAError", "AHMSANet", "Checkpoint", "CheckpointError",
    "CheckpointMetadata", "ConfigError", "InputError", "MissingDependencyError", "Prediction",
    "count_parameters", "from_pretrained", "predict_clip", "predict_pair", "variant_config",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ahmsa_model' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ahmsa_model.{_LAZY[name]}"), name)
