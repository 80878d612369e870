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
    """A torchvision net in evaluation mode with random weights, the same in every run.

    Its batch normalisations know the mean and variance of some random images: without that, the
    signal fades on the way through a deep net.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {}))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean over all batches, here of one
        if norms:
            model(torch.rand(4, 3, 96, 96))
        return model.eval()


@pytest.fixture(scope="session")
def untrained() -> Callable[[str], nn.Module]:
    """As `build`, but the last few nets are kept for the next test."""
    return functools.lru_cache(maxsize=4)(build)
