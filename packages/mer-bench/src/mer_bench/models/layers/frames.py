"""What networks that read frames share: ImageNet's colour statistics and the sizes they can take."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_bench.errors import UsageError

#: Of ImageNet, for red, green, blue in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_SD = (0.229, 0.224, 0.225)


class ColourNorm(nn.Module):
    """Normalises colour frames with ImageNet's mean and standard deviation."""

    mean: Tensor
    sd: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(IMAGE_SD).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise `(..., 3, H, W)` frames in [0, 1]."""
        return (frames - self.mean) / self.sd


def reduced_size(model: str, map_size: int, reduce_to: int, step: int) -> int:
    """Decide the size at which a network works.

    Args:
        model: Its title, for messages.
        map_size: Side of the frames it is given, px.
        reduce_to: Side that larger frames are reduced to by averaging whole squares of pixels; 0 for none.
        step: What the size must be a multiple of.

    Returns:
        `reduce_to` for larger frames, else `map_size`.

    Raises:
        UsageError: No whole squares, or no multiple; names the nearest sizes that can be taken.

    >>> reduced_size("X", 224, 56, 8), reduced_size("X", 48, 56, 8)
    (56, 48)
    """
    size = map_size
    if reduce_to and map_size > reduce_to:
        below = map_size // reduce_to * reduce_to
        if map_size != below:
            raise UsageError(
                f"{model}: frames of {map_size} px cannot be averaged to {reduce_to} px (reduce_to); "
                f"the nearest sizes that can are {below} and {below + reduce_to} px"
            )
        size = reduce_to
    if size % step or not size:
        below = size // step * step
        fitting = f"{below} and {below + step}" if below else str(step)
        raise UsageError(
            f"{model}: frames of {size} px cannot be cut into cells of {step} px; "
            f"the nearest sizes that can are {fitting} px"
        )
    return size
