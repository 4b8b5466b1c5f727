"""Augmentation against the flow of really mirrored and shifted motion."""

import numpy as np
import pytest
import torch

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.rotation import rotate
from mer_bench.training.seeding import stream_key
from mer_flow.views.layouts import htnet_maps
from mer_flow.views.names import parse_view
from mer_flow.views.normalise import normalise_maps

FLOW = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(3))
KEY = stream_key(torch.tensor(5), 0)


def minmax(flow, scale):
    low, high = flow.amin((2, 3), keepdim=True), flow.amax((2, 3), keepdim=True)
    return (flow - low) / (high - low) * scale


def normalised(flow, name):
    return torch.from_numpy(normalise_maps(flow.numpy().copy(), name, 1.0, 8))


def mirrored(flow):
    """The flow of the mirrored face: positions swap sides and horizontal motion turns round."""
    out = flow.flip(-1).clone()
    out[:, 0] *= -1
    return out


@pytest.mark.parametrize(
    ("view", "encode"),
    [
        ("whole-8:raw", lambda f: f),
        ("regions-8:scaled", lambda f: f.clamp(-1, 1)),
        ("whole-8:minmax", lambda f: minmax(f, 1.0)),
        ("whole-8:minmax-255", lambda f: minmax(f, 255.0)),
        ("whole-8:centred", lambda f: normalised(f, "centred")),
        ("regions-8:centred-rms", lambda f: normalised(f, "centred-rms")),
    ],
)
def test_flip_gives_what_the_mirrored_face_would_have_given(view, encode):
    augment = Augmenter.from_recipe(Recipe(flip=1.0), view)
    torch.testing.assert_close(augment(encode(FLOW), KEY), encode(mirrored(FLOW)), rtol=1e-5, atol=1e-4)


def test_flip_happens_with_its_probability():
    augment = Augmenter.from_recipe(Recipe(flip=0.25), "whole-8:raw")
    many = FLOW[:1].expand(4000, 3, 8, 8)
    changed = (augment(many, KEY) != many).flatten(1).any(1)
    assert 0.22 < changed.float().mean() < 0.28


# Left eye, right eye, nose, left and right lip corner of the subject. Transposed indexing cuts the mirrored
# places only where eyes and lips lie symmetrically about the centre.
TILTED = [[19, 11], [9, 10], [14, 17], [18, 20], [10, 21]]
SYMMETRIC = [[18, 9], [10, 9], [14, 14], [18, 19], [10, 19]]


@pytest.mark.parametrize(
    ("view", "centres"),
    [("htnet-28", TILTED), ("htnet-28@upright", TILTED), ("htnet-28@as-published", SYMMETRIC)],
)
def test_flip_of_an_htnet_map_is_the_map_of_the_mirrored_face(view, centres):
    flow = np.random.default_rng(0).normal(size=(2, 2, 28, 28)).astype(np.float32)
    centres = np.array(centres, np.float32)
    other = centres[[1, 0, 2, 4, 3]] * [-1, 1] + [28, 0]
    turned = flow[..., ::-1] * np.array([-1, 1], np.float32)[:, None, None]
    layout = parse_view(view).layout
    maps, expected = (
        torch.from_numpy(htnet_maps(np.ascontiguousarray(f), np.stack([c, c]), layout, 28, ["a", "b"]))
        for f, c in ((flow, centres), (turned, other))
    )
    flipped = Augmenter.from_recipe(Recipe(flip=1.0), f"{view}:raw")(maps, KEY)
    torch.testing.assert_close(flipped, expected, rtol=1e-5, atol=1e-5)


FRAMES = torch.rand(40, 12, 8, 8, generator=torch.Generator().manual_seed(4)) * 255


@pytest.mark.parametrize(
    "view", ["faces-8@rgb+clips-8@rgb:raw", "clips-8+faces-8:scaled", "clips-8@rgb:minmax"]
)
def test_frames_are_mirrored_and_keep_their_values(view):
    augment = Augmenter.from_recipe(Recipe(flip=1.0), view)
    torch.testing.assert_close(augment(FRAMES, KEY), FRAMES.flip(-1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("view", "scale"), [("clips-8@rgb+whole-8:minmax-255", 255.0), ("regions-8+clips-8+whole-8:scaled", None)]
)
def test_each_u_of_a_combined_view_is_turned_and_nothing_else(view, scale):
    def encode(flow):
        return flow.clamp(-1, 1) if scale is None else minmax(flow, scale)

    def combine(frames, flow):
        after = torch.cat([frames, encode(flow)], 1)
        return after if scale else torch.cat([encode(flow), after], 1)

    augment = Augmenter.from_recipe(Recipe(flip=1.0), view)
    expected = combine(FRAMES.flip(-1), mirrored(FLOW))
    torch.testing.assert_close(augment(combine(FRAMES, FLOW), KEY), expected, rtol=1e-5, atol=1e-4)


def test_each_u_of_several_stores_is_turned():
    """Their parts are named alike; each is mirrored as it would be alone."""
    other = FLOW.roll(1, 0)
    joint = Augmenter.from_recipe(Recipe(flip=1.0), "whole-8+whole-8:minmax-255")
    expected = torch.cat([minmax(mirrored(flow), 255.0) for flow in (FLOW, other)], 1)
    found = joint(torch.cat([minmax(FLOW, 255.0), minmax(other, 255.0)], 1), KEY)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    some = Augmenter.from_recipe(Recipe(flip=0.5, shift=1), "whole-8+whole-8:raw")
    alone = Augmenter.from_recipe(Recipe(flip=0.5, shift=1), "whole-8:raw")
    expected = torch.cat([alone(FLOW, KEY), alone(other, KEY)], 1)
    torch.testing.assert_close(some(torch.cat([FLOW, other], 1), KEY), expected, rtol=0, atol=0)


def test_tiled_parts_are_mirrored_by_tiles_beside_others_that_are_not():
    both = Augmenter.from_recipe(Recipe(flip=0.5, shift=1), "htnet-8@as-published+whole-8:raw")
    out = both(torch.cat([FLOW, FLOW], 1), KEY)
    for view, part in (("htnet-8@as-published:raw", out[:, :3]), ("whole-8:raw", out[:, 3:])):
        alone = Augmenter.from_recipe(Recipe(flip=0.5, shift=1), view)
        torch.testing.assert_close(part, alone(FLOW, KEY), rtol=0, atol=0)


def test_channels_that_the_view_cannot_have_are_refused():
    augment = Augmenter.from_recipe(Recipe(flip=0.5), "clips-8@rgb+whole-8:scaled")
    with pytest.raises(UsageError, match="13 channels, but the view's parts have 3 and 3 for each frame"):
        augment(torch.zeros(2, 13, 8, 8), KEY)
    with pytest.raises(UsageError, match="6 channels, but the view's parts have 3"):
        Augmenter.from_recipe(Recipe(flip=0.5), "whole-8:scaled")(torch.zeros(2, 6, 8, 8), KEY)


def test_flip_without_a_known_view_is_refused():
    with pytest.raises(UsageError, match="flip = 0"):
        Augmenter.from_recipe(Recipe(flip=0.5), "")
    with pytest.raises(UsageError, match="minmax-255"):
        Augmenter.from_recipe(Recipe(flip=0.5), "whole-28:zscore")
    assert Augmenter.from_recipe(Recipe(), "") is None


def test_shifts_stay_in_range_and_repeat_the_edge():
    ramp = torch.arange(8.0).expand(500, 3, 8, 8)
    out = Augmenter.from_recipe(Recipe(shift=2), "")(ramp, KEY)
    moves = (ramp - out)[:, 0, 4, 4]
    assert set(moves.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    two_right = out[moves == 2][0, 0, 0]
    assert two_right.tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


def test_noise_has_its_standard_deviation():
    out = Augmenter.from_recipe(Recipe(noise=0.5), "")(torch.zeros(100, 3, 28, 28), KEY)
    assert out.mean().abs() < 0.005
    assert out.std() == pytest.approx(0.5, rel=0.01)


def test_gains_amplify_flow_within_their_range_and_leave_frames_alone():
    maps = torch.cat([FRAMES[:, :1], FLOW], 1)[:1].expand(2000, 4, 8, 8)
    out = Augmenter.from_recipe(Recipe(gain=0.3), "clips-8+whole-8:centred-rms")(maps, KEY)
    assert torch.equal(out[:, 0], maps[:, 0])
    gains = out[:, 1:] / maps[:, 1:]
    torch.testing.assert_close(gains, gains[:, :1, :1, :1].expand(gains.shape))
    assert 0.7 <= gains.min() < 0.71 and 1.29 < gains.max() <= 1.3 and abs(gains.mean() - 1) < 0.02


@pytest.mark.parametrize("view", ["whole-28:minmax", "whole-28:zscore", ""])
def test_what_cannot_be_amplified_is_refused(view):
    with pytest.raises(UsageError, match=r"amplifies maps \(gain = 0.1\).*set gain = 0"):
        Augmenter.from_recipe(Recipe(gain=0.1), view)
    Augmenter.from_recipe(Recipe(gain=0.1), "regions-28:raw")


def test_a_padded_batch_is_augmented_as_the_short_one():
    recipe = Recipe(flip=0.5, shift=2, noise=0.1, gain=0.2)
    augment = Augmenter.from_recipe(recipe, "whole-8:scaled")
    torch.testing.assert_close(augment(FLOW, KEY)[:30], augment(FLOW[:30], KEY), rtol=0, atol=0)


def test_stacked_folds_draw_their_own():
    augment = Augmenter.from_recipe(Recipe(flip=0.5, shift=1, noise=0.1, gain=0.1), "whole-8:scaled")
    seeds = torch.tensor([7, 8, 9])
    together = augment(FLOW.expand(3, 40, 3, 8, 8), stream_key(seeds, 4))
    for fold in range(3):
        torch.testing.assert_close(together[fold], augment(FLOW, stream_key(seeds[fold], 4)), rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])


def linear_flow(matrix, side=15):
    """Motion `matrix @ place`, and the first coordinate of the place in the third channel."""
    places = torch.arange(side) - (side - 1) / 2
    x, y = places.expand(side, side), places[:, None].expand(side, side)
    flow = torch.einsum("ij,jhw->ihw", torch.tensor(matrix), torch.stack([x, y]))
    return torch.cat([flow, x[None]])[None]


def inner(maps):
    """The centre, where no turn brings in what lay outside."""
    return maps[..., 4:-4, 4:-4]


def test_a_turned_movement_is_that_of_the_turned_face():
    matrix, angle = [[0.3, -0.7], [0.2, 0.5]], torch.tensor(0.4)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    expected = linear_flow((turn @ torch.tensor(matrix) @ turn.T).tolist())
    # A place's first coordinate is read where the face had it before.
    expected[:, 2] = angle.cos() * expected[:, 2] + angle.sin() * linear_flow([[0.0, 1.0], [0.0, 0.0]])[:, 0]
    turned = rotate(linear_flow(matrix), angle[None], flows=[0])
    torch.testing.assert_close(inner(turned), inner(expected), rtol=1e-4, atol=1e-4)


def test_rotations_lie_within_their_angle_and_leave_frames_as_they_are():
    right = torch.zeros(500, 4, 9, 9)
    right[:, 1] = 1.0
    right[:, 0] = 7.0
    out = Augmenter.from_recipe(Recipe(rotate=10.0), "clips-9+whole-9:scaled")(right, KEY)
    angles = torch.rad2deg(torch.atan2(out[:, 2], out[:, 1]))[:, 4, 4]
    assert -10 <= angles.min() < -8 and 8 < angles.max() <= 10
    torch.testing.assert_close(out[:, 1].square() + out[:, 2].square(), torch.ones(500, 9, 9))
    torch.testing.assert_close(out[:, 0], right[:, 0])


def test_stacked_folds_and_padded_batches_rotate_as_alone():
    augment = Augmenter.from_recipe(Recipe(rotate=5.0, flip=0.5), "whole-8:raw")
    seeds = torch.tensor([7, 8])
    together = augment(FLOW.expand(2, 40, 3, 8, 8), stream_key(seeds, 4))
    for fold in range(2):
        alone = augment(FLOW[:30], stream_key(seeds[fold], 4))
        torch.testing.assert_close(together[fold, :30], alone, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("whole-28:minmax", "without its zero"),
        ("faces-28+whole-28:minmax-255", "without its zero"),
        ("regions-28:raw", "pieced together"),
        ("htnet-28:scaled", "pieced together"),
        ("whole-28:zscore", "is unknown"),
        ("", "is unknown"),
    ],
)
def test_what_cannot_be_rotated_is_refused(view, message):
    with pytest.raises(UsageError, match=f"{message}.*rotate = 0"):
        Augmenter.from_recipe(Recipe(rotate=4.0), view)
    for view in ("faces-28@rgb:minmax", "whole-28:centred", "whole-28:centred-rms"):
        Augmenter.from_recipe(Recipe(rotate=4.0), view)
