"""Which code a run was trained with: versions, and the commit of a checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mer_bench import __version__


def versions(package: str) -> dict[str, str]:
    """Return the versions that decide a result: Python, ours, the model's package, numpy and torch."""
    found = {"python": platform.python_version(), "mer-bench": __version__, "model": package}
    for name in ("mer-flow", "numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def source_commit() -> str:
    """Return the git commit of this source tree, with `+` where it has changes; empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        # A package installed below somebody else's checkout is not part of it.
        git("ls-files", "--error-unmatch", "errors.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
