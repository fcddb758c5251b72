from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from clsim.data import siamese
from clsim.errors import InputError
from tests.helpers import generator


def images(n: int, channels: int = 3, side: int = 8, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=generator(1), dtype=dtype)


def frozen(name: str, *values: float) -> siamese.Draw:
    return siamese.Draw(name, torch.tensor(values, dtype=torch.float64)[:, None])


@pytest.mark.parametrize("name", siamese.ALL)
@pytest.mark.parametrize("own", [False, True])
def test_it_is_differentiable(name: str, own: bool) -> None:
    x = images(3, 2, 6, torch.float64).requires_grad_()
    draw = siamese.draw([name], 3 if own else None, generator(3))
    assert torch.autograd.gradcheck(draw, (x,))


@pytest.mark.parametrize("name", siamese.ALL)
def test_shared_parameters_are_the_same_on_both_sides(name: str) -> None:
    real, synthetic = images(40), images(40)[:7].clone()
    draw = siamese.draw([name], None, generator(4))
    torch.testing.assert_close(draw(real)[:7], draw(synthetic))
    torch.testing.assert_close(draw(synthetic), torch.cat([draw(image[None]) for image in synthetic]))


@pytest.mark.parametrize("name", siamese.ALL)
def test_own_parameters_differ_and_equal_shared_ones_of_the_same_values(name: str) -> None:
    x = images(1, side=16).expand(32, 3, 16, 16).contiguous()
    draw = siamese.draw([name], 32, generator(5))
    out = draw(x)
    assert len(out.flatten(1).unique(dim=0)) > 1
    for i in range(32):
        alone = siamese.Draw(name, draw.values[:, i : i + 1])(x[i : i + 1])
        torch.testing.assert_close(out[i : i + 1], alone)


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x = images(4, dtype=torch.float64)
    out = frozen("color", 0.9, 0.2, 0.7)(x)
    wanted = x.numpy() + 0.4
    grey = wanted.mean(1, keepdims=True)
    wanted = (wanted - grey) * 0.4 + grey
    mean = wanted.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out.numpy(), (wanted - mean) * 1.2 + mean)


@pytest.mark.parametrize("own", [False, True])
def test_a_crop_is_a_shift_by_an_eighth_at_most_and_all_shifts_are_as_likely(own: bool) -> None:
    x = images(1, 1, 8).abs() + 1
    counts: dict[tuple[int, int], int] = {}
    draws = [siamese.draw(["crop"], 1800, generator(2))] if own else []
    draws = draws or [siamese.draw(["crop"], None, generator(seed)) for seed in range(1800)]
    for draw in draws:
        for after in draw(x.expand(1800 if own else 1, -1, -1, -1)):
            padded = np.pad(x[0, 0].numpy(), 1)
            found = [
                (t, s) for t in range(3) for s in range(3) if np.array_equal(padded[t : t + 8, s : s + 8], after[0])
            ]
            assert len(found) == 1
            counts[found[0]] = counts.get(found[0], 0) + 1
    assert len(counts) == 9
    assert all(abs(count - 200) < 5 * 13.4 for count in counts.values())  # five standard deviations of a binomial


def test_a_cutout_hides_a_rectangle_of_half_the_sides_where_it_is_inside() -> None:
    x = torch.ones(500, 1, 8, 8)
    hidden = siamese.draw(["cutout"], 500, generator())(x)[:, 0] == 0
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
    for sides in (rows, columns):
        assert sides.sum(1).min() == 2  # half of the rectangle, when its centre is on the edge
        assert sides.sum(1).max() == 4
        assert (sides[:, 1:] != sides[:, :-1]).sum(1).max() <= 2  # in one piece


def test_a_flip_mirrors_half_of_the_images() -> None:
    x = images(2000, 1, 4)
    out = siamese.draw(["flip"], 2000, generator())(x)
    same = (out == x).flatten(1).all(1)
    assert torch.equal(~same, (out == x.flip(3)).flatten(1).all(1))
    assert abs(int(same.sum()) - 1000) < 5 * 23


def smooth(side: int) -> torch.Tensor:
    rows, columns = np.mgrid[:side, :side] / side
    return torch.from_numpy(np.sin(5 * rows) + np.cos(4 * columns + rows))[None, None]


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.95])
def test_a_rotation_is_scipys(value: float) -> None:
    x = smooth(32)
    out = frozen("rotate", value, 0.0, 0.0)(x)[0, 0].numpy()
    degrees = (2 * value - 1) * 15
    assert abs(degrees) <= 15
    wanted = ndimage.rotate(x[0, 0].numpy(), degrees, reshape=False, order=1)
    np.testing.assert_allclose(out[8:-8, 8:-8], wanted[8:-8, 8:-8], atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.4, 0.99])
def test_a_scaling_is_between_the_factor_and_its_inverse_and_is_scipys(value: float) -> None:
    x = smooth(32)
    out = frozen("scale", value, 0.8, 0.0)(x)[0, 0].numpy()
    across, down = (1 / 1.2 + (1.2 - 1 / 1.2) * v for v in (value, 0.8))
    assert 1 / 1.2 <= across <= 1.2
    centre = 15.5
    matrix, offset = np.diag([down, across]), centre * (1 - np.array([down, across]))
    wanted = ndimage.affine_transform(x[0, 0].numpy(), matrix, offset, order=1)
    np.testing.assert_allclose(out[8:-8, 8:-8], wanted[8:-8, 8:-8], atol=1e-9)


def test_every_operation_is_as_likely_and_none_leaves_the_images_alone() -> None:
    rng = generator()
    names = [siamese.draw(siamese.ALL, None, rng).operation for _ in range(1200)]
    spread = math.sqrt(1200 / 6 * 5 / 6)
    assert all(abs(names.count(name) - 200) < 5 * spread for name in siamese.ALL)
    assert "flip" not in siamese.DIGITS
    assert torch.equal(siamese.draw((), None, rng)(images(3)), images(3))


def test_every_draw_comes_from_the_given_generator() -> None:
    before = torch.random.get_rng_state()
    one, again, other = (siamese.draw(siamese.ALL, 5, generator(seed)) for seed in (1, 1, 2))
    assert one.operation == again.operation
    assert torch.equal(one.values, again.values)
    assert not torch.equal(one.values, other.values)
    assert torch.equal(before, torch.random.get_rng_state())


def test_mistakes_are_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"unknown operation 'flips'; did you mean 'flip'\?"):
        siamese.draw(["flips"], None, generator())
    with pytest.raises(InputError, match=r"found inputs of shape \(3, 2\), allowed: images"):
        siamese.draw(["flip"], None, generator())(torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"found 3 images, allowed: 2"):
        siamese.draw(["flip"], 2, generator())(images(3))
