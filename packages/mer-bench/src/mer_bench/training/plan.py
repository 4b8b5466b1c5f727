"""What every engine is told: the training to be done, without the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_bench.errors import TrainingError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold, absent_class_note
from mer_bench.recipe import Recipe
from mer_bench.training.result import FoldResult
from mer_bench.training.seeding import fold_seed

OnFold = Callable[[FoldResult], None]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """One run's training. It can be pickled where its model can.

    Attributes:
        spec: The model.
        options: Options of its builder.
        num_classes: Number of classes.
        recipe: How to train.
        protocol: The protocol's name; part of every fold's seed.
        seed: The run's seed.
        device: `cpu`, `cuda` or `cuda:k`.
        view: The input as `view:normalisation`, or None where the caller did not say.
        deterministic: Whether torch is held to deterministic algorithms.
        classes: Their names, for notes; empty for numbers.
        map_shape: `(C, H, W)` of the run's maps, for a classifier that is given their features instead.
        precision: How a GPU multiplies float32 matrices, resolved: `float32` or `tf32`.
        compiled: Whether stacked folds train through `torch.compile`.
    """

    spec: ModelSpec
    options: Mapping[str, Any]
    num_classes: int
    recipe: Recipe
    protocol: str
    seed: int
    device: str
    view: str | None
    deterministic: bool
    classes: tuple[str, ...] = ()
    map_shape: tuple[int, ...] | None = None
    precision: str = "float32"
    compiled: bool = False

    @property
    def epochs(self) -> int:
        """Epochs a fold takes; a classifier is fitted in one."""
        return 1 if self.spec.kind == "classifier" else self.recipe.epochs

    @property
    def device_name(self) -> str:
        """What a record names as its device; on a GPU with the precision of its matrix products."""
        return self.device if self.precision == "float32" else f"{self.device} ({self.precision})"

    def seed_of(self, fold: Fold) -> int:
        """A fold's own seed.

        Args:
            fold: The fold.

        Returns:
            A 63-bit seed.
        """
        return fold_seed(self.seed, self.protocol, fold.name)


def fold_notes(counts: np.ndarray, classes: Sequence[str] = ()) -> tuple[str, ...]:
    """What to note of a fold's training classes.

    Args:
        counts: `(classes,)` training samples per class.
        classes: Their names; numbers where there are none.

    Returns:
        A note where a class is absent.

    >>> fold_notes(np.array([3, 0, 1]))
    ('class 1 has no training sample, so it cannot be predicted there',)
    """
    return tuple(
        absent_class_note(classes[k] if len(classes) else int(k)) for k in np.flatnonzero(counts == 0)
    )


def loss_error(fold: str, epoch: int, loss: float, recipe: Recipe) -> TrainingError:
    """The error of a loss that is no number any more.

    Args:
        fold: The fold's name.
        epoch: The epoch, from 1.
        loss: The epoch's mean loss.
        recipe: The recipe, for the remedy.

    Returns:
        The error, to be raised or collected.
    """
    remedies = [f"lower lr (now {recipe.lr:g})"]
    if not recipe.clip_norm:
        remedies.append("set clip_norm, say 1.0")
    if recipe.amp != "off":
        remedies.append(f"set amp = 'off' (now '{recipe.amp}')")
    return TrainingError(
        f"fold '{fold}', epoch {epoch}: the training loss became {loss}; "
        "its maps are finite, so the steps diverged: " + " or ".join(remedies)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU torch raises a plain RuntimeError for it.

    Args:
        error: What was raised.

    Returns:
        True for a lack of memory.
    """
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(w in str(error).lower() for w in words)


class FoldFailures:
    """Failures of single folds, kept while the others go on."""

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}

    def add(self, fold: str, message: str) -> None:
        """Keep one failure.

        Args:
            fold: The fold's name.
            message: What happened, and the remedy.
        """
        self._messages[fold] = message

    def raise_if_any(self, total: int) -> None:
        """Raise one error for all.

        Args:
            total: How many folds there were.

        Raises:
            TrainingError: If a fold failed; names each, the first ones with their message.
        """
        if not self._messages:
            return
        if len(self._messages) == 1:
            raise TrainingError(next(iter(self._messages.values())))
        lines = [f"{len(self._messages)} of {total} folds failed; the others were delivered:"]
        lines += [f"  {message}" for message in list(self._messages.values())[:5]]
        if len(self._messages) > 5:
            lines.append("  and " + ", ".join(f"'{name}'" for name in list(self._messages)[5:]))
        raise TrainingError("\n".join(lines))
