"""The one exception tree of mer-bench. Every message says what failed, where, and how to mend it."""

from __future__ import annotations


class MerBenchError(Exception):
    """Base of every error that mer-bench raises on purpose."""


class UsageError(MerBenchError):
    """The request itself cannot be met: an unknown model, protocol, setting or combination."""


class RegistryError(MerBenchError):
    """A model could not be registered: a duplicate name or a plug-in that fails on import."""


class DataError(MerBenchError):
    """The store does not hold what the protocol or the model needs."""


class ProtocolError(MerBenchError):
    """A protocol cannot be cut from these samples."""


class TrainingError(MerBenchError):
    """A fold could not be trained: a loss that is not finite, too little memory, a broken worker."""


class RunError(MerBenchError):
    """A run directory is of another configuration, damaged or incomplete."""


class ConformanceError(MerBenchError):
    """A model does not keep what every registered model must keep."""


class CheckpointError(MerBenchError):
    """A checkpoint is missing, damaged, of another version, or its files do not belong together."""
