"""The command that draws pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mer_flow.cli import cli
from mer_flow.exchange.npz import import_npz

CLIPS = [
    ("samm", "006", "a"),
    ("samm", "006", "b"),
    ("samm", "007", "c"),
    ("smic", "s01", "d"),
    ("smic", "s02", "e"),
]
EMOTIONS = ["anger", "happiness", "surprise", "negative", "surprise"]


@pytest.fixture(scope="module", params=["raw", "minmax-255"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five samples of two databases, in px or scaled per image."""
    folder = tmp_path_factory.mktemp("show")
    maps = np.abs(np.random.default_rng(0).normal(size=(5, 3, 28, 28))).astype(np.float32)
    if request.param == "minmax-255":
        maps *= 255 / maps.max(axis=(2, 3), keepdims=True)
    database, subject, clip = (np.array(column) for column in zip(*CLIPS, strict=True))
    np.savez(
        folder / "a.npz", maps=maps, database=database, subject=subject, clip=clip,
        emotion=np.array(EMOTIONS), view="whole-28", normalisation=request.param,
    )  # fmt: skip
    import_npz(folder / "a.npz", folder / f"{request.param}.h5")
    return folder / f"{request.param}.h5"


def show(store: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["show", str(store), "--out", str(out), *arguments])


def chosen(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [name.rsplit("/", 1)[1] for name in json.loads(result.stdout)["samples"]]


@pytest.mark.parametrize(
    ("arguments", "clips"),
    [
        ((), "abcde"),
        (("--db", "samm"), "abc"),
        (("--subject", "006", "--subject", "smic/s02"), "abe"),
        (("--class", "surprise"), "ce"),
        (("--class", "negative"), "ad"),
        (("--class", "happiness"), "b"),
        (("--db", "samm", "--limit", "2"), "ab"),
        (("--sample", "smic/s01/d", "--sample", "samm/006/a"), "da"),
    ],
)
def test_filters(store: Path, tmp_path: Path, arguments: tuple[str, ...], clips: str) -> None:
    assert "".join(chosen(show(store, tmp_path, "--json", *arguments))) == clips


def test_pages(store: Path, tmp_path: Path) -> None:
    result = show(store, tmp_path, "--per-page", "2", "--json", "--scale", "shared")
    assert chosen(result) == list("abcde")
    assert [Path(p).name for p in json.loads(result.stdout)["files"]] == [
        "sheet-001.png",
        "sheet-002.png",
        "sheet-003.png",
    ]
    heights = [Image.open(tmp_path / f"sheet-00{n}.png").height for n in (1, 2, 3)]
    assert heights[0] == heights[1] == heights[2] + 168 + 8


def test_limit_is_said(store: Path, tmp_path: Path) -> None:
    result = show(store, tmp_path, "--limit", "2")
    assert "2 sample(s) on 1 sheet(s)" in result.stdout and "3 more fit; raise --limit" in result.stdout


def test_plain_maps_need_a_zero(store: Path, tmp_path: Path) -> None:
    result = show(store, tmp_path, "--maps")
    if store.stem == "raw":
        assert result.exit_code == 0 and len(list((tmp_path / "maps").iterdir())) == 6
    else:
        assert result.exit_code == 1 and "without their zero" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--db", "sam"), "did you mean 'samm'"),
        (("--subject", "9"), "unknown subject"),
        (("--class", "suprise"), "did you mean 'surprise'"),
        (("--db", "samm", "--subject", "s01"), "Loosen --sample, --db"),
        (("--view", "region-28"), "did you mean 'regions-28'"),
    ],
)
def test_wrong_names(store: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = show(store, tmp_path, *arguments)
    assert result.exit_code != 0 and message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_absent_store_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mer_flow.cli", "show", str(tmp_path / "x.h5"), "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        result.returncode == 1
        and result.stderr.startswith("error: no store at")
        and "Traceback" not in result.stderr
    )


@pytest.mark.parametrize("arguments", [["show"], ["import", "ststnet"], ["export", "ststnet-loso"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom mer_flow.cli import cli\n"
        f"try: cli.main({[*arguments, '--help']!r}, standalone_mode=True)\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'h5py', 'PIL', 'cv2', 'torch', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
