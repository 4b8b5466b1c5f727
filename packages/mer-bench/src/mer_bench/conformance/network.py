"""Checks of a network by itself: shapes, gradients, evaluation, saving, stacking."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from mer_bench.conformance.subject import Subject
from mer_bench.errors import ConformanceError
from mer_bench.models.registry import Registered
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.network import training_output
from mer_bench.training.networks import StackedNetworks
from mer_bench.weights.checkpoint import Metadata, read_checkpoint, record_of, write_checkpoint

#: What rounding may change in logits of size one, and in larger ones in proportion.
TOLERANCE = 1e-5


def gives_logits(subject: Subject) -> str:
    """One or two maps, in training and in evaluation, 3 or 5 classes: a row of finite logits for each map."""
    for num_classes in (3, 5):
        network = subject.build(num_classes=num_classes)
        for count in (1, 2):
            maps, labels = subject.samples(count)
            for training in (True, False):
                logits = _logits(network.train(training), maps, labels)
                seen = f"{count} map(s) in {'training' if training else 'evaluation'} give logits"
                if tuple(logits.shape) != (count, num_classes):
                    expected = (count, num_classes)
                    raise ConformanceError(f"{seen} of shape {tuple(logits.shape)}, expected {expected}")
                if not logits.isfinite().all():
                    raise ConformanceError(f"{seen} that are not finite")
    return f"variant '{subject.variant}'"


def every_parameter_learns(subject: Subject) -> str:
    """Every parameter gets a gradient, except those that `untrained_parameters()` of the network names."""
    reached: set[str] = set()
    # A rectifier may be silent for a whole batch under one draw of weights, not under all.
    for seed in range(3):
        network = subject.build(seed=seed)
        names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        declared = set(getattr(network, "untrained_parameters", tuple)())
        maps, labels = subject.samples(16, seed)
        _loss(subject, network, maps, labels).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise ConformanceError(f"the gradient of {name} is not finite")
            if parameter.grad is not None and parameter.grad.abs().max() > 0:
                reached.add(name)
        if reached | declared >= set(names):
            break
    silent = [name for name in names if name not in reached | declared]
    if silent:
        raise ConformanceError(
            f"{len(silent)} of {len(names)} parameters never get a gradient: {', '.join(silent[:5])}; remove "
            "them, or name them in the network's untrained_parameters() where the published one has them"
        )
    wrong = sorted(declared - set(names)) + sorted(declared & reached)
    if wrong:
        raise ConformanceError(
            f"untrained_parameters() names {', '.join(wrong[:5])}, which do get a gradient or are none"
        )
    return f"{len(reached)} of {len(names)}" + (f", {len(declared)} declared without" if declared else "")


@torch.no_grad()
def ignores_companions(subject: Subject) -> str:
    """In evaluation a map's logits do not depend on the batch around it, and repeat themselves."""
    network, (maps, _) = _warmed_up(subject), subject.samples(8, seed=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    together, again = network(maps), network(maps)
    if not torch.equal(together, again):
        raise ConformanceError("the same maps give other logits the second time; draw nothing in evaluation")
    alone = torch.cat([network(one[None]) for one in maps])
    mirrored = network(maps.flip(0)).flip(0)
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    if changed:
        raise ConformanceError(f"evaluation changes {', '.join(changed[:5])}")
    worst = max(_difference(together, alone), _difference(together, mirrored))
    if worst > TOLERANCE:
        raise ConformanceError(
            f"logits differ by {worst:.1e} of their size with the maps beside them in the batch"
        )
    return f"within {worst:.0e}"


@torch.no_grad()
def saves_and_loads(subject: Subject) -> str:
    """A checkpoint as `mer-bench fit` writes it, read by a network of another seed, gives the same logits."""
    network, (maps, _) = _warmed_up(subject), subject.samples(4, seed=1)
    registered = Registered(subject.spec, "conformance")
    metadata = Metadata(classes=subject.data.population.classes, view=subject.data.view)
    record = record_of(registered, subject.options, subject.shape, metadata)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), network, record, card="")
        kept = read_checkpoint(Path(folder), registered=registered).network
    if not torch.equal(kept(maps), network(maps)):
        raise ConformanceError(
            "a checkpoint gives other logits; keep what decides them in parameters or buffers"
        )
    return "checkpoint"


@torch.no_grad()
def stacks(subject: Subject) -> str:
    """Networks stacked under `torch.func.vmap` give each its own logits, as evaluated alone."""
    seeds = (0, 1, 2)
    maps, _ = subject.samples(5)
    stacked = StackedNetworks(subject.job(), seeds, subject.shape)
    together = stacked.predict(maps.expand(len(seeds), *maps.shape))
    alone = torch.stack([subject.build(seed=seed).eval()(maps) for seed in seeds])
    worst = _difference(alone, together)
    if worst > TOLERANCE:
        raise ConformanceError(f"stacked and alone, logits differ by {worst:.1e} of their size")
    if any(_difference(alone[0], other) < TOLERANCE for other in alone[1:]):
        raise ConformanceError(
            "networks of different seeds are the same; draw the weights from torch's generator"
        )
    return f"within {worst:.0e}"


@torch.no_grad()
def _logits(network: nn.Module, maps: Tensor, labels: Tensor) -> Tensor:
    if network.training:
        output = training_output(network, maps, labels, torch.zeros(()))
        return output[0] if isinstance(output, tuple) else output
    found = network(maps)
    if not isinstance(found, Tensor):
        raise ConformanceError(f"in evaluation the network returned {type(found).__name__}, expected logits")
    return found


def _loss(subject: Subject, network: nn.Module, maps: Tensor, labels: Tensor) -> Tensor:
    """The loss of the model's own recipe in the middle of its training, penalty included."""
    terms = loss_terms(subject.recipe, torch.bincount(labels, minlength=subject.classes))
    output = training_output(network, maps, labels, torch.tensor(0.5))
    logits, penalty = output if isinstance(output, tuple) else (output, torch.zeros(len(labels)))
    return batch_loss(sample_losses(logits, labels, terms) + penalty, labels, terms)


@torch.no_grad()
def _warmed_up(subject: Subject) -> nn.Module:
    """A network whose running statistics have seen a batch, in evaluation mode."""
    network, (maps, labels) = subject.build(), subject.samples(16)
    for _ in range(3):
        training_output(network, maps, labels, torch.zeros(()))
    return network.eval()


def _difference(expected: Tensor, found: Tensor) -> float:
    """Largest difference of two sets of logits, relative to the larger of 1 and their own size."""
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1.0))
