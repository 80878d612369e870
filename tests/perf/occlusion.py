"""Time occlusion against Captum's, with the maps compared.

    uv run python tests/perf/occlusion.py [NET ...] [--squares 16 32]

Both run in this process, in turn, on the same image of 224 pixels and the same untrained net.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from captum.attr import Occlusion
from torch import Tensor
from torchvision.models import get_model

from vislib.explain.occlusion import occlusion

STRIDE, CLASS = 8, 7


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The function's result, and its seconds."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def compare(name: str, size: int) -> None:
    """Print one line: seconds of both, their ratio, and how far the maps are apart."""
    torch.manual_seed(0)
    model, x = get_model(name, weights=None).eval(), torch.rand(1, 3, 224, 224)
    square, stride = (3, size, size), (3, STRIDE, STRIDE)

    def captum() -> Tensor:
        return Occlusion(model).attribute(
            x, square, stride, baselines=0.5, target=CLASS, perturbations_per_eval=16
        )[:, :1]

    model(x)  # the first run of a net is slower than the others
    theirs, seconds = timed(captum)
    ours, own = timed(lambda: occlusion(model, x, CLASS, size=size, stride=STRIDE))
    apart = float((ours - theirs).abs().max() / theirs.abs().max())
    print(f"{name:14} {size:6} {own:9.2f} {seconds:9.2f} {seconds / own:8.2f} {apart:11.1e}")


def main() -> None:
    """Compare on the nets and squares of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("nets", nargs="*", default=["squeezenet1_0", "vgg16"])
    parser.add_argument("--squares", nargs="+", type=int, default=[16, 32], help="sides in pixels")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; seconds for one image, stride {STRIDE}")
    print("net            square    vislib    Captum    ratio  difference")
    for name in arguments.nets:
        for size in arguments.squares:
            compare(name, size)


if __name__ == "__main__":
    main()
