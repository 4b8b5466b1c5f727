"""AM3F-FlowNet (reconstructed): three branches computed as one, attention, and the adjusted loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from mer_bench.errors import UsageError
from mer_bench.models.am3f_flownet import SPECS, AM3FFlowNet


def share(ours, theirs, flow, flows=3):
    """Copies one flow's part of a grouped layer, or of its normalisation."""
    for name, values in theirs.state_dict().items():
        own = getattr(ours, name)
        part = own if own.dim() == 0 else own.unflatten(0, (flows, -1))[flow]
        values.copy_(part.reshape(values.shape))


class Fusion(nn.Module):
    """One branch's module, scale by scale."""

    def __init__(self, ours, flow):
        super().__init__()
        self.scales, self.norms, self.attentions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, grouped in enumerate(ours.scales):
            inside, width = grouped.in_channels // 3, grouped.out_channels // 3
            size = grouped.kernel_size[0]
            conv = nn.Conv2d(inside, width, size, padding=size // 2, bias=False)
            share(grouped, conv, flow)
            norm = nn.BatchNorm2d(width)
            place = flow * 3 + index
            attention = nn.Conv2d(2, 1, 3, padding=1, bias=False)
            kernels = [ours.attention.weight.data[place], ours.attention.weight.data[9 + place]]
            attention.weight.data.copy_(torch.stack(kernels, 1))
            self.scales.append(conv)
            self.norms.append(norm)
            self.attentions.append(attention)
        out = ours.fusion.out_channels // 3
        self.fusion = nn.Conv2d(ours.fusion.in_channels // 3, out, 1, bias=False)
        share(ours.fusion, self.fusion, flow)
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
            share(squeeze, gate[0], flow)
            share(excite, gate[2], flow)
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


def some_maps(count, size=28):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [28, 30])
def test_merged_branches_equal_a_network_per_flow(size):
    torch.manual_seed(0)
    network = AM3FFlowNet(map_size=size, width=4, hidden=16, dropout=0.0)
    twin = ByBranch(network).double()
    maps, labels = some_maps(10, size), torch.arange(10) % 3
    expected = twin(maps.double())
    F.cross_entropy(expected, labels).backward()
    theirs = torch.cat([b[0].scales[2].weight.grad for b in twin.branches])
    logits = network(maps.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    ours = network.first.scales[2].weight.grad
    assert (ours.double() - theirs).abs().max() < 1e-3 * theirs.abs().max()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_specification_says_what_is_ours():
    spec = SPECS[0]
    assert sum(p.numel() for p in AM3FFlowNet().parameters()) == spec.parameters == 621_875
    assert spec.exactness == "reconstructed" and "reconstructed" in spec.title
    assert spec.recipes[spec.default_recipe].loss == "logit-adjusted"
    assert len(spec.filled_in) >= 8
    assert sum(p.numel() for p in AM3FFlowNet(**spec.variants["tiny"]).parameters()) < 50_000


def test_branches_see_their_own_map_until_they_are_reweighted():
    network = AM3FFlowNet(width=4).eval()
    maps = some_maps(2)
    other = maps.clone()
    other[:, 2] += 0.5
    before, after = (network.second(network.first(m)).unflatten(1, (3, -1)) for m in (maps, other))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_stacked_networks_agree_with_each_alone():
    networks = [AM3FFlowNet(width=4, hidden=16).eval() for _ in range(3)]
    maps = some_maps(4)
    stacked = vmap(lambda p, b: functional_call(networks[0], (p, b), (maps,)))(*stack_module_state(networks))
    torch.testing.assert_close(stacked, torch.stack([n(maps) for n in networks]), rtol=1e-5, atol=1e-5)


def test_too_small_a_map_is_refused():
    with pytest.raises(UsageError, match="4×4"):
        AM3FFlowNet(map_size=3)
