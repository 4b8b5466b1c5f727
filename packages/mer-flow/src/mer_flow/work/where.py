"""Where tasks run, as settings say it, and what a worker must have; nothing of it needs Dask."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from mer_flow.work.libraries import installed
from mer_flow.work.settings import Settings
from mer_flow.work.suggest import unknown

#: Kind of a cluster -> its class in dask-jobqueue; `local` needs no queue.
QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}
KINDS = ("local", *QUEUES)


class Where(Settings):
    """Where tasks run; results are the same.

    Attributes:
        executor: `local`: processes of this machine; `dask`: a cluster.
        scheduler: Address of a running scheduler, as in `tcp://node7:8786`.
        cluster: What starts a cluster: `local` (processes here, also where neither this nor a scheduler is
            named), or a queue of `QUEUES`.
        cluster_options: TOML file of what the queue's class takes, and `jobs`, how many jobs to queue.
        wait: Seconds to wait for the scheduler and for a first worker, at the start and after a loss.
    """

    executor: Literal["local", "dask"] = "local"
    scheduler: str = ""
    cluster: str = ""
    cluster_options: Path | None = None
    wait: float = Field(default=60.0, gt=0)

    @classmethod
    def among(cls, settings: Mapping[str, Any]) -> Self:
        """Read those settings that say where, and leave the others."""
        return cls(**{name: settings[name] for name in cls.model_fields if name in settings})

    @property
    def on_dask(self) -> bool:
        """Whether tasks run on a cluster."""
        return self.executor == "dask"

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        named = [
            f"--{name.replace('_', '-')}"
            for name in ("scheduler", "cluster", "cluster_options")
            if getattr(self, name)
        ]
        if named and self.executor != "dask":
            raise ValueError(f"{named[0]} needs --executor dask")
        if self.scheduler and self.cluster:
            raise ValueError("give either --scheduler, of a running cluster, or --cluster, to start one")
        if self.cluster and self.cluster not in KINDS:
            raise ValueError(str(unknown("cluster", self.cluster, KINDS)))
        if self.cluster_options and self.cluster not in QUEUES:
            raise ValueError("--cluster-options needs the --cluster of a queue, as in --cluster slurm")
        return self


@dataclass(frozen=True)
class Needs:
    """What a worker must have to give this process's results.

    Attributes:
        versions: Package -> version, as installed here; `python` is its minor version.
        paths: Files and folders that tasks read.
    """

    versions: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, packages: tuple[str, ...], *paths: Path) -> Needs:
        """Ask for those of the packages that are installed here, in these versions."""
        return cls(tuple(_versions(packages).items()), tuple(str(path.absolute()) for path in paths))

    def unmet(self) -> str:
        """Say what this process lacks; empty where nothing."""
        for name, wanted in self.versions:
            there = _versions((name,)).get(name, "none")
            if there != wanted:
                return f"it has {name} {there}, the driver {wanted}; install the same version on both"
        for path in self.paths:
            if not Path(path).exists():
                return f"it does not see {path}; name a path that every node sees, or mount it there"
        return ""


@functools.cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    python = {"python": ".".join(platform.python_version_tuple()[:2])}
    return installed(packages) | (python if "python" in packages or len(packages) != 1 else {})
