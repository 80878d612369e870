"""Registry of the explanation methods, for the benchmark, the reports and the course.

A new method is one function, one entry in `METHODS` and one test. No other module lists methods.

CAM is not part of the benchmark, because it exists only for networks that end in global pooling and
one linear layer. After global average pooling, Grad-CAM is its positive part up to a factor. The
controls are entries, too: they have the signature of a method but use only the image.

P squares a map, so a few large values decide. Does a method lead because it finds the object, or
because its map is sharper? `MAP_CONTROLS` are made from the map of a method without new information
about the object: the map squared, and its product with another map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vislib.core import Operation, Rule, Target, split_target
from vislib.explain import averaging, cam, gradients
from vislib.explain.fullgrad import fullgrad
from vislib.explain.lrp import lrp
from vislib.explain.occlusion import occlusion
from vislib.explain.shapley import shapley
from vislib.explain.taylor import NoRootPointError, simple_taylor
from vislib.features import deconvnet
from vislib.measure import energy

RANDOM = "_random"  # suffix of a method's name if the network has random weights

# Kinds of question: How does the score change with a small change of the image? Which pattern does
# the network see? Which positions support the class? How does the score change with a large change
# of the image? What does each part contribute to the score?
KINDS = ("small change", "pattern", "position", "large change", "contribution", "control")


@dataclass(frozen=True)
class Method:
    """Explanation method with its settings in the benchmark and its notebook in the course.

    Attributes:
        name: key in `METHODS`.
        title: name for tables and figures.
        notebook: number of the notebook that teaches the method.
        kind: kind of question, one of `KINDS`.
        question: question that an attribution map of this method answers.
        function: ``function(model, x, target, **options)``, also with ``layer=`` if `at_layer`.
        options: settings of the function in the benchmark. Stored results with other settings are
            not reused.
        at_layer: whether the method uses the feature maps of a layer, the same layer for all.
        rule: backward rule of the activations, if the map is a backward pass to the pixels.
        formula: formula of the map from feature maps and their gradients, if the map is a class
            activation map.
        times_input: whether the map is multiplied by the image.
        control: whether the map depends on the image only, not on the network and the class.
        note: reason why the method is not part of the benchmark; empty if it is.
    """

    name: str
    title: str
    notebook: str
    kind: str
    question: str
    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    at_layer: bool = False
    rule: Rule | None = None
    formula: Callable[[Tensor, Tensor], Tensor] | None = None
    times_input: bool = False
    control: bool = False
    note: str = ""

    def __call__(self, model: nn.Module, x: Tensor, target: Target, layer: str) -> Tensor:
        """Attribution maps of the images, raw and signed, at the size that the method gives."""
        where = {"layer": layer} if self.at_layer else {}
        return self.function(model, x, target, **where, **self.options)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.function.__name__}({options})"

    @property
    def shares_pass(self) -> bool:
        """Whether one forward pass serves this method together with others.

        The map is then a product: the class activation map by `formula`, the backward pass by
        `rule`, and the image if `times_input`.
        """
        return self.rule is not None or self.formula is not None


@dataclass(frozen=True)
class MapControl:
    """Control that is made from the map of a method.

    Attributes:
        name: key in `MAP_CONTROLS`.
        title: name for tables and figures.
        of: name of the method.
        change: function from the maps of the method, N×C×H×W at the size of the images, and the
            images, N×3×H×W in [0, 1], to the maps of the control.
    """

    name: str
    title: str
    of: str
    change: Callable[[Tensor, Tensor], Tensor]


# --- Functions with settings that depend on the image ---------------------------------------------


def occlusion_by_fraction(
    model: nn.Module, x: Tensor, target: Target, *, square: int, step: int
) -> Tensor:
    """`occlusion` with a grey square whose size is a fraction of the image: N×1×H×W, signed.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        square: side of the square, as 1/`square` of the shorter side of the image.
        step: stride, as 1/`step` of the shorter side of the image.
    """
    side = min(x.shape[-2:])
    size, stride = max(1, side // square), max(1, side // step)
    return occlusion(model, x, target, size=size, stride=stride)


def taylor_or_zero(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """`simple_taylor`, with zeros for an image without a root point: N×C×H×W, signed.

    A map of zeros has no energy, so its P is undefined, and the benchmark counts it as undefined.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
    """
    maps = torch.zeros_like(x)
    for i, one in enumerate(split_target(target, len(x))):
        with suppress(NoRootPointError):
            maps[i] = simple_taylor(model, x[i : i + 1], one)[0]
    return maps


def unit_deconvnet(model: nn.Module, x: Tensor, target: Target, *, layer: str) -> Tensor:
    """Deconvnet reconstruction from the most active unit of each image: N×C×H×W, signed.

    Args:
        model, x: as in `vislib.explain.gradients`.
        target: not used, so that all methods have the same signature.
        layer: dotted name of the unit's layer.

    Raises:
        ValueError: the modules up to the layer do not form a chain, see `deconvnet.chain`.
    """
    patterns = []
    for image in x[:, None]:
        maps, steps = deconvnet.forward(model, image, layer)
        unit = int(maps[0].amax((1, 2)).argmax())
        patterns.append(deconvnet.project(deconvnet.only_unit(maps, unit), steps))
    return torch.cat(patterns)


def _control(draw: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Function with the signature of a method from a function of one image, C×H×W to 1×H×W."""

    def function(model: nn.Module | None, x: Tensor, target: Target) -> Tensor:
        return torch.stack([draw(image) for image in x]).to(x.device)

    return function


# --- Registry -------------------------------------------------------------------------------------

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "gradient",
            "gradient",
            "08",
            "small change",
            "How does the score change with each pixel?",
            gradients.gradient,
            rule=Operation.vjp,
        ),
        Method(
            "unit_deconvnet",
            "deconvnet of a unit",
            "07",
            "pattern",
            "Which pattern made a unit fire?",
            unit_deconvnet,
            at_layer=True,
            note="not in the benchmark: it does not depend on a class",
        ),
        Method(
            "deconvnet",
            "deconvnet",
            "08",
            "pattern",
            "As for a unit, for a class score",
            gradients.deconvnet,
            rule=gradients.deconvnet_rule,
        ),
        Method(
            "guided_backprop",
            "guided backprop",
            "08",
            "pattern",
            "As the deconvnet, through active units alone",
            gradients.guided_backprop,
            rule=gradients.guided_rule,
        ),
        Method(
            "cam",
            "CAM",
            "09",
            "position",
            "What does each position add to the score?",
            cam.cam,
            at_layer=True,
            note="not in the benchmark: on such networks Grad-CAM is its positive part",
        ),
        Method(
            "grad_cam",
            "Grad-CAM",
            "10",
            "position",
            "Where are maps active that raise the score?",
            cam.grad_cam,
            at_layer=True,
            formula=cam.grad_cam_formula,
        ),
        Method(
            "guided_grad_cam",
            "Guided Grad-CAM",
            "10",
            "position",
            "Which guided patterns are at these positions?",
            cam.guided_grad_cam,
            at_layer=True,
            formula=cam.grad_cam_formula,
            rule=gradients.guided_rule,
        ),
        Method(
            "gradient_x_input",
            "gradient × input",
            "14",
            "contribution",
            "What does each pixel add, if all is linear?",
            gradients.gradient_x_input,
            rule=Operation.vjp,
            times_input=True,
        ),
        Method(
            "grad_cam_pp",
            "Grad-CAM++",
            "10",
            "position",
            "As Grad-CAM, counting positive gradients alone",
            cam.grad_cam_pp,
            at_layer=True,
            formula=cam.grad_cam_pp_formula,
        ),
        Method(
            "xgrad_cam",
            "XGrad-CAM",
            "10",
            "position",
            "As Grad-CAM, with gradients where maps are active",
            cam.xgrad_cam,
            at_layer=True,
            formula=cam.xgrad_cam_formula,
        ),
        Method(
            "layer_cam",
            "LayerCAM",
            "10",
            "position",
            "As Grad-CAM, with a gradient for each position",
            cam.layer_cam,
            at_layer=True,
            formula=cam.layer_cam_formula,
        ),
        Method(
            "saliency",
            "saliency",
            "11",
            "small change",
            "Which pixels change it most, up or down?",
            gradients.saliency,
        ),
        Method(
            "sensitivity",
            "sensitivity",
            "14",
            "small change",
            "What would make the class more, or less?",
            gradients.sensitivity,
        ),
        Method(
            "smoothgrad",
            "SmoothGrad",
            "11",
            "small change",
            "As the gradient, as a mean over noisy copies",
            averaging.smoothgrad,
            {"level": 0.15, "n": 25},
        ),
        Method(
            "integrated_gradients",
            "integrated gradients",
            "11",
            "contribution",
            "What does each pixel add, on the way from black?",
            averaging.integrated_gradients,
            {"baseline": 0.0, "steps": 25},
        ),
        Method(
            "fullgrad",
            "FullGrad",
            "12",
            "contribution",
            "What do pixels and biases add at each position?",
            fullgrad,
        ),
        Method(
            "simple_taylor",
            "simple Taylor",
            "14",
            "contribution",
            "What separates it from an image with score 0?",
            taylor_or_zero,
        ),
        Method(
            "lrp",
            "LRP-ε,z⁺",
            "14",
            "contribution",
            "How is the score distributed, layer by layer?",
            lrp,
            {"rule": "epsilon_plus"},
        ),
        Method(
            "lrp_epsilon",
            "LRP-ε",
            "14",
            "contribution",
            "As LRP, by what each input adds",
            lrp,
            {"rule": "epsilon"},
        ),
        Method(
            "lrp_alpha_beta",
            "LRP-αβ",
            "14",
            "contribution",
            "As LRP, for and against kept apart",
            lrp,
            {"rule": "alpha_beta", "alpha": 2.0, "beta": 1.0},
        ),
        Method(
            "lrp_epsilon_gamma_box",
            "LRP-ε,γ,zB",
            "14",
            "contribution",
            "As LRP, favouring what speaks for the class",
            lrp,
            {"rule": "epsilon_gamma_box", "gamma": 0.25},
        ),
        Method(
            "occlusion",
            "occlusion",
            "13",
            "large change",
            "What is lost when a part is covered?",
            occlusion_by_fraction,
            {"square": 4, "step": 16},
        ),
        Method(
            "eigen_cam",
            "Eigen-CAM",
            "10",
            "position",
            "Where is the layer most active?",
            cam.eigen_cam,
            at_layer=True,
        ),
        Method(
            "score_cam",
            "Score-CAM",
            "10",
            "large change",
            "Which maps, as masks, keep the class?",
            cam.score_cam,
            at_layer=True,
        ),
        Method(
            "shapley",
            "Shapley values",
            "15",
            "large change",
            "What does a part add, on average?",
            shapley,
            {"segments": 25, "samples": 8, "baseline": 0.5},
        ),
        Method(
            "uniform",
            "uniform map",
            "23",
            "control",
            "control: nothing",
            _control(lambda image: energy.uniform(*image.shape[-2:])),
            control=True,
        ),
        Method(
            "centred_gaussian",
            "centred Gaussian",
            "23",
            "control",
            "control: Where is the middle?",
            _control(lambda image: energy.centred_gaussian(*image.shape[-2:])),
            control=True,
        ),
        Method(
            "sobel_edges",
            "Sobel edges",
            "23",
            "control",
            "control: Where are edges?",
            _control(energy.sobel_edges),
            control=True,
        ),
    )
}
"""All methods and controls of the course that give an attribution map, by name."""

MAP_CONTROLS: dict[str, MapControl] = {
    control.name: control
    for control in (
        MapControl(
            "guided_backprop_squared",
            "guided backprop²",
            "guided_backprop",
            lambda maps, x: maps.square(),
        ),
        MapControl("grad_cam_squared", "Grad-CAM²", "grad_cam", lambda maps, x: maps.square()),
        MapControl(
            "grad_cam_x_noise",
            "Grad-CAM × noise",
            "grad_cam",
            lambda maps, x: maps * energy.noise(*x.shape[-2:]).to(x.device),
        ),
        MapControl(
            "grad_cam_x_sobel",
            "Grad-CAM × Sobel edges",
            "grad_cam",
            lambda maps, x: maps * METHODS["sobel_edges"].function(None, x, 0),
        ),
    )
}
"""Controls for the sharpness of maps and for products of maps, by name."""

CONTROLS = tuple(name for name, method in METHODS.items() if method.control)
BENCHMARK = tuple(name for name, m in METHODS.items() if not m.control and not m.note)
SHARED_PASS = tuple(name for name in BENCHMARK if METHODS[name].shares_pass)
OWN_PASSES = tuple(name for name in BENCHMARK if not METHODS[name].shares_pass)
STUDY = ("gradient", "deconvnet", "guided_backprop", "grad_cam", "guided_grad_cam")
"""The five methods of the study that the benchmark follows."""
STUDY_MEANS = dict(zip(STUDY, (0.215, 0.123, 0.280, 0.277, 0.470), strict=True))
"""The study's mean P of each method: four networks, two sizes, 180 images of COCO."""


def map_controls(methods: Iterable[str]) -> tuple[str, ...]:
    """Names of the controls that are made from the maps of the methods."""
    methods = set(methods)
    return tuple(name for name, control in MAP_CONTROLS.items() if control.of in methods)


def title_of(name: str) -> str:
    """Title of a method or control, also on random weights: "Guided Grad-CAM, random weights"."""
    title = (METHODS | MAP_CONTROLS)[name.removesuffix(RANDOM)].title
    return title + (", random weights" if name.endswith(RANDOM) else "")
