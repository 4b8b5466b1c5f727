"""Any estimator with scikit-learn's interface as a model, by its import path: `sklearn.svm.SVC`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Self

import numpy as np

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_flow.work.plugins import IMPORT_LIMIT, contained
from mer_flow.work.suggest import unknown


class Flattened:
    """An estimator that is fitted on the pixels of maps; what it offers beyond `fit` is offered too."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "estimator":  # as when it is unpickled
            raise AttributeError(name)
        return getattr(self.estimator, name)

    def features(self, maps: np.ndarray, view: str = "") -> np.ndarray:
        """Lay `(n, C, H, W)` maps out as `(n, C * H * W)`."""
        return maps.reshape(len(maps), -1)

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Self:
        """Fit the estimator."""
        self.estimator.fit(features, labels)
        return self


@dataclass(frozen=True)
class Imported:
    """Builds the estimator of an import path.

    Raises:
        UsageError: Nothing can be imported there, or what it makes has no `fit` and `predict`.
    """

    path: str

    def __call__(self, num_classes: int, in_channels: int, map_size: int, **options: Any) -> Flattened:
        """Call what the path names with the options alone."""
        estimator = self.load()(**options)
        lacking = lacking_methods(estimator)
        if lacking:
            raise UsageError(
                f"'{self.path}' makes a {type(estimator).__name__}, which has no {' and no '.join(lacking)}; "
                "name a classifier with scikit-learn's interface, as sklearn.svm.SVC"
            )
        return Flattened(estimator)

    def load(self) -> Any:
        """Import the class or function."""
        module_name, _, name = self.path.rpartition(".")
        try:
            with contained(IMPORT_LIMIT):
                module = import_module(module_name)
        except Exception as error:  # a stranger's module may raise anything
            raise UsageError(
                f"'{self.path}': {module_name} cannot be imported ({type(error).__name__}: {error}); install "
                "its package, or put its folder on PYTHONPATH"
            ) from error
        found = getattr(module, name, None)
        if not callable(found):
            offered = [known for known in dir(module) if callable(getattr(module, known, None))]
            raise UsageError(str(unknown(f"class or function of {module_name}", name, offered)))
        return found


def lacking_methods(estimator: object) -> list[str]:
    """Return which methods of a classifier with scikit-learn's interface an object lacks."""
    return [name for name in ("fit", "predict") if not hasattr(estimator, name)]


def package_of(path: str) -> str:
    """Return the distribution that brings a module, with its version."""
    top = path.partition(".")[0]
    names = metadata.packages_distributions().get(top, [])
    return f"{names[0]} {metadata.version(names[0])}" if names else f"module {top}"


def estimator_spec(path: str) -> ModelSpec:
    """Describe the estimator of an import path.

    Args:
        path: As in `sklearn.svm.SVC`.

    Raises:
        UsageError: Nothing can be imported there.
    """
    build = Imported(path)
    build.load()
    return ModelSpec(
        name=path,
        title=path.rpartition(".")[2],
        build=build,
        kind="classifier",
        views=("whole-28:scaled", "whole-28:centred-rms", "whole-28:minmax"),
        citation=f"{path}, fitted on the pixels of the maps.",
        exactness="baseline",
        filled_in=("Every pixel of every channel is a feature, in the units of the view.",),
    )
