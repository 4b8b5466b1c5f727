"""The pipeline's configuration: every parameter checked, hashed and layered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mer_flow.config import FlowConfig, PipelineConfig, load_config
from mer_flow.flow.params import BackendOptions, TVL1Params
from mer_flow.work.errors import UsageError


def test_the_hash_follows_every_parameter() -> None:
    plain = PipelineConfig()
    hashes = {plain.hash()}
    words = {
        "stabilise.method": "median", "regions.backend": "dlib", "regions.fallback": "none",
        "apex.source": "midpoint", "apex.missing": "difference", "apex.at_onset": "spot",
        "flow.backend": "torch-tvl1", "flow.border": "clamp", "flow.device": "cpu", "flow.compile": "off",
        "flow.median_filtering": "3",
    }  # fmt: skip
    keys = [f"{section}.{name}" for section, entries in plain.to_dict().items() for name in entries]
    assert len(keys) > 25
    for key in keys:
        section, name = key.split(".")
        value = getattr(getattr(plain, section), name)
        if isinstance(value, bool):
            other: object = not value
        else:
            other = words.get(key) or (value + 1 if isinstance(value, int) else value * 0.5 + 0.01)
        changed = load_config(sets=[f"{key}={other}"])
        assert str(getattr(getattr(changed, section), name)) == str(other)
        hashes.add(changed.hash())
    assert len(hashes) == len(keys) + 1
    assert PipelineConfig().hash() == plain.hash()


def test_it_survives_json_and_serves_as_a_key() -> None:
    config = load_config(sets=["flow.tau=0.125", "align.size=128"])
    again = PipelineConfig.from_json(config.to_json())
    assert again == config and again.hash() == config.hash()
    assert {again: 1}[config] == 1 and PipelineConfig() not in {again: 1}
    assert PipelineConfig.from_dict({"flow": {"tau": 1}}).flow.tau == 1.0


def test_the_flow_section_has_the_defaults_of_its_parts() -> None:
    assert (FlowConfig().params, FlowConfig().options) == (TVL1Params(), BackendOptions())
    assert FlowConfig(backend="torch").backend == "torch-tvl1"


def test_flags_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text("[align]\nsize = 96\nmargin = 0\n[flow]\nwarps = 3\n", encoding="utf-8")
    config = load_config(file, ["align.size=128", "flow.warps=4"], {"flow.warps": 2})
    assert (config.align.size, config.align.margin, config.flow.warps) == (128, 0.0, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("flow.tua=0.2", "unknown setting 'flow.tua'; did you mean 'flow.tau'"),
        ("tau=0.2", "unknown setting 'tau'; did you mean 'flow.tau'"),
        ("flow.tau", "expected key=value"),
        ("flow.tau=fast", "flow.tau: expected float, got 'fast'"),
        ("flow.tau=1e999", "flow.tau must be finite, got 1e999"),
        ("flow.epsilon=nan", "flow.epsilon must be finite, got nan"),
        ("flow.nscales=2.5", "flow.nscales: expected int, got '2.5'"),
        ("flow.scale_step=1.5", "flow.scale_step must lie between 0 and 1, got 1.5"),
        ("flow.border=clmap", "unknown value of flow.border 'clmap'; did you mean 'clamp'"),
        ("flow.backend=troch", "unknown value of flow.backend 'troch'; did you mean 'torch-tvl1'"),
        ("align.prefilter=maybe", "align.prefilter: expected bool, got 'maybe'"),
        ("regions.backend=mediapip", "did you mean 'mediapipe-"),
        ("align.size=4", "align.size must lie in [28, 2048], got 4"),
        ("flow.warps=1000000000", "flow.warps must be at most 10,000, got 1,000,000,000"),
        ("apex.missing=flowpeak", "unknown value of apex.missing 'flowpeak'; did you mean 'flow-peak'"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(sets=[setting])
    assert message in str(caught.value)


def test_wrong_dictionaries_are_refused() -> None:
    for values, message in (
        ({"flwo": {}}, "did you mean 'flow'"),
        ({"flow": {"lambda": 0.1}}, r"did you mean 'flow\.lambda_'"),
        ({"flow": 3}, "flow must be a table of key = value, got 3"),
        ({"align": {"size": True}}, r"align\.size: expected int, got True"),
    ):
        with pytest.raises(UsageError, match=message):
            PipelineConfig.from_dict(values)


def test_it_needs_no_heavy_library() -> None:
    code = (
        "import sys; from mer_flow.config import load_config; load_config(sets=['flow.tau=0.2']).hash(); "
        "heavy = {'cv2', 'dlib', 'mediapipe', 'PIL', 'pandas', 'torch', 'h5py'}; "
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
