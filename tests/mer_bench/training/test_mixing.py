"""Mixup: shares drawn as they should be, blends and their losses as the paper has them, alone or stacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta, kstest
from tests.mer_bench.training.parts import RECIPE, Dropping, Normed, assert_agree, job_of, run

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.demands import meet_recipe
from mer_bench.training.losses import batch_loss, loss_terms, sample_losses
from mer_bench.training.mixing import Mixer
from mer_bench.training.seeding import stream_key

CPU = torch.device("cpu")
MAPS = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
KEY = stream_key(torch.tensor(3), 0)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_those_of_the_beta_distribution(alpha: float) -> None:
    mixed = Mixer(Recipe(mixup=alpha, mixup_by="sample"), CPU)(
        torch.zeros(5000, 1, 1, 1), torch.zeros(5000, dtype=torch.int64), None, KEY
    )
    assert kstest(mixed.weights[:5000].numpy(), beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("by", ["batch", "sample"])
def test_a_blend_is_its_shares_of_two_samples(by: str) -> None:
    mixed = Mixer(Recipe(mixup=0.5, mixup_by=by), CPU)(MAPS, LABELS, None, KEY)
    own, other = mixed.weights[:12], mixed.weights[12:]
    assert torch.allclose(own + other, torch.ones(12)) and (len(set(own.tolist())) == 1) == (by == "batch")
    # The partner is found by what is left of a blend; every sample is the partner of one.
    rest = (mixed.maps - own.view(-1, 1, 1, 1) * MAPS) / other.view(-1, 1, 1, 1)
    partner = torch.cdist(rest.flatten(1), MAPS.flatten(1)).argmin(1)
    torch.testing.assert_close(rest, MAPS[partner], atol=1e-3, rtol=1e-3)
    assert sorted(partner.tolist()) == list(range(12))
    assert mixed.labels.tolist() == [*LABELS.tolist(), *LABELS[partner].tolist()]


@pytest.mark.parametrize("weights", [(), (0.2, 0.5, 0.3)])
def test_the_loss_is_the_mean_of_those_of_both_labels(weights: tuple[float, ...]) -> None:
    recipe = Recipe(mixup=0.5, class_weights=weights)
    mixed = Mixer(recipe, CPU)(MAPS, LABELS, None, KEY)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    terms = loss_terms(recipe, torch.tensor([4, 4, 4]))
    both = torch.cat([logits, logits])
    found = batch_loss(sample_losses(both, mixed.labels, terms), mixed.labels, terms, mixed.weights)
    share, w = mixed.weights[0], torch.tensor(weights) if weights else torch.ones(3)
    parts = [
        part * F.cross_entropy(logits, labels, weight=w, reduction="sum")
        for part, labels in ((share, mixed.labels[:12]), (1 - share, mixed.labels[12:]))
    ]
    total = share * w[mixed.labels[:12]].sum() + (1 - share) * w[mixed.labels[12:]].sum()
    torch.testing.assert_close(found, sum(parts) / total)


@pytest.mark.parametrize("by", ["batch", "sample"])
def test_padding_neither_mixes_nor_weighs(by: str) -> None:
    mixer = Mixer(Recipe(mixup=0.4, mixup_by=by), CPU)
    short = mixer(MAPS[:7], LABELS[:7], None, KEY)
    padded = mixer(MAPS, LABELS, (torch.arange(12) < 7).float(), KEY)
    torch.testing.assert_close(padded.maps[:7], short.maps, rtol=0, atol=0)
    assert padded.labels[:7].tolist() == short.labels[:7].tolist()
    assert padded.labels[12:19].tolist() == short.labels[7:].tolist()
    assert not padded.weights[7:12].any() and not padded.weights[19:].any()


@pytest.mark.parametrize(
    "changes", [{}, {"mixup_by": "sample", "class_weights": (0.2, 0.5, 0.3)}, {"loss": "focal"}]
)
def test_stacked_folds_mix_as_alone(changes: dict[str, object]) -> None:
    recipe = RECIPE.changed(mixup=0.4, **changes)
    many, alone = (run(job_of(Normed, recipe, engine=engine)) for engine in ("stacked", "local"))
    assert_agree(many, alone)
    assert not np.array_equal(alone["s0"].logits, run(job_of(Normed))["s0"].logits)


def test_chunks_do_not_matter() -> None:
    recipe = RECIPE.changed(mixup=0.4, ema=0.9, flip_average=True, supcon=0.0, gain=0.2)
    assert_agree(*(run(job_of(Dropping, recipe, engine="stacked", chunk=chunk)) for chunk in (1, 4)))


def test_a_network_that_trains_with_labels_is_refused() -> None:
    class Labelled(torch.nn.Linear):
        trains_with_labels = True

    with pytest.raises(UsageError, match=r"mixup = 0\.2, but Labelled trains with one label"):
        meet_recipe(Labelled(2, 3), Recipe(mixup=0.2))
