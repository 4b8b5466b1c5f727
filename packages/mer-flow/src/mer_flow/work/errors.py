"""The one exception tree of mer-flow. Every message says what failed, where, and how to mend it."""

from __future__ import annotations


class MerFlowError(Exception):
    """Base of every error that mer-flow raises on purpose."""


class UsageError(MerFlowError):
    """The request itself cannot be met: an unknown name, a missing root, a wrong combination."""


class SheetError(MerFlowError):
    """An annotation sheet is missing, unreadable, of an unknown version or lacks a column."""


class LayoutError(MerFlowError):
    """A database root is missing or is not laid out as any known release."""


class FrameError(MerFlowError):
    """A frame is missing beyond the stated limit, unreadable or truncated."""


class FaceError(MerFlowError):
    """No usable face was found in a frame, or a landmark backend failed."""


class ApexError(MerFlowError):
    """A sample's apex cannot be used, and the configuration says not to replace it."""


class FlowError(MerFlowError):
    """A flow backend failed or returned something that is not a finite flow."""


class StoreError(MerFlowError):
    """A store is missing, damaged or not what the reader needs."""


class StoreMismatchError(StoreError):
    """A store was built with other parameters than the ones asked for."""


class StoreBusyError(StoreError):
    """Another build is writing this store."""


class WorkerError(MerFlowError):
    """A worker process died over a task."""


class ClusterError(MerFlowError):
    """A cluster cannot be reached, has no fit worker, or was lost; what was recorded is kept."""


class LockHeldError(MerFlowError):
    """Another process holds a lock; the message names the holder, as in `pid 4711 on host`."""


class ViewError(MerFlowError):
    """A store lacks the ingredients of a view or a normalisation."""


class ExchangeError(MerFlowError):
    """Foreign data could not be imported or exported."""


class ModelFileError(MerFlowError):
    """A landmark model file is missing or its checksum is wrong."""


class MissingDependencyError(MerFlowError):
    """An optional dependency is absent or broken; the message carries the mending command."""
