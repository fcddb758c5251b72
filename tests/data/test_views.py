"""Views: each batched augmentation against torchvision's, an image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from clsim.compat import import_torchvision
from clsim.data.augmentation import AUGMENTATIONS, NORMALISED, Transform
from clsim.data.pixels import equalized_table, only, resized_windows, stretched_table, through, turned_hue
from clsim.data.strong import OPERATIONS, apply, cutout, rand_augment
from clsim.data.views import equalize, gamma, jitter, large_crop, resized_crop, small_crop, solarize
from clsim.errors import InputError
from tests.helpers import generator

import_torchvision()
from torchvision.transforms.v2 import InterpolationMode, functional  # noqa: E402


def images(n: int = 24, channels: int = 3, side: int = 32) -> Tensor:
    """Smooth and noisy ones, of few levels and of many."""
    coarse = torch.randint(0, 256, (n, channels, 4, 4), generator=generator(1)).float()
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bilinear")
    noise = torch.randint(-40, 41, smooth.shape, generator=generator(2)) * (torch.arange(n) % 3 > 0).view(-1, 1, 1, 1)
    levels = torch.where(torch.arange(n).view(-1, 1, 1, 1) % 4 == 1, 51, 1)
    return ((smooth + noise).clamp(0, 255) / levels).floor().mul(levels).to(torch.uint8)


def assert_within_a_level(found: Tensor, wanted: Tensor, levels: int = 1) -> None:
    assert int((found.int() - wanted.int()).abs().max()) <= levels


@pytest.mark.parametrize("size", [18, 32, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_are_torchvisions_resized_crops(size: int, channels: int) -> None:
    x = images(channels=channels)
    top, left = (torch.arange(24) % 5).float(), (torch.arange(24) % 4).float()
    height, width = 20 + (torch.arange(24) % 8).float(), 28 - (torch.arange(24) % 7).float()
    found = resized_windows(x, top, left, height, width, (size, size))
    for i in range(24):
        box = [int(v[i]) for v in (top, left, height, width)]
        wanted = functional.resized_crop(x[i], *box, [size, size], InterpolationMode.BILINEAR, antialias=True)
        assert_within_a_level(found[i], wanted)


def test_the_whole_image_as_its_own_window_stays_as_it_is() -> None:
    x, n = images(), 24
    zero, side = torch.zeros(n), torch.full((n,), 32.0)
    assert torch.equal(resized_windows(x, zero, zero, side, side, (32, 32)), x)


def test_windows_have_the_areas_and_ratios_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[Tensor] = []

    def spy(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
        boxes.append(torch.stack([top, left, height, width]))
        return x

    monkeypatch.setattr("clsim.data.views.resized_windows", spy)
    resized_crop(torch.zeros(4000, 1, 224, 224, dtype=torch.uint8), generator(), size=(8, 8), scale=(0.3, 0.5))
    top, left, height, width = boxes[0]
    area, ratio = height * width / 224**2, width / height
    assert ((area > 0.295) & (area < 0.505)).all()
    assert ((ratio > 0.74) & (ratio < 1.35)).all()
    # no window of this scale is refused, so areas are uniform and the ratios log-uniform
    assert stats.kstest(area.numpy(), stats.uniform(0.3, 0.2).cdf).pvalue > 1e-3
    spread = stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf
    assert stats.kstest(ratio.log().numpy(), spread).pvalue > 1e-3
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 224).all()
    assert (left + width <= 224).all()
    assert float((top + height == 224).float().mean()) < 0.05


def test_a_window_that_never_fits_is_the_largest_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[list[float]] = []
    monkeypatch.setattr(
        "clsim.data.views.resized_windows", lambda x, *box: boxes.append([float(b[0]) for b in box[:4]])
    )
    resized_crop(torch.zeros(1, 1, 10, 40, dtype=torch.uint8), generator(), size=(8, 8), scale=(1.0, 1.0))
    assert boxes == [[0, 13, 10, 13]]  # top, left, height, width


@pytest.mark.parametrize(("crop", "side"), [(large_crop, 32), (small_crop, 18)])
def test_crops_have_the_size_of_their_view(crop: object, side: int) -> None:
    assert crop(images(), generator()).shape == (24, 3, side, side)  # type: ignore[operator]


def test_turning_the_hue_is_torchvisions() -> None:
    x, turn = images(), torch.rand(24, generator=generator(3)) - 0.5
    found = turned_hue(x.float(), turn.view(-1, 1, 1, 1))
    for i in range(24):
        wanted = functional.adjust_hue(x[i] / 255, float(turn[i]))
        assert (found[i] - 255 * wanted).abs().max() < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_operations_in_a_fixed_order(channels: int) -> None:
    x = images(60, channels)
    found, u = jitter(x, generator(4)), torch.rand(5, 60, 1, 1, 1, generator=generator(4)).flatten(1)
    assert 35 <= int((u[4] < 0.8).sum()) <= 58
    for i in range(60):
        wanted = x[i] / 255
        if u[4, i] < 0.8:
            brightness, contrast, saturation = (0.6 + 0.8 * u[:3, i]).tolist()
            wanted = functional.adjust_brightness(wanted, brightness)
            wanted = functional.adjust_contrast(wanted, contrast)
            if channels == 3:
                wanted = functional.adjust_saturation(wanted, saturation)
                wanted = functional.adjust_hue(wanted, float(0.2 * u[3, i] - 0.1))
        assert (found[i] - 255 * wanted).abs().max() < 0.8  # rounding, and torchvision's red weight


def test_solarize_and_equalize_are_torchvisions_where_they_are_drawn() -> None:
    x = images(400, side=8)
    u = torch.rand(2, 400, generator=generator(5))
    levels = (256 * u[1]).tolist()
    for found, theirs in (
        (solarize(x, generator(5)), lambda i: functional.solarize(x[i], level) if (level := levels[i]) < 255 else x[i]),
        (equalize(x, generator(5)), lambda i: functional.equalize(x[i])),
    ):
        drawn = u[0] < 0.2
        assert abs(int(drawn.sum()) - 80) < 5 * 8
        for i in range(400):
            assert torch.equal(found[i], theirs(i) if drawn[i] else x[i])


def test_thresholds_of_solarize_are_drawn_from_all_levels() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4000, 1, 16, 16)
    found = solarize(x, generator(6)).flatten(1)
    inverted = (found == 255 - x.flatten(1)).sum(1)
    drawn = inverted[inverted > 0]
    assert abs(len(drawn) - 800) < 130
    counts = drawn.div(32, rounding_mode="floor").clamp(max=7).bincount(minlength=8)  # 256 levels, an eighth each
    assert (counts - len(drawn) / 8).abs().max() < 50


@pytest.mark.parametrize("channels", [1, 3])
def test_tables_are_torchvisions(channels: int) -> None:
    x = images(channels=channels)
    x[0] = 77  # flat
    x[1] = x[1] // 128 * 128
    assert torch.equal(through(x, equalized_table(x)), functional.equalize(x))
    assert_within_a_level(through(x, stretched_table(x)), functional.autocontrast(x))


MAGNITUDE = 0.71
BLEND, SIGNED = 0.05 + 0.9 * MAGNITUDE, 2 * MAGNITUDE - 1


def affine(x: Tensor, angle: float = 0.0, shift: tuple[float, float] = (0, 0)) -> Tensor:
    return functional.affine(x, angle, list(shift), 1.0, [0.0, 0.0], InterpolationMode.BILINEAR, fill=[128.0])


WANTED = {
    "identity": lambda x: x,
    "auto-contrast": functional.autocontrast,
    "equalize": functional.equalize,
    "posterize": lambda x: functional.posterize(x, 4 + int(5 * MAGNITUDE)),
    "solarize": lambda x: functional.solarize(x, 256 * MAGNITUDE),
    "brightness": lambda x: functional.adjust_brightness(x, BLEND),
    "color": lambda x: functional.adjust_saturation(x, BLEND),
    "contrast": lambda x: functional.adjust_contrast(x, BLEND),
    "sharpness": lambda x: functional.adjust_sharpness(x, BLEND),
    "rotate": lambda x: affine(x, -30 * SIGNED),
    "translate-x": lambda x: affine(x, shift=(-0.3 * SIGNED * 32, 0)),
    "translate-y": lambda x: affine(x, shift=(0, -0.3 * SIGNED * 32)),
}


@pytest.mark.parametrize("name", WANTED)
def test_each_operation_of_rand_augment_is_torchvisions(name: str) -> None:
    x = images()
    # every image has another operation, but for these
    operation = torch.arange(24) % len(OPERATIONS)
    operation[::2] = OPERATIONS.index(name)
    found = apply(x, operation, torch.full((24,), MAGNITUDE))
    for i in range(0, 24, 2):
        gap = (found[i].int() - WANTED[name](x[i]).int()).abs().amax(0)
        # pixels at the very border of a moved image may fall on either side of it
        assert int((gap > 2).sum()) <= (60 if name in ("rotate", "translate-x", "translate-y") else 0)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_shears_move_lines_in_proportion_to_their_distance_from_the_centre(axis: str) -> None:
    x = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    x[..., 16] = 255  # a vertical line
    x = x if axis == "x" else x.transpose(2, 3)
    found = apply(x, torch.tensor([OPERATIONS.index(f"shear-{axis}")]), torch.tensor([1.0]))
    line = (found if axis == "x" else found.transpose(2, 3))[0, 0].float()
    line[:, :6] = line[:, 27:] = 0  # what came in from outside
    for row in (4, 16, 28):
        place = float((line[row] * torch.arange(33)).sum() / line[row].sum())
        assert place == pytest.approx(16 - 0.3 * (row - 16), abs=0.1)


def test_every_operation_is_drawn_equally_often_and_two_come_one_after_the_other() -> None:
    x, rng = images(30), generator(6)
    drawn, magnitudes = [], []
    for _ in range(2):
        drawn.append(torch.randint(len(OPERATIONS), (30,), generator=rng))
        magnitudes.append(torch.rand(30, generator=rng))
    by_hand = apply(apply(x, drawn[0], magnitudes[0]), drawn[1], magnitudes[1])
    assert torch.equal(rand_augment(x, generator(6)), by_hand)


STRONG = {
    "identity": [lambda x: x],
    "posterize": [lambda x: functional.posterize(x, 7)],
    "solarize": [lambda x: functional.solarize(x, 256 * 2 / 3)],
    "brightness": [lambda x: functional.adjust_brightness(x, 0.7), lambda x: functional.adjust_brightness(x, 1.3)],
    "contrast": [lambda x: functional.adjust_contrast(x, 0.7), lambda x: functional.adjust_contrast(x, 1.3)],
    "rotate": [lambda x: affine(x, -10.0), lambda x: affine(x, 10.0)],
    "translate-x": [lambda x: affine(x, shift=(-3.2, 0)), lambda x: affine(x, shift=(3.2, 0))],
}
"""Operation → what magnitude 10 of 30 makes of an image, with either sign."""


@pytest.mark.parametrize("name", STRONG)
def test_an_operation_of_magnitude_10_is_a_third_of_the_way(name: str) -> None:
    x, rng = images(300), generator(6)
    drawn = torch.randint(len(OPERATIONS), (300,), generator=rng)
    found = Transform([0.0], [1.0], [], device=x.device, channels_last=False)
    out = found.view(["rand-augment:1:10"], "data.augment")(x, generator(6))
    rows = (drawn == OPERATIONS.index(name)).nonzero().flatten()
    assert len(rows) > 5
    which = set()
    for i in rows.tolist():
        gaps = [float((255 * out[i] - change(x[i])).abs().mean()) for change in STRONG[name]]
        which.add(min(range(len(gaps)), key=gaps.__getitem__))
        assert min(gaps) < (2.0 if name in ("rotate", "translate-x") else 1.0)
    assert len(which) == len(STRONG[name])  # both signs are drawn


def test_rand_augment_with_n_and_m_is_refused_where_it_is_none() -> None:
    transform = Transform([0.0], [1.0], [], device=torch.device("cpu"), channels_last=False)
    for name in ("rand-augment:0:10", "rand-augment:1", "rand-augment:1:31"):
        with pytest.raises(InputError, match=r"allowed: rand-augment:N:M"):
            transform.view([name], "data.augment")


def test_a_hole_is_a_grey_square_of_at_most_half_the_side() -> None:
    x = torch.full((2000, 1, 32, 32), 9, dtype=torch.uint8)
    hole = cutout(x, generator())[:, 0] == 128
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), rows * columns)  # it is a rectangle
    assert int(rows.max()) == 16
    assert int((rows - columns).abs().float().median()) <= 1  # a square, but for what the border cuts off
    hit = hole.float().mean(0)
    assert hit.min() > 0.01  # anywhere


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name not in NORMALISED])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_take_grey_and_colour_and_leave_their_input_alone(name: str, channels: int) -> None:
    x = images(16, channels)
    copy = x.clone()
    out = AUGMENTATIONS[name](x, generator(1))
    assert torch.equal(x, copy)
    assert out.dtype == torch.uint8
    assert out.shape[:2] == x.shape[:2]
    assert not torch.equal(out, AUGMENTATIONS[name](x, generator(2)))


@pytest.mark.parametrize("name", ["jitter", "equalize", "rand-augment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_image_changes_with_those_that_are_computed_beside_it(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(120, channels)
    few = AUGMENTATIONS[name](x, generator(7))

    def all_rows(chosen: Tensor, change: Callable[..., Tensor], x: Tensor, *columns: Tensor) -> Tensor:
        """As on a GPU."""
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), change(x, *columns), x)

    for module in ("views", "strong"):
        monkeypatch.setattr(f"clsim.data.{module}.only", all_rows)
    assert torch.equal(few, AUGMENTATIONS[name](x, generator(7)))
    assert not torch.equal(few, x)


def test_an_affine_view_keeps_most_of_a_centred_thing_and_nothing_is_outside() -> None:
    x = torch.zeros(400, 1, 32, 32, dtype=torch.uint8)
    x[:, :, 10:22, 10:22] = 200
    out = AUGMENTATIONS["affine"](x, generator()).double()
    share = out.sum((1, 2, 3)) / x.double().sum((1, 2, 3))
    assert share.min() > 0.6
    assert share.max() < 1.7
    place = torch.arange(32.0).double() + 0.5
    weight = out[:, 0] / out.sum((1, 2, 3))[:, None, None]
    for side in (1, 2):
        centre = (weight.sum(3 - side) * place).sum(1) / 32 - 0.5
        assert 0.12 < centre.abs().max() < 0.25
        assert abs(centre.mean()) < 0.02
    white = AUGMENTATIONS["affine"](torch.full_like(x, 255), generator())
    assert (white[:, :, 12:20, 12:20] == 255).all()


def test_gamma_keeps_the_order_of_levels() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(50, 1, 16, 16)
    out = gamma(x, generator()).flatten(1).int()
    assert (out[:, 1:] >= out[:, :-1]).all()
    assert (out[:, 0] == 0).all()
    assert 100 <= out[:, -1].min() < 125
    assert out[:, -1].max() > 240
    curved = out[:, 128] / out[:, -1]
    assert 0.2 < curved.min() < 0.35
    assert 0.65 < curved.max() < 0.75


def test_only_the_chosen_rows_are_computed() -> None:
    given: list[list[list[float]]] = []

    def change(x: Tensor, shift: Tensor) -> Tensor:
        given.append([x.flatten().tolist(), shift.tolist()])
        return x + shift[:, None]

    x, shift = torch.arange(4.0)[:, None], torch.tensor([10.0, 20.0, 30.0, 40.0])
    found = only(torch.tensor([False, True, False, True]), change, x, shift)
    assert found.flatten().tolist() == [0, 21, 2, 43]
    assert x.flatten().tolist() == [0, 1, 2, 3]
    assert given == [[[1, 3], [20, 40]]]
    assert torch.equal(only(torch.zeros(4, dtype=torch.bool), change, x, shift), x)
    assert len(given) == 1


def test_without_an_image_a_view_is_empty() -> None:
    for name, view in AUGMENTATIONS.items():
        assert len(view(torch.zeros(0, 3, 16, 16, dtype=torch.uint8), generator())) == 0, name
