"""Nets that several test files share."""

import functools
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

# The initialisation of these nets' own is slow; PyTorch's default one serves as well here.
OPTIONS = {
    "vgg11": {"init_weights": False},
    "vgg16": {"init_weights": False},
    "vgg19_bn": {"init_weights": False},
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
}


def build(name: str) -> nn.Module:
    """A torchvision net in evaluation mode with random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {})).eval()


@pytest.fixture(scope="session")
def untrained() -> Callable[[str], nn.Module]:
    """As `build`, but the last few nets are kept for the next test."""
    return functools.lru_cache(maxsize=4)(build)
