"""Transformed copies of images: baselines, and rotations with zoom.

A **baseline** replaces the pixels that a method hides (occlusion, Shapley values, deletion curves),
or is the point at which integrated gradients start. The attribution map depends on the baseline:

    grey    0.5 everywhere
    mean    the mean colour of the image
    blur    the image, blurred until no object is recognisable
    noise   uniform values in [0, 1]

A **rotation with zoom** by the angle φ and the factor s turns an image anticlockwise and shows s
times as much of it. Let u point to the right and v downwards, with the origin at the centre of the
image. The new value of pixel (u, v) is the old value at

    s · (u cos φ - v sin φ,  u sin φ + v cos φ)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def baseline_image(x: Tensor, kind: str, *, seed: int = 0) -> Tensor:
    """Baseline for each image, N×C×H×W, in [0, 1] if the images are.

    Args:
        x: images, N×C×H×W.
        kind: ``"grey"``: 0.5. ``"mean"``: the mean colour of each image. ``"blur"``: each image
            after a Gaussian blur whose standard deviation is a tenth of the shorter side.
            ``"noise"``: independent uniform values in [0, 1].
        seed: seed of the noise. Calls with the same seed and shape give the same noise.

    Raises:
        ValueError: `kind` is not one of the four.

    >>> x = torch.rand(2, 3, 8, 8)
    >>> baseline_image(x, "grey").unique().item()
    0.5
    >>> torch.allclose(baseline_image(x, "mean").mean(dim=(2, 3)), x.mean(dim=(2, 3)))
    True
    """
    if kind == "grey":
        return torch.full_like(x, 0.5)
    if kind == "mean":
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        from torchvision.transforms.functional import gaussian_blur

        shorter = min(x.shape[-2:])
        sigma = shorter / 10
        # The kernel ends at three standard deviations, or where it is as large as the image.
        side = 2 * int(min(3 * sigma, (shorter - 1) // 2)) + 1
        return gaussian_blur(x, [side, side], [sigma, sigma])
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(x.shape, generator=generator).to(x)
    raise ValueError(f"kind must be 'grey', 'mean', 'blur' or 'noise', got {kind!r}")


def as_baseline(baseline: str | float | Tensor, x: Tensor) -> Tensor:
    """Baseline in the shape, dtype and device of the images, N×C×H×W, from any way to give it.

    Args:
        baseline: a number, C×1×1, N×C×H×W, or a `kind` of `baseline_image`.
        x: images, N×C×H×W.

    Raises:
        ValueError: the baseline does not fit the images.

    >>> as_baseline(0.5, torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    if isinstance(baseline, str):
        return baseline_image(x, baseline)
    values = torch.as_tensor(baseline).detach().to(x)
    try:
        return values.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"baseline must be a number, C×1×1 or N×C×H×W for images of shape {tuple(x.shape)}, "
            f"got shape {tuple(values.shape)}"
        ) from None


def rotate_and_zoom(images: Tensor, angle: Tensor, factor: Tensor | float) -> Tensor:
    """Rotate and zoom each image about its centre, N×C×H×W.

    The interpolation is bilinear and differentiable with respect to the images. Beyond its border
    the image is mirrored.

    Args:
        images: N×C×H×W.
        angle: rotation in radians, anticlockwise, one for all images or N of them.
        factor: s, one for all images or N of them. Above 1 the objects become smaller, below 1
            larger.

    >>> x = torch.rand(1, 3, 8, 8)
    >>> turned = rotate_and_zoom(x, torch.tensor(torch.pi / 2), 1.0)
    >>> torch.allclose(turned, x.rot90(1, (2, 3)), atol=1e-5)
    True
    """
    angle = angle.expand(len(images))
    cos, sin = factor * angle.cos(), factor * angle.sin()
    height, width = images.shape[-2:]
    zero = torch.zeros_like(cos)
    # `affine_grid` has coordinates from -1 to 1 along both sides. If the sides differ, its unit is
    # not the same number of pixels in both directions. The ratios of the sides correct this.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
