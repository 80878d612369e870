"""The check of notebook 00."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vislib.checks import Wrong, start
from vislib.explain import cam


class FourAnimals(nn.Sequential):
    """A small network with the names of its classes."""

    classes = ("bird", "cat", "dog", "zebra")

    def __init__(self) -> None:
        torch.manual_seed(0)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), *head)


@pytest.fixture(scope="module")
def model() -> FourAnimals:
    return FourAnimals()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_grad_cam_of_the_target_passes(model, x, capsys):
    start.explains(cam.grad_cam(model, x, 2), model, x, 2, before=1)
    assert capsys.readouterr().out == "✓ dog has its own map\n"


@pytest.mark.parametrize("advice", start.MISTAKES)
def test_a_mistake_gets_its_own_advice(advice, model, x):
    with pytest.raises(Wrong) as error:
        start.explains(start.MISTAKES[advice](model, x, 2, 1), model, x, 2, before=1)
    assert str(error.value).endswith(advice)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param(lambda m, x: cam.grad_cam(m, x, 1), "previous class", id="previous class"),
        pytest.param(
            lambda m, x: cam.grad_cam(m, x, 2, relu=False), "negative values", id="without ReLU"
        ),
        pytest.param(lambda m, x: cam.guided_grad_cam(m, x, 2), "shape", id="three channels"),
        pytest.param(lambda m, x: "a map", "yours is 'a map'", id="text"),
    ],
)
def test_another_map_is_rejected(result, message, model, x):
    with pytest.raises(Wrong, match=message):
        start.explains(result(model, x), model, x, 2, before=1)
