"""The one exception tree of ahmsa-model. Every message says what failed, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AHMSAError(Exception):
    """Base of every error that ahmsa-model raises on purpose."""


class ConfigError(AHMSAError):
    """Options that do not describe a network, or an unknown option or variant."""


class InputError(AHMSAError):
    """A tensor, image or folder that the network or the predictor cannot take."""


class CheckpointError(AHMSAError):
    """A checkpoint folder is missing a file, damaged, or of another shape or format version."""


class MissingDependencyError(AHMSAError):
    """An optional dependency is absent; the message carries the mending command."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the answer to a name that is none of the known ones: the nearest, then all.

    >>> unknown_name("variant", "papr", ["paper", "tiny"])
    "unknown variant 'papr'; did you mean 'paper'? Known: paper, tiny"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}"
