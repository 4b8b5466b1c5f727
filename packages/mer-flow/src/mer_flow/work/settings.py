"""Pipeline parameters from a TOML file and from `--set`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from mer_flow.config import PipelineConfig, apply_settings
from mer_flow.work.errors import UsageError


def load_config(path: Path | None, settings: Iterable[str] = ()) -> PipelineConfig:
    """Reads a configuration file, then applies single settings on top.

    Args:
        path: TOML file of sections and keys as `PipelineConfig` names them; None for the defaults.
        settings: `section.key=value` each; later ones win.

    Returns:
        The configuration.

    Raises:
        UsageError: The file is missing or not TOML; a key is unknown (with the nearest known one) or of a
            wrong type.
    """
    values = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"config file {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"config file {path} is not TOML: {error}") from error
    return apply_settings(PipelineConfig.from_dict(values), settings)
