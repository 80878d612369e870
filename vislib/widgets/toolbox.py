"""Widget of notebook 05: the Deep Visualization Toolbox.

Pick a picture or bring one, pick a net, a layer and a unit, and see the unit's map, the patches of
other pictures that excite it most, the parts of them that do, and an image made to excite it.

Yosinski, Clune, Nguyen, Fuchs & Lipson 2015, "Understanding Neural Networks Through Deep
Visualization".
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vislib import nets, show
from vislib.core import frozen, record
from vislib.data import images
from vislib.data.coco import Coco
from vislib.errors import InputError
from vislib.explain.gradients import deconvnet_rule, guided_rule
from vislib.features import (
    TopPatches,
    filter_pictures,
    patch_views,
    receptive_field,
    top_patches,
    unit_view,
)
from vislib.paths import DATA
from vislib.synthesis import ascend, channel, fourier, jitter, noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipywidgets import VBox

SCENES = 100  # of the shipped split, out of which the top patches come
PATCHES = 9
WANTED_SIDE = 64


@cache
def net(name: str) -> nets.Classifier:
    """The net, loaded once."""
    return nets.load(name)


@cache
def layers(name: str) -> dict[str, int]:
    """Layers whose units can be looked at, from the picture upwards, with their numbers of units.

    They are the activations that give maps and whose units have a receptive field.
    """
    model = net(name)
    found = [part for part, module in model.named_modules() if isinstance(module, nn.ReLU)]
    x = torch.zeros(1, 3, model.input_size, model.input_size)
    with frozen(model), record(model, found) as outputs, torch.no_grad():
        model(x)
    return {
        part: outputs[part].shape[1]
        for part in outputs
        if outputs[part].ndim == 4 and _has_field(model, part)
    }


def _has_field(model: nets.Classifier, layer: str) -> bool:
    try:
        receptive_field(model, layer, picture=(model.input_size, model.input_size))
    except ValueError:
        return False
    return True


def fitted(image: Tensor, side: int) -> Tensor:
    """Any picture as the square that the net was made for: shorter side to `side`, middle cut."""
    return images.centre_crop(images.resize(image, side), side).clamp(0, 1)


@lru_cache(maxsize=2)
def scenes(side: int, count: int = SCENES) -> tuple[Tensor, ...]:
    """The first scenes of the shipped split, 3×side×side each."""
    coco = Coco(DATA / "pocket_coco", "val")
    numbers = coco.image_ids()
    return tuple(fitted(images.to_tensor(coco.image(i)), side) for i in numbers[:count])


@lru_cache(maxsize=2)
def patches(name: str, layer: str) -> TopPatches:
    """The top patches of all units of a layer; the last two layers stay in memory."""
    model = net(name)
    return top_patches(model, layer, scenes(model.input_size), k=PATCHES)


@lru_cache(maxsize=64)
def wanted(name: str, layer: str, unit: int) -> Tensor:
    """An image that the unit wants to see, 3×64×64: the mean of its map is climbed (notebook 16).

    A unit that is silent has no slope to climb. So its ReLU leaks a little meanwhile.
    """
    leaky = copy.deepcopy(net(name))
    leaky.set_submodule(layer, nn.LeakyReLU(0.1))
    start = 0.5 + 0.1 * (noise(1, 3, WANTED_SIDE, WANTED_SIDE) - 0.5)
    climb = partial(torch.optim.Adam, lr=0.02)
    aim = channel(layer, unit)
    found = ascend(leaky, aim, fourier(start), steps=40, optimiser=climb, transforms=[jitter(4)])
    return found.image[0]


@dataclass(frozen=True)
class Look:
    """What the toolbox shows of one unit.

    Attributes:
        image: the picture as the net got it, 3×H×W.
        activation: the unit's map, h×w.
        box: what the unit sees where its map is largest: top, bottom, left, right.
        guided: guided backprop from there, cut to the box.
        deconvnet: the deconvnet from there, cut to the box.
        crops: the unit's top patches, k×3×h×w.
        views: guided backprop in each of them, k×3×h×w.
        wanted: an image that the unit wants to see, 3×64×64.
    """

    image: Tensor
    activation: Tensor
    box: tuple[int, int, int, int]
    guided: Tensor
    deconvnet: Tensor
    crops: Tensor
    views: Tensor
    wanted: Tensor


def look(image: Tensor, name: str, layer: str, unit: int) -> Look:
    """All that the toolbox shows of a unit, for any picture 3×H×W in [0, 1]."""
    model = net(name)
    image = fitted(image, model.input_size)
    with frozen(model), record(model, [layer]) as outputs, torch.no_grad():
        model(image[None])
    activation = outputs[layer][0, unit]
    best = divmod(int(activation.argmax()), activation.shape[1])
    picture = (image.shape[1], image.shape[2])
    found = patches(name, layer)
    box = top, bottom, left, right = receptive_field(model, layer, picture=picture).box(
        *best, picture
    )
    guided, deconvnet = (
        unit_view(model, image[None], layer, unit, position=best, rule=rule)[0]
        for rule in (guided_rule, deconvnet_rule)
    )
    return Look(
        image,
        activation,
        box,
        guided[:, top:bottom, left:right],
        deconvnet[:, top:bottom, left:right],
        found.crops(unit),
        patch_views(model, layer, found, unit, scenes(model.input_size)),
        wanted(name, layer, unit),
    )


def draw_look(image: Tensor, name: str, layer: str, unit: int) -> None:
    """One figure: picture, map, top patches and made image above, what excites the unit below."""
    seen = look(image, name, layer, unit)
    top, bottom, left, right = seen.box
    frame = torch.zeros(seen.image.shape[1:], dtype=torch.bool)
    frame[top:bottom, left:right] = True
    largest = float(seen.activation.max())
    show.panels(
        {
            "picture, best place": show.outline(seen.image, frame.numpy(), width=3),
            f"map of unit {unit}, up to {largest:.1f}": show.heat(seen.activation, percentile=100),
            "its top patches": show.mosaic(seen.crops, columns=3, gap=4),
            "made to excite it": seen.wanted,
            "frame, guided": filter_pictures(seen.guided[None], share=0.99)[0],
            "frame, deconvnet": filter_pictures(seen.deconvnet[None], share=0.99)[0],
            "top patches, guided": show.mosaic(
                filter_pictures(seen.views, share=0.99), columns=3, gap=4
            ),
        },
        columns=4,
        size=2.9,
        alt=f"Unit {unit} of layer {layer} of {name}: the picture with a frame where the unit is "
        f"strongest ({largest:.2f}), its map, its guided and deconvnet views, its "
        f"{len(seen.crops)} top patches with their guided views, and an image made to excite it.",
    )


def uploaded(files: Sequence[Mapping[str, Any]]) -> tuple[str, Tensor]:
    """Name and picture (3×H×W in [0, 1]) of the last file that was uploaded.

    Raises:
        InputError: it is no picture, damaged, or too large; the message says so.
    """
    name, content = str(files[-1]["name"]), bytes(files[-1]["content"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            return name, images.load_image(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def toolbox(first: str = "pocket_vgg") -> VBox:
    """Controls for picture, own picture, net, layer and unit above the figure of `draw_look`."""
    from html import escape

    from ipywidgets import HTML, Dropdown, FileUpload, HBox, IntText, VBox, interactive_output

    from vislib.widgets import whole

    gallery = Coco(DATA / "pocket_coco", "gallery")
    numbers = gallery.image_ids()
    pictures = {f"scene {i}": images.to_tensor(gallery.image(i)) for i in numbers}
    names = list(dict.fromkeys([first, *nets.POCKET_NETS]))

    picture = Dropdown(options=list(pictures), value="scene 1008", description="picture")
    upload = FileUpload(accept="image/*", description="own picture")
    net_ = Dropdown(options=names, description="net")
    layer = Dropdown(description="layer")
    unit = whole("unit", 0, 0, 0)
    unit.continuous_update = False
    message = HTML()
    drawn = IntText(0)  # counts drawings; never shown
    waiting = [False]

    def redraw(change: object = None) -> None:
        if not waiting[0]:
            drawn.value += 1

    @contextmanager
    def one_drawing() -> Iterator[None]:
        """Several controls change, and the picture is drawn once, when all of them fit."""
        outer, waiting[0] = waiting[0], True
        try:
            yield
        finally:
            waiting[0] = outer
        redraw()

    def choose_layer(change: object = None) -> None:
        with one_drawing():
            unit.max = layers(net_.value)[layer.value] - 1

    def choose_net(change: object = None) -> None:
        with one_drawing():
            options = list(layers(net_.value))
            layer.options = options
            layer.value = options[len(options) // 2]
            choose_layer()

    def take(change: object = None) -> None:
        if not upload.value:
            return
        try:
            name, image = uploaded(upload.value)
        except InputError as error:
            message.value = f"<b>Not shown:</b> {escape(str(error))}"
            return
        message.value = ""
        pictures[name] = image
        with one_drawing():
            picture.options = list(pictures)
            picture.value = name

    waiting[0] = True
    choose_net()
    waiting[0] = False
    picture.observe(redraw, "value")
    upload.observe(take, "value")
    net_.observe(choose_net, "value")
    layer.observe(choose_layer, "value")
    unit.observe(redraw, "value")

    def draw(drawn: int) -> None:
        draw_look(pictures[picture.value], net_.value, layer.value, unit.value)

    figure = interactive_output(draw, {"drawn": drawn})
    return VBox([HBox([picture, upload]), HBox([net_, layer]), unit, message, figure])
