"""BDCNN (Chen et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3141616): small blocks of four flow pictures.

Every picture is cut into blocks that are convolved apart, with one shared kernel set; a 1×1 convolution then
mixes all blocks of all pictures at once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.flow_pictures import colour_code, resize, stretch
from mer_bench.models.layers.isda import ISDA
from mer_bench.models.spec import ModelSpec, Options
from mer_bench.recipe import Recipe

_PICTURES = 4
# As the authors' code takes them over from CIFAR, for channels blue, green, red.
_MEAN, _DEVIATION = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)


class BDCNNOptions(Options):
    """Options of BDCNN.

    Attributes:
        picture_size: Height and width of the pictures; maps of another size are resized bilinearly.
        block_size: Height and width of a block.
        kernels: Kernels of the shared convolution.
        mixed: Channels of the 1×1 convolution.
        hidden: Units of the first linear layer.
        features: Units of the second: what is augmented, and what the classifier reads.
    """

    picture_size: int = 120
    block_size: int = 10
    kernels: int = 8
    mixed: int = 512
    hidden: int = 1024
    features: int = 128


class BDCNN(nn.Module):
    """The network of the authors' code, which makes its pictures from flow maps itself.

    Attributes:
        isda: Largest strength of implicit semantic augmentation, 0 for none; the recipe sets it.
    """

    picture_mean: Tensor
    picture_deviation: Tensor

    config = BDCNNOptions
    trains_with_labels = True
    isda = 0.0

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 120, **options: Any
    ) -> None:
        super().__init__()
        given = self.config(**options)
        picture_size, block_size = given.picture_size, given.block_size
        if in_channels != 3:
            raise UsageError(f"bdcnn reads u, v and strain, 3 channels; got {in_channels}")
        if block_size < 1 or picture_size % block_size:
            raise UsageError(
                f"bdcnn: blocks of {block_size} pixels do not tile a picture of {picture_size}; choose a "
                "block_size that divides picture_size"
            )
        self.picture_size, self.block_size = picture_size, block_size
        blocks = (picture_size // block_size) ** 2
        pooled = (block_size + 2 - 3) // 3 + 1
        self.conv1 = nn.Conv2d(3, given.kernels, 3, padding=1)
        self.conv2 = nn.Conv2d(_PICTURES * blocks * given.kernels, given.mixed, 1)
        self.fc1 = nn.Linear(given.mixed * pooled**2, given.hidden)
        self.fc2 = nn.Linear(given.hidden, given.features)
        self.fc = nn.Linear(given.features, num_classes)
        self.augmentation = ISDA(given.features, num_classes)
        for name, values in (("picture_mean", _MEAN), ("picture_deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, maps: Tensor, labels: Tensor | None = None, progress: Tensor | None = None) -> Tensor:
        """Classify flow maps.

        Args:
            maps: `(B, 3, H, W)` float32: u, v, strain, in any normalisation.
            labels: `(B,)` int64, in training.
            progress: float32 scalar, the share of the training that is done.

        Returns:
            `(B, classes)` logits; in training those whose cross-entropy bounds the augmented one's.
        """
        features = self.features(self.pictures(maps))
        logits: Tensor = self.fc(features)
        if not (self.training and self.isda):
            return logits
        if labels is None or progress is None:
            raise ValueError("bdcnn augments by class: in training it needs labels and progress")
        raised: Tensor = self.augmentation(features, logits, labels, self.fc.weight, self.isda * progress)
        return raised

    def pictures(self, maps: Tensor) -> Tensor:
        """Make of `(B, 3, H, W)` maps the four pictures, `(B, 4, 3, size, size)`, normalised."""
        painted = torch.cat([stretch(maps), colour_code(maps[:, 0], maps[:, 1])], dim=1)
        grey, colour = resize(painted, self.picture_size).split(3, dim=1)
        pictures = torch.cat([grey.unsqueeze(2).expand(-1, -1, 3, -1, -1), colour.unsqueeze(1)], dim=1)
        return (pictures - self.picture_mean) / self.picture_deviation

    def features(self, pictures: Tensor) -> Tensor:
        """Turn `(B, 4, 3, size, size)` pictures into `(B, features)`."""
        size = self.block_size
        blocks = pictures.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        # Picture, row, column; a block is an image of its own.
        blocks = blocks.permute(0, 1, 3, 5, 2, 4, 6)
        count = blocks.shape[1] * blocks.shape[2] * blocks.shape[3]
        x = F.max_pool2d(F.relu(self.conv1(blocks.flatten(0, 3))), 3, stride=3, padding=1)
        x = x.unflatten(0, (-1, count)).flatten(1, 2)
        x = F.relu(self.conv2(x)).flatten(1)
        return F.relu(self.fc2(F.relu(self.fc1(x))))


# Their 80th epoch, which is number 79 from zero, is the first at a tenth.
_TRAINING = Recipe(
    epochs=100, batch_size=128, optimizer="sgd", lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4,
    schedule="step", step_epochs=79, gamma=0.1, class_weights=(0.15, 0.425, 0.425),
)  # fmt: skip

_SMALL = {"picture_size": 28, "block_size": 7, "mixed": 64, "hidden": 128, "features": 64}

SPECS = (
    ModelSpec(
        name="bdcnn",
        title="BDCNN",
        build=BDCNN,
        kind="network",
        views=("whole-120:raw", "whole-28:minmax"),
        recipes={
            "isda": _TRAINING.changed(name="isda", isda=0.5),
            "ce": _TRAINING.changed(name="ce"),
        },
        variants={
            "paper": {},
            "small": _SMALL,
            "tiny": {**_SMALL, "block_size": 14, "kernels": 4, "mixed": 16, "hidden": 32, "features": 16},
        },
        citation=(
            "B. Chen, K.-H. Liu, Y. Xu, Q.-Q. Wu, J.-F. Yao: Block Division Convolutional Network With "
            "Implicit Deep Features Augmentation for Micro-Expression Recognition. IEEE Transactions on "
            "Multimedia, 2022. doi:10.1109/TMM.2022.3141616"
        ),
        parameters=10_881_251,
        exactness="reconstructed",
        filled_in=(
            "Network and training are the authors' code; their four pictures per clip (u, v, strain, and the "
            "flow made visible) are not released. Here u, v and strain are stretched to [0, 1] per image and "
            "repeated over three channels, and the flow is painted as OpenCV's tutorial does: direction as "
            "hue, stretched length as value.",
            "Direction and length are taken relative to the image's median flow, since a store of stretched "
            "maps has lost the zero; whole-28:minmax also loses the ratio of u to v, and its pictures are "
            "enlarged from 28 to 120 pixels.",
            "Recipe ce is isda without augmentation; the weights of the classes are kept, as nothing else is "
            "said of the paper's cross-entropy row.",
            "The code holds back a random fifth of the training samples, of the same subjects, and tests at "
            "the epoch best on it. Here all training samples are trained on and the last epoch counts.",
            "Variant small, for a CPU, is ours: pictures of 28 pixels, 16 blocks of 7, narrower layers.",
        ),
        selects_on_test=False,
        licence="The authors' code is public for non-commercial use and has no licence file; the network is "
        "written anew.",
    ),
)
