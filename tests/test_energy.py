"""Energy and mask growth, each against a second implementation written as plain loops."""

import math

import numpy as np
import pytest
import torch

from vislib.data.objects import dilate
from vislib.measure import energy


def discs(*placed: tuple[int, int, int], shape: tuple[int, int] = (24, 31)) -> np.ndarray:
    """A mask of discs, each (row, column, radius)."""
    y, x = np.indices(shape)
    return np.any([(y - r) ** 2 + (x - c) ** 2 <= radius**2 for r, c, radius in placed], axis=0)


def energy_by_loops(maps: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    inside = total = 0.0
    for channel in maps.tolist():
        for y, row in enumerate(channel):
            for x, value in enumerate(row):
                total += value**2
                inside += value**2 if mask[y, x] else 0.0
    return inside / total, inside, total


def grown_by_loops(mask: np.ndarray, radius: int) -> np.ndarray:
    """Draw a Euclidean disc around every pixel of the mask."""
    height, width = mask.shape
    grown = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                if inside and dy**2 + dx**2 <= radius**2:
                    grown[y + dy, x + dx] = True
    return grown


# --- energy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_energy_is_what_plain_loops_give(channels, seed, dtype):
    random = np.random.default_rng(seed)
    maps = torch.from_numpy(random.normal(size=(channels, 13, 17))).to(dtype)
    mask = random.random((13, 17)) < 0.3
    assert energy.energy(maps, mask) == pytest.approx(energy_by_loops(maps.numpy(), mask), rel=1e-9)


def test_a_map_without_channels_is_one_channel():
    maps, mask = torch.randn(13, 17), discs((6, 8, 3), shape=(13, 17))
    assert energy.energy(maps, mask) == energy.energy(maps[None], mask)


def test_a_uniform_map_has_the_masks_share_exactly():
    mask = discs((10, 12, 6))
    share, _, total = energy.energy(energy.uniform(*mask.shape), mask)
    assert share == mask.mean()
    assert total == mask.size


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e10, -1.0])
def test_P_does_not_know_the_scale(factor):
    # The squares of 1e-30 and 1e10 × 1e10 are out of float32's range.
    maps, mask = torch.randn(3, 24, 31), discs((10, 12, 6))
    share, inside, total = energy.energy(maps, mask)
    scaled = (share, inside * factor**2, total * factor**2)
    assert energy.energy(maps * factor, mask) == pytest.approx(scaled, rel=1e-5, abs=0)


def test_disjoint_masks_add_up_to_the_whole():
    maps, parts = torch.randn(3, 24, 31), np.random.default_rng(0).integers(0, 4, (24, 31))
    results = [energy.energy(maps, parts == i) for i in range(4)]
    assert sum(r.P for r in results) == pytest.approx(1)
    assert sum(r.E for r in results) == pytest.approx(results[0].E_total)


def test_a_map_without_energy_has_no_P():
    result = energy.energy(torch.zeros(3, 5, 5), np.ones((5, 5), dtype=bool))
    assert math.isnan(result.P)
    assert (result.E, result.E_total) == (0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_refused(bad):
    maps = torch.ones(3, 5, 5)
    maps[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        energy.energy(maps, np.ones((5, 5), dtype=bool))


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(7, 7\).*\(5, 6\).*upsample"):
        energy.energy(torch.ones(1, 7, 7), np.ones((5, 6), dtype=bool))


def test_masks_as_pycocotools_draws_them_or_flipped_mean_the_same():
    # uint8 would be taken for indices, and PyTorch knows no negative strides
    maps, mask = torch.randn(3, 24, 31), discs((10, 12, 6))
    assert energy.energy(maps, mask.astype(np.uint8)) == energy.energy(maps, mask)
    assert energy.energy(maps.flip(-1), mask[:, ::-1]) == pytest.approx(energy.energy(maps, mask))
    assert (dilate(mask.astype(np.uint8)) == dilate(mask)).all()


# --- dilate ----------------------------------------------------------------------------------

MASKS = {
    "single pixel": discs((10, 12, 0)),
    "disc": discs((12, 15, 5)),
    "two discs": discs((5, 6, 2), (17, 24, 4)),
    "touches the border": discs((0, 3, 4)),
    "in the corner": discs((23, 30, 3)),
    "a line": np.eye(24, 31, dtype=bool),
    "nearly all": ~discs((12, 15, 3)),
    "scattered": np.random.default_rng(1).random((24, 31)) < 0.02,
}


@pytest.mark.parametrize("growth", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("name", MASKS)
def test_the_mask_grows_by_the_smallest_radius_that_suffices(name, growth):
    mask = MASKS[name]
    if growth * mask.sum() > mask.size:
        assert dilate(mask, growth).all()  # it cannot grow so far
        return
    radius = 0
    while grown_by_loops(mask, radius).sum() < growth * mask.sum():
        radius += 1
    assert (dilate(mask, growth) == grown_by_loops(mask, radius)).all()


@pytest.mark.parametrize("share", [0.84, 1.0])
def test_a_mask_that_cannot_grow_enough_becomes_the_whole_image(share):
    mask = np.arange(100).reshape(10, 10) < share * 100
    assert dilate(mask).all()


def test_dilating_leaves_the_mask_as_it_was():
    mask = discs((12, 15, 5))
    before = mask.copy()
    dilate(mask)
    assert (mask == before).all()


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="the mask is empty"):
        dilate(np.zeros((5, 5), dtype=bool))


# --- controls --------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(11, 15), (10, 16), (1, 1), (1, 7)])
def test_the_gaussian_is_centred_and_symmetric(height, width):
    bell = energy.centred_gaussian(height, width)
    assert bell.shape == (1, height, width)
    assert torch.allclose(bell, bell.flip(-1))
    assert torch.allclose(bell, bell.flip(-2))
    assert bell.max() == bell[0, height // 2, width // 2]
    if height > 2:  # σ is a quarter of the side: from the centre to the border it is 2 σ
        middle = bell[0, :, width // 2]
        assert middle[0] / middle.max() == pytest.approx(math.exp(-2), rel=0.05)


def test_sobel_is_the_filter_written_out():
    image = torch.rand(3, 9, 12)
    grey = image.mean(dim=0).numpy().astype(np.float64)
    smooth, slope = np.array([1, 2, 1]) / 4, np.array([1, 0, -1])
    found = energy.sobel_edges(image)[0].numpy()
    for y in range(1, 8):
        for x in range(1, 11):
            patch = grey[y - 1 : y + 2, x - 1 : x + 2]
            vertical, horizontal = slope @ patch @ smooth, smooth @ patch @ slope
            expected = math.sqrt((vertical**2 + horizontal**2) / 2)
            assert found[y, x] == pytest.approx(expected, abs=1e-6)


def test_sobel_sees_nothing_in_a_plain_image():
    assert energy.sobel_edges(torch.full((3, 9, 12), 0.4)).abs().max() < 1e-6
