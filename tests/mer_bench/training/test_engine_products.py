"""STSTNet's layer as matrix products, as stacked folds run it on a GPU, against torch's own layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from mer_bench.models import relu_norm_pool
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.protocols.folds import Fold
from mer_bench.training.folds import run_folds
from mer_bench.training.kernels.relu_norm_pool import ConvReluNormPool
from mer_bench.training.layers import MaskedBatchNorm
from mer_bench.training.stacked_network import activation_bytes

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def products_everywhere(monkeypatch):
    monkeypatch.setattr(relu_norm_pool, "PRODUCT_DEVICES", ("cpu", "cuda"))


def layer_of(seed, padding=2, kernels=5):
    torch.manual_seed(seed)
    layer = ConvReluNormPool(3, kernels, 3, padding)
    with torch.no_grad():
        layer.norm.weight.uniform_(-1.0, 1.0)
        layer.norm.bias.uniform_(-1.0, 1.0)
    return layer


def gradients(layer, maps, upstream, rows):
    """Outputs, gradients and running statistics of torch's own layers, on the rows that count."""
    kept = maps[rows > 0]
    out = F.max_pool2d(layer.norm(F.relu(layer.conv(kept))), 3, 3, 1)
    (out * upstream[rows > 0]).sum().backward()
    found = {name: p.grad.clone() for name, p in layer.named_parameters()}
    return out.detach(), found, {name: b.clone() for name, b in layer.named_buffers()}


@pytest.mark.parametrize(("size", "padding"), [(28, 2), (12, 1), (9, 0)])
def test_three_folds_with_padded_rows_and_weights_of_both_signs(products_everywhere, size, padding):
    folds, batch = 3, 7
    layers = [layer_of(seed, padding) for seed in range(folds)]
    maps = torch.randn(folds, batch, 3, size, size) * 3 + 1
    rows = torch.tensor([[1.0] * 7, [1.0] * 5 + [0.0] * 2, [1.0] * 6 + [0.0]])
    side = F.max_pool2d(layers[0].conv(maps[0]), 3, 3, 1).shape[-1]
    upstream = torch.randn(folds, batch, 5, side, side) * rows[:, :, None, None, None]
    template = layer_of(0, padding)
    template.norm = MaskedBatchNorm(template.norm)
    parameters = {
        name: torch.stack([dict(one.named_parameters())[name] for one in layers]).detach().requires_grad_()
        for name, _ in layers[0].named_parameters()
    }
    buffers = {
        name: torch.stack([dict(one.named_buffers())[name] for one in layers])
        for name, _ in layers[0].named_buffers()
    } | {"norm.row_weight": rows}
    run = vmap(lambda p, b, x: functional_call(template, (p, b), (x,)))
    out = run(parameters, buffers, maps)
    assert type(out.grad_fn).__name__ != "MaxPool2DWithIndicesBackward0"
    (out * upstream).sum().backward()
    for place, layer in enumerate(layers):
        expected, found, statistics = gradients(layer, maps[place], upstream[place], rows[place])
        torch.testing.assert_close(out[place][rows[place] > 0], expected, **CLOSE)
        for name, gradient in found.items():
            torch.testing.assert_close(parameters[name].grad[place], gradient, rtol=1e-3, atol=1e-3)
        for name, statistic in statistics.items():
            torch.testing.assert_close(buffers[name][place], statistic, **CLOSE)


def test_gradients_in_float64(products_everywhere):
    layer = layer_of(3, kernels=2).double()
    tensors = [layer.conv.weight, layer.conv.bias, layer.norm.weight, layer.norm.bias]
    maps = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    rows = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)

    def pooled(*values):
        out = relu_norm_pool.conv_relu_norm_pool(maps, *values, rows, 1e-5, 2)[0]
        return out * rows.view(-1, 1, 1, 1)

    assert torch.autograd.gradcheck(pooled, tensors)


def test_evaluation_by_products_is_the_same_function(products_everywhere):
    layer = layer_of(1).eval()
    layer.norm.running_mean.uniform_(0, 1)
    layer.norm.running_var.uniform_(0.5, 2)
    maps = torch.randn(4, 3, 28, 28)
    expected = layer(maps)
    layer.norm = MaskedBatchNorm(layer.norm)
    with torch.no_grad():
        torch.testing.assert_close(layer(maps), expected, **CLOSE)


def test_ststnet_trains_by_products_as_one_fold_at_a_time(products_everywhere):
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 256, (30, 3, 12, 12)).astype(np.float32)
    labels, subjects = generator.integers(0, 3, 30), np.repeat(np.arange(3), [4, 9, 17])
    folds = [Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(3)]
    recipe = STSTNET[0].recipes["authors"].changed(epochs=3, batch_size=8)
    records = {}
    for engine in ("stacked", "serial"):
        records[engine] = {}
        run_folds(
            STSTNET[0], {}, maps, labels, 3, folds, recipe, protocol="p", seed=0, device="cpu", engine=engine,
            on_fold=lambda r, kept=records[engine]: kept.__setitem__(r.fold, r),
        )  # fmt: skip
    for name, record in records["stacked"].items():
        for field in ("logits", "train_loss"):
            np.testing.assert_allclose(
                getattr(record, field), getattr(records["serial"][name], field), rtol=1e-4, atol=1e-4
            )


def test_memory_of_the_windows_is_counted(products_everywhere):
    network = nn.Sequential(layer_of(0))
    network[0].norm = MaskedBatchNorm(network[0].norm)
    kept = activation_bytes(network, (3, 28, 28), torch.device("cpu"))
    assert kept >= 4 * 900 * (28 + 5)
