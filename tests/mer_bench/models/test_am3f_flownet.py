"""AM3F-FlowNet (reconstructed): three branches computed as one, attention, and the adjusted loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import assert_agrees, assert_gradient, maps_of, take
from torch import nn

from mer_bench.models.am3f_flownet import SPECS, AM3FFlowNet


class Fusion(nn.Module):
    """One branch's module, scale by scale."""

    def __init__(self, ours, flow):
        super().__init__()
        self.scales, self.norms, self.attentions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, grouped in enumerate(ours.scales):
            inside, width = grouped.in_channels // 3, grouped.out_channels // 3
            size = grouped.kernel_size[0]
            conv = nn.Conv2d(inside, width, size, padding=size // 2, bias=False)
            take(grouped, conv, flow * width)
            place = flow * 3 + index
            attention = nn.Conv2d(2, 1, 3, padding=1, bias=False)
            kernels = [ours.attention.weight.data[place], ours.attention.weight.data[9 + place]]
            attention.weight.data.copy_(torch.stack(kernels, 1))
            self.scales.append(conv)
            self.norms.append(nn.BatchNorm2d(width))
            self.attentions.append(attention)
        out = ours.fusion.out_channels // 3
        self.fusion = nn.Conv2d(ours.fusion.in_channels // 3, out, 1, bias=False)
        take(ours.fusion, self.fusion, flow * out)
        self.fusion_norm = nn.BatchNorm2d(out)

    def forward(self, x):
        scales = []
        for conv, norm, attention in zip(self.scales, self.norms, self.attentions, strict=True):
            y = F.relu(norm(conv(x)))
            seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
            scales.append(y * torch.sigmoid(attention(seen)))
        return F.relu(self.fusion_norm(F.max_pool2d(self.fusion(torch.cat(scales, 1)), 2)))


class ByBranch(nn.Module):
    """The network as the abstract tells it: a branch per flow map."""

    def __init__(self, ours):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(Fusion(ours.first, flow), Fusion(ours.second, flow)) for flow in range(3)
        )
        self.score = copy.deepcopy(ours.reweighting.score)
        self.gates = nn.ModuleList()
        squeeze, excite = ours.reweighting.squeeze, ours.reweighting.excite
        for flow in range(3):
            channels, hidden = squeeze.in_channels // 3, squeeze.out_channels // 3
            gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
            take(squeeze, gate[0], flow * hidden)
            take(excite, gate[2], flow * channels)
            self.gates.append(gate)
        self.classifier = copy.deepcopy(ours.classifier)

    def forward(self, maps):
        branches = [branch(maps[:, flow : flow + 1]) for flow, branch in enumerate(self.branches)]
        scores = torch.sigmoid(self.score(torch.stack([b.mean((1, 2, 3)) for b in branches], 1)))
        weighted = []
        for flow, branch in enumerate(branches):
            branch = branch * scores[:, flow, None, None, None]
            gate = torch.sigmoid(self.gates[flow](branch.mean((2, 3))))
            weighted.append(branch * gate[:, :, None, None])
        return self.classifier(torch.cat(weighted, 1).permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize("size", [28, 30])
def test_merged_branches_equal_a_network_per_flow(size):
    torch.manual_seed(0)
    network = AM3FFlowNet(map_size=size, width=4, hidden=16, dropout=0.0)
    twin = ByBranch(network)
    assert_agrees(network, twin, maps_of(10, size=size))
    theirs = [branch[0].scales[2].weight.grad for branch in twin.branches]
    assert_gradient(network.first.scales[2].weight, *theirs, tolerance=1e-3)


def test_specification_says_what_is_ours():
    spec = SPECS[0]
    assert spec.exactness == "reconstructed" and "reconstructed" in spec.title
    assert spec.recipes[spec.default_recipe].loss == "logit-adjusted"
    assert len(spec.filled_in) >= 8


def test_branches_see_their_own_map_until_they_are_reweighted():
    network = AM3FFlowNet(width=4).eval()
    maps = maps_of(2)
    other = maps.clone()
    other[:, 2] += 0.5
    before, after = (network.second(network.first(m)).unflatten(1, (3, -1)) for m in (maps, other))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])
