"""Networks and measures that the tests of LRP, FullGrad and Taylor decomposition share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.maps import upsample

NETS = ["alexnet", "vgg11", "squeezenet1_1", "resnet18", "googlenet", "densenet121"]
TARGETS = [3, 7]


def for_net(net: str, x: Tensor) -> Tensor:
    """Images nearly as small as the network accepts, for speed."""
    if net == "inception_v3":
        return upsample(x, (80, 80))
    size = {"alexnet": 64, "squeezenet1_1": 48}.get(net, 32)
    return x[..., :size, :size]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would agree with anything"
    return float((actual - expected).abs().max() / expected.abs().max())


def sums(relevance: Tensor) -> Tensor:
    """The sum of each image's values, N numbers."""
    return relevance.flatten(1).sum(dim=1)


class Mixed(nn.Module):
    """All that LRP has to handle: batch normalisation after a layer and alone, a residual sum,
    overlapping pools."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(6)
        self.bn2 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=bias)
        self.fc1 = nn.Linear(6 * 4 * 4, 10, bias=bias)
        self.fc2 = nn.Linear(10, 5, bias=bias)
        self.relu = relu
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv2(self.relu(self.bn2(x))) + x
        x = F.dropout(self.relu(x), 0.5, self.training)
        x = F.avg_pool2d(x, 2, ceil_mode=True)[:, :, :4, :4]
        return self.fc2(self.relu(self.fc1(x.flatten(1))))
