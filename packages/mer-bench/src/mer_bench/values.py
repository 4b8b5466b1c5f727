"""Values of settings: text from the command line or TOML, read as the type of the setting."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from mer_bench.errors import UsageError
from mer_flow.work.suggest import unknown


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Reads seeds: a count, or a list.

    >>> parse_seeds("3"), parse_seeds("7,"), parse_seeds("0,5")
    ((0, 1, 2), (7,), (0, 5))
    """
    message = (
        "seeds: expected a count (3 means 0,1,2) or a list (0,1,2; a single one is written 7,), "
        f"got '{value}'"
    )
    try:
        if isinstance(value, str) and "," in value:
            seeds = tuple(int(part) for part in value.split(",") if part.strip())
        elif isinstance(value, (list, tuple)):
            seeds = tuple(int(part) for part in value)
        else:
            seeds = tuple(range(int(value)))
    except (TypeError, ValueError):
        raise UsageError(message) from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise UsageError(message + "; seeds are different and not negative")
    return seeds


def coerce(key: str, value: Any, annotation: Any) -> Any:
    """Reads a value as the type of its setting; text (from the command line) is parsed.

    Args:
        key: The setting, for the message.
        value: Text or a TOML value.
        annotation: The setting's type.

    Returns:
        The value in that type.

    Raises:
        UsageError: It is not of that type.

    >>> coerce("lr", "1e-4", float), coerce("inner", "yes", bool), coerce("workers", "none", int | None)
    (0.0001, True, None)
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        kinds = get_args(annotation)
        if type(None) in kinds and (value is None or str(value).lower() in ("none", "")):
            return None
        errors = []
        for kind in kinds:
            if kind is not type(None):
                try:
                    return coerce(key, value, kind)
                except UsageError as error:
                    errors.append(error)
        raise errors[0]
    if origin is Literal:
        for choice in get_args(annotation):
            if str(choice) == str(value):
                return choice
        raise UsageError(str(unknown(f"value of {key}", str(value), [str(c) for c in get_args(annotation)])))
    if origin in (tuple, list, Sequence):
        kind = (get_args(annotation) or (str,))[0]
        parts = [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            parts = [parts]
        return tuple(coerce(key, part, kind) for part in parts)
    fault = UsageError(f"{key}: expected {getattr(annotation, '__name__', annotation)}, got '{value}'")
    if annotation is bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
        raise fault
    if annotation in (int, float):
        if isinstance(value, bool):
            raise fault
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise fault from None
        if annotation is float:
            return number
        if not number.is_integer():
            raise fault
        return int(number)
    if annotation is str:
        if not isinstance(value, str):
            raise fault
        return value
    return literal(value) if isinstance(value, str) else value


def literal(text: str) -> Any:
    """Reads text as TOML would (a number, a truth value, a list), else leaves it as text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
