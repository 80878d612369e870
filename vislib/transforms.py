"""Transformed copies of images: baselines and rotations."""

from __future__ import annotations

import torch
from torch import Tensor


def baseline_image(x: Tensor, kind: str, *, seed: int = 0) -> Tensor:
    """What to put into the square, N×C×H×W: a picture as large as the image.

    ``"grey"``: 0.5. ``"mean"``: the image's own mean colour. ``"blur"``: the image, blurred so far
    (Gaussian, deviation a tenth of the shorter side) that no object is left. ``"noise"``: uniform
    noise in [0, 1], the same for every call with this seed.
    """
    if kind == "grey":
        return torch.full_like(x, 0.5)
    if kind == "mean":
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        from torchvision.transforms.functional import gaussian_blur

        sigma = min(x.shape[-2:]) / 10
        side = 2 * int(min(3 * sigma, (min(x.shape[-2:]) - 1) // 2)) + 1
        return gaussian_blur(x, [side, side], [sigma, sigma])
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(x.shape, generator=generator).to(x)
    raise ValueError(f"there is no baseline {kind!r}: use grey, mean, blur or noise")


def rotate_and_zoom(images: Tensor, angle: Tensor, factor: Tensor | float) -> Tensor:
    """Turn each image, N×C×H×W, anticlockwise by its `angle` in radians, and show `factor` times
    as much of it. What lies outside is mirrored. Differentiable with respect to the images."""
    import torch.nn.functional as F

    angle = angle.expand(len(images))
    cos, sin = factor * angle.cos(), factor * angle.sin()
    height, width = images.shape[-2:]
    zero = torch.zeros_like(cos)
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
