"""Check for the exercise of notebook 00."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vislib.checks import Exercise
from vislib.explain import cam

_NAMES = ("missile", "bee", "ibex", "tabby", "hip")


class _Network(nn.Sequential):
    """Small network with random weights and with the names of its classes, in a random order."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, len(_NAMES)),
        )
        self.classes = tuple(_NAMES[i] for i in torch.randperm(len(_NAMES)))


def _inputs() -> tuple[_Network, Tensor, str]:
    """Network, image and name of a class, which is not the predicted class in most cases."""
    return _Network().eval(), torch.rand(3, 16, 20), _NAMES[int(torch.randint(len(_NAMES), ()))]


def _grad_cam(model: Any, image: Tensor, name: str, **options: Any) -> Tensor:
    return cam.grad_cam(model, image[None], model.classes.index(name), **options)


def _prediction(model: Any, image: Tensor) -> int:
    return int(model(image[None]).argmax())


explain_class = Exercise(
    task="``explain_class(model, image, name)``: Grad-CAM for the class with this name, 1×1×h×w, "
    "from an image 3×H×W.",
    inputs=lambda: [_inputs] * 3,
    solution=_grad_cam,
    what="the map",
    mistakes={
        "This map explains the predicted class: explain the class that `name` says": (
            lambda model, image, name: cam.grad_cam(model, image[None], _prediction(model, image))
        ),
        "This map explains another class: the order of `model.classes` gives the index": (
            lambda model, image, name: cam.grad_cam(
                model, image[None], sorted(model.classes).index(name)
            )
        ),
        "This map has negative values: keep the ReLU, which grad_cam applies by default": (
            lambda model, image, name: _grad_cam(model, image, name, relu=False)
        ),
        "This map is of an early layer: leave out `layer`, then grad_cam takes the last stage": (
            lambda model, image, name: _grad_cam(model, image, name, layer="1")
        ),
        "This is Guided Grad-CAM, with three channels: call grad_cam": (
            lambda model, image, name: cam.guided_grad_cam(
                model, image[None], model.classes.index(name)
            )
        ),
    },
    praise="One image, one network, and a map for every class that you name.",
    distinct=True,
)
