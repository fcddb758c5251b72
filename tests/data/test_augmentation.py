from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clsim.data import siamese
from clsim.data.augmentation import AUGMENTATIONS, Transform, color, crop, flip
from clsim.errors import InputError
from tests.helpers import generator

CPU = torch.device("cpu")


def images(n: int, channels: int = 3, side: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator(seed))


def transform(*augment: str, channels: int = 3, channels_last: bool = False) -> Transform:
    mean, std = [0.1, 0.5, 0.9][:channels], [0.2, 0.3, 0.4][:channels]
    return Transform(mean, std, augment, device=CPU, channels_last=channels_last)


def windows(image: torch.Tensor, margin: int) -> dict[tuple[int, int], torch.Tensor]:
    """Every window that a crop may choose, by its offset."""
    height, width = image.shape[1:]
    padded = F.pad(image, (margin,) * 4)
    offsets = range(2 * margin + 1)
    return {(t, left): padded[:, t : t + height, left : left + width] for t in offsets for left in offsets}


@pytest.mark.parametrize(("side", "margin"), [(32, 4), (28, 3), (8, 1), (5, 1)])
def test_a_crop_is_a_window_of_its_own_padded_image(side: int, margin: int) -> None:
    x = images(12, side=side)
    for before, after in zip(x, crop(x, generator()), strict=True):
        matches = [offset for offset, window in windows(before, margin).items() if torch.equal(window, after)]
        assert len(matches) == 1


def test_all_offsets_of_a_crop_are_equally_likely() -> None:
    x = images(1, channels=1, side=8).expand(9000, 1, 8, 8)
    out = crop(x, generator())
    counts = [int((out == window).flatten(1).all(1).sum()) for window in windows(x[0], 1).values()]
    assert sum(counts) == 9000
    assert all(abs(count - 1000) < 5 * 30 for count in counts)  # five standard deviations of a binomial


def test_a_flip_mirrors_half_of_the_images_and_leaves_the_others() -> None:
    x = images(2000, side=6)
    out = flip(x, generator())
    same, mirrored = (out == x).flatten(1).all(1), (out == torch.from_numpy(np.flip(x.numpy(), 3).copy())).flatten(1)
    assert torch.equal(mirrored.all(1), ~same)
    assert abs(int(same.sum()) - 1000) < 5 * 23


@pytest.mark.parametrize("channels", [1, 3])
def test_color_is_torchvisions_brightness_contrast_saturation(channels: int) -> None:
    from clsim.compat import import_torchvision

    import_torchvision()
    from torchvision.transforms import functional

    x = images(16, channels, side=12)
    factors = 0.6 + 0.8 * torch.rand(3, 16, 1, 1, 1, generator=generator(4))
    for i, after in enumerate(color(x, generator(4))):
        brightness, contrast, saturation = factors[:, i].flatten().tolist()
        wanted = functional.adjust_brightness(x[i] / 255, brightness)
        wanted = functional.adjust_contrast(wanted, contrast)
        if channels == 3:
            wanted = functional.adjust_saturation(wanted, saturation)
        # half a level of rounding, and torchvision's red weight of 0.2989 instead of 0.299
        assert (after - 255 * wanted).abs().max() < 0.55


def test_color_factors_differ_between_images_and_stay_in_range() -> None:
    grey = torch.full((500, 1, 2, 2), 100, dtype=torch.uint8)  # flat: contrast changes nothing
    levels = color(grey, generator())[:, 0, 0, 0].float()
    assert levels.min() >= 60
    assert levels.max() <= 140
    assert levels.unique().numel() > 60


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_is_the_textbook_formula(channels: int, channels_last: bool) -> None:
    x = images(7, channels)
    out = transform(channels=channels, channels_last=channels_last).plain(x)
    mean, std = np.array([0.1, 0.5, 0.9])[:channels], np.array([0.2, 0.3, 0.4])[:channels]
    wanted = (x.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(out.numpy(), wanted, atol=2e-6)
    assert out.dtype == torch.float32
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert out.is_contiguous(memory_format=form)


@pytest.mark.parametrize("name", ["", *AUGMENTATIONS])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_holds_in_training_too(name: str, channels_last: bool) -> None:
    out = transform(*filter(None, [name]), channels_last=channels_last).train(images(5), generator())
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_vectors_are_normalised_and_nothing_else() -> None:
    x = torch.randn(6, 3, generator=generator())
    out = transform().plain(x)
    np.testing.assert_allclose(out.numpy(), (x.numpy() - [0.1, 0.5, 0.9]) / [0.2, 0.3, 0.4], atol=2e-6)
    assert torch.equal(transform().train(x, generator()), out)


def test_a_constant_channel_stays_finite() -> None:
    flat = Transform([0.2, 0.0], [0.0, 0.0], (), device=CPU, channels_last=False)
    pixels = flat.plain(torch.full((1, 2, 1, 1), 51, dtype=torch.uint8)).flatten()
    assert pixels.tolist() == pytest.approx([0.0, 0.2], abs=1e-6)
    assert torch.equal(flat.plain(torch.tensor([[0.2, 7.0]])), torch.tensor([[0.0, 7.0]]))


def test_augmentations_come_in_the_order_of_the_spec() -> None:
    x, rng = images(20), generator(9)
    by_hand = transform().plain(flip(crop(color(x, rng), rng), rng))
    assert torch.equal(transform("color", "crop", "flip").train(x, generator(9)), by_hand)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_draw_comes_from_the_given_generator(name: str) -> None:
    x, before = images(30), torch.random.get_rng_state()
    one, again, other = (transform(name).train(x, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_input_is_left_alone_and_any_layout_or_length_will_do(name: str) -> None:
    x = images(9)
    copy = x.clone()
    out = transform(name).train(x, generator())
    assert torch.equal(x, copy)
    assert torch.equal(transform(name).train(x.contiguous(memory_format=torch.channels_last), generator()), out)
    small = name == "small-crop"
    assert transform(name).train(x[:0], generator()).shape == ((0, 3, 18, 18) if small else (0, 3, 32, 32))
    wide = torch.zeros(2, 1, 8, 24, dtype=torch.uint8)
    assert transform(name, channels=1).train(wide, generator()).shape == ((2, 1, 4, 14) if small else wide.shape)


def test_mistakes_are_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"unknown name 'crops'; did you mean 'crop'\?"):
        transform("crops")
    with pytest.raises(InputError, match=r"data\.augment: found 1 augmentations with vectors, allowed: none"):
        transform("flip").train(torch.zeros(2, 3), generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_images_and_draws_stay_there() -> None:
    device = torch.device("cuda")
    x, names = images(64).to(device), tuple(AUGMENTATIONS)
    there = Transform([0.5] * 3, [0.25] * 3, names, device=device, channels_last=True)
    rng = torch.Generator(device).manual_seed(0)
    assert there.train(x, rng).device.type == "cuda"
    here = Transform([0.5] * 3, [0.25] * 3, (), device=CPU, channels_last=True)
    torch.testing.assert_close(there.plain(x).cpu(), here.plain(x.cpu()))


@pytest.mark.parametrize(("name", "operations"), [("dsa", siamese.ALL), ("dsa-digits", siamese.DIGITS)])
def test_siamese_augmentation_comes_after_normalisation(name: str, operations: tuple[str, ...]) -> None:
    """Whatever stands before it: it draws one operation a batch, each image with its own parameters."""
    x = images(5, side=8)
    for seed in range(12):
        after_flip = generator(seed)
        wanted = transform().plain(flip(x, after_flip))
        wanted = siamese.draw(operations, 5, after_flip)(wanted)
        for names in ((name, "flip"), ("flip", name)):
            assert torch.equal(transform(*names).train(x, generator(seed)), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_siamese_augmentation_on_a_gpu_is_one_of_its_operations() -> None:
    x = images(4, side=8).cuda()
    made = Transform([0.1, 0.5, 0.9], [0.2] * 3, ("dsa",), device=x.device, channels_last=False)
    plain, seen = made.plain(x), set()
    for seed in range(30):
        out = made.train(x, torch.Generator("cuda").manual_seed(seed))
        values = torch.rand(3, 4, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
        same = [n for n, change in siamese.OPERATIONS.items() if torch.allclose(change(plain, values), out)]
        seen.update(same)
        assert same
    assert seen == set(siamese.ALL)
