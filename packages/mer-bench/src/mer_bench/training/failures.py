"""Failures of folds: named with fold, cause and remedy, and kept while the other folds go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mer_bench.errors import MerBenchError, TrainingError
from mer_bench.recipe import Recipe
from mer_bench.training.device import device_of
from mer_bench.training.job import Job
from mer_flow.work.plugins import contained


class FoldFailures:
    """Failures of single folds, kept while the others go on."""

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}

    def add(self, fold: str, message: str) -> None:
        """Keep what happened to a fold, with the remedy."""
        self._messages[fold] = message

    def raise_if_any(self, total: int) -> None:
        """Raise one error for all.

        Args:
            total: How many folds there were.

        Raises:
            TrainingError: If a fold failed; names each, the first ones with their message.
        """
        if self._messages:
            raise TrainingError(self.message(total))

    def message(self, total: int) -> str:
        """Word them as one, of so many folds; empty where there was none."""
        if len(self._messages) < 2:
            return next(iter(self._messages.values()), "")
        lines = [f"{len(self._messages)} of {total} folds failed; the others were delivered:"]
        lines += [f"  {message}" for message in list(self._messages.values())[:5]]
        if len(self._messages) > 5:
            lines.append("  and " + ", ".join(f"'{name}'" for name in list(self._messages)[5:]))
        return "\n".join(lines)


def loss_error(fold: str, epoch: int, loss: float, recipe: Recipe) -> TrainingError:
    """Return the error of a loss that is no number any more, in an epoch counted from 1."""
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
    """Return whether memory ran out; on a CPU torch raises a plain RuntimeError for it."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(w in str(error).lower() for w in words)


@contextmanager
def named_failures(job: Job, fold: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turn whatever a network raises in training into an error that names fold, cause and remedy.

    Raises:
        TrainingError: In place of any error that is not ours.
    """
    try:
        with contained():
            yield
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in's network may raise anything; the other folds go on
        batch = job.network_recipe.batch_size
        if is_out_of_memory(error):
            raise TrainingError(
                f"fold '{fold}': {device_of(job)} ran out of memory ({error}); lower batch_size (now "
                f"{batch}), choose a smaller variant, use fewer workers, or another device"
            ) from error
        raise TrainingError(
            f"fold '{fold}': model '{job.spec.name}' with options {dict(job.options)} "
            f"failed on batches of up to {batch} maps of shape {shape}: "
            f"{type(error).__name__}: {error}; check the model against the input view"
        ) from error
