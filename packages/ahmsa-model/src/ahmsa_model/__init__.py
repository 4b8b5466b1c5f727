"""AHMSA-Net (arXiv 2501.02539): adaptive hierarchical multi-scale attention for micro-expression recognition.

Importing this package does not import torch; the network's names do, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ahmsa_model.config import VARIANTS, AHMSAConfig, variant_config
from ahmsa_model.errors import (
    AHMSAError,
    CheckpointError,
    ConfigError,
    InputError,
    MissingDependencyError,
)

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import Checkpoint, CheckpointMetadata, from_pretrained, save_pretrained
    from ahmsa_model.network import AHMSANet, count_parameters
    from ahmsa_model.predict import Prediction, predict_clip, predict_pair

__version__ = "0.1.0"

_LAZY = {
    "AHMSANet": "ahmsa_model.network",
    "count_parameters": "ahmsa_model.network",
    "Checkpoint": "ahmsa_model.checkpoint",
    "CheckpointMetadata": "ahmsa_model.checkpoint",
    "from_pretrained": "ahmsa_model.checkpoint",
    "save_pretrained": "ahmsa_model.checkpoint",
    "Prediction": "ahmsa_model.predict",
    "predict_clip": "ahmsa_model.predict",
    "predict_pair": "ahmsa_model.predict",
}

__all__ = [
    "VARIANTS",
    "AHMSAConfig",
    "AHMSAError",
    "AHMSANet",
    "Checkpoint",
    "CheckpointError",
    "CheckpointMetadata",
    "ConfigError",
    "InputError",
    "MissingDependencyError",
    "Prediction",
    "count_parameters",
    "from_pretrained",
    "predict_clip",
    "predict_pair",
    "save_pretrained",
    "variant_config",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ahmsa_model' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
