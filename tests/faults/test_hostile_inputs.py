"""Sheets, pictures, archives and settings made to exhaust memory or patience, or full of strange values.

Every command runs in a process of its own whose address space is limited, and must end with one line.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image
from tests.faults.kills import Ended, command, in_child
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.databases import clips, get_database
from mer_flow.databases.frames import read_frame
from mer_flow.databases.sheets import read_workbook
from mer_flow.exchange.htnet_export import export_htnet
from mer_flow.exchange.npz import import_npz
from mer_flow.exchange.ststnet_export import export_folders
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.synthetic import make_tree
from mer_flow.work.errors import ExchangeError, FrameError, SheetError
from mer_flow.work.executor import InThisProcess
from mer_flow.work.libraries import load_cv2

#: Address space of a command, and the resident memory that a refusal may take.
SPACE, MOST_RESIDENT = 1 << 30, 300 << 20

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
%s
from mer_flow.cli import main
main()
"""

#: Prints the peak of the resident memory of this very process.
WATCH = """
import atexit
atexit.register(lambda: print([line for line in open("/proc/self/status") if "VmHWM" in line][0]))
"""


def run(*words: object, limits: str = "", space: int = SPACE) -> subprocess.CompletedProcess[str]:
    """A command of mer-flow with so much address space."""
    script = LIMITED % (space, space, limits)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, timeout=60
    )


QUICK = ("--set", "align.size=64", "--set", "regions.backend=dlib", "--set", "flow.warps=1")


def here(*words: object) -> Ended:
    """A command of mer-flow in a forked child, its samples computed in that."""

    def work() -> int:
        clips.LocalProcesses = lambda workers: InThisProcess()  # type: ignore[assignment,misc]
        return command("mer-flow", *words)()

    load_cv2().setNumThreads(1)
    ended = in_child(work)
    assert not isinstance(ended.answer, BaseException), ended.answer
    return ended


def one_line(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr and told in done.stdout + done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr


HEADER = (
    "Subject",
    "Filename",
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    "Action Units",
    "Estimated Emotion",
)


def workbook(path: Path, cells: dict[str, object]) -> None:
    book = openpyxl.Workbook()
    for place, value in cells.items():
        book.active[place] = value
    book.save(path)


def far_apart(path: Path) -> None:
    workbook(path, {"A1": "Subject", "XFD1048576": 1})


def with_sheet(path: Path, rows: bytes, more: bytes = b"") -> None:
    """A workbook whose sheet is this XML."""
    plain = io.BytesIO()
    openpyxl.Workbook().save(plain)
    space = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name == "xl/worksheets/sheet1.xml":
                body = b'<worksheet xmlns="' + space + b'"><sheetData>' + rows + b"</sheetData></worksheet>"
                new.writestr(name, more + body)
            else:
                new.writestr(name, old.read(name))


def long_string(path: Path) -> None:
    with_sheet(path, b'<row r="1"><c r="A1" t="str"><v>' + b"x" * (64 << 20) + b"</v></c></row>")


def million_rows(path: Path) -> None:
    with_sheet(
        path, b"".join(b'<row r="%d"><c r="A%d"><v>1</v></c></row>' % (n, n) for n in range(1, 120_000))
    )


def far_row(path: Path) -> None:
    with_sheet(path, b'<row r="99999999999"><c><v>1</v></c></row>')


def entities(path: Path) -> None:
    with_sheet(path, b"<row/>", b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]>')


def many_csv_rows(path: Path) -> None:
    path.write_bytes(b"1,2,3\n" * 1_000_000)


def huge_csv(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(3 << 30)


SHEETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "far-apart.xlsx": (far_apart, "reaches to row 1048576"),
    "long-string.xlsx": (long_string, "MB unpacked, expected 16.8 MB at most"),
    "million-rows.xlsx": (million_rows, "XML elements, expected 600000 at most"),
    "far-row.xlsx": (far_row, "reaches to row"),
    "entities.xlsx": (entities, "declares XML entities"),
    "rows.csv": (many_csv_rows, "reaches to row 20001"),
    "huge.csv": (huge_csv, "too large to be one: 3221.2 MB"),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_beyond_the_limits_is_one_line_in_little_memory(name: str, tmp_path: Path) -> None:
    make, told = SHEETS[name]
    make(tmp_path / name)
    done = run("samples", "--db", "samm", "--sheet", tmp_path / name, limits=WATCH)
    one_line(done, told)
    peak = int(done.stdout.split()[-2])  # kB
    print(f"{name}: {peak / 1024:.0f} MB")
    assert peak * 1024 < MOST_RESIDENT


def test_a_huge_neighbour_workbook_is_skipped_and_said(tmp_path: Path) -> None:
    make_tree(tmp_path / "casme2", "casme2", subjects=1, clips_per_subject=2, seed=1)
    sheet = next((tmp_path / "casme2").rglob("*coding*.xlsx"))
    long_string(sheet.with_name("a neighbour.xlsx"))
    next((tmp_path / "casme2").rglob("*Objective*.xlsx")).unlink()
    warnings = get_database("casme2").read_sheet(sheet).warnings
    assert any("skipped while looking" in text and "MB unpacked" in text for text in warnings)


def test_formulas_are_computed_once_each_and_not_without_end(tmp_path: Path) -> None:
    path = tmp_path / "chain.xlsx"
    chain = {"A1": 1, **{f"A{n}": f"=A{n - 1}+A{n - 1}" for n in range(2, 90)}}
    workbook(path, {**chain, "B1": "=SUM(A1:XFD1048576)", "B2": "=C2", "C2": "=B2"})
    (grid,) = read_workbook(path)
    assert grid.rows[88][0] == 2.0**88 and grid.recomputed == 88
    deep = {"A1": 1, **{f"A{n}": f"=A{n + 1}" for n in range(2, 2000)}}
    workbook(path, deep)
    assert read_workbook(path)[0].recomputed < 2000
    wide = {**{f"A{n}": n for n in range(1, 900)}, **{f"B{n}": "=SUM(A1:A900)" for n in range(1, 900)}}
    workbook(path, wide)
    assert 0 < read_workbook(path)[0].recomputed < 900


def bomb(path: Path, side: int) -> Path:
    """A PNG file of a few bytes that decodes to side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    lines = zlib.compressobj(9)
    packed = b"".join(lines.compress(bytes(1 + 3 * side)) for _ in range(side if side < 14_000 else 1))
    size = side.to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    body = chunk(b"IHDR", size) + chunk(b"IDAT", packed + lines.flush()) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("side", [6_000, 20_000, 60_000])
def test_an_image_bomb_is_not_decoded(side: int, tmp_path: Path) -> None:
    path = bomb(tmp_path / "1.png", side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match=r"expected 33554432 (pixels )?at most"):
        read_frame(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_an_image_bomb_fails_alone_in_doctor_build_and_import(tmp_path: Path) -> None:
    root = tmp_path / "casme2"
    make_tree(root, "casme2", subjects=1, clips_per_subject=1, seed=1)
    content = bomb(tmp_path / "bomb", 6_000).read_bytes()
    for frame in root.rglob("*.jpg"):
        frame.write_bytes(content)
    source = ("--db", "casme2", "--root", root)
    done = here("doctor", *source)
    assert done.answer == 1 and "frame-unreadable" in done.said and "33554432 pixels at most" in done.said
    done = here("build", *source, "--store", tmp_path / "flows.h5", "--workers", 1, "--quiet", *QUICK)
    assert done.answer == 1 and "[frames]" in done.said and "33554432 pixels at most" in done.said
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "006_006_1_2 .png").write_bytes(content)
    Image.new("RGB", (28, 28)).save(maps / "007_007_3_1 .png")
    done = here("import", "ststnet", maps, "--store", tmp_path / "maps.h5")
    assert done.answer == 1 and "33554432 pixels at most" in done.said


def arrays(**changes: object) -> dict[str, object]:
    content: dict[str, object] = {
        "maps": np.zeros((2, 3, 8, 8), np.float32),
        "database": np.array(["samm", "samm"]),
        "subject": np.array(["006", "007"]),
        "clip": np.array(["a", "b"]),
        "emotion": np.array(["anger", "anger"]),
        "view": np.array("whole-8"),
        "normalisation": np.array("raw"),
    }
    return content | changes


STRANGE: dict[str, tuple[dict[str, object], str]] = {
    "nan frames": ({"onset": np.array([np.nan, 1])}, "column onset"),
    "inf frames": ({"apex": np.array([np.inf, 1])}, "column apex"),
    "1e30 frames": ({"offset": np.array([1e30, 1])}, "column offset"),
    "half frames": ({"offset": np.array([0.5, 1])}, "column offset"),
    "text frames": ({"onset": np.array(["1", "2"])}, "column onset"),
    "nan fps": ({"fps": np.array([np.nan, 1])}, "column fps"),
    "paths": ({"sample_id": np.array(["samm/006/../../x", "samm/007/b"])}, "it has a part '..'"),
    "absolute paths": ({"clip": np.array(["/etc/passwd", "b"])}, "it has a part ''"),
    "other ids": ({"sample_id": np.array(["a", "b"])}, "must begin with 'samm/'"),
    "lines": ({"subject": np.array(["00\n6", "7"])}, "control character"),
    "a database of none": ({"database": np.array(["", "samm"])}, "cannot be a name"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_values_of_an_archive_are_refused(name: str, tmp_path: Path) -> None:
    changes, told = STRANGE[name]
    np.savez(tmp_path / "a.npz", **arrays(**changes))  # type: ignore[arg-type]
    with pytest.raises(ExchangeError, match=told.replace("'..'", r"'\.\.'")):
        import_npz(tmp_path / "a.npz", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"maps": np.full((2, 3, 8, 8), 1e6, np.float32)}, "a flow of 1000000 px"),
        ({"maps": np.full((2, 3, 8, 8), -1, np.float32)}, "a norm cannot be negative"),
        ({"maps": np.full((2, 3, 8, 8), -0.5, np.float32), "normalisation": np.array("minmax")}, "0 to 255"),
        ({"maps": np.full((2, 3, 8, 8), np.inf, np.float32)}, "not finite"),
    ],
)
def test_maps_that_verify_would_not_pass_fail_one_by_one(
    changes: dict[str, np.ndarray], told: str, tmp_path: Path
) -> None:
    changes["maps"][1] = 0.0
    np.savez(tmp_path / "a.npz", **arrays(**changes))  # type: ignore[arg-type]
    summary = import_npz(tmp_path / "a.npz", tmp_path / "a.h5")
    assert summary.imported == {"samm": 1} and told in summary.problems[0].detail
    assert verify_store(tmp_path / "a.h5") == []
    with FlowStore(tmp_path / "a.h5") as store:
        assert [failure.sample_id for failure in store.failures("samm")] == ["samm/006/a"]


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    def archive(name: str, header: str, more: bytes = b"") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            text = header.ljust(117).encode() + b"\n"
            file.writestr("maps.npy", b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + more)
        return path

    many = archive("many.npz", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }")
    one_line(run("import", "npz", many, "--store", tmp_path / "a.h5"), "claims the shape (1000000000000,)")
    negative = archive("negative.npz", "{'descr': '<f4', 'fortran_order': False, 'shape': (-5,), }")
    one_line(run("import", "npz", negative, "--store", tmp_path / "a.h5"), "cannot")
    nested = archive("nested.npz", "{'descr': " + "[" * 90)
    one_line(run("import", "npz", nested, "--store", tmp_path / "a.h5"), "cannot read")


def test_nested_settings_are_one_line(tmp_path: Path) -> None:
    toml = tmp_path / "deep.toml"
    toml.write_text("a = " + "[" * 50_000 + "]" * 50_000)
    build = ("build", "--db", "samm", "--root", tmp_path, "--store", tmp_path / "a.h5")
    one_line(run(*build, "--config", toml), "nests tables or lists deeper than 20")
    toml.write_text("a" + ".a" * 5_000 + " = 1")
    one_line(run(*build, "--config", toml), "nests tables or lists deeper than 20")
    one_line(run(*build, "--set", "a" + ".a" * 5_000 + "=1"), "a key of 5000 dots")


def test_a_folder_called_by_a_strange_digit_and_names_that_are_no_utf8(tmp_path: Path) -> None:
    maps = tmp_path / "loso"
    for part in ("u_train/²", "u_test/0"):
        (maps / "006" / part).mkdir(parents=True)
    Image.new("RGB", (28, 28)).save(maps / "006/u_test/0/006_006_1_2 .png")
    done = here("import", "ststnet", maps, "--store", tmp_path / "a.h5", "--layout", "loso")
    assert done.answer == 1 and "²" in done.said
    flat = os.fsencode(tmp_path / "flat")
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (28, 28)).save(os.fsdecode(flat + b"/006_006_1_2 .png"))
    Image.new("RGB", (28, 28)).save(os.fsdecode(flat + b"/\xff\xfe.png"))
    done = here("import", "ststnet", tmp_path / "flat", "--store", tmp_path / "b.h5")
    assert done.answer == 1 and r"\udcff" in done.said
    assert verify_store(tmp_path / "b.h5") == []


def test_a_link_in_a_circle_fails_its_clip_alone(tmp_path: Path) -> None:
    root = tmp_path / "casme2"
    make_tree(root, "casme2", subjects=1, clips_per_subject=2, seed=1)
    clip, other = sorted({frame.parent for frame in root.rglob("*.jpg")})
    frames = sorted(other.iterdir())
    for frame in frames:
        frame.unlink()
        frame.symlink_to(frame.name)
    for n in range(12):  # as many ways around in every folder would never end
        (root / f"again{n}").symlink_to(root, target_is_directory=True)
    store = tmp_path / "flows.h5"
    source = ("--db", "casme2", "--root", root)
    done = here("build", *source, "--store", store, "--workers", 1, "--quiet", *QUICK)
    assert done.answer == 1 and "1 built" in done.said and "1 failed" in done.said
    assert "disk has room" not in done.said
    assert clip.name in FlowStore(store).samples("casme2")[0].clip


def test_a_full_disk_during_export_names_the_file_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(sample_of("samm", f"{n}", "c", "anger"), rng.uniform(0, 1, (3, 28, 28))) for n in range(9)]
    write_store(tmp_path / "flows.h5", rows).close()
    before = sorted(tmp_path.iterdir())
    full = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    for layout, out in (("npz", "a.npz"), ("flat", "a"), ("ststnet-loso", "b")):
        done = run("export", layout, tmp_path / "flows.h5", "--out", tmp_path / out, limits=full)
        if done.returncode == 0:  # small pictures fit
            continue
        one_line(done, out)
        assert "Exception ignored" not in done.stderr
    assert (
        run("export", "npz", tmp_path / "flows.h5", "--out", tmp_path / "a.npz", limits=full).returncode == 1
    )
    assert not (tmp_path / "a.npz").exists() and not list(tmp_path.glob(".a*"))
    assert set(before) <= set(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["clips", "sequence-frames"])
def test_no_store_keeps_a_billion_frames(tmp_path: Path, option: str) -> None:
    where = ("--db", "casme2", "--root", tmp_path, "--store", tmp_path / "flows.h5")
    one_line(run("build", *where, f"--keep-{option}".replace("keep-seq", "seq"), 999999999), "got 999999999")


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "a,b"])
@pytest.mark.parametrize("layout", ["flat", "loso", "htnet"])
def test_a_label_list_holds_no_formula(layout: str, name: str, tmp_path: Path) -> None:
    rows = [(sample_of("own", who, "c1", "negative"), np.zeros((3, 28, 28))) for who in (name, "b")]
    write_store(tmp_path / "flows.h5", rows).close()
    with FlowStore(tmp_path / "flows.h5") as store, pytest.raises(ExchangeError, match="takes for a formula"):
        if layout == "htnet":
            export_htnet(store, tmp_path / "out")
        else:
            export_folders(store, tmp_path / "out", layout=layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flows.h5"]


def test_sheet_errors_are_of_ours(tmp_path: Path) -> None:
    far_apart(tmp_path / "a.xlsx")
    with pytest.raises(SheetError):
        read_workbook(tmp_path / "a.xlsx")


def test_a_pipe_in_place_of_a_store_or_an_archive_is_one_line(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer for ever
    for words in (("info", pipe), ("verify", pipe), ("import", "npz", pipe, "--store", tmp_path / "a.h5")):
        done = here(*words)
        assert done.answer == 1 and "a pipe, a socket or a device" in done.said, done.said
