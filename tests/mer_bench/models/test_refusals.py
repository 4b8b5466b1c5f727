"""What a network cannot take, it says on building: which maps, which options."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mer_bench.errors import UsageError
from mer_bench.models.am3f_flownet import AM3FFlowNet
from mer_bench.models.bdcnn import BDCNN
from mer_bench.models.dual_atme import DualATME
from mer_bench.models.dual_inception import DualInception
from mer_bench.models.hsta import HSTA, HSTAFlow
from mer_bench.models.htnet import HTNet
from mer_bench.models.inceptr import IncepTR
from mer_bench.models.mmnet import MMNet
from mer_bench.models.off_apexnet import OFFApexNet
from mer_bench.models.rcn_a import RCNA
from mer_bench.models.sssnet import SSSNet
from mer_bench.models.ststnet import STSTNet


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (AM3FFlowNet, {"map_size": 3}, "4×4 pixels or more, got 3"),
        (BDCNN, {"in_channels": 2}, "3 channels; got 2"),
        (BDCNN, {"block_size": 9}, "blocks of 9 pixels do not tile"),
        (DualATME, {"in_channels": 4}, "got 4 channels"),
        (DualATME, {"map_size": 3}, "4×4 pixels or more, got 3"),
        (DualInception, {"in_channels": 1}, "u and v"),
        (DualInception, {"map_size": 3}, "4×4"),
        (HSTA, {"map_size": 223}, "nearest sizes that can are 208 and 224 px"),
        (HSTA, {"map_size": 8}, "nearest sizes that can are 16 px"),
        (HSTA, {"map_size": 100, "reduce_to": 28}, "averaged to 28 px .* are 84 and 112 px"),
        (HSTA, {"map_size": 224, "reduce_to": 112, "clip_patch": 15}, "are 105 and 120 px"),
        (HSTA, {"special_patch": 300}, "no patch of 300 px"),
        (HSTA, {"heads": 7}, "7 heads do not divide"),
        (HSTA, {"in_channels": 21}, "--keep-clips 6 --keep-faces"),
        (HSTA, {"in_channels": 25}, "these maps have 25"),
        (HSTA, {"frames": 5}, "even number"),
        (HSTA, {"frams": 6}, "unknown option 'frams'; did you mean 'frames'"),
        (HSTAFlow, {"in_channels": 3, "map_size": 56}, r"whole-56.*--keep-clips 6` "),
        (HSTAFlow, {"frams": 6}, "unknown option 'frams'; did you mean 'frames'"),
        (HTNet, {"map_size": 14}, "multiple of 28"),
        (HTNet, {"heads": 257}, "1 to 256 heads.* got 257 heads"),
        (HTNet, {"heads": 0}, "1 to 256 heads.* got 0 heads"),
        (HTNet, {"blocks": (1, -1, 1)}, "no negative number of blocks"),
        (HTNet, {"map_size": 27}, "multiple of 28"),
        (HTNet, {"map_size": 42}, "multiple of 28"),
        (IncepTR, {"map_size": 27}, "multiple of 2"),
        (IncepTR, {"depth": -1}, "depth: expected no negative number, got -1"),
        (IncepTR, {"map_size": 4, "heads": 8}, "8 places or more"),
        (IncepTR, {"width": 16, "heads": 3}, "power of two that divides width 16, got 3"),
        (IncepTR, {"width": 16, "heads": 32}, "power of two that divides width 16, got 32"),
        (IncepTR, {"width": "wide"}, "width: expected int, got 'wide'"),
        (MMNet, {"heads": 7}, "7 attention heads do not divide the width 512"),
        (MMNet, {"map_size": 28}, "nearest sizes that can are 16 and 32 px"),
        (MMNet, {"map_size": 200, "reduce_to": 112}, "are 112 and 224 px"),
        (MMNet, {"in_channels": 2}, "faces-224@rgb; these maps have 2. Build with .*--keep-faces"),
        (OFFApexNet, {"in_channels": 1}, "u and v"),
        (OFFApexNet, {"map_size": 3}, "4×4"),
        (RCNA, {"map_size": 7}, "8×8"),
        (SSSNet, {"map_size": 15}, "cannot take maps of 15 px; variant published reads whole-64"),
        (SSSNet, {"map_size": 27, "cell": 2, "padded": True}, "cell 2.* cannot take maps of 27 px"),
        (STSTNet, {"map_size": 3, "padding": 1}, "at least 4 px, got 3"),
    ],
)
def test_what_a_network_cannot_take_it_refuses(network: Any, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        network(**options)
