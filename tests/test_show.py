"""Figures: colours of known values, layout, and alt text that really reaches the notebook."""

from __future__ import annotations

import html
import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from typing import Any, NamedTuple

import matplotlib
import nbformat.v4
import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from nbconvert import HTMLExporter
from PIL import Image
from torch import nn
from traitlets.config import Config

from vislib import nets, show
from vislib.measure.methods import METHODS
from vislib.show import charts, colours, composition, grids, matrix, output, tables

WHITE, BLACK = np.ones(3), np.zeros(3)


@pytest.fixture(autouse=True)
def _no_open_figures():
    """Close the figures of other files' tests, and leave none to them."""
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def _shell(tmp_path, monkeypatch):
    """IPython displays figures only in a shell, as in a notebook; otherwise it prints them."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    yield
    InteractiveShell.clear_instance()


class Shown(NamedTuple):
    """A figure as it is stored in a notebook."""

    html: str
    text: str

    def attribute(self, name: str) -> str:
        (value,) = re.findall(rf'<img [^>]*\b{name}="([^"]*)"', self.html)
        return html.unescape(value)

    @property
    def alt(self) -> str:
        return self.attribute("alt")

    @property
    def data(self) -> bytes:
        return b64decode(self.attribute("src").partition("base64,")[2])

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.convert("RGB"))


def displayed(action) -> Shown:
    """The one output of the action."""
    with capture_output() as captured:
        action()
    (result,) = captured.outputs
    data, _ = result._repr_mimebundle_()
    assert data.keys() == {"text/html", "text/plain"}
    return Shown(data["text/html"], data["text/plain"])


def brightness(rgb: np.ndarray) -> np.ndarray:
    return rgb @ [0.299, 0.587, 0.114]


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
PHOTO = torch.from_numpy(skimage.data.chelsea()[:224, 90:426].copy()).movedim(-1, 0) / 255
SHARP = torch.from_numpy(RNG.normal(size=(3, 224, 336)))
COARSE = torch.from_numpy(RNG.random((1, 7, 11)))
DISC = np.hypot(*(np.mgrid[:224, :336] - np.array([[[112]], [[168]]]))) < 60


# --- Images ---------------------------------------------------------------------------------------

SAME = {
    "PIL": Image.fromarray(PIXELS),
    "tensor": torch.from_numpy(PIXELS).movedim(-1, 0) / 255,
    "batch of one": torch.from_numpy(PIXELS).movedim(-1, 0)[None] / 255,
    "bytes": PIXELS,
    "floats": PIXELS / 255,
}
GREY = PIXELS[..., 0]
SAME_GREY = {
    "PIL": Image.fromarray(GREY),
    "tensor 1×H×W": torch.from_numpy(GREY)[None] / 255,
    "tensor H×W": torch.from_numpy(GREY) / 255,
    "bytes": GREY,
    "floats": GREY / 255,
    "floats H×W×1": GREY[..., None] / 255,
}


@pytest.mark.parametrize("kind", SAME)
def test_rgb_takes_images_of_any_kind(kind):
    assert show.rgb(SAME[kind]) == pytest.approx(PIXELS / 255, abs=1e-6)


@pytest.mark.parametrize("kind", SAME_GREY)
def test_rgb_takes_grey_images_of_any_kind(kind):
    grey = (GREY / 255)[..., None].repeat(3, axis=2)
    assert show.rgb(SAME_GREY[kind]) == pytest.approx(grey, abs=1e-6)


def test_rgb_takes_a_mask():
    assert show.rgb(np.eye(3, dtype=bool))[..., 1] == pytest.approx(np.eye(3))


@pytest.mark.parametrize(
    "image", [torch.rand(2, 3, 4, 4), torch.rand(4, 4, 3), np.ones((3, 4, 4)), torch.rand(4)]
)
def test_rgb_says_which_shapes_it_takes(image):
    with pytest.raises(ValueError, match=r"image must be .* got .*shape \("):
        show.rgb(image)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_outline_draws_a_line_of_the_width_and_nothing_else(width):
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 12:32] = True
    image = np.zeros((40, 40, 3))
    rgb = show.outline(image, mask, colour="#FF0000", width=width)
    drawn = (rgb == [1, 0, 0]).all(axis=2)
    assert drawn[20, :20].sum() == drawn[20, 20:].sum() == drawn[:20, 20].sum() == width
    assert (rgb[~drawn] == 0).all()
    assert image.sum() == 0  # the image is left as it was


# --- Overlay --------------------------------------------------------------------------------------


def test_an_overlay_is_the_lightened_photograph_below_15_percent_of_the_maximum():
    maps = torch.linspace(-1, 1, 336, dtype=torch.float64).expand(1, 224, 336)
    drawn, light = show.overlay(PHOTO, maps), show.lightened(PHOTO)
    clear = (maps[0] < 0.15).numpy()
    assert (drawn[clear] == light[clear]).all()
    assert (np.abs(drawn - light).max(axis=2) > 0)[(maps[0] > 0.16).numpy()].all()
    # The photograph is in colour, and only lighter: its contrast is kept in proportion.
    original = show.rgb(PHOTO)
    assert (light >= original).all() and light.std() > 0.6 * original.std()
    assert np.corrcoef(light[..., 0].ravel(), original[..., 0].ravel())[0, 1] > 0.999


def test_the_opacity_of_an_overlay_grows_with_the_value():
    maps = torch.linspace(0, 2, 64, dtype=torch.float64).expand(1, 64, 64)
    drawn = show.overlay(torch.zeros(3, 64, 64), maps)[0]
    light, hue = show.lightened(torch.zeros(3, 1, 1))[0, 0], np.array(to_rgb(colours.HUE))
    opacity = (drawn - light) @ (hue - light) / ((hue - light) @ (hue - light))
    assert drawn == pytest.approx(light + opacity[:, None] * (hue - light))  # one hue
    assert (np.diff(opacity) >= 0).all()
    values = np.linspace(0, 1, 64)
    assert (opacity[values < 0.15] == 0).all()
    assert (np.diff(opacity[values > 0.16]) > 0).all()
    assert opacity[-1] == pytest.approx(colours.OPACITY) and colours.OPACITY < 0.8


@pytest.mark.parametrize("shape", [(1, 6, 8), (3, 6, 8), (6, 8), (1, 1, 6, 8), (1, 3, 4)])
def test_an_overlay_takes_maps_with_one_or_more_channels_and_smaller_ones(shape):
    maps = torch.rand(shape, dtype=torch.float64)
    flat = maps.reshape(-1, *shape[-2:]).sum(dim=0, keepdim=True)
    large = torch.nn.functional.interpolate(flat[None], size=(6, 8), mode="bilinear")[0]
    expected = show.overlay(SAME["PIL"], large, top=float(flat.max()))
    assert show.overlay(SAME["PIL"], maps) == pytest.approx(expected)


def test_a_signed_overlay_is_red_above_and_blue_below_zero():
    maps = torch.tensor([[[-1.0, 0.0, 1.0]]]).repeat_interleave(3, dim=1)
    drawn = show.overlay(torch.full((3, 3, 3), 0.5), maps, signed=True)[1]
    assert drawn[0, 2] > drawn[0, 0] and drawn[2, 0] > drawn[2, 2]
    assert drawn[1] == pytest.approx(show.lightened(torch.full((3, 1, 1), 0.5))[0, 0])


@pytest.mark.parametrize("shape", [(1, 8, 6), (1, 12, 16), (1, 7, 8), (1, 6, 7), (1, 5, 2)])
def test_a_map_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="map must have the size of the image, 6×8, or be a small"):
        show.overlay(SAME["PIL"], torch.rand(shape))


@pytest.mark.parametrize("size", [(224, 336), (227, 341), (300, 451), (33, 65)])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("rounded", [np.floor, np.ceil])
def test_feature_maps_of_any_rounding_fit_their_image(size, stride, rounded):
    small = [max(1, int(rounded(side / stride))) for side in size]
    show.overlay(torch.zeros(3, *size), torch.rand(1, *small))


# --- Fine maps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 9), (1, 7, 9), (3, 7, 9), (1, 3, 7, 9)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_fine_has_the_size_of_the_map(shape, dtype, signed):
    rgb = show.fine(torch.randn(shape).to(dtype), signed=signed)
    assert rgb.shape == (7, 9, 3)
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_a_fine_map_goes_from_white_to_black_with_the_magnitude():
    rgb = show.fine(torch.tensor([[0.0, -1.0, 2.0, -4.0]]), percentile=100)[0]
    assert rgb == pytest.approx(np.array([1, 0.75, 0.5, 0])[:, None].repeat(3, axis=1))
    opposite = torch.tensor([3.0, -4.0])[:, None, None]
    assert colours.fine_values(opposite) == pytest.approx(5.0)  # opposite signs do not cancel


def test_signed_maps_diverge_around_white():
    values = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    rgb = show.fine(values, signed=True, percentile=100)[0]
    assert rgb[2] == pytest.approx(WHITE, abs=0.05)
    assert rgb[0, 2] > rgb[0, 0]  # blue below
    assert rgb[4, 0] > rgb[4, 2]  # red above
    dark = brightness(rgb)  # the same distance from zero is about as dark on both sides
    assert dark[0] < dark[1] < dark[2] > dark[3] > dark[4]
    assert dark[0] == pytest.approx(dark[4], abs=0.1)


@pytest.mark.parametrize(("side", "sigma"), [(8, 0), (28, 0), (128, 1), (224, 1.75), (448, 3.5)])
def test_the_blur_grows_with_the_image(side, sigma):
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1
    blurred = colours.blurred(point)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    offsets = np.arange(side) - side // 2
    assert np.sqrt(blurred.sum(axis=0) @ offsets**2) == pytest.approx(sigma, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("look", ["auto", "overlay", "fine", "signed", "rgb"])
@pytest.mark.usefixtures("_shell")
def test_constant_maps_can_be_shown(value, look):
    constant = torch.full((3, 224, 336), value)
    shown = displayed(lambda: show.maps(PHOTO, {"one": constant}, look=look, first=""))
    middle = shown.pixels[400:800, 700:1400].reshape(-1, 3).astype(float)
    if value == 0 and look in ("fine", "rgb"):
        ground = {"fine": 255, "rgb": 128}[look]
        assert np.abs(middle - ground).max() <= 1
    elif look == "fine":
        assert middle.max() == 0
    else:
        assert middle.std() > 5 or look == "rgb"  # the photograph is visible


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_maps_with_nan_are_refused_by_name(bad):
    broken = torch.zeros(3, 224, 336)
    broken[0, 0, 0] = bad
    with pytest.raises(ValueError, match="map 'simple' must be finite, got NaN or infinite values"):
        show.maps(PHOTO, {"good": SHARP, "simple": broken})


def test_a_few_large_values_do_not_leave_the_rest_white():
    maps = torch.linspace(0, 1, 1000).reshape(20, 50)
    calm = brightness(1 - show.fine(maps)).mean()
    maps[-1, -2:] = 1e6
    assert brightness(1 - show.fine(maps)).mean() > 0.9 * calm


def test_a_map_with_one_single_value_is_not_lost():
    # The percentile of |map| is 0 here
    maps = torch.zeros(50, 50)
    maps[3, 4] = 5.0
    assert (show.fine(maps)[3, 4] == BLACK).all()


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e10])
def test_colours_do_not_depend_on_the_scale(factor):
    maps = torch.randn(3, 8, 8, dtype=torch.float64)
    for draw in (show.fine, show.tinted):
        assert draw(maps * factor) == pytest.approx(draw(maps), abs=1 / 100)


def test_the_look_rgb_needs_three_channels():
    with pytest.raises(ValueError, match="look rgb needs a map with 3 channels, got 1"):
        show.tinted(torch.zeros(1, 4, 4))


def test_coarse_keeps_the_strongest_signed_value_of_each_square():
    maps = torch.randn(3, 10, 7)
    actual = show.coarse(maps, 4)
    assert actual.shape == (1, 3, 2)
    total = maps.sum(dim=0)
    for i in range(3):
        for j in range(2):
            square = total[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
            assert actual[0, i, j] == square[square.abs().argmax()]


# --- Look and scale of each map -------------------------------------------------------------------


def looks(maps: Any, image: Any = PHOTO, look: Any = "auto") -> dict[Any, str]:
    table = maps if isinstance(next(iter(maps.values())), dict) else {"": maps}
    return grids._looks(table, dict.fromkeys(table, show.rgb(image)), look)


def test_coarse_and_smooth_maps_are_laid_over_the_photograph_and_others_are_not():
    smooth = torch.from_numpy(colours.enlarged(COARSE[0].numpy(), (224, 336)))
    assert looks({"coarse": COARSE, "smooth": smooth, "sharp": SHARP}) == {
        ("", "coarse"): "overlay", ("", "smooth"): "overlay", ("", "sharp"): "fine",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "guided_grad_cam", "lrp"])
def test_maps_of_single_pixels_of_a_real_network_are_fine(name):
    model = nets.load("emoji_vgg")
    x = PHOTO[None, :, 48:176, 100:228]
    maps = METHODS[name](model, x, 3, "net.features.13")
    assert looks({name: maps}, x) == {("", name): "fine"}


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam", "occlusion", "centred_gaussian"])
def test_maps_of_regions_of_a_real_network_are_overlays(name):
    model = nets.load("emoji_vgg")
    x = PHOTO[None, :, 48:176, 100:228]
    maps = METHODS[name](model, x, 3, "net.features.13")
    assert looks({name: maps}, x) == {("", name): "overlay"}


def test_maps_with_one_head_have_one_look():
    rows = {"a": {"m": COARSE}, "b": {"m": COARSE}, "c": {"m": SHARP}}
    assert set(looks(rows).values()) == {"overlay"}


def test_the_look_can_be_chosen_for_all_maps_or_by_head():
    assert set(looks({"a": SHARP, "b": SHARP}, look="rgb").values()) == {"rgb"}
    assert looks({"a": SHARP, "b": SHARP}, look={"b": "signed"}) == {
        ("", "a"): "fine", ("", "b"): "signed",
    }  # fmt: skip
    assert looks({"a": COARSE}, look="signed") == {("", "a"): "signed overlay"}
    with pytest.raises(ValueError, match=r"look must be auto, .* signed or rgb, got 'x'"):
        looks({"a": SHARP}, look="x")


def test_maps_of_one_quantity_have_one_scale():
    rows = {"first": {"m": SHARP, "n": 5 * SHARP}, "second": {"m": 2 * SHARP, "n": COARSE}}
    chosen = looks(rows) | {("second", "n"): "fine"}
    one = grids._top(SHARP, "fine")
    scales = ("map", "row", "column", "figure")
    tops = {scale: grids._tops(rows, chosen, scale) for scale in scales}
    assert tops["map"]["first", "m"] == pytest.approx(one)
    assert tops["column"]["first", "m"] == tops["column"]["second", "m"] == pytest.approx(2 * one)
    assert tops["row"]["first", "m"] == tops["row"]["first", "n"] == pytest.approx(5 * one)
    assert len(set(tops["figure"].values())) == 1
    with pytest.raises(ValueError, match="scale must be map, row, column or figure, got 'all'"):
        grids._tops(rows, chosen, "all")


# --- Layout ---------------------------------------------------------------------------------------


def tiles(count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    return {f"tile {n}": RNG.random((*size, 3)) for n in range(count)}


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("size", [(8, 8), (128, 128), (224, 336), (224, 398), (336, 224)])
def test_every_figure_has_the_same_width_and_fits_a_screen(count, size):
    masks = dict.fromkeys(["dog", "cat", "a third object"], np.zeros(size, dtype=bool))
    layout = composition._lay_out(grids._panels(tiles(count, size), masks, "dog"), None)
    assert 0 < layout.height <= 2 * 600
    for _, top, left, _, _ in layout.positions():
        assert left > 0 and left + layout.box[1] < 2 * 1050 and top + layout.box[0] < layout.height


def test_the_bitmap_has_the_size_of_the_layout():
    images = tiles(3, (64, 96))
    assert show.grid(images).size == (2100, boxes(images).height)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_grid_with_row_heads_fits_a_screen(rows):
    image = show.grid({f"a long head of row {n}": tiles(5, (128, 128)) for n in range(rows)})
    assert image.size[0] == 2100 and image.size[1] <= 1200


def boxes(images: Any, **options: Any) -> composition.Layout:
    columns = options.pop("columns", None)
    return composition._lay_out(grids._panels(images, {}, ""), columns)


@pytest.mark.parametrize(
    ("count", "size", "rows", "box"),
    [
        (6, (224, 336), 2, (448, 672)),  # image and five maps of a photograph
        (3, (224, 336), 1, (448, 672)),
        (4, (128, 128), 1, (384, 384)),
        (6, (128, 128), 2, (512, 512)),
        (2, (128, 128), 1, (896, 896)),
    ],
)
def test_the_panels_are_as_large_as_possible(count, size, rows, box):
    layout = boxes(tiles(count, size))
    assert len(layout.rows) == rows and layout.box == box
    assert {len(row) for row in layout.rows} == {count // rows}  # no empty slot


@pytest.mark.parametrize("count", [3, 4, 5, 6])
@pytest.mark.parametrize("size", [(224, 336), (224, 224), (128, 128), (224, 398), (336, 224)])
def test_three_to_six_panels_are_at_least_120_css_pixels(count, size):
    assert min(boxes(tiles(count, size)).box) >= 240


@pytest.mark.parametrize(("side", "scale"), [(16, 30), (48, 10), (128, 4), (200, 2)])
def test_each_pixel_becomes_a_square_of_whole_pixels(side, scale):
    image = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels, factor = composition._enlarged(image / 255, (scale * side + 9, scale * side + 9))
    assert factor == scale
    assert (pixels == image.repeat(scale, axis=0).repeat(scale, axis=1)).all()


def test_the_pixels_of_a_figure_are_those_of_its_images():
    """Also after drawing, encoding and decoding: each pixel is a square, in its own colour."""
    images = {n: RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for n in "abc"}
    layout = boxes(images)
    figure = Image.open(io.BytesIO(output.encoded(show.grid(images))))
    scale = layout.box[0] // 16
    for _, top, left, head, _ in layout.positions():
        part = np.asarray(figure)[top : top + 16 * scale, left : left + 16 * scale]
        inner = part.reshape(16, scale, 16, scale, 3)[:, 2:-2, :, 2:-2]
        assert (inner == images[head][:, None, :, None]).all()


def test_images_that_are_too_large_are_made_smaller_smoothly():
    stripes = np.zeros((800, 800, 3))
    stripes[::2] = 1
    layout = boxes({"a": stripes, "b": stripes, "c": stripes})
    assert max(layout.box) < 800
    pixels, factor = composition._enlarged(stripes, layout.box)
    assert pixels.shape[:2] == layout.box and factor < 1
    assert 0.3 < pixels.mean() / 255 < 0.7 and pixels.std() < 100  # no moiré of full contrast


def test_panels_do_not_overlap_and_stay_inside():
    images = {"first": tiles(3, (100, 150)), "second": tiles(3, (100, 150))}
    layout = boxes(images)
    spots = [(top, left) for _, top, left, _, _ in layout.positions()]
    assert len(set(spots)) == 6
    height, width = layout.box
    taken = np.zeros((layout.height, 2100), dtype=int)
    for top, left in spots:
        assert left > layout.side and left + width <= 2100 and top + height <= layout.height
        taken[top : top + height, left : left + width] += 1
    assert taken.max() == 1 and taken.sum() == 6 * height * width


def test_long_heads_are_wrapped_to_their_panel():
    head = "Guided Grad-CAM of a network with random weights in all of its layers"
    layout = boxes({head: PHOTO, "b": PHOTO, "c": PHOTO})
    lines = composition._wrapped(head, layout.box[1] + layout.gap)
    assert len(lines) == layout.heads[0] == 2
    assert " ".join(lines) == head
    assert composition._wrapped("Grad-CAM", 90) == ["Grad-", "CAM"]
    assert all(composition._font().getlength(line) < layout.box[1] + layout.gap for line in lines)
    assert composition._FONT >= 2 * 16


def test_the_ground_is_white_with_a_thin_margin():
    pixels = np.asarray(show.grid(dict.fromkeys("abc", np.zeros((224, 336, 3)))))
    edge = np.concatenate([pixels[:8].reshape(-1, 3), pixels[:, :8].reshape(-1, 3)])
    assert (edge == 255).all()
    inked = np.argwhere((pixels < 250).any(axis=2))
    assert inked[:, 1].min() <= 60 and 2100 - inked[:, 1].max() <= 60


# --- Outlines -------------------------------------------------------------------------------------


def lines_of(panel: show.Panel) -> dict[str, str]:
    return {title: line for title, _, line in composition._outlines(panel)}


def test_the_target_has_a_solid_outline_and_others_are_dashed():
    masks = {"dog": DISC, "cat": DISC, "zebra": DISC}
    panel = show.Panel(show.rgb(PHOTO), masks, "cat")
    assert lines_of(panel) == {"dog": "--", "cat": "-", "zebra": "--"}
    assert len({colour for _, colour, _ in composition._outlines(panel)}) == 3
    rows = grids._panels({"a": PHOTO}, {"cat": DISC}, "")
    assert lines_of(rows["a"]) == {"cat": "-"}  # the only object is the target
    rows = grids._panels({"a": PHOTO}, masks, "")
    assert set(lines_of(rows["a"]).values()) == {"--"}


@pytest.mark.usefixtures("_shell")
def test_every_panel_has_the_outlines_at_the_border_of_the_mask():
    grey = torch.full((3, 224, 336), 0.5)
    maps = {"sharp": torch.zeros(3, 224, 336), "coarse": torch.zeros(1, 7, 11)}
    shown = displayed(lambda: show.maps(grey, maps, masks={"disc": DISC})).pixels
    colour = 255 * np.array(to_rgb(composition._TARGET))
    near = np.abs(shown - colour).max(axis=2) < 40
    layout = boxes({"image": grey, **dict.fromkeys(maps, grey)})
    for _, top, left, _, _ in layout.positions():
        y, x = np.nonzero(near[top : top + 448, left : left + 672])
        assert len(y) > 1000
        radius = np.hypot(y - 2 * 112, x - 2 * 168) / 2
        assert radius.min() > 57 and radius.max() < 63


@pytest.mark.parametrize("mask", [np.zeros((224, 336)), np.ones((224, 336)), np.eye(224, 336)])
def test_empty_full_and_thin_masks_can_be_outlined(mask):
    assert show.grid({"a": PHOTO}, masks={"m": mask > 0}).size[0] == 2100


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_mask_of_another_size_is_refused(kind):
    with pytest.raises(ValueError, match=r"mask 'cat' must have the size of its image, 224×3"):
        show.maps(PHOTO, {"gradient": SHARP}, masks={"cat": kind(DISC[:100])})


def test_a_target_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="target must be one of the masks cat, dog, got 'zebra'"):
        show.maps(PHOTO, {"m": SHARP}, masks={"cat": DISC, "dog": DISC}, target="zebra")


def test_the_key_names_each_outline_and_each_look_once():
    rows = grids._map_panels(
        PHOTO, {"a": SHARP, "b": SHARP, "c": COARSE}, ({"cat": DISC, "dog": DISC}, "cat"),
        ("auto", "column"), "image", None,
    )  # fmt: skip
    texts = [item.text for item in composition._key_items(list(rows.values()))]
    assert texts == ["cat", "dog", "magnitude of the map", "map, above 15 % of its maximum"]


# --- Grids ----------------------------------------------------------------------------------------


def test_rows_may_have_different_images_masks_targets_and_notes():
    other = PHOTO.flip(-1)
    rows = grids._map_panels(
        {"one": PHOTO, "two": other}, {"one": {"m": SHARP}, "two": {"m": SHARP}},
        ({"one": {"cat": DISC}, "two": {"dog": ~DISC, "cat": DISC}}, {"two": "dog"}),
        ("auto", "column"), "image", {"two": {"m": "P = 0.42"}},
    )  # fmt: skip
    assert list(rows) == ["one", "two"] and list(rows["two"]) == ["image", "m"]
    assert rows["two"]["image"].pixels == pytest.approx(show.rgb(other))
    assert (rows["one"]["m"].target, rows["two"]["m"].target) == ("cat", "dog")
    assert (rows["one"]["m"].note, rows["two"]["m"].note) == ("", "P = 0.42")


@pytest.mark.parametrize("entries", [{}, [SHARP], {"a": SHARP, "b": {"c": SHARP}}])
def test_what_is_not_a_mapping_by_heads_is_refused(entries):
    with pytest.raises(ValueError, match=r"mapping by their heads|all or none of the entries"):
        show.maps(PHOTO, entries)


# --- HTML and alt text ----------------------------------------------------------------------------

CAPTION = 'Guided backprop marks the "eyes" & the nose, the deconvnet draws a grid <everywhere>.'


def chart(**options: Any) -> None:
    with show.style():
        drawn, axis = plt.subplots(figsize=(4, 2))
        axis.plot([1, 2, 3])
        axis.set_ylabel("loss")
    show.figure(drawn, **options)


FRAME = pd.DataFrame(
    {"method": ["lrp", "grad_cam"], "mean": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5]}
)
FIGURES = {
    "maps": lambda **o: show.maps(PHOTO, {"grad_cam": COARSE, "gradient": SHARP}, **o),
    "grid": lambda **o: show.maps(PHOTO, {"emoji_vgg": {"grad_cam": COARSE}}, **o),
    "panels": lambda **o: show.panels({"left": PHOTO, "right": PHOTO}, **o),
    "photographs": lambda **o: show.photographs({"left": PHOTO, "right": PHOTO}, **o),
    "photograph": lambda **o: show.photograph(PHOTO, **o),
    "curves": lambda **o: show.curves({"loss": {"a": ([0, 1], [1, 2]), "b": ([0], [2])}}, **o),
    "intervals": lambda **o: show.intervals(FRAME, **o),
    "matrices": lambda **o: show.matrices({"matrix": np.eye(3)}, **o),
    "figure": chart,
}


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.usefixtures("_shell")
def test_caption_and_alt_text_reach_the_reader(kind):
    shown = displayed(lambda: FIGURES[kind](caption=CAPTION))
    assert shown.alt == CAPTION
    assert html.escape(CAPTION) in shown.html.partition("<figcaption")[2]  # visible
    assert shown.text == f"Figure: {CAPTION}"
    assert shown.attribute("width") == "1050"
    assert shown.image.size[0] == 2100 and shown.image.size[1] <= 1200
    hidden = displayed(lambda: FIGURES[kind](alt=CAPTION))
    assert hidden.alt == CAPTION and "figcaption" not in hidden.html
    both = displayed(lambda: FIGURES[kind](caption="short", alt=CAPTION))
    assert both.alt == CAPTION and "short</figcaption>" in both.html
    assert plt.get_fignums() == []  # closed, so that the notebook does not show it again


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.usefixtures("_shell")
def test_a_learners_call_without_a_caption_works(kind):
    shown = displayed(FIGURES[kind])
    assert shown.alt.startswith(output.NO_CAPTION)
    assert "figcaption" not in shown.html
    words = {"maps": "Grad-CAM", "grid": "VGG (emoji)", "figure": "loss", "curves": "loss"}
    assert words.get(kind, "") in shown.alt


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.usefixtures("_shell")
def test_a_figure_is_the_same_every_time(kind):
    assert displayed(FIGURES[kind]) == displayed(FIGURES[kind])


@pytest.mark.usefixtures("_shell")
def test_nbconvert_keeps_the_alt_text():
    shown = displayed(lambda: FIGURES["panels"](caption=CAPTION))
    data = {"text/html": shown.html, "text/plain": shown.text}
    cell = nbformat.v4.new_code_cell(
        "show", outputs=[nbformat.v4.new_output("display_data", data=data)]
    )
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    alts: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, pairs: tag == "img" and alts.append(dict(pairs)["alt"])
    parser.feed(page)
    assert alts == [CAPTION]
    assert "No description has been provided" not in page


@pytest.mark.usefixtures("_shell")
def test_only_the_pixels_are_left_out_of_nbvals_comparison():
    import configparser
    from pathlib import Path

    rules = configparser.RawConfigParser()
    rules.read(Path(__file__).parent / "nbval_sanitize.cfg", encoding="utf-8")
    bright, dark = (
        displayed(lambda p=p: show.panels({"a": p}, alt="One")).html for p in (PHOTO, PHOTO / 2)
    )
    other = displayed(lambda: show.panels({"a": PHOTO}, alt="Another")).html
    photo = displayed(lambda: show.photographs({"a": PHOTO}, alt="One")).html
    texts = [bright, dark, other, photo]
    for name in rules.sections():
        rule = rules[name]
        texts = [re.sub(rule["regex"], rule["replace"], text) for text in texts]
    assert texts[0] == texts[1] == texts[3] != texts[2]
    assert len(texts[0]) < 300


@pytest.mark.usefixtures("_shell")
def test_photographs_are_jpeg_444_and_maps_are_png(tmp_path):
    for kind in FIGURES:
        shown = displayed(FIGURES[kind])
        expected = "JPEG" if kind.startswith("photograph") else "PNG"
        assert shown.image.format == expected
        assert f"data:image/{expected.lower()};" in shown.html
    shown = displayed(FIGURES["photographs"])
    # Each component has a sampling factor of 1×1, so colours have full resolution.
    assert [layer[1:3] for layer in shown.image.layer] == [(1, 1)] * 3
    red_and_blue = np.zeros((64, 64, 3), dtype=np.uint8)
    red_and_blue[:, ::2, 0] = red_and_blue[:, 1::2, 2] = 255
    stored = Image.open(io.BytesIO(output.encoded(Image.fromarray(red_and_blue), jpeg=True)))
    assert np.abs(np.asarray(stored).astype(int) - red_and_blue).mean() < 30


@pytest.mark.parametrize("kind", [kind for kind in FIGURES if kind != "photograph"])
@pytest.mark.usefixtures("_shell")
def test_a_figure_can_be_written_to_a_file(kind, tmp_path):
    file = tmp_path / "figure.image"
    shown = displayed(lambda: FIGURES[kind](file=file))
    assert file.read_bytes() == shown.data


@pytest.mark.usefixtures("_shell")
def test_letters_of_other_figures_are_enlarged_to_16_css_pixels():
    drawn, axis = plt.subplots(figsize=(6, 3))
    axis.set_title("tiny", fontsize=6)
    axis.tick_params(labelsize=4)
    sizes = []
    original = drawn.savefig
    drawn.savefig = lambda *args, **options: (  # type: ignore[method-assign]
        sizes.extend(text.get_fontsize() for text in drawn.findobj(matplotlib.text.Text)),
        original(*args, **options),
    )
    shown = displayed(lambda: show.figure(drawn, alt="Letters"))
    assert min(sizes) * 100 / 72 >= 16 - 1e-9
    assert shown.image.size == (2100, 1050)


@pytest.mark.usefixtures("_shell")
def test_a_tall_figure_is_limited_in_height():
    drawn, _ = plt.subplots(figsize=(4, 9))
    assert displayed(lambda: show.figure(drawn)).image.size == (2100, 1200)


def test_the_style_lasts_for_the_block_only():
    before = matplotlib.rcParams["axes.titlesize"]
    with show.style():
        assert matplotlib.rcParams["font.size"] * 100 / 72 >= 16
    assert matplotlib.rcParams["axes.titlesize"] == before


# --- Display names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("pocket_vgg", "VGG (ours)"),
        ("pocket_alexnet", "AlexNet (ours)"),
        ("pocket_allconv_robust", "All-convolutional, robust (ours)"),
        ("emoji_resnet", "ResNet (emoji)"),
        ("efficientnet_lite0", "EfficientNet-Lite0"),
        ("squeezenet1_0", "SqueezeNet 1.0"),
        ("vgg16_bn", "VGG-16 with BatchNorm"),
        ("resnet50", "ResNet-50"),
        ("efficientnet_v2_s", "EfficientNet v2 S"),
        ("regnet_y_1_6gf", "RegNet-Y 1.6 GF"),
        ("grad_cam", "Grad-CAM"),
        ("guided_grad_cam_random", "Guided Grad-CAM, random weights"),
        ("pocket_vgg_random", "VGG (ours), random weights"),
        ("a note of a learner", "a note of a learner"),
        ("my_map", "my map"),
        (7, "7"),
    ],
)
def test_names_are_words(key, expected):
    assert show.name(key) == expected


def test_every_network_and_method_has_a_display_name():
    keys = [*nets.names(), *METHODS]
    names = [show.name(key) for key in keys]
    assert len(set(names)) == len(names)
    for key, shown in zip(keys, names, strict=True):
        assert not re.search(r"_|\bv\d+_", shown), shown
        assert key in METHODS or shown[0].isupper(), f"{key} has no display name: {shown}"
    assert all(show.name(key) == METHODS[key].title for key in METHODS)


def test_a_display_name_stays_as_it_is():
    for key in (*nets.names(), *METHODS):
        assert show.name(show.name(key)) == show.name(key)


def test_layers_have_their_number_and_size():
    model = nets.load("emoji_vgg")
    x = torch.rand(1, 3, 128, 96)
    names = show.layer_names(model, x)
    assert next(iter(names.values())).endswith(f"1 of {len(names)}, 128×96")
    assert list(names.values())[-1].startswith(f"layer {len(names)} of {len(names)}, ")
    layers = ["net.features.3", "net.features.6"]
    assert list(show.layer_names(model, x, layers)) == layers
    with pytest.raises(ValueError, match=r"features\.99"):
        show.layer_names(model, x, ["net.features.99"])
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert show.layer_names(flat, x[..., :8, :8], ["2"]) == {"2": "layer 1 of 1"}


# --- Tables ---------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {"mean_P": [0.123, -1234.5, np.nan, -0.001], "n": [5, -10_000, 0, 7],
     "best": [True, False, False, True], "net": ["emoji_vgg", "a<b", None, "vgg16"]},
    index=pd.Index(["grad_cam", "lrp_random", "uniform", "my_map"], name="method"),
)  # fmt: skip


def test_table_cells_are_numbers_and_words_for_readers():
    heads, rows, numeric = tables.table_cells(TABLE)
    assert heads == ["method", "mean P", "n", "best", "net"]
    assert rows[0] == ["Grad-CAM", "0.12", "5", "yes", "VGG (emoji)"]
    assert rows[1] == ["LRP-ε,z⁺, random weights", "−1,234.50", "−10,000", "no", "a<b"]
    assert [row[1] for row in rows[2:]] == ["–", "0.00"]
    assert numeric[:3] == [False, True, True] and not numeric[4]


def test_decimals_can_be_chosen_for_a_column():
    frame = pd.DataFrame({"a": [0.12345], "b": [0.12345]})
    assert tables.table_cells(frame, 1)[1] == [["0.1", "0.1"]]
    assert tables.table_cells(frame, {"b": 4})[1] == [["0.12", "0.1235"]]


def test_all_levels_of_an_index_are_columns():
    frame = pd.DataFrame([[1.0, 2.0]], index=pd.MultiIndex.from_tuples([("emoji_vgg", 128)]))
    frame.columns = pd.MultiIndex.from_product([["P"], ["gradient", "lrp"]])
    heads, rows, _ = tables.table_cells(frame)
    assert heads == ["", "", "P · gradient", "P · LRP-ε,z⁺"]
    assert rows == [["VGG (emoji)", "128", "1.00", "2.00"]]


@pytest.mark.usefixtures("_shell")
def test_a_table_is_html_with_text_beside_it_and_the_same_every_time():
    shown = displayed(lambda: show.table(TABLE, caption="P & more"))
    assert shown == displayed(lambda: show.table(TABLE, caption="P & more"))
    (caption,) = re.findall("<caption[^>]*>(.*?)</caption>", shown.html)
    assert caption == "P &amp; more" and "a&lt;b" in shown.html
    cells = re.findall(r'<td style="text-align:(\w+)[^>]*>(.*?)</td>', shown.html)
    assert ("right", "0.12") in cells and ("left", "Grad-CAM") in cells
    assert len(cells) == TABLE.size + len(TABLE)
    head, *body = shown.text.splitlines()[2:]
    assert shown.text.startswith("P & more\n\n") and len(body) == len(TABLE)
    # Numbers end below the last letter of their head.
    end = head.index("mean P") + len("mean P")
    for line, cell in zip(body, ["0.12", "−1,234.50", "–", "0.00"], strict=True):
        assert line[:end].endswith(cell)


# --- Intervals ------------------------------------------------------------------------------------


def results(networks: list[str], sizes: list[str], methods: list[str]) -> pd.DataFrame:
    rows = [
        (network, size, method, weights, i + 10 * (weights == "trained"))
        for network in networks
        for size in sizes
        for i, method in enumerate(methods)
        for weights in ("trained", "random weights")
    ]
    frame = pd.DataFrame(rows, columns=["network", "size", "method", "weights", "mean"])
    return frame.assign(low=frame["mean"] - 0.5, high=frame["mean"] + 1)


STUDY = ["gradient", "grad_cam", "uniform"]
PANELS = results(["emoji_vgg", "emoji_gap"], ["128 px", "original"], STUDY)


def test_each_network_and_size_has_a_panel_with_dots_and_intervals():
    figure = show.interval_figure(
        PANELS, group="weights", across="network", down="size", lines=["uniform"], x="P"
    )
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["VGG (emoji)", "GAP network (emoji)"]
    for axis in figure.axes:
        trained, random = axis.containers
        assert list(trained.lines[0].get_xdata()) == [11, 10]
        assert list(random.lines[0].get_xdata()) == [1, 0]
        ends = [segment[:, 0].tolist() for segment in trained.lines[2][0].get_segments()]
        assert ends == [[10.5, 12], [9.5, 11]]
        assert trained.lines[0].get_marker() != random.lines[0].get_marker()
        assert [line.get_xdata()[0] for line in axis.lines if line.get_ls() == "--"] == [7]
    # The largest mean is at the top; the control is a line and not a row.
    for axis in figure.axes[::2]:
        assert [label.get_text() for label in axis.get_yticklabels()] == ["Grad-CAM", "gradient"]
    assert {text.get_text() for text in figure.legends[0].texts} == {
        "trained", "random weights", "uniform map"
    }  # fmt: skip
    assert len(figure.legends) == 1 and not any(axis.get_legend() for axis in figure.axes)


def test_axes_of_intervals_end_with_the_data():
    figure = show.interval_figure(PANELS, group="weights", across="network", down="size")
    low, high = figure.axes[0].get_xlim()
    assert -0.5 > low > -1.5 and 13 < high < 14
    positive = PANELS[PANELS.weights == "trained"]
    assert show.interval_figure(positive, across="network", down="size").axes[0].get_xlim()[0] == 0


def test_the_order_of_rows_can_be_chosen():
    one = PANELS[(PANELS.network == "emoji_vgg") & (PANELS["size"] == "original")]
    figure = show.interval_figure(one, group="weights", order=["uniform", "gradient"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["uniform map", "gradient"]


def test_undefined_values_have_no_dot():
    frame = FRAME.assign(mean=[np.nan, 0.4], low=[np.nan, 0.3], high=[np.nan, 0.5])
    figure = show.interval_figure(frame)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "LRP-ε,z⁺"
    figure.canvas.draw()


def test_wrong_data_for_intervals_are_refused():
    with pytest.raises(ValueError, match="no 'median': choose one of method, mean, low, high"):
        show.interval_figure(FRAME, value="median")
    with pytest.raises(ValueError, match="got several for 'gradient' in one panel"):
        show.interval_figure(PANELS, across="network", group="weights")
    many = results(["emoji_vgg"], ["a", "b", "c"], [f"method {n}" for n in range(20)])
    with pytest.raises(ValueError, match=r"room for at most \d rows, got 20"):
        show.interval_figure(many, down="size", group="weights")


@pytest.mark.parametrize(("rows", "sizes"), [(5, 2), (8, 2), (24, 1), (3, 4)])
@pytest.mark.usefixtures("_shell")
def test_rows_of_intervals_have_room_for_their_letters(rows, sizes):
    frame = results(list("vwxyz"), list("abcd")[:sizes], [f"method {n}" for n in range(rows)])
    figure = show.interval_figure(frame, across="network", down="size", group="weights")
    figure.canvas.draw()
    axis = figure.axes[0]
    pitch = axis.transData.transform([(0, 0), (0, 1)])[:, 1]
    assert abs(pitch[0] - pitch[1]) >= 15.9  # in CSS pixels
    assert figure.get_size_inches()[1] <= 6


# --- Curves ---------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """Figures with their alt texts, kept instead of displayed."""
    kept: list[tuple[plt.Figure, str]] = []
    for module in (charts, matrix):
        monkeypatch.setattr(module, "figure", lambda drawn, alt, **_: kept.append((drawn, alt)))
    return kept


LINES = {f"line {k}": (np.arange(1, 41), np.arange(1, 41) ** (k + 1.0)) for k in range(7)}


def test_curves_draw_the_values_given(shown):
    show.curves({"left": LINES, "right": {"one": ([0, 1], [3, 5])}}, alt="Two", x="step", y="loss")
    ((figure, alt),) = shown
    assert alt == "Two"
    left, right = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["left", "right"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["step", "step"]
    assert left.get_ylabel() == "loss"
    for line, (across, up) in zip(left.lines, LINES.values(), strict=True):
        assert list(line.get_xdata()) == list(across)
        assert list(line.get_ydata()) == list(up)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*LINES, "one"]
    assert left.get_legend() is right.get_legend() is None


def test_lines_can_be_told_apart_without_colour(shown):
    show.curves({"": LINES}, alt="Seven lines")
    lines = shown[0][0].axes[0].lines
    assert len({line.get_color() for line in lines}) == len(lines)
    assert len({line.get_marker() for line in lines}) == len(lines)
    # Matplotlib has no public attribute for the dash pattern as it is drawn.
    assert len({str(line._dash_pattern) for line in lines[:6]}) == 6
    marked = [tuple(line.get_markevery()) for line in lines]
    assert all(5 <= len(positions) <= 10 for positions in marked)
    # The markers of lines that coincide are at different positions.
    assert len(set(marked)) > 4


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_curves_have_the_chosen_scales(shown, log):
    show.curves({"": LINES}, alt="Lines", log=log)
    axis = shown[0][0].axes[0]
    assert axis.get_xscale() == ("log" if "x" in log else "linear")
    assert axis.get_yscale() == ("log" if "y" in log else "linear")


@pytest.mark.parametrize("log", ["", "x"])
def test_markers_are_spread_over_the_line(shown, log):
    steps = np.arange(1, 3001)
    show.curves({"": {"a": (steps, steps), "b": (steps, steps)}}, alt="Lines", log=log)
    for line in shown[0][0].axes[0].lines:
        positions = steps[line.get_markevery()]
        gaps = np.diff(np.log(positions) if log else positions)
        assert len(positions) >= 6
        assert gaps.max() < 2.5 * np.median(gaps)


def test_up_to_26_points_all_have_a_mark(shown):
    steps = np.arange(26)
    show.curves({"": {"a": (steps, steps), "b": (steps, steps)}}, alt="Lines")
    assert all(list(line.get_markevery()) == list(steps) for line in shown[0][0].axes[0].lines)


def test_a_label_has_the_same_look_in_all_axes(shown):
    first, second = ([0, 1], [1, 2]), ([0, 1], [2, 1])
    show.curves({"x": {"a": first, "b": second}, "y": {"b": second}}, alt="Lines")
    left, right = shown[0][0].axes
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()
    assert len(shown[0][0].legends) == 1


def test_axes_end_with_the_data(shown):
    show.curves({"": {"emoji_vgg": ([2, 10], [0, 1])}}, alt="A line")
    low, high = shown[0][0].axes[0].get_xlim()
    assert 1.7 < low <= 2 and 10 <= high < 10.3
    assert not shown[0][0].legends  # one line needs no name


def test_curves_pass_limits_on(shown):
    show.curves({"a": LINES, "b": LINES}, alt="Lines", xlim=(3, 8), ylim=(-1, 2))
    for axis in shown[0][0].axes:
        assert (axis.get_xlim(), axis.get_ylim()) == ((3, 8), (-1, 2))


@pytest.mark.parametrize("step", [1, 1.25])
def test_whole_numbers_get_whole_ticks(shown, step):
    across = step * np.arange(3)
    show.curves({"": {"a": (across, across)}}, alt="A line")
    ticks = shown[0][0].axes[0].get_xticks()
    assert (np.mod(ticks, 1) == 0).all() == (step == 1)


# --- Matrices -------------------------------------------------------------------------------------

SIGNED = np.array([[1.0, -2.0, np.nan], [0.25, 1234.0, 0.0]])


def images(figure):
    return [axis.get_images()[0] for axis in figure.axes]


def test_matrices_write_every_number_into_its_cell(shown):
    show.matrices({"signed": SIGNED, "plain": np.eye(2)}, alt="Two matrices")
    ((figure, alt),) = shown
    assert alt == "Two matrices"
    assert [axis.get_title() for axis in figure.axes] == ["signed", "plain"]
    written = {(text.get_position()): text.get_text() for text in figure.axes[0].texts}
    assert written == {
        (0, 0): "1", (1, 0): "−2", (0, 1): "0.25", (1, 1): "1234", (2, 1): "0"
    }  # fmt: skip
    assert len(figure.axes[1].texts) == 4


def test_a_cell_without_a_number_is_hatched_and_white(shown):
    show.matrices({"signed": SIGNED}, alt="A matrix")
    (axis,) = shown[0][0].axes
    hatched = [patch.get_xy() for patch in axis.patches if patch.get_hatch()]
    assert hatched == [(1.5, -0.5)]
    (image,) = images(shown[0][0])
    assert image.cmap(image.norm(image.get_array()))[0, 2, :3] == pytest.approx(WHITE)


def test_signed_matrices_have_pale_colours_around_zero(shown):
    show.matrices({"signed": np.array([[-3.0, 0, 3]]), "plain": np.array([[0, 1, 2.0]])}, alt="Two")
    signed, plain = (
        image.cmap(image.norm(image.get_array()))[0, :, :3] for image in images(shown[0][0])
    )
    assert signed[1] == pytest.approx(WHITE, abs=0.05)
    assert signed[0, 2] > signed[0, 0]  # blue below
    assert signed[2, 0] > signed[2, 2]  # red above
    assert plain[0] == pytest.approx(WHITE, abs=0.1)
    assert brightness(plain)[0] > brightness(plain)[1] > brightness(plain)[2]
    assert min(brightness(signed).min(), brightness(plain).min()) > 0.4  # black on it can be read


def test_limits_give_the_same_number_the_same_colour(shown):
    parts = {"a": np.array([[1.0, 2.0]]), "b": np.array([[1.0, 8.0]]), "c": np.array([[1.0, -4]])}
    show.matrices(parts, alt="Three", limits=dict.fromkeys(parts, (-4, 8)))
    first = [image.cmap(image.norm(1.0)) for image in images(shown[0][0])]
    assert first[0] == first[1] == first[2]
    show.matrices(parts, alt="Three")
    alone = [image.cmap(image.norm(1.0)) for image in images(shown[1][0])]
    assert len(set(alone)) == 3


def test_frames_are_drawn_where_they_should_be(shown):
    frames = {"a": (1, 3, 0, 2)}
    show.matrices({"a": np.ones((4, 4)), "b": np.ones((4, 4))}, alt="Two", frames=frames)
    thick = [
        [(p.get_xy(), p.get_width(), p.get_height()) for p in axis.patches if p.get_linewidth() > 2]
        for axis in shown[0][0].axes
    ]
    assert thick == [[((-0.5, 0.5), 2, 2)], []]


def test_all_cells_have_the_same_size(shown):
    # 2×2 is narrower than its title may be, so its axis is wider than its cells
    show.matrices({"values": np.eye(2), "large": np.eye(6), "flat": np.ones((1, 4))}, alt="Three")
    (figure, _) = shown[0]
    figure.canvas.draw()
    sides = []
    for axis in figure.axes:
        (x0, y0), (x1, y1) = axis.transData.transform([(0, 0), (1, 1)])
        sides += [x1 - x0, y0 - y1]
    assert max(sides) < 1.02 * min(sides)
    assert min(sides) > 0.35 * figure.dpi  # inches: a number of three digits has room


def test_data_frames_have_the_names_of_rows_and_columns():
    table = pd.DataFrame([[0.5, -0.25], [1, np.nan]], index=["first", "second"], columns=["a", "b"])
    figure = show.matrix_figure({"left": table, "right": 2 * table})
    figure.canvas.draw()
    left, right = figure.axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["a", "b"]
    assert [label.get_text() for label in right.get_xticklabels()] == ["a", "b"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["first", "second"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["", ""]
    assert [text.get_text() for text in left.texts] == ["0.50", "−0.25", "1.00"]
    other = show.matrix_figure({"left": table, "right": table.T})
    assert [label.get_text() for label in other.axes[1].get_yticklabels()] == ["a", "b"]
