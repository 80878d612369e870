"""Check for the exercise of notebook 00."""

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
"""Functions to the map that a common mistake gives, by the advice for the mistake."""


def explains(result: Any, model: Classifier, x: Tensor, target: int, before: int) -> None:
    """Check that an attribution map of the learner is Grad-CAM for another class.

    Args:
        result: learner's map.
        model: network with the names of its classes.
        x: image, 1×3×H×W.
        target: class that the map should explain.
        before: class that was explained before.

    Raises:
        Wrong: the map is not Grad-CAM for `target`.
    """
    mistakes = {advice: mistaken(model, x, target, before) for advice, mistaken in MISTAKES.items()}
    same(result, grad_cam(model, x, target), what="The map", mistakes=mistakes)
    right(f"{model.classes[target]} has its own map")
