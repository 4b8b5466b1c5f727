"""The bench's layers: dropout from a key, batch normalisation without padding or of a single sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mer_bench.training.layers import FoldDropout, LoneBatchNorm1d, MaskedBatchNorm


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layer", [LoneBatchNorm1d, MaskedBatchNorm])
def test_one_sample_is_normalised_by_the_running_statistics_and_leaves_them(layer, momentum):
    torch.manual_seed(0)
    plain, replaced = nn.BatchNorm1d(4, momentum=momentum), layer(nn.BatchNorm1d(4, momentum=momentum))
    for batch in (torch.randn(5, 4), 3 + torch.randn(7, 4)):
        torch.testing.assert_close(replaced(batch), plain(batch))
    before = {name: tensor.clone() for name, tensor in replaced.state_dict().items()}
    one = torch.randn(1, 4, requires_grad=True)
    found = replaced(one)
    torch.testing.assert_close(found, plain.eval()(one))
    found.square().sum().backward()
    assert (one.grad.abs() > 0).all()
    for name, tensor in replaced.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        torch.testing.assert_close(tensor, plain.state_dict()[name])


def test_masked_batch_norm_ignores_padding_and_equals_torch_without():
    x = torch.randn(10, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    ours, theirs = MaskedBatchNorm(nn.BatchNorm2d(4)), nn.BatchNorm2d(4)
    ours.row_weight = torch.tensor([1.0] * 7 + [0.0] * 3)
    padded = x.clone()
    padded[7:] = 1e6
    torch.testing.assert_close(ours(padded)[:7], theirs(x[:7]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_fold_dropout_keeps_its_share_and_scale_and_draws_anew_per_call():
    layer = FoldDropout(0.3)
    x = torch.ones(200, 16, 10, 10)
    out = layer(x)
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=0.005)
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(out, layer(x))
    assert layer.eval()(x) is x
    unpacked = FoldDropout(0.3, stacked=True)
    assert torch.equal(unpacked(x), out)
    channels = FoldDropout(0.5, per_channel=True)(x)
    assert set((channels == 0).flatten(2).float().mean(2).unique().tolist()) == {0.0, 1.0}
