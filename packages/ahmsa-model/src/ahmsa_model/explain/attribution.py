"""What each cell of a map adds to a class: integrated gradients and occlusion, with their controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ahmsa_model.config import AHMSAConfig
from ahmsa_model.errors import MissingDependencyError
from ahmsa_model.network import Hierarchy

#: Points between the still map and the map at which gradients are taken (Gauss-Legendre).
STEPS = 64
#: Side of the square that occlusion hides, and its step, in cells.
HIDDEN, STEP = 4, 2
#: Normalisations of which the map of a face that does not move is known: zero.
ZERO_IS_STILL = ("raw", "scaled", "centred", "centred-rms")


@dataclass(frozen=True)
class Attribution:
    """What speaks for a class in each of B maps; the score is the class's logit less the mean of all logits.

    Attributes:
        gradients: `(B, C, N, N)` float32, integrated gradients from the still map; their sum is the change of
            the score.
        occlusion: `(B, N, N)` float32, how much the score falls where a square of cells is made still, the
            mean over the squares that cover a cell.
        regions: `(B, R)` float32, how much the score falls where a whole region is made still.
        gap: `(B,)` float32, what the integrated gradients' sum lacks of the change of the score.
    """

    gradients: np.ndarray
    occlusion: np.ndarray
    regions: np.ndarray
    gap: np.ndarray


def still_maps(maps: np.ndarray, normalisation: str) -> np.ndarray:
    """Return the maps of the same faces at rest, `(B, C, N, N)` float32.

    Zero where the normalisation keeps it; else each channel's median, since most of a face is at rest.
    """
    if normalisation in ZERO_IS_STILL:
        return np.zeros_like(maps)
    return np.broadcast_to(np.median(maps, axis=(-2, -1), keepdims=True), maps.shape).astype(np.float32)


def attribute(
    network: nn.Module, maps: np.ndarray, still: np.ndarray, targets: np.ndarray, regions: np.ndarray
) -> Attribution:
    """Explain the score of a class for each map.

    Integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365. Occlusion: Zeiler and Fergus 2014,
    doi:10.1007/978-3-319-10590-1_53. Both by captum.

    Args:
        network: Gives `(B, classes)` logits; in evaluation mode.
        maps: `(B, C, N, N)` float32, as the network reads them.
        still: The same faces at rest; see `still_maps`.
        targets: `(B,)` int, the class of each.
        regions: `(N, N)` int, the region that each cell shows, from 0.

    Raises:
        MissingDependencyError: captum is absent.
    """
    try:
        from captum.attr import FeatureAblation, IntegratedGradients, Occlusion
    except ImportError as error:
        raise MissingDependencyError(
            f"explaining needs captum ({error}): pip install -e 'packages/ahmsa-model[explain]'"
        ) from error
    like = next(network.parameters())
    given, rest = (torch.from_numpy(np.ascontiguousarray(part)).to(like) for part in (maps, still))
    target = torch.from_numpy(np.asarray(targets, np.int64)).to(like.device)
    score = _score_of(network)
    channels = given.shape[1]
    gradients, gap = IntegratedGradients(score).attribute(
        given,
        rest,
        target=target,
        n_steps=STEPS,
        internal_batch_size=max(256, len(given)),
        return_convergence_delta=True,
    )
    with torch.inference_mode():
        hidden = Occlusion(score).attribute(
            given,
            sliding_window_shapes=(channels, HIDDEN, HIDDEN),
            strides=(channels, STEP, STEP),
            baselines=rest,
            target=target,
            perturbations_per_eval=8,
        )
        mask = torch.from_numpy(np.asarray(regions, np.int64)).to(like.device).expand(1, channels, -1, -1)
        dropped = FeatureAblation(score).attribute(given, rest, target=target, feature_mask=mask)
    per_region = [dropped[:, 0][:, mask[0, 0] == k].mean(1) for k in range(int(mask.max()) + 1)]
    return Attribution(
        gradients=gradients.detach().float().cpu().numpy(),
        occlusion=hidden[:, 0].float().cpu().numpy(),
        regions=torch.stack(per_region, 1).float().cpu().numpy(),
        gap=gap.float().cpu().numpy(),
    )


def region_shares(gradients: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return each region's share of the absolute attribution.

    Args:
        gradients: `(B, C, N, N)`.
        regions: `(N, N)` int, from 0.

    Returns:
        `(B, R)`, each row summing to 1; zeros where nothing is attributed.
    """
    size = np.abs(gradients).sum(1)
    sums = np.stack([size[:, regions == k].sum(1) for k in range(int(regions.max()) + 1)], 1)
    total = sums.sum(1, keepdims=True)
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation of two attributions of one shape: 1 alike, 0 unrelated, -1 opposed.

    >>> likeness(np.array([0.1, 0.5, -2.0]), np.array([1.0, 7.0, 0.0]))
    1.0
    """
    one, other = (np.argsort(np.argsort(part.ravel(), kind="stable")) for part in (first, second))
    return float(np.corrcoef(one, other)[0, 1].round(12))


def at_random(config: AHMSAConfig, seed: int) -> Hierarchy:
    """Build the same network with weights at random: what it says of a map is no explanation.

    The sanity check of Adebayo et al. 2018, arXiv:1810.03292: an attribution that hardly changes shows the
    input, not the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Hierarchy(config).eval()


def _score_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def score(maps: Tensor) -> Tensor:
        # The softmax does not see what all logits have in common, so neither does the explanation.
        logits = network(maps)
        return logits - logits.mean(1, keepdim=True)

    return score
