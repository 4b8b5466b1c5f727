"""The command line: what it prints, its exit codes, its start-up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ahmsa_model import AHMSANet, CheckpointMetadata


def ahmsa(*arguments):
    command = [sys.executable, "-m", "ahmsa_model.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from ahmsa_model.cli import main; sys.argv = ['ahmsa', 'predict', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'numpy', 'mer_flow', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")
    assert "Usage: " in ahmsa("--help").stdout


def test_info_and_variants_count_parameters():
    rows = {row["variant"]: row["parameters"] for row in json.loads(ahmsa("variants", "--json").stdout)}
    assert rows["paper"] == 115_586_563
    facts = json.loads(ahmsa("info", "--variant", "paper", "--json").stdout)
    assert facts["parameters"] == rows["paper"]
    assert facts["untrained"] == 8 * 1024 * 2 * 1020
    assert [level["grid"] for level in facts["levels"]] == [4, 2, 1]
    text = ahmsa("info").stdout
    assert "parameters: 115,586,563" in text and "level 3: 1×1 patches, 1024 channels, 12 heads of 85" in text


def test_info_tells_a_checkpoints_training(tmp_path):
    metadata = {
        "classes": ["a", "b", "c"],
        "scheme": "megc3",
        "view": "regions-28",
        "normalisation": "scaled",
    }
    network = AHMSANet.from_variant("tiny")
    network.metadata = CheckpointMetadata(**metadata, training={"seed": 5})
    network.save_pretrained(tmp_path)
    text = ahmsa("info", "--checkpoint", tmp_path).stdout
    assert "classes: a, b, c (scheme megc3)" in text and "input: regions-28:scaled" in text
    assert '"seed": 5' in text


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["info", "--variant", "tinny"], 2, "did you mean 'tiny'"),
        (["info", "--variant", "tiny", "--checkpoint", "x"], 2, "not both"),
        (["info", "--checkpoint", "nowhere"], 1, "nowhere does not exist"),
        (["predict", "--checkpoint", "x"], 2, "give --onset and --apex (images), or --video"),
        (["predict", "--checkpoint", "x", "--onset", "a.png"], 2, "--apex is missing"),
        (
            ["predict", "--checkpoint", "x", "--onset", "a", "--apex", "b", "--spotter", "s"],
            2,
            "goes with --video",
        ),
        (
            ["predict", "--checkpoint", "x", "--onset", "a", "--apex", "b", "--annotated", "o.mp4"],
            2,
            "--annotated goes with --video",
        ),
        (["predict", "--checkpoint", "nowhere", "--video", "c"], 1, "nowhere does not exist"),
        (["predict", "--checkpoint", "x", "--video", "v", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (
            ["predict", "--checkpoint", "x", "--video", "v", "--device", "cpu:3"],
            2,
            "unknown device 'cpu:3'",
        ),
        (
            ["predict", "--checkpoint", "x", "--video", "v", "--device", "cuda:99"],
            2,
            "'cuda:99' is not there",
        ),
        (["pretrain"], 2, "No such command 'pretrain'"),
    ],
)
def test_wrong_use_exits_with_a_reason(arguments, code, message):
    done = ahmsa(*arguments)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr
