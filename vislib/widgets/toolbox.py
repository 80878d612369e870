"""Interactive figure of notebook 05: the Deep Visualization Toolbox.

For a chosen image (which may be uploaded), network, layer and unit, the toolbox shows the unit's
feature map, the patches of other images that excite the unit most, the pixels of these patches that
excite it, and an image that was synthesised to excite it.

Yosinski, Clune, Nguyen, Fuchs & Lipson 2015, "Understanding Neural Networks Through Deep
Visualization".
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from html import escape
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
    filter_images,
    patch_views,
    receptive_field,
    top_patches,
    unit_view,
)
from vislib.paths import DATA
from vislib.synthesis import ascend, channel, fourier, jitter, noise
from vislib.widgets import int_slider

if TYPE_CHECKING:
    from ipywidgets import VBox

# Number of scenes of the shipped split that are searched for top patches.
SCENES = 100
PATCHES = 9
# Height and width of the synthesised image.
PREFERRED_SIDE = 64


# --- What is computed once ------------------------------------------------------------------------


@cache
def net(name: str) -> nets.Classifier:
    """Load a network by its name, only once."""
    return nets.load(name)


@cache
def layers(name: str) -> dict[str, int]:
    """Number of units of each layer that the toolbox offers, from early to late.

    These are the ReLUs that give feature maps and whose units have a receptive field.

    Args:
        name: name of the network, as in `vislib.nets.load`.

    >>> list(layers("emoji_vgg").items())[:2]
    [('net.features.1', 16), ('net.features.4', 32)]
    """
    model = net(name)
    relus = [part for part, module in model.named_modules() if isinstance(module, nn.ReLU)]
    x = torch.zeros(1, 3, model.input_size, model.input_size)
    with frozen(model), record(model, relus) as outputs, torch.no_grad():
        model(x)
    return {
        layer: output.shape[1]
        for layer, output in outputs.items()
        if output.ndim == 4 and _has_field(model, layer)
    }


def _has_field(model: nets.Classifier, layer: str) -> bool:
    try:
        receptive_field(model, layer, image_size=(model.input_size, model.input_size))
    except ValueError:
        return False
    return True


def fitted(image: Tensor, side: int) -> Tensor:
    """Image as a square, 3×side×side: the shorter side resized, the middle cut out.

    Args:
        image: 3×H×W in [0, 1].
        side: height and width of the result.

    >>> fitted(torch.rand(3, 90, 200), 64).shape
    torch.Size([3, 64, 64])
    """
    return images.centre_crop(images.resize(image, side), side).clamp(0, 1)


@lru_cache(maxsize=2)
def scenes(side: int, count: int = SCENES) -> tuple[Tensor, ...]:
    """First scenes of the shipped split, 3×side×side each.

    Args:
        side: height and width of each scene, as in `fitted`.
        count: number of scenes.
    """
    coco = Coco(DATA / "emoji_coco", "val")
    numbers = coco.image_ids()
    return tuple(fitted(images.to_tensor(coco.image(i)), side) for i in numbers[:count])


@lru_cache(maxsize=2)
def patches(name: str, layer: str) -> TopPatches:
    """Top patches of all units of a layer; the results for the last two layers stay in memory.

    Args:
        name: name of the network.
        layer: one of its `layers`.
    """
    model = net(name)
    return top_patches(model, layer, scenes(model.input_size), k=PATCHES)


@lru_cache(maxsize=64)
def preferred_input(name: str, layer: str, unit: int) -> Tensor:
    """Image that excites a unit, by gradient ascent on the mean of its feature map, 3×64×64.

    The gradient of a silent unit is zero, so a leaky ReLU replaces its ReLU during the ascent.

    Args:
        name: name of the network.
        layer: dotted name of a ReLU.
        unit: channel.
    """
    leaky = copy.deepcopy(net(name))
    leaky.set_submodule(layer, nn.LeakyReLU(0.1))
    start = 0.5 + 0.1 * (noise(1, 3, PREFERRED_SIDE, PREFERRED_SIDE) - 0.5)
    result = ascend(
        leaky,
        channel(layer, unit),
        fourier(start),
        steps=40,
        optimiser=partial(torch.optim.Adam, lr=0.02),
        transforms=[jitter(4)],
    )
    return result.image[0]


# --- One unit -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Everything that the toolbox shows about one unit.

    Attributes:
        image: image that entered the network, 3×H×W.
        activation: feature map of the unit, h×w.
        box: receptive field at the largest activation: top, bottom, left, right.
        guided: guided backprop from the largest activation, cut to the box.
        deconvnet: deconvnet from the largest activation, cut to the box.
        crops: top patches of the unit, k×3×h×w.
        views: guided backprop in each of the top patches, k×3×h×w.
        preferred_input: image that excites the unit, 3×64×64.
    """

    image: Tensor
    activation: Tensor
    box: tuple[int, int, int, int]
    guided: Tensor
    deconvnet: Tensor
    crops: Tensor
    views: Tensor
    preferred_input: Tensor


def look(image: Tensor, name: str, layer: str, unit: int) -> Look:
    """`Look` with everything that the toolbox shows about one unit.

    Args:
        image: any image, 3×H×W in [0, 1].
        name: name of the network.
        layer: one of its `layers`.
        unit: channel.
    """
    model = net(name)
    image = fitted(image, model.input_size)
    with frozen(model), record(model, [layer]) as outputs, torch.no_grad():
        model(image[None])
    activation = outputs[layer][0, unit]
    best = divmod(int(activation.argmax()), activation.shape[1])
    size = (image.shape[1], image.shape[2])
    field = receptive_field(model, layer, image_size=size)
    box = top, bottom, left, right = field.box(*best, size)
    guided, deconvnet = (
        unit_view(model, image[None], layer, unit, position=best, rule=rule)[0]
        for rule in (guided_rule, deconvnet_rule)
    )
    best_patches = patches(name, layer)
    return Look(
        image,
        activation,
        box,
        guided[:, top:bottom, left:right],
        deconvnet[:, top:bottom, left:right],
        best_patches.crops(unit),
        patch_views(model, layer, best_patches, unit, scenes(model.input_size)),
        preferred_input(name, layer, unit),
    )


def draw_look(image: Tensor, name: str, layer: str, unit: int) -> None:
    """Draw everything about one unit in one figure.

    The upper row shows the image, the feature map, the top patches and the synthesised image; the
    lower row shows the views.

    Args:
        image, name, layer, unit: as in `look`.
    """
    shown = look(image, name, layer, unit)
    top, bottom, left, right = shown.box
    frame = torch.zeros(shown.image.shape[1:], dtype=torch.bool)
    frame[top:bottom, left:right] = True
    largest = float(shown.activation.max())
    views = filter_images(shown.views, quantile=0.99)
    show.panels(
        {
            "image, best position": show.outline(shown.image, frame.numpy(), width=3),
            f"map of unit {unit}, up to {largest:.1f}": show.fine(shown.activation, percentile=100),
            "its top patches": show.mosaic(shown.crops, columns=3, gap=4),
            "made to excite it": shown.preferred_input,
            "frame, guided": filter_images(shown.guided[None], quantile=0.99)[0],
            "frame, deconvnet": filter_images(shown.deconvnet[None], quantile=0.99)[0],
            "top patches, guided": show.mosaic(views, columns=3, gap=4),
        },
        columns=4,
        alt=f"Unit {unit} of layer {layer} of {name}: the image with a frame where the unit is "
        f"strongest ({largest:.2f}), its map, its guided and deconvnet views, its "
        f"{len(shown.crops)} top patches with their guided views, and an image made to excite it.",
    )


# --- Controls -------------------------------------------------------------------------------------


def uploaded(files: Sequence[Mapping[str, Any]]) -> tuple[str, Tensor]:
    """Name and image (3×H×W in [0, 1]) of the last uploaded file.

    Args:
        files: value of a `FileUpload`, with the ``name`` and the ``content`` of each file.

    Raises:
        InputError: the file is not an image, damaged, or too large.
    """
    name, content = str(files[-1]["name"]), bytes(files[-1]["content"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            return name, images.load_image(path)
        except InputError as error:
            # The reader knows the name of the file, not that of its temporary copy.
            raise InputError(str(error).replace(str(path), name)) from None


class Toolbox:
    """Controls above the figure of `draw_look`, which each change of a control draws again.

    Attributes:
        box: controls and figure, for display.
    """

    def __init__(self, first: str) -> None:
        from ipywidgets import HTML, Dropdown, FileUpload, HBox, Output, VBox

        gallery = Coco(DATA / "emoji_coco", "gallery")
        self.images = {
            f"scene {i}": images.to_tensor(gallery.image(i)) for i in gallery.image_ids()
        }
        names = list(dict.fromkeys([first, *nets.EMOJI_NETS]))
        self.image = Dropdown(options=list(self.images), value="scene 1008", description="image")
        self.file = FileUpload(accept="image/*", description="own image")
        self.net = Dropdown(options=names, description="net")
        self.layer = Dropdown(description="layer")
        self.unit = int_slider("unit", 0, 0, 0)
        # A drawing takes about a second, so it waits until the slider is released.
        self.unit.continuous_update = False
        self.message = HTML()
        self.figure = Output()
        self.box = VBox(
            [
                HBox([self.image, self.file]),
                HBox([self.net, self.layer]),
                self.unit,
                self.message,
                self.figure,
            ]
        )
        self._running = False
        for control in (self.image, self.file, self.net, self.layer, self.unit):
            control.observe(self.run, "value")
        self.run({"owner": self.net})

    def run(self, change: Mapping[str, Any]) -> None:
        """Adapt the other controls to a change of one control, and draw once.

        Args:
            change: change, whose entry ``owner`` is the control that was changed.
        """
        # Changes that this method itself makes do not need another drawing.
        if self._running:
            return
        self._running = True
        try:
            if change["owner"] is self.file and not self.upload():
                return
            if change["owner"] is self.net:
                options = list(layers(self.net.value))
                self.layer.options = options
                self.layer.value = options[len(options) // 2]
            self.unit.max = layers(self.net.value)[self.layer.value] - 1
        finally:
            self._running = False
        self.draw()

    def upload(self) -> bool:
        """Choose the uploaded image, or explain the error; return whether the image was chosen."""
        if not self.file.value:
            return False
        try:
            name, image = uploaded(self.file.value)
        except InputError as error:
            self.message.value = f"<b>Not shown:</b> {escape(str(error))}"
            return False
        self.message.value = ""
        self.images[name] = image
        self.image.options = list(self.images)
        self.image.value = name
        return True

    def draw(self) -> None:
        """Draw the chosen unit in place of the last drawing."""
        from IPython.display import clear_output

        with self.figure:
            clear_output(wait=True)
            image = self.images[self.image.value]
            draw_look(image, self.net.value, self.layer.value, self.unit.value)


def toolbox(first: str = "emoji_vgg") -> VBox:
    """Controls for image, uploaded image, network, layer and unit, above the figure.

    Args:
        first: name of the network that is shown first.
    """
    return Toolbox(first).box
