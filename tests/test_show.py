"""Figures: colours of known values, shapes, and alt text that really reaches the notebook."""

import io
from base64 import b64decode

import matplotlib
import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt
from PIL import Image
from traitlets.config import Config

from vislib import show

WHITE, BLACK = np.ones(3), np.zeros(3)


@pytest.fixture(autouse=True)
def _no_open_figures():
    """Close the figures of other files' tests, and leave none to them."""
    plt.close("all")
    yield
    plt.close("all")


def brightness(rgb: np.ndarray) -> np.ndarray:
    return rgb @ [0.299, 0.587, 0.114]


# --- heat -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 9), (1, 7, 9), (3, 7, 9)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_heat_has_the_size_of_the_map(shape, dtype):
    rgb = show.heat(torch.randn(shape).to(dtype))
    assert rgb.shape == (7, 9, 3)
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_signed_maps_diverge_around_white():
    rgb = show.heat(torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]), percentile=100)[0]
    assert rgb[2] == pytest.approx(WHITE, abs=0.05)
    assert rgb[0, 2] > rgb[0, 0]  # blue below
    assert rgb[4, 0] > rgb[4, 2]  # red above
    dark = brightness(rgb)  # the same distance from zero is about as dark on both sides
    assert dark[0] < dark[1] < dark[2] > dark[3] > dark[4]
    assert dark[0] == pytest.approx(dark[4], abs=0.1)


def test_maps_without_negative_values_go_from_black_upwards():
    rgb = show.heat(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), percentile=100)[0]
    assert rgb[0] == pytest.approx(BLACK, abs=0.05)
    assert (np.diff(brightness(rgb)) > 0.1).all()


def test_a_map_that_is_zero_everywhere_has_the_colour_of_zero():
    rgb = show.heat(torch.zeros(3, 5, 5))
    zero = show.heat(torch.tensor([[0.0, 1.0]]))[0, 0]
    assert (rgb == zero).all()


def test_channels_are_added_up():
    maps = torch.randn(3, 5, 5)
    assert (show.heat(maps) == show.heat(maps.double().sum(dim=0))).all()


def test_a_few_large_values_do_not_leave_the_rest_black():
    maps = torch.linspace(0, 1, 1000).reshape(20, 50)
    calm = show.heat(maps)
    maps[-1, -2:] = 1e6
    assert brightness(show.heat(maps)).mean() > 0.9 * brightness(calm).mean()


def test_a_map_with_one_single_value_is_not_lost():
    # The percentile of |map| is 0 here
    maps = torch.zeros(100, 100)
    maps[3, 4] = 5.0
    rgb = show.heat(maps)
    assert brightness(rgb[3, 4]) > brightness(rgb[0, 0]) + 0.5


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e10])
def test_colours_do_not_depend_on_the_scale(factor):
    maps = torch.randn(3, 8, 8, dtype=torch.float64)
    assert show.heat(maps * factor) == pytest.approx(show.heat(maps), abs=1 / 100)


# --- rgb, overlay, outline ------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
SAME = {
    "PIL": Image.fromarray(PIXELS),
    "tensor": torch.from_numpy(PIXELS).movedim(-1, 0) / 255,
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


@pytest.mark.parametrize("opacity", [0.0, 0.55, 1.0])
@pytest.mark.parametrize("shape", [(1, 6, 8), (3, 6, 8), (1, 2, 3)])
def test_overlay_mixes_the_grey_image_with_the_maps_colours(shape, opacity):
    maps = torch.rand(shape)
    actual = show.overlay(SAME["PIL"], maps, opacity=opacity)
    large = torch.nn.functional.interpolate(maps[None], size=(6, 8), mode="bilinear")[0]
    grey = (PIXELS / 255).mean(axis=2)[..., None]
    expected = (1 - opacity) * grey + opacity * show.heat(large, percentile=100)
    assert actual == pytest.approx(expected, abs=1e-6)


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


# --- in the notebook ------------------------------------------------------------------------------


@pytest.fixture
def _shell(tmp_path, monkeypatch):
    """IPython displays figures only in a shell, as in a notebook; otherwise it prints them."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    yield
    InteractiveShell.clear_instance()


def displayed(action) -> tuple[Image.Image, dict]:
    """The one image that the action shows, and its metadata."""
    with capture_output() as captured:
        action()
    (output,) = captured.outputs
    data, metadata = output._repr_mimebundle_()
    (kind,) = data.keys() & {"image/png", "image/jpeg"}
    image = Image.open(io.BytesIO(b64decode(data[kind])))
    assert f"image/{image.format.lower()}" == kind
    return image, metadata[kind]


@pytest.mark.usefixtures("_shell")
def test_panels_show_every_image_with_alt_text(monkeypatch):
    titles: list[str] = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set_title", lambda self, text, *_, **__: titles.append(text)
    )
    images = dict(zip("abcdefg", [*SAME.values(), *SAME_GREY.values()], strict=False))
    shown, metadata = displayed(lambda: show.panels(images, alt="Seven images", columns=3))
    assert metadata["alt"] == "Seven images"
    assert titles == list("abcdefg")
    assert min(shown.size) > 300
    assert plt.get_fignums() == []  # closed, so that the notebook does not show it again


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_alt_text_is_refused(alt):
    with pytest.raises(ValueError, match="needs alt text"):
        show.panels({"a": SAME["PIL"]}, alt=alt)


def test_panels_cannot_be_called_without_alt_text():
    with pytest.raises(TypeError, match="alt"):
        show.panels({"a": SAME["PIL"]})  # type: ignore[call-arg]


@pytest.mark.usefixtures("_shell")
def test_a_displayed_figure_is_the_same_every_time():
    def once():
        figure, axis = plt.subplots()
        axis.plot([1, 2, 3])
        show.display(figure, "A rising line")

    (first, metadata), (second, _) = displayed(once), displayed(once)
    assert metadata["alt"] == "A rising line"
    assert first.tobytes() == second.tobytes()
    assert first.format == "PNG"
    assert "Software" not in first.info


@pytest.mark.usefixtures("_shell")
def test_photographs_are_stored_as_jpeg_and_drawings_as_png():
    cat = skimage.data.chelsea()
    photo, metadata = displayed(lambda: show.panels({"cat": cat}, alt="A cat", size=5))
    drawing, _ = displayed(lambda: show.panels({"grey": torch.full((3, 9, 9), 0.5)}, alt="Grey"))
    assert photo.format == "JPEG" and metadata["alt"] == "A cat"
    assert drawing.format == "PNG"


def test_the_style_lasts_for_the_block_only():
    before = matplotlib.rcParams["font.size"]
    with show.style():
        assert matplotlib.rcParams["font.size"] > before
    assert matplotlib.rcParams["font.size"] == before


# --- coarse ---------------------------------------------------------------------------------------


def test_coarse_keeps_the_strongest_signed_value_of_each_square():
    maps = torch.randn(3, 10, 7)
    actual = show.coarse(maps, 4)
    assert actual.shape == (1, 3, 2)
    total = maps.sum(dim=0)
    for i in range(3):
        for j in range(2):
            square = total[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
            assert actual[0, i, j] == square[square.abs().argmax()]


# --- curves ---------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """Figures with their alt texts, kept instead of displayed."""
    kept: list[tuple[plt.Figure, str]] = []
    monkeypatch.setattr(show, "display", lambda figure, alt: kept.append((figure, alt)))
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
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(LINES)
    assert right.get_legend() is None  # one line needs no name


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


def test_curves_pass_limits_on(shown):
    show.curves({"a": LINES, "b": LINES}, alt="Lines", xlim=(3, 8), ylim=(-1, 2))
    for axis in shown[0][0].axes:
        assert (axis.get_xlim(), axis.get_ylim()) == ((3, 8), (-1, 2))


@pytest.mark.parametrize("step", [1, 1.25])
def test_whole_numbers_get_whole_ticks(shown, step):
    across = step * np.arange(3)
    show.curves({"": {"a": (across, across)}}, alt="A line", size=(14, 4))
    ticks = shown[0][0].axes[0].get_xticks()
    assert (np.mod(ticks, 1) == 0).all() == (step == 1)


# --- matrices -------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("draw", [show.curves, show.matrices])
def test_curves_and_matrices_need_alt_text(draw):
    with pytest.raises(TypeError, match="alt"):
        draw({})
    content = {"a": {"b": ([1], [1])}} if draw is show.curves else {"a": np.eye(2)}
    with pytest.raises(ValueError, match="needs alt text"):
        draw(content, alt=" ")


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
