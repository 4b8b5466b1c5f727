"""Every member builds into a wheel of its own that imports without the others' sources."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

#: Member -> what must work from its wheel alone.
CHECKS = {
    "mer-flow": "import mer_flow.store.reader as m, mer_flow.databases.completeness as n; "
    "assert len(n.megc2019()) == 442",
    "ahmsa-model": "import ahmsa_model as m; assert m.AHMSANet.from_variant('tiny')",
    "mer-bench": "import mer_bench.settings as m",
}


@pytest.mark.slow
@pytest.mark.parametrize("member", CHECKS)
def test_a_wheel_works_alone(member: str, repository: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(repository / "packages" / member)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    (licence,) = unpacked.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_text() == (repository / "LICENSE").read_text()
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    assert "Project-URL: " in metadata.read_text()
    own = member.replace("-", "_")
    others = [name.replace("-", "_") for name in CHECKS if name != member]
    if member == "mer-bench":
        others.remove("mer_flow")  # which it depends on
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(unpacked)!r})\n"
        f"sys.modules.update(dict.fromkeys({others!r}))\n"  # an import of a sibling fails
        f"{CHECKS[member]}\n"
        f"assert {own!r} in sys.modules and m.__file__.startswith({str(unpacked)!r}), m.__file__\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
