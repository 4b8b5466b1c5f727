"""How many stacked folds fit into the memory of a device."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from mer_bench.training.device import device_of
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.network import build_network, fold_generators, training_output

logger = logging.getLogger(__name__)

# Beside what the backward pass keeps: gradients of activations and the kernels' own workspace.
_ACTIVATION_FACTOR = 2.0


def fold_capacity(job: Job, data: TrainingData, most_samples: int) -> int:
    """Estimate how many folds the device's free memory holds at once, but no less than 1.

    `most_samples` are the training samples of the largest fold.
    """
    device, shape = device_of(job), data.shape
    with fold_generators(0, device):
        network = build_network(job.spec, job.options, len(job.classes), shape, device, stacked=True)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    batch = min(job.network_recipe.batch_size, most_samples)
    # Weight, gradient and the optimiser's two moments, and an average; maps twice, as they are picked and
    # augmented.
    need = (5 if job.network_recipe.ema else 4) * weights + batch * (
        _ACTIVATION_FACTOR * activation_bytes(network, shape, device) + 2 * 4 * data.maps[0].size
    )
    del network
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free = 0.9 * torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = 0.5 * psutil.virtual_memory().available
    # The trainer and the recorder have each a copy of what they need of the maps.
    capacity = max(1, int((free - 2 * 4 * data.maps.size) / need))
    logger.info(
        "a stacked fold needs about %.0f MB; %.1f GB free on %s hold %d",
        need / 1e6,
        free / 1e9,
        device,
        capacity,
    )
    return capacity


def activation_bytes(network: nn.Module, sample_shape: tuple[int, int, int], device: torch.device) -> float:
    """Measure the memory that one sample's forward pass keeps for the backward pass.

    Args:
        network: In training mode; its running statistics change, so it must not be used afterwards.
        sample_shape: `(C, H, W)` of the maps.
        device: Where the network is.

    Returns:
        Bytes per sample: the difference between a batch of four and one of two.
    """
    sizes = []
    for batch in (2, 4):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # Held until counted, or an address might be used twice.
            output = training_output(
                network,
                torch.zeros(batch, *sample_shape, device=device),
                torch.zeros(batch, dtype=torch.int64, device=device),
                torch.zeros((), device=device),
            )
        sizes.append(sum(kept.values()))
        del output
    return max(0.0, (sizes[1] - sizes[0]) / 2)
