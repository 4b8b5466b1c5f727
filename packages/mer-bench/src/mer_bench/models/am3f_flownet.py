"""AM3F-FlowNet (Fu et al., Entropy 2023, doi:10.3390/e25071064), reconstructed from its abstract.

The branches have one shape, so their convolutions are one grouped convolution: the same function as a network
per flow map. On a CPU the maps lie channels-last, and a feature is a row of (flow, scale, channel); attention
over one of these axes then needs no copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.models.layers.flow_pictures import check_maps, rows
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_SCALES = (1, 3, 5)


class MultiScaleFusion(nn.Module):
    """In each branch, parallel convolutions of three sizes, spatial attention on each, then their fusion.

    Channels are those of one branch; `width` those of a scale.
    """

    def __init__(self, flows: int, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.flows = flows
        self.scales = nn.ModuleList(
            nn.Conv2d(flows * in_channels, flows * width, size, padding=size // 2, groups=flows, bias=False)
            for size in _SCALES
        )
        kinds = flows * len(_SCALES)
        self.norm = nn.BatchNorm2d(kinds * width)
        # Of each scale, one kernel for the mean over its channels and one for the maximum.
        self.attention = nn.Conv2d(2 * kinds, 2 * kinds, 3, padding=1, groups=2 * kinds, bias=False)
        self.fusion = nn.Conv2d(kinds * width, flows * out_channels, 1, groups=flows, bias=False)
        self.fusion_norm = nn.BatchNorm2d(flows * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn `(B, flows * in_channels, H, W)` into `(B, flows * out_channels, H // 2, W // 2)`."""
        # (B, H, W, flows, scales, width)
        scales = torch.stack([rows(scale(x)).unflatten(-1, (self.flows, -1)) for scale in self.scales], -2)
        scales = rows(F.relu(self.norm(_maps(scales.flatten(3))))).view(scales.shape)
        scales = scales * torch.sigmoid(self._attend(scales)).unsqueeze(-1)
        return F.relu(self.fusion_norm(F.max_pool2d(self.fusion(_maps(scales.flatten(3))), 2)))

    def _attend(self, scales: Tensor) -> Tensor:
        """Return what each scale says of each place, `(B, H, W, flows, scales)`."""
        # `mean` and `amax` are the same function, but go back through all elements more often.
        mean, largest = scales.sum(-1) / scales.shape[-1], scales.max(-1).values
        seen = torch.cat((mean.flatten(3), largest.flatten(3)), dim=-1)
        mean, largest = rows(self.attention(_maps(seen))).chunk(2, dim=-1)
        return (mean + largest).unflatten(-1, (self.flows, len(_SCALES)))


class FlowReweighting(nn.Module):
    """Channel attention twice: a weight for each flow map, then one for each channel of each."""

    def __init__(self, flows: int, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.flows = flows
        self.score = nn.Sequential(nn.Linear(flows, flows), nn.ReLU(), nn.Linear(flows, flows))
        self.squeeze = nn.Conv1d(flows * channels, flows * hidden, 1, groups=flows)
        self.excite = nn.Conv1d(flows * hidden, flows * channels, 1, groups=flows)

    def forward(self, x: Tensor) -> Tensor:
        """Weight `(B, flows * channels, H, W)`, flow by flow; the shape stays."""
        mean = x.mean((2, 3))
        by_flow = torch.sigmoid(self.score(mean.unflatten(1, (self.flows, -1)).mean(-1)))
        by_flow = by_flow.repeat_interleave(x.shape[1] // self.flows, dim=1)
        hidden = F.relu(self.squeeze((mean * by_flow).unsqueeze(-1)))
        by_channel = torch.sigmoid(self.excite(hidden)).squeeze(-1)
        return x * (by_flow * by_channel)[:, :, None, None]


class AM3FFlowNet(nn.Module):
    """An AM3F-style network; only its outline is the paper's.

    Known from the abstract and the list of contributions: three branches, one for u, one for v, one for
    strain; multi-scale fusion with spatial attention on each scale; channel attention that weights the flows
    and then, within each, the channels; a loss adjusted by the logarithm of the class prior. The rest is
    listed in the model's `filled_in`.

    Args:
        width: Channels of a scale of the second module; even.
        hidden: Width of the hidden linear layer.
        dropout: Probability, after it.
    """

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        width: int = 8, hidden: int = 128, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        check_maps("am3f-flownet", in_channels, map_size)
        self.first = MultiScaleFusion(in_channels, 1, width // 2, 2 * width)
        self.second = MultiScaleFusion(in_channels, 2 * width, width, 4 * width)
        self.reweighting = FlowReweighting(in_channels, 4 * width, reduction=4)
        self.classifier = nn.Sequential(
            nn.Linear(in_channels * 4 * width * (map_size // 4) ** 2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps into `(B, classes)` logits."""
        features = self.reweighting(self.second(self.first(maps)))
        return self.classifier(rows(features).flatten(1))


def _maps(rows: Tensor) -> Tensor:
    return rows.permute(0, 3, 1, 2)


# All of it is ours, but for the loss; the logarithm of the prior is what the abstract calls it adjusted by.
DEFAULT = Recipe(
    name="reconstructed", epochs=100, batch_size=64, optimizer="adam", lr=5e-4, loss="logit-adjusted"
)

SPECS = (
    ModelSpec(
        name="am3f-flownet",
        title="AM3F-FlowNet (reconstructed)",
        build=AM3FFlowNet,
        kind="network",
        views=("whole-28:scaled", "whole-28:minmax"),
        recipes={"reconstructed": DEFAULT},
        variants={"reconstructed": {}, "tiny": {"width": 4, "hidden": 16}},
        citation=(
            "C. Fu, W. Yang, D. Chen, F. Wei: AM3F-FlowNet: Attention-Based Multi-Scale Multi-Branch Flow "
            "Network. Entropy 25(7), 1064, 2023. doi:10.3390/e25071064"
        ),
        parameters=621_875,
        exactness="reconstructed",
        filled_in=(
            "Only the abstract and the list of contributions could be read: a score of this network is "
            "AM3F-style, not AM3F-FlowNet's.",
            "Input: u, v and strain as 28×28 maps; size and normalisation are ours. A store of stretched "
            "maps gives those, without the zero of u and v and without the magnitude.",
            "Branches: two multi-scale fusion modules each; their number, the scales 1×1, 3×3 and 5×5, the 4 "
            "and 8 channels of a scale, and the fusion by 1×1 convolution to 16 and 32 are ours.",
            "Spatial attention of a scale as in CBAM: channel mean and maximum, 3×3 convolution, sigmoid.",
            "Flow reweighting: a sigmoid weight per flow from its mean activation, then squeeze-and-"
            "excitation with reduction 4 within it; that flows come before channels is the paper's, the rest "
            "ours.",
            "Fusion of the branches: concatenation, a hidden layer of 128, ReLU, dropout 0.5.",
            "Loss: the logit-adjusted loss (Menon et al., ICLR 2021) with strength 1 and the training fold's "
            "own class frequencies; the abstract's words fit it, its formula was not at hand.",
            "Adam at 5e-4, batch 64 and 100 epochs, set before any score was seen.",
        ),
        selects_on_test=None,
        licence="No code of the authors found.",
    ),
)
