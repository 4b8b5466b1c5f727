"""Precision of matrix products: resolved by the device, applied and put back."""

from __future__ import annotations

import pytest
import torch

from mer_bench.errors import UsageError
from mer_bench.training.device import matrix_precision, resolve_precision


def test_precision_is_resolved_applied_and_put_back(monkeypatch):
    assert resolve_precision("auto", "cpu") == resolve_precision("float32", "cpu") == "float32"
    with pytest.raises(UsageError, match="needs a GPU from Ampere on, not cpu"):
        resolve_precision("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert resolve_precision("auto", "cuda") == "tf32"
    assert resolve_precision("float32", "cuda") == "float32"
    before = torch.backends.cuda.matmul.allow_tf32
    with matrix_precision("tf32", "cuda"):
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve_precision("auto", "cuda") == "float32"
