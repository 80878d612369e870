"""The check of notebook 00."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vislib.checks import right, same
from vislib.explain import cam
from vislib.nets import Classifier


def explains(found: Any, model: Classifier, x: Tensor, target: int, before: int) -> None:
    """`found` should be Grad-CAM for `target`; `before` is the class that was explained before."""
    same(
        found,
        cam.grad_cam(model, x, target),
        what="The map",
        mistakes={
            "This is still the map of the class before: change the target": cam.grad_cam(
                model, x, before
            ),
            "This map has negative values: use grad_cam as it comes, with its ReLU": cam.grad_cam(
                model, x, target, relu=False
            ),
        },
    )
    right(f"{model.classes[target]} has its own map")
