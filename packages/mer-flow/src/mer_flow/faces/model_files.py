"""Landmark model files: where they are, what they must be, and how to get them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_flow.work.errors import MissingDependencyError, ModelFileError
from mer_flow.work.files import new_file, write_whole
from mer_flow.work.libraries import extra_command

#: Environment variable naming a FaceLandmarker `.task` file that lies elsewhere than in the cache.
TASK_FILE_VARIABLE = "MER_FLOW_FACE_LANDMARKER"
#: Environment variable naming the cache folder.
CACHE_VARIABLE = "MER_FLOW_CACHE"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model file must be.

    Attributes:
        name: Short name, as on the command line.
        file_name: Name of the file.
        size: Bytes.
        sha256: Checksum in lower-case hexadecimal.
        url: Where to fetch it; empty where it comes inside a Python package.
        package: The Python package that carries it in its folder `models`; empty where it is fetched.
        licence: Its terms, in a sentence.
        purpose: What needs it.
    """

    name: str
    file_name: str
    size: int
    sha256: str
    url: str = ""
    package: str = ""
    licence: str = ""
    purpose: str = ""

    @property
    def remedy(self) -> str:
        """The command that brings it back."""
        if self.package:
            return f"pip install --force-reinstall --no-deps {self.package}"
        return f"mer-flow models fetch {self.name}"


DLIB_68 = ModelFile(
    name="dlib-68",
    file_name="shape_predictor_68_face_landmarks.dat",
    size=99_693_937,
    sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    package="face_recognition_models",
    licence="trained on iBUG 300-W: not for commercial use",
    purpose="68 landmarks (alignment, masks, recorded fallback of the regions)",
)
FACE_LANDMARKER = ModelFile(
    name="face-landmarker",
    file_name="face_landmarker.task",
    size=3_758_596,
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    licence="Apache-2.0",
    purpose="five regions through MediaPipe Tasks (Python 3.13 and later)",
)
MODEL_FILES: dict[str, ModelFile] = {model.name: model for model in (DLIB_68, FACE_LANDMARKER)}


def cache_folder() -> Path:
    """Return the folder of fetched models: `MER_FLOW_CACHE`, else the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "mer-flow"


def model_path(model: ModelFile) -> Path:
    """Return where a model file is, or would be; nothing is checked.

    Raises:
        MissingDependencyError: The Python package that carries it is not installed.
    """
    if model.package:
        # face_recognition_models cannot be imported without pkg_resources; its folder is all that is needed.
        spec = importlib.util.find_spec(model.package)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependencyError(
                f"package {model.package} (model {model.name}) is not installed; mend with: "
                + extra_command("faces")
            )
        return Path(spec.submodule_search_locations[0]) / "models" / model.file_name
    if model is FACE_LANDMARKER and (named := os.environ.get(TASK_FILE_VARIABLE)):
        return Path(named)
    return cache_folder() / model.file_name


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(model: ModelFile, path: Path) -> None:
    """Compare a file with what the model must be, every byte read.

    Raises:
        ModelFileError: The file is missing, or its size or checksum is wrong.
    """
    if not path.is_file():
        problem = "is missing"
    elif (size := path.stat().st_size) != model.size:
        problem = f"has {size} bytes, expected {model.size}"
    elif (found := sha256_of(path)) != model.sha256:
        problem = f"has SHA-256 {found}, expected {model.sha256}"
    else:
        return
    raise ModelFileError(f"model {model.name}: {path} {problem}; mend with: {model.remedy}")


@functools.lru_cache(maxsize=8)
def verified_path(model: ModelFile) -> Path:
    """Return a model's path after checking size and checksum.

    A passed check is remembered in the cache folder under the file's size and modification time, so that
    worker processes do not each read the whole file.

    Raises:
        ModelFileError: The file is missing, or its size or checksum is wrong.
        MissingDependencyError: The Python package that carries it is not installed.
    """
    path = model_path(model)
    stamp = cache_folder() / "verified" / f"{model.name}.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(stamp.read_text("utf-8")) == _fingerprint(model, path):
            return path
    check(model, path)
    # A cache that cannot be written only costs the check again.
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_whole(stamp, json.dumps(_fingerprint(model, path)).encode())
    return path


def _fingerprint(model: ModelFile, path: Path) -> dict[str, Any]:
    stat = path.stat()
    named = {"path": str(path.resolve()), "sha256": model.sha256}
    return named | {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def fetch(model: ModelFile, *, source: Path | None = None, timeout: float = 30.0) -> Path:
    """Bring a model file into the cache, checked before it gets its name.

    Args:
        model: One that has a `url`.
        source: A file already downloaded elsewhere, for machines without a network; None fetches the `url`.
        timeout: Seconds without an answer before giving up.

    Returns:
        The cached file.

    Raises:
        ModelFileError: The model is not one to fetch, the network or the source fails, or the checksum is
            wrong; then nothing is stored.
    """
    if not model.url:
        raise ModelFileError(
            f"model {model.name} comes with the package {model.package}; get it with: {model.remedy}"
        )
    target = cache_folder() / model.file_name
    try:
        with source.open("rb") if source else urllib.request.urlopen(model.url, timeout=timeout) as stream:
            data = stream.read(model.size + 1)  # one byte more shows that a file is too long
    except OSError as error:
        raise ModelFileError(
            f"model {model.name} could not be read from {source or model.url}: {error}; without a network, "
            f"download that address elsewhere and run: mer-flow models fetch {model.name} --from FILE"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if len(data) != model.size or found != model.sha256:
        raise ModelFileError(
            f"model {model.name} from {source or model.url}: "
            f"got {len(data)} bytes with SHA-256 {found}, expected {model.size} bytes with {model.sha256}; "
            "nothing was stored; a proxy may have answered in its place"
        )
    try:
        with new_file(target, overwrite=True) as part:
            part.write_bytes(data)
    except OSError as error:
        raise ModelFileError(
            f"model {model.name} cannot be stored as {target} ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder you can write"
        ) from error
    verified_path.cache_clear()
    return target
