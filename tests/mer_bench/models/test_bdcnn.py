"""BDCNN: its blocks as a loop over them, its pictures, and implicit semantic augmentation in dense form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of
from torch import Tensor, nn

from mer_bench.models.bdcnn import BDCNN, SPECS
from mer_bench.models.layers.flow_pictures import colour_code, stretch
from mer_bench.models.layers.isda import ISDA

SPEC = SPECS[0]
TINY = dict(SPEC.variants["tiny"])


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = SPEC.build(num_classes=3, in_channels=3, map_size=28, **SPEC.variants["paper"])
    count = sum(p.numel() for p in network.parameters())
    mixing, hidden, features = 4 * 144 * 8 * 512 + 512, 512 * 16 * 1024 + 1024, 1024 * 128 + 128
    assert count == SPEC.parameters == 3 * 8 * 9 + 8 + mixing + hidden + features + 128 * 3 + 3
    assert round(count / 1e6, 1) == 10.9


@pytest.mark.parametrize(("picture", "block"), [(28, 7), (28, 14), (60, 10)])
def test_blocks_are_convolved_apart_and_mixed_in_order(picture: int, block: int) -> None:
    torch.manual_seed(0)
    network = BDCNN(picture_size=picture, block_size=block, kernels=4, mixed=8, hidden=16, features=8)
    pictures = network.pictures(maps_of(3))
    parts = []
    for number in range(4):
        for top in range(0, picture, block):
            for left in range(0, picture, block):
                piece = pictures[:, number, :, top : top + block, left : left + block]
                parts.append(F.max_pool2d(F.relu(network.conv1(piece)), 3, 3, 1))
    x = F.relu(network.conv2(torch.cat(parts, 1))).flatten(1)
    expected = F.relu(network.fc2(F.relu(network.fc1(x))))
    torch.testing.assert_close(network.features(pictures), expected)


def test_pictures_do_not_depend_on_how_flow_was_scaled() -> None:
    network = BDCNN(**TINY).eval()
    maps = maps_of(4) - 0.4
    scaled = maps * torch.tensor([3.0, 3.0, 7.0]).view(3, 1, 1) + torch.tensor([1.0, -2.0, 5.0]).view(3, 1, 1)
    torch.testing.assert_close(network.pictures(maps), network.pictures(scaled), rtol=1e-3, atol=1e-3)
    still = network.pictures(torch.zeros(1, 3, 28, 28))
    assert torch.isfinite(still).all()
    grey = network.pictures(maps)[:, :3] * network.picture_deviation + network.picture_mean
    torch.testing.assert_close(grey, stretch(maps).unsqueeze(2).expand(-1, -1, 3, -1, -1))


def test_colours_are_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    u, v = torch.randn(2, 28, 28, generator=torch.Generator().manual_seed(0))
    x, y = (u - u.median()).numpy(), (v - v.median()).numpy()
    length, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    length = (length - length.min()) / (length.max() - length.min())
    hsv = np.stack([angle, np.ones_like(angle), length], -1)
    painted = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).transpose(2, 0, 1)
    # OpenCV's angles are good to 0.3 degrees, a 200th of the step between two colours.
    np.testing.assert_allclose(colour_code(u, v).numpy(), painted, atol=6e-3)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for size in range(5, 5 + count):
        labels = torch.randint(0, 3, (size,), generator=generator)
        features = torch.randn(size, 6, generator=generator) * (1 + labels[:, None]) + labels[:, None]
        made.append((features, labels))
    return made


def test_isda_statistics_are_those_of_every_sample_seen() -> None:
    isda = ISDA(6, 4)
    fc = nn.Linear(6, 4)
    for features, labels in batches(6):
        isda(features, fc(features), labels, fc.weight, torch.tensor(0.5))
    features = torch.cat([f for f, _ in batches(6)])
    labels = torch.cat([y for _, y in batches(6)])
    for k in range(3):
        own = features[labels == k].double().numpy()
        assert isda.count[k] == len(own)
        np.testing.assert_allclose(isda.mean[k], own.mean(0), atol=1e-5)
        np.testing.assert_allclose(isda.covariance[k], np.cov(own.T, bias=True), atol=1e-4)
    # A class that was never seen has nothing to be moved along.
    assert isda.count[3] == 0 and not isda.covariance[3].any()


def test_isda_logits_are_the_dense_formula_and_bound_the_augmented_loss() -> None:
    torch.manual_seed(0)
    isda, fc = ISDA(6, 3), nn.Linear(6, 3)
    for features, labels in batches(3):
        logits = fc(features)
        raised = isda(features, logits, labels, fc.weight, torch.tensor(0.4))
    for n in range(len(labels)):
        for c in range(3):
            apart = fc.weight[c] - fc.weight[labels[n]]
            expected = logits[n, c] + 0.2 * apart @ isda.covariance[labels[n]] @ apart
            torch.testing.assert_close(raised[n, c], expected)
    # Proposition 1: sampled along 0.4 times the covariance, the mean loss stays below.
    drawn = torch.distributions.MultivariateNormal(
        features, 0.4 * isda.covariance[labels] + 1e-6 * torch.eye(6)
    ).sample((4000,))
    sampled = F.cross_entropy(fc(drawn).flatten(0, 1), labels.repeat(4000), reduction="none")
    bound = F.cross_entropy(raised, labels, reduction="none")
    assert (sampled.view(4000, -1).mean(0) <= bound + 0.02).all()
    assert (bound >= F.cross_entropy(logits, labels, reduction="none")).all()
    grown = torch.autograd.grad(bound.sum(), fc.weight, retain_graph=True)[0]
    plain = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), fc.weight)[0]
    assert not torch.allclose(grown, plain)


def test_padded_rows_do_not_enter_isda() -> None:
    whole, part = ISDA(6, 3), ISDA(6, 3)
    features, labels = batches(1)[0]
    weight = torch.ones(3, 6)
    part(features[:3], features[:3, :3], labels[:3], weight, torch.tensor(0.1))
    whole.row_weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    whole(features, features[:, :3], labels, weight, torch.tensor(0.1))
    for name, buffer in part.named_buffers():
        if name != "row_weight":
            torch.testing.assert_close(getattr(whole, name), buffer)


def test_augmentation_follows_recipe_and_progress() -> None:
    torch.manual_seed(0)
    network = BDCNN(**TINY)
    maps, labels = maps_of(8), torch.arange(8) % 3
    plain = network.eval()(maps)
    network.train()
    torch.testing.assert_close(network(maps, labels, torch.tensor(0.5)), plain)
    assert network.augmentation.count.sum() == 0
    network.isda = 0.5
    torch.testing.assert_close(network(maps, labels, torch.tensor(0.0)), plain)
    raised = network(maps, labels, torch.tensor(0.9)) - plain
    assert raised.gather(1, labels[:, None]).abs().max() < 1e-6 and raised.max() > 0
    with pytest.raises(ValueError, match="needs labels and progress"):
        network(maps)
    network.eval()
    torch.testing.assert_close(network(maps), plain)
    assert SPEC.recipes["isda"].isda == 0.5 and SPEC.recipes["ce"].isda == 0.0
