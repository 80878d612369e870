"""The check of notebook 00."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vislib.checks import right, same
from vislib.explain.cam import grad_cam
from vislib.nets import Classifier

MISTAKES = {
    "This is still the map of the previous class: change the target": (
        lambda model, x, target, before: grad_cam(model, x, before)
    ),
    "This map has negative values: keep the ReLU, which grad_cam applies by default": (
        lambda model, x, target, before: grad_cam(model, x, target, relu=False)
    ),
}
"""By the advice that a common mistake gets, the map that it gives."""


def explains(result: Any, model: Classifier, x: Tensor, target: int, before: int) -> None:
    """Check an attribution map of the learner: it should be Grad-CAM for another class.

    Args:
        result: the learner's map.
        model: the network with the names of its classes.
        x: the image, 1×3×H×W.
        target: the class that the map should explain.
        before: the class that was explained before.

    Raises:
        Wrong: if the map is not Grad-CAM for `target`.
    """
    mistakes = {advice: mistaken(model, x, target, before) for advice, mistaken in MISTAKES.items()}
    same(result, grad_cam(model, x, target), what="The map", mistakes=mistakes)
    right(f"{model.classes[target]} has its own map")
