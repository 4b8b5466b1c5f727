"""The model registry: names to specs, found through entry points and imported only when asked for.

A package enters its models through the entry-point group `mer_bench.models`; each entry point names a
`ModelSpec` or a tuple of them. Ours enter the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from mer_bench.errors import RegistryError, UsageError
from mer_bench.models.spec import ModelSpec, Registered
from mer_bench.models.spelling import is_file
from mer_flow.work.plugins import IMPORT_LIMIT, contained
from mer_flow.work.suggest import unknown

GROUP = "mer_bench.models"


@dataclass(frozen=True)
class PluginFailure:
    """An entry point that gave no models, the distribution that brings it, with its version, and why."""

    entry_point: str
    package: str
    reason: str

    def __str__(self) -> str:
        return f"plug-in '{self.entry_point}' of {self.package}: {self.reason}"


class Registry:
    """Every model of the installed packages.

    Entry points are read on the first question and imported then; a plug-in that fails is listed in
    `failures` and does not keep the others from working.

    Args:
        points: The entry points; those of the installed packages by default.
    """

    def __init__(self, points: Sequence[EntryPoint] | None = None):
        self._points = points

    @cached_property
    def _loaded(self) -> tuple[dict[str, list[Registered]], tuple[PluginFailure, ...]]:
        # A limit that runs out inside torch's first import leaves it half imported, for every model after.
        import_module("torch")
        points = entry_points(group=GROUP) if self._points is None else self._points
        models: dict[str, list[Registered]] = {}
        failures = []
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
            try:
                with contained(IMPORT_LIMIT):
                    specs = self._specs(point.load())
                for spec in specs:
                    models.setdefault(spec.name, []).append(Registered(spec, package))
            except Exception as error:  # a stranger's module may raise anything
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                failures.append(PluginFailure(point.name, package, reason))
        return models, tuple(failures)

    @staticmethod
    def _specs(found: object) -> Iterable[ModelSpec]:
        specs = found if isinstance(found, (tuple, list)) else (found,)
        for spec in specs:
            if not isinstance(spec, ModelSpec):
                raise RegistryError(f"expected a ModelSpec or a tuple of them, got {type(spec).__name__}")
        return specs

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """The plug-ins that gave no models, and why."""
        return self._loaded[1]

    @property
    def duplicates(self) -> dict[str, tuple[str, ...]]:
        """Names that more than one package claims, with the packages; none of these models can be used."""
        return {
            name: tuple(entry.package for entry in entries)
            for name, entries in sorted(self._loaded[0].items())
            if len(entries) > 1
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Every usable name, sorted."""
        return tuple(sorted(name for name, entries in self._loaded[0].items() if len(entries) == 1))

    def find(self, name: str) -> Registered:
        """Return one model and its package.

        A name with dots that nobody registered is an import path, `path/to/file.py:function` a file.

        Raises:
            RegistryError: Two packages claim the name, or the plug-in of that name failed to import.
            UsageError: No package has it; the nearest name is suggested. Or nothing can be imported there.
        """
        entries = self._loaded[0].get(name, [])
        if len(entries) > 1:
            packages = ", ".join(entry.package for entry in entries)
            raise RegistryError(
                f"model '{name}' is registered {len(entries)} times, by {packages}; uninstall one of them "
                "or rename its model"
            )
        if entries:
            return entries[0]
        for failure in self.failures:
            if failure.entry_point == name:
                raise RegistryError(f"{failure}. Mend or uninstall that package; the other models work")
        if is_file(name):
            from mer_bench.models.given import file_model

            return file_model(name)
        if "." in name.strip("."):
            from mer_bench.models.estimator import estimator_spec, package_of

            return Registered(estimator_spec(name), package_of(name))
        hint = f" Failed plug-ins: {'; '.join(map(str, self.failures))}" if self.failures else ""
        raise UsageError(f"{unknown('model', name, self.names)}{hint}")

    def get(self, name: str) -> ModelSpec:
        """Return one model; errors as `find`."""
        return self.find(name).spec

    def __iter__(self) -> Iterator[Registered]:
        """Yield every usable model with its package, by name."""
        return (self.find(name) for name in self.names)
