"""Puts the shared manifests into the wheel and the sdist, wherever the build starts from."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface):
    """Maps `datasets/manifests` of the workspace (or its copy in an sdist) to `mer_flow/manifests`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the manifests to what this build includes."""
        root = Path(self.root)
        in_sdist = root / "manifests"
        source = in_sdist if in_sdist.is_dir() else root.parents[1] / "datasets" / "manifests"
        if not source.is_dir():
            raise FileNotFoundError(
                f"mer-flow's manifests are missing: neither {in_sdist} nor {source} exists"
            )
        target = "manifests" if self.target_name == "sdist" else "mer_flow/manifests"
        if version != "editable":  # an editable install reads them in place
            build_data["force_include"][str(source)] = target
