"""A configuration file: the run's settings, `[set]` for recipe and model, `[models.NAME]` for one model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_bench.errors import UsageError
from mer_bench.models.spelling import Entry
from mer_flow.work.suggest import unknown

#: What a section of one model may set; the protocol, its data and its folds are the same for all.
SECTION_SETTINGS = (
    "variant",
    "recipe",
    "seeds",
    "view",
    "normalisation",
    "device",
    "engine",
    "workers",
    "chunk",
    "deterministic",
    "precision",
    "compile",
)


@dataclass(frozen=True)
class Section:
    """Settings from one part of a file.

    Attributes:
        settings: Those of the run, by their names in `RunSettings`.
        overrides: Those of the recipe and the model, as `--set` takes them.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file as read; values have no types yet.

    Attributes:
        common: What holds for every model.
        models: Entry as it is spelled to what holds for it alone, in the order of the file.
    """

    common: Section = field(default_factory=Section)
    models: Mapping[str, Section] = field(default_factory=dict)

    def section(self, entry: Entry) -> Section:
        """Returns what holds for one entry: the model's own section, below that of the entry as spelled."""
        found = [self.models[key] for key in dict.fromkeys((entry.model, str(entry))) if key in self.models]
        return Section(
            {key: value for section in found for key, value in section.settings.items()},
            {key: value for section in found for key, value in section.overrides.items()},
        )


def read_config(path: Path) -> ConfigFile:
    """Reads a configuration file.

    Top-level keys are the run's settings; `[set]` holds keys as `--set` takes them. `[models.ahmsa]`, or
    `[models."ahmsa:tiny"]` for one entry of a leaderboard, holds settings of that model, its own `set` too.

    Args:
        path: The TOML file.

    Returns:
        Its content.

    Raises:
        UsageError: The file cannot be read or is not TOML, or a section sets what must be the same for all.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"configuration {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration {path} is not TOML: {error}") from None
    models = _table(content, "models", f"configuration {path}: [models]")
    found = {}
    for name in models:
        where = f"configuration {path}, section [models.{name}]"
        section = _section(_table(models, name, where), where)
        for key in section.settings:
            if key not in SECTION_SETTINGS:
                hint = "; settings of the recipe and the model go under its own set table"
                raise UsageError(f"{where}: {unknown('setting', key, SECTION_SETTINGS)}{hint}")
        found[name] = section
    content.pop("models", None)
    return ConfigFile(_section(content, f"configuration {path}"), found)


def _table(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table of key = value")
    return table


def _section(content: Mapping[str, Any], where: str) -> Section:
    overrides = _table(content, "set", f"{where}: [set]")
    settings = {key: value for key, value in content.items() if key != "set"}
    tables = [key for key, value in settings.items() if isinstance(value, dict)]
    if tables:
        raise UsageError(
            f"{where}: unknown table [{tables[0]}]; settings of the recipe and the model go "
            'under [set], as in lr = 1e-4 or "options.width" = 32, those of one model under [models.NAME]'
        )
    return Section({key.replace("-", "_"): value for key, value in settings.items()}, _flatten(overrides))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
