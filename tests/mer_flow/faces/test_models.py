"""Landmark model files: checked, fetched, and the command that does it."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mer_flow.cli.models import models_command
from mer_flow.faces import model_files
from mer_flow.faces.model_files import (
    DLIB_68,
    FACE_LANDMARKER,
    MODEL_FILES,
    ModelFile,
    cache_folder,
    check,
    fetch,
    model_path,
    verified_path,
)
from mer_flow.work.errors import MissingDependencyError, ModelFileError, UsageError

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of this test's own."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("MER_FLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MER_FLOW_FACE_LANDMARKER", raising=False)
    verified_path.cache_clear()
    yield tmp_path / "cache"
    verified_path.cache_clear()


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server on this machine: its address, and what it answers by path."""
    answers: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in answers:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[self.path])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", answers
        running.shutdown()


def model(url: str = "", data: bytes = DATA) -> ModelFile:
    return ModelFile("small", "small.task", len(data), hashlib.sha256(data).hexdigest(), url=url)


def test_a_model_is_fetched_checked_and_kept(server: tuple[str, dict[str, bytes]], cache: Path) -> None:
    address, answers = server
    answers["/small.task"] = DATA
    path = fetch(model(f"{address}/small.task"))
    assert path == cache / "small.task" and path.read_bytes() == DATA
    assert verified_path(model(f"{address}/small.task")) == path
    assert [p.name for p in cache.iterdir() if p.is_file()] == ["small.task"], "no temporary file is left"


@pytest.mark.parametrize("answer", [DATA[:-1], DATA + b"x", b"x" + DATA[1:], b"<html>sign in</html>", b""])
def test_a_wrong_answer_is_refused_and_not_kept(
    answer: bytes, server: tuple[str, dict[str, bytes]], cache: Path
) -> None:
    address, answers = server
    answers["/small.task"] = answer
    with pytest.raises(ModelFileError, match="nothing was stored"):
        fetch(model(f"{address}/small.task"))
    assert not (cache / "small.task").exists()


def test_a_correct_file_survives_a_failed_fetch(server: tuple[str, dict[str, bytes]], cache: Path) -> None:
    (cache / "small.task").write_bytes(DATA)
    with pytest.raises(ModelFileError, match=r"404.*--from FILE"):
        fetch(model(f"{server[0]}/gone"))
    assert (cache / "small.task").read_bytes() == DATA


def test_a_file_from_elsewhere_serves_without_a_network(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "download").write_bytes(DATA)
    assert fetch(model("http://invalid.invalid/x"), source=tmp_path / "download").read_bytes() == DATA
    with pytest.raises(ModelFileError, match="could not be read"):
        fetch(model("http://invalid.invalid/x"), source=tmp_path / "nothing")


def test_a_model_inside_a_package_is_not_fetched() -> None:
    with pytest.raises(ModelFileError, match="comes with the package face_recognition_models"):
        fetch(DLIB_68)
    with pytest.raises(MissingDependencyError, match="package no_such_package"):
        model_path(replace(DLIB_68, package="no_such_package"))


def test_check_names_size_checksum_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(ModelFileError, match="is missing; mend with: mer-flow models fetch small"):
        check(model(), path)
    path.write_bytes(DATA[:-1])
    with pytest.raises(ModelFileError, match=r"has 10239 bytes, expected 10240"):
        check(model(), path)
    path.write_bytes(b"x" + DATA[1:])
    with pytest.raises(ModelFileError, match=f"has SHA-256 .*expected {model().sha256}"):
        check(model(), path)
    path.write_bytes(DATA)
    check(model(), path)


def test_the_real_dlib_model_is_right_and_checked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = verified_path(DLIB_68)
    assert path.stat().st_size == 99_693_937
    verified_path.cache_clear()

    def unexpected(_: Path) -> str:
        raise AssertionError("the whole file was read again")

    monkeypatch.setattr(model_files, "sha256_of", unexpected)
    assert verified_path(DLIB_68) == path


def test_a_file_changed_after_its_check_is_checked_again(cache: Path) -> None:
    (cache / "small.task").write_bytes(DATA)
    verified_path(model())
    verified_path.cache_clear()
    (cache / "small.task").write_bytes(b"x" + DATA[1:])
    with pytest.raises(ModelFileError, match="SHA-256"):
        verified_path(model())


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert model_path(FACE_LANDMARKER) == tmp_path / "cache" / "face_landmarker.task"
    monkeypatch.setenv("MER_FLOW_FACE_LANDMARKER", str(tmp_path / "mine.task"))
    assert model_path(FACE_LANDMARKER) == tmp_path / "mine.task"
    monkeypatch.delenv("MER_FLOW_CACHE")
    assert cache_folder().name == "mer-flow"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(models_command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_list_shows_licences_and_the_backend() -> None:
    code, text = run("list")
    assert (
        code == 0 and "not for commercial use" in text and "Apache-2.0" in text and "region backend: " in text
    )
    code, text = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(text)["models"]}
    assert rows["dlib-68"]["status"] == "present" and rows["face-landmarker"]["status"] == "missing"
    assert rows["face-landmarker"]["sha256"] == FACE_LANDMARKER.sha256


def test_verify_tells_correct_missing_and_wrong(cache: Path) -> None:
    code, text = run("verify")
    assert code == 0 and "dlib-68: correct" in text and "face-landmarker: missing" in text
    assert run("verify", "face-landmarker")[0] == 1, "asked for by name, a missing file is a failure"
    (cache / "face_landmarker.task").write_bytes(DATA)
    code, text = run("verify")
    assert code == 1 and "face-landmarker: wrong" in text and "mer-flow models fetch face-landmarker" in text
    with pytest.raises(UsageError, match="did you mean 'face-landmarker'"):
        run("verify", "face-landmark")


def test_fetch_by_command(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, dict[str, bytes]], tmp_path: Path, cache: Path
) -> None:
    address, answers = server
    answers["/small.task"] = DATA
    monkeypatch.setitem(MODEL_FILES, "small", model(f"{address}/small.task"))
    code, text = run("fetch", "small")
    assert code == 0 and "SHA-256 as expected" in text and "reports its use" in text
    answers.clear()
    code, text = run("fetch", "small")
    assert code == 0 and "already there and correct" in text
    with pytest.raises(ModelFileError, match="404"):
        run("fetch", "small", "--force")
    wrong = tmp_path / "wrong"
    wrong.write_bytes(DATA[1:])
    with pytest.raises(ModelFileError, match="nothing was stored"):
        run("fetch", "small", "--force", "--from", str(wrong))
    assert (cache / "small.task").read_bytes() == DATA
