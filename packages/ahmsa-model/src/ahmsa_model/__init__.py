"""AHMSA-Net (arXiv 2501.02539): adaptive hierarchical multi-scale attention for micro-expression recognition.

Importing this package imports neither torch nor pydantic; its names do, on first use.

>>> import ahmsa_model as am
>>> am.AHMSANet.from_variant("tiny").config.widths
(16, 32, 64)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ahmsa_model.errors import AHMSAError, CheckpointError, ConfigError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import AHMSANet, CheckpointMetadata
    from ahmsa_model.config import VARIANTS, AHMSAConfig, variant_config
    from ahmsa_model.predict import Prediction, predict_pair
    from ahmsa_model.video import Looking, VideoPrediction, predict_video

__version__ = "0.2.0"

_LAZY = {
    **dict.fromkeys(("AHMSANet", "CheckpointMetadata"), "checkpoint"),
    **dict.fromkeys(("VARIANTS", "AHMSAConfig", "variant_config"), "config"),
    **dict.fromkeys(("Prediction", "predict_pair"), "predict"),
    **dict.fromkeys(("Looking", "VideoPrediction", "predict_video"), "video"),
}

__all__ = [
    "VARIANTS", "AHMSAConfig", "AHMSAError", "AHMSANet", "CheckpointError", "CheckpointMetadata",
    "ConfigError", "InputError", "Looking", "MissingDependencyError", "Prediction", "VideoPrediction",
    "predict_pair", "predict_video",
    "variant_config",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ahmsa_model' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ahmsa_model.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
