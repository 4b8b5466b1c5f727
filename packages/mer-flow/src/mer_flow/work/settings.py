"""Settings: pydantic models that say in one line what is wrong, and the layers that they are filled from.

A model checks itself where it is built; layers (a TOML file, `--set`, flags) are merged by `layered`.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

#: The bounds of a field, as pydantic names them.
_BOUNDS = ("ge", "gt", "le", "lt")
#: A configuration file of more bytes, or deeper tables and lists, is a mistake or an attack.
MOST_TOML = 2**20
MOST_LEVELS = 20


class Settings(BaseModel):
    """Base of every settings model: frozen, no unknown key, text read as the type of its field.

    Attributes:
        where: What a message puts before a field, as in `align` for `align.size`.
        what: What a message calls an unknown key, as in "setting".
        error: What a fault raises.

    >>> from pydantic import Field
    >>> class Align(Settings):
    ...     where = "align"
    ...     size: int = Field(default=224, ge=28, le=2048)
    >>> Align(size="128").size
    128
    >>> Align(sise=3)
    Traceback (most recent call last):
    ...
    mer_flow.work.errors.UsageError: unknown setting 'align.sise'; did you mean 'align.size'? Known: ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    where: ClassVar[str] = ""
    what: ClassVar[str] = "setting"
    error: ClassVar[type[Exception]] = UsageError

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise type(self).error(_told(error.errors()[0], type(self))) from None

    def changed(self, **values: Any) -> Self:
        """Return a copy with some fields changed, checked as a new one is."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, str) and types.NoneType in kinds and value.lower() in ("none", ""):
            return None
        if any(get_origin(kind) is tuple for kind in kinds):
            if isinstance(value, str):
                return [part.strip() for part in value.split(",") if part.strip()]
            return value if value is None or isinstance(value, (list, tuple)) else [value]
        if isinstance(value, bool) and bool not in kinds and {int, float} & set(kinds):
            raise PydanticCustomError("int_type" if int in kinds else "float_type", "not a number")
        return value


def _kinds(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if union else (annotation,)


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the keys of a model, those of models within it dotted."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in _kinds(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")


def _told(fault: ErrorDetails, model: type[Settings]) -> str:
    """Word a fault: the key, what is accepted, what was given. A model within this one has told its own."""
    steps = [str(step) for step in fault["loc"] if not isinstance(step, int)]
    field = model.model_fields.get(steps[0]) if steps else None
    key = ".".join([*([model.where] if model.where else []), *steps])
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return str(unknown(model.what, key, _keys(model, model.where and f"{model.where}.")))
    if kind == "literal_error" and field is not None:
        choices = [str(c) for k in _kinds(field.annotation) if get_origin(k) is Literal for c in get_args(k)]
        return str(unknown(f"value of {key}", str(given), choices))
    metadata = field.metadata if field else ()
    rules = {name: getattr(rule, name) for rule in metadata for name in _BOUNDS if hasattr(rule, name)}
    bounds = _bounds(rules or fault.get("ctx", {}))  # of the field, or of an item of its list
    if kind.startswith(("greater_than", "less_than")):
        return f"{key} must {bounds}, got {given}"
    if kind == "finite_number":
        return f"{key} must be finite{bounds and ' and ' + bounds.removeprefix('be ')}, got {given}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "value_error":
        return f"{key}: {fault['ctx']['error']}" if key else str(fault["ctx"]["error"])
    if kind.startswith("model"):
        return f"{key} must be a table of key = value, got {given!r}"
    expected = {"int": "int", "float": "float", "bool": "bool", "string": "str", "tuple": "list"}
    named = expected.get(kind.partition("_")[0], "")
    return f"{key}: expected {named}, got {given!r}" if named else f"{key}: {fault['msg']}, got {given!r}"


def _bounds(rules: Mapping[str, Any]) -> str:
    low = "".join(f"{mark}{rules[name]}" for name, mark in (("ge", "["), ("gt", "(")) if name in rules)
    high = "".join(f"{rules[name]}{mark}" for name, mark in (("le", "]"), ("lt", ")")) if name in rules)
    if low and high:
        return f"lie in {low}, {high}"
    if low:
        return f"be {'at least' if low[0] == '[' else 'above'} {low[1:]}"
    return f"be {'at most' if high[-1] == ']' else 'below'} {high[:-1]}" if high else ""


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings; a later layer wins, and a key may be dotted.

    >>> layered({"flow": {"tau": 0.2, "warps": 5}}, {"flow.tau": "0.1"})
    {'flow': {'tau': '0.1', 'warps': 5}}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            head, dot, rest = key.partition(".")
            inner = {rest: value} if dot else value
            there = merged.get(head, {})
            if isinstance(inner, Mapping) and isinstance(there, Mapping):
                merged[head] = layered(there, inner)
            else:
                merged[head] = inner
    return merged


def parse_sets(pairs: Iterable[str], error: type[Exception] = UsageError) -> dict[str, str]:
    """Split the `key=value` texts of `--set`; a text without `=`, or a key given twice, raises `error`.

    >>> parse_sets(["flow.tau=0.2"])
    {'flow.tau': '0.2'}
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        key = key.strip()
        if key.count(".") > MOST_LEVELS:
            raise error(f"--set: a key of {key.count('.')} dots; no setting lies deeper than {MOST_LEVELS}")
        if not sign or not key:
            raise error(f"--set {pair}: expected key=value, as in --set flow.tau=0.2")
        if key in found:
            raise error(f"--set {key} is given twice")
        found[key] = value.strip()
    return found


def read_toml(path: Path, error: type[Exception] = UsageError) -> dict[str, Any]:
    """Read a configuration file; one that cannot be read, is too large or deep or no TOML raises `error`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_TOML + 1)
        if len(raw) > MOST_TOML:
            raise error(f"configuration {path} has more than {MOST_TOML:,} bytes")
        content = tomllib.loads(raw.decode())
    except OSError as fault:
        raise error(f"configuration {path}: {fault.strerror or fault}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise error(f"configuration {path} is not TOML: {fault}") from None
    except RecursionError:
        content = None
    if content is None or not _within(content, MOST_LEVELS):
        raise error(f"configuration {path} nests tables or lists deeper than {MOST_LEVELS}")
    return content


def _within(content: Any, levels: int) -> bool:
    """Whether tables and lists lie no deeper in one another than so many levels."""
    if not isinstance(content, (dict, list)):
        return True
    inner = content.values() if isinstance(content, dict) else content
    return levels > 0 and all(_within(one, levels - 1) for one in inner)
