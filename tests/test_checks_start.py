"""The exercise of notebook 00: right answers pass, and wrong answers get advice."""

from __future__ import annotations

import pytest
import torch
from answers import answer_tests
from torch import nn

from vislib.checks import Wrong
from vislib.checks import start as check
from vislib.explain import cam


def by_hand(model, image, name):
    """Grad-CAM from the feature maps and their gradients, without `vislib.explain`."""
    layers = list(model)
    maps = nn.Sequential(*layers[:5])(image.unsqueeze(0)).detach().requires_grad_()
    score = nn.Sequential(*layers[5:])(maps)[0, list(model.classes).index(name)]
    (gradient,) = torch.autograd.grad(score, maps)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).clamp(min=0)


RIGHT = {
    "by vislib": (
        check.explain_class,
        lambda model, image, name: cam.grad_cam(model, image[None], [model.classes.index(name)]),
    ),
    "by hand": (check.explain_class, by_hand),
    "by hand in NumPy": (
        check.explain_class,
        lambda *inputs: by_hand(*inputs).detach().numpy(),
    ),
    "by a loop over the names": (
        check.explain_class,
        lambda model, image, name: next(
            cam.grad_cam(model, image.unsqueeze(0), index)
            for index, other in enumerate(model.classes)
            if other == name
        ),
    ),
}
WRONG = {
    "the class with the highest score": (
        check.explain_class,
        lambda model, image, name: by_hand(
            model, image, model.classes[model(image[None])[0].topk(1).indices[0]]
        ),
        "explains the predicted class",
    ),
    "the alphabet": (
        check.explain_class,
        lambda model, image, name: by_hand(
            model, image, model.classes[sorted(model.classes).index(name)]
        ),
        "explains another class",
    ),
    "without ReLU": (
        check.explain_class,
        lambda model, image, name: cam.grad_cam(
            model, image[None], model.classes.index(name), relu=False
        ),
        "negative values",
    ),
    "first layer": (
        check.explain_class,
        lambda model, image, name: cam.grad_cam(
            model, image[None], model.classes.index(name), layer=model[1]
        ),
        "early layer",
    ),
    "three channels": (
        check.explain_class,
        lambda model, image, name: cam.guided_grad_cam(
            model, image[None], model.classes.index(name)
        ),
        "three channels",
    ),
    "without the batch axis of the result": (
        check.explain_class,
        lambda *inputs: by_hand(*inputs)[0],
        r"should have shape \(1, 1, 5, 7\), yours has shape \(1, 5, 7\)",
    ),
    "without the batch axis of the image": (
        check.explain_class,
        lambda model, image, name: cam.grad_cam(model, image, model.classes.index(name)),
        r"stopped with ValueError.*N×C×H×W",
    ),
    "the name in place of the index": (
        check.explain_class,
        lambda model, image, name: cam.grad_cam(model, image[None], name),
        "stopped with",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)


def test_a_map_instead_of_a_function():
    with pytest.raises(Wrong, match="Give the check your function itself"):
        check.explain_class(torch.rand(1, 1, 5, 7))
