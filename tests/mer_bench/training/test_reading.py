"""What is recorded of a network: mirrors averaged, priors taken off, averages in place of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.training.parts import (
    RECIPE,
    Dropping,
    Normed,
    assert_agree,
    data,
    job_of,
    run,
    stacked,
    train,
)

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.folds import check_job
from mer_bench.training.reading import Reading
from mer_bench.training.whole import train_whole

COUNTS = torch.tensor([[25, 10, 5], [0, 30, 10]])
MAPS = torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
VIEW = "whole-4:raw"


def linear(maps: torch.Tensor) -> torch.Tensor:
    weights = torch.randn(48, 3, generator=torch.Generator().manual_seed(1))
    return maps.flatten(2) @ weights


def test_a_prediction_is_the_mean_of_the_probabilities_of_a_map_and_its_mirror() -> None:
    turned = MAPS.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    expected = (F.softmax(linear(MAPS), -1) + F.softmax(linear(turned), -1)) / 2
    read = Reading(Recipe(flip_average=True), VIEW, COUNTS)
    torch.testing.assert_close(read(linear, MAPS).exp(), expected)
    torch.testing.assert_close(read(linear, turned), read(linear, MAPS))


def test_the_prior_is_taken_off_above_zero_and_put_on_below() -> None:
    share = torch.tensor([[25, 10, 5], [0.5, 30, 10]])
    prior = torch.log(share / share.sum(-1, keepdim=True)).unsqueeze(1)
    for tau in (1.0, -0.5):
        read = Reading(Recipe(prior=tau), VIEW, COUNTS)
        torch.testing.assert_close(read(linear, MAPS), linear(MAPS) - tau * prior)
    # Rare classes gain where it is taken off.
    level = torch.zeros(2, 6, 3)
    assert (
        Reading(Recipe(prior=1.0), VIEW, COUNTS)(lambda _: level, MAPS).argmax(-1)
        == COUNTS.argmin(-1)[:, None]
    ).all()


def test_maps_are_read_where_they_lie() -> None:
    read = Reading(Recipe(prior=0.5, flip_average=True), VIEW, COUNTS.to("meta"))
    assert read(lambda maps: maps.flatten(2)[..., :3], MAPS.to("meta")).device.type == "meta"


def test_both_together_adjust_before_they_average() -> None:
    both = Reading(Recipe(prior=1.0, flip_average=True), VIEW, COUNTS)(linear, MAPS)
    adjusted = Reading(Recipe(prior=1.0), VIEW, COUNTS)
    expected = Reading(Recipe(flip_average=True), VIEW, COUNTS)(lambda m: adjusted(linear, m), MAPS)
    torch.testing.assert_close(both, expected)


def test_nothing_is_read_into_logits_unless_asked() -> None:
    assert Reading.of_recipe(Recipe(), "", COUNTS) is None


def test_a_view_that_cannot_be_mirrored_is_refused() -> None:
    with pytest.raises(UsageError, match=r"recipe 'r'.*flip_average = True.*set flip_average = false"):
        Augmenter.mirror(Recipe(name="r", flip_average=True), "whole-28:zscore")
    from dataclasses import replace

    with pytest.raises(UsageError, match="flip_average"):
        check_job(replace(job_of(Normed, RECIPE.changed(flip_average=True)), view=""))


@pytest.mark.parametrize("changes", [{"flip_average": True}, {"prior": 0.7}, {"ema": 0.8}])
def test_reading_changes_the_record_and_not_the_training(changes: dict[str, float]) -> None:
    plain, alone, many = (
        run(job_of(Dropping, recipe, engine=engine))
        for recipe, engine in (
            (RECIPE, "local"),
            *((RECIPE.changed(**changes), e) for e in ("local", "stacked")),
        )
    )
    assert_agree(many, alone)
    for name, record in alone.items():
        assert np.array_equal(record.train_loss, plain[name].train_loss)
        assert not np.allclose(record.logits, plain[name].logits, atol=1e-3)
        assert not np.allclose(record.inner_logits, plain[name].inner_logits, atol=1e-3) or not len(
            record.inner_index
        )


def test_priors_are_those_of_the_training_samples_alone() -> None:
    given, folds = data()
    plain, adjusted = (run(job_of(Normed, RECIPE.changed(prior=tau))) for tau in (0.0, 1.0))
    for fold in folds:
        counts = np.maximum(np.bincount(given.labels[fold.train], minlength=3), 0.5)
        expected = plain[fold.name].logits - np.log(counts / counts.sum())
        np.testing.assert_allclose(adjusted[fold.name].logits, expected, atol=1e-5)


def test_averages_follow_weights_and_running_statistics() -> None:
    trainer, recorder = stacked(job_of(Normed, RECIPE.changed(ema=0.9)))
    networks = trainer.networks
    raw = {name: tensor.detach().clone() for name, tensor in networks._moving().items()}
    assert any("running_mean" in name for name in raw) and not any("row_weight" in name for name in raw)
    step, follow = 0, dict(raw)

    def follow_by_hand() -> None:
        nonlocal step
        step += 1
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in networks._moving().items():
            follow[name] = decay * follow[name] + (1 - decay) * tensor.detach()

    own_step = trainer.step

    def watched(positions: torch.Tensor) -> torch.Tensor:
        outcome = own_step(positions)
        follow_by_hand()
        return outcome

    trainer.step = watched  # type: ignore[method-assign]
    train(trainer, recorder, 3)
    assert step == 6
    for name, tensor in networks._average.items():
        torch.testing.assert_close(tensor, follow[name])
        assert not torch.allclose(tensor, networks._moving()[name])


def test_a_network_trained_on_everything_keeps_the_averages() -> None:
    given, _ = data()
    raw, averaged = (
        train_whole(job_of(Normed, RECIPE.changed(ema=decay)), given).network.state_dict()
        for decay in (0.0, 0.9)
    )
    assert not torch.allclose(raw["body.0.weight"], averaged["body.0.weight"])
    assert not torch.allclose(raw["body.1.running_var"], averaged["body.1.running_var"])
    assert torch.equal(raw["body.1.num_batches_tracked"], averaged["body.1.num_batches_tracked"])
