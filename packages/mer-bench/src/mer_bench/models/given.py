"""A model without a package: what makes a network, or an estimator, given as an object or in a file."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from mer_bench.errors import UsageError
from mer_bench.models.code import code_digest
from mer_bench.models.estimator import Flattened, lacking_methods
from mer_bench.models.spec import ModelSpec, Registered
from mer_bench.recipe import Recipe
from mer_flow.work.plugins import IMPORT_LIMIT, contained
from mer_flow.work.suggest import unknown

#: What the bench tells a builder, as far as it asks for it.
TOLD = ("num_classes", "in_channels", "map_size")
#: How a network is trained that brings no recipe.
PLAIN = Recipe(
    name="plain", epochs=60, batch_size=64, optimizer="adamw", lr=1e-3, weight_decay=1e-2, schedule="cosine"
)
VIEWS = ("whole-28:scaled", "whole-28:centred-rms", "whole-28:minmax")


class Made:
    """Calls a function that was given, with as much of what the bench tells as it takes.

    It is pickled by value, so that another process needs neither the notebook nor the file that it is from.
    """

    def __init__(self, function: Callable[..., Any], digest: str) -> None:
        self.function, self.digest = function, digest
        self.__signature__ = _signature(function)
        hinted: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        try:
            self.__annotations__ = get_type_hints(hinted)
        except (TypeError, NameError):
            self.__annotations__ = {}
        takes = self.__signature__.parameters.values()
        self._takes_all = any(one.kind is one.VAR_KEYWORD for one in takes)
        needed = [one.name for one in takes if one.default is one.empty and one.kind not in _VARIADIC]
        strange = [name for name in needed if name not in TOLD]
        if strange:
            raise UsageError(
                f"model '{_name_of(function)}' needs {', '.join(strange)}; the bench tells "
                f"{', '.join(TOLD)}, so give any other argument a default"
            )

    def __call__(self, **given: Any) -> Any:
        """Make the network, or an estimator."""
        known = self.__signature__.parameters
        found = self.function(
            **{k: v for k, v in given.items() if self._takes_all or k in known or k not in TOLD}
        )
        if _is_estimator(found):
            return Flattened(found)
        return _without_lazy_layers(found, **{name: given[name] for name in TOLD[1:]})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Made) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        return _loaded, (cloudpickle.dumps(self.function), self.digest)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _loaded(sent: bytes, digest: str) -> Made:
    import cloudpickle

    return Made(cloudpickle.loads(sent), digest)


def _without_lazy_layers(network: Any, in_channels: int, map_size: int) -> Any:
    """Let layers that draw their weights once they see a map, as `nn.LazyLinear`, see one."""
    import torch
    from torch.nn.parameter import is_lazy

    if isinstance(network, torch.nn.Module) and any(map(is_lazy, network.parameters())):
        with torch.no_grad():
            network.eval()(torch.zeros(2, in_channels, map_size, map_size))
    return network


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise UsageError(f"model '{function}' cannot be called by name of its arguments ({error})") from error


@dataclass(frozen=True)
class Cloned:
    """Makes an unfitted copy of an estimator for every fold."""

    estimator: Any = field(compare=False)
    digest: str

    def __call__(self, num_classes: int, in_channels: int, map_size: int, **parameters: Any) -> Flattened:
        """Clone it, with some parameters set otherwise."""
        from sklearn.base import clone

        return Flattened(clone(self.estimator, safe=False).set_params(**parameters))


def given_model(model: object, package: str = "__main__") -> Registered:
    """Describe a model that was given as an object.

    Its name ends in a digest of its code, so that a run is never continued with another.

    Args:
        model: A function or class that makes an `nn.Module`, or an estimator with scikit-learn's interface.
            A function is told `num_classes`, `in_channels` and `map_size` where it has arguments of these
            names; its other arguments are options of the model.
        package: Where it comes from.

    Raises:
        UsageError: It is neither, or the network itself rather than what makes it.
    """
    from torch import nn

    if isinstance(model, nn.Module):
        raise UsageError(
            f"model: a {type(model).__name__} that is built would carry its weights from fold to fold; "
            f"give what makes a new one, the class or a function, as in mb.evaluate({type(model).__name__})"
        )
    if not isinstance(model, type) and _is_estimator(model):
        name, digest = type(model).__name__, code_digest(model)
        return Registered(_spec(name, digest, Cloned(model, digest), "classifier"), package)
    if not callable(model):
        raise UsageError(
            "model: expected a registered name, a function or class that makes an nn.Module, or an estimator "
            f"with fit and predict, got {type(model).__name__}"
        )
    name, digest = _name_of(model), code_digest(model)
    build = Made(model, digest)
    made, again = _tried(build), _tried(build)
    if made is not None:
        _check_made(name, made, again)
    parameters = None
    if isinstance(made, nn.Module):
        parameters = sum(one.numel() for one in made.parameters() if one.requires_grad)
    kind = "classifier" if isinstance(made, Flattened) else "network"
    return Registered(_spec(name, digest, build, kind, parameters), package)


def _check_made(name: str, made: Any, again: Any) -> None:
    """Refuse what is no model, and what two calls under one seed do not make alike and anew."""
    import torch
    from torch import nn

    if isinstance(made, Flattened):
        if made.estimator is getattr(again, "estimator", None):
            raise UsageError(
                f"model '{name}' gives the same estimator at every call, and would carry what it learnt from "
                "fold to fold; make a new one inside the function, or give the estimator, which is cloned"
            )
    elif not isinstance(made, nn.Module):
        raise UsageError(
            f"model '{name}' makes a {type(made).__name__}; return an nn.Module, or an estimator with fit "
            "and predict"
        )
    else:
        pairs = zip(made.state_dict().values(), again.state_dict().values(), strict=False)
        if not all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs):
            raise UsageError(
                f"model '{name}' begins with other weights at a second call under the same seed: it keeps "
                "something between calls, or draws otherwise than from torch; leave both"
            )


def _name_of(function: object) -> str:
    function = getattr(function, "func", function)  # of functools.partial
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")


def _is_estimator(model: object) -> bool:
    from torch import nn

    return not isinstance(model, nn.Module) and not lacking_methods(model)


def _tried(build: Made) -> Any:
    """Make one for three classes and maps of 3 x 28 x 28; None where that fails, which a run will tell."""
    import torch

    try:
        with contained(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(num_classes=3, in_channels=3, map_size=28)
    except Exception:  # a stranger's function may raise anything
        return None


def _spec(name: str, digest: str, build: Any, kind: Any, parameters: int | None = None) -> ModelSpec:
    kebab = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "model"
    return ModelSpec(
        name=f"{kebab}-{digest[:8]}",
        title=name,
        build=build,
        kind=kind,
        views=VIEWS,
        recipes={PLAIN.name: PLAIN} if kind == "network" else {},
        citation=f"{name}, given without a package.",
        exactness="baseline",
        parameters=parameters,
        licence="Not stated.",
    )


def file_model(name: str) -> Registered:
    """Describe the model of a Python file, as `given_model` does.

    The file is run with its folder on the path, as a script is.

    Args:
        name: `path/to/file.py:function`.

    Raises:
        UsageError: There is no such file or name in it, or the file raises.
    """
    file, _, wanted = name.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"model '{name}': there is no file {path}; write path/to/file.py:function")
    module = _module_of(path)
    if not hasattr(module, wanted):
        offered = [one for one, what in vars(module).items() if callable(what)]
        raise UsageError(str(unknown(f"function of {path}", wanted, offered)))
    return given_model(getattr(module, wanted), path.name)


def _module_of(path: Path) -> ModuleType:
    import cloudpickle

    name = f"mer_bench_file_{re.sub(r'[^0-9A-Za-z]', '_', str(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader, f"{path} ends in .py"
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        with contained(IMPORT_LIMIT):
            spec.loader.exec_module(module)
    except Exception as error:  # a stranger's file may raise anything
        del sys.modules[name]
        raise UsageError(f"model file {path} fails: {type(error).__name__}: {error}") from error
    # Other processes do not know the module by this name.
    cloudpickle.register_pickle_by_value(module)
    return module
