"""Time the benchmark's engine against Captum, pytorch-grad-cam and four bare forward passes.

    uv run python tests/perf/benchmark_engine.py [NET ...]

All run in this process, on the same image and the same net, in turn, and the maps are compared.
Untrained weights serve: what is timed does not depend on them. Medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torchvision.models import get_model

from vislib.core import find_layer
from vislib.layers import last_conv_stage
from vislib.measure.benchmark import explain
from vislib.measure.methods import STUDY

SIZE, CLASS = 224, 7


def captum(model: torch.nn.Module, x: Tensor, layer: str) -> dict[str, Tensor]:
    """The five methods as Captum offers them: five calls."""
    module = find_layer(model, layer)[1]
    grad_cam = LayerAttribution.interpolate(
        LayerGradCam(model, module).attribute(x, CLASS, relu_attributions=True),
        (SIZE, SIZE),
        "bilinear",
    )
    return {
        "gradient": Saliency(model).attribute(x, CLASS, abs=False),
        "deconvnet": Deconvolution(model).attribute(x, CLASS),
        "guided_backprop": GuidedBackprop(model).attribute(x, CLASS),
        "grad_cam": grad_cam,
        "guided_grad_cam": GuidedGradCam(model, module).attribute(
            x, CLASS, interpolate_mode="bilinear"
        ),
    }


def four_forwards(model: torch.nn.Module, x: Tensor) -> None:
    """The engine's yardstick: one forward and three backward passes cost about four forwards."""
    with torch.no_grad():
        for _ in range(4):
            model(x)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def compare(name: str, rounds: int, clock: Callable[[], float]) -> None:
    """Print one net's line."""
    torch.manual_seed(0)
    model = get_model(name, weights=None).eval()
    images = torch.rand(1, 3, SIZE, SIZE)
    layer = last_conv_stage(model, images)
    module = find_layer(model, layer)[1]

    contestants = {
        "vislib": lambda: explain(model, images.clone(), CLASS, STUDY, layer=layer)[0],
        "captum": lambda: captum(model, images.clone().requires_grad_(), layer),
        "four forwards": lambda: four_forwards(model, images),
        "pytorch-grad-cam": lambda: GradCAM(model, [module])(
            images.clone(), [ClassifierOutputTarget(CLASS)]
        ),
        "grad_cam alone": lambda: explain(model, images.clone(), CLASS, ["grad_cam"], layer=layer),
    }
    ours, theirs = contestants["vislib"](), contestants["captum"]()
    worst = max(relative_difference(ours[method], theirs[method]) for method in theirs)
    assert worst < 1e-4, f"the maps of {name} differ: {worst:.1e}"
    library_map = torch.from_numpy(contestants["pytorch-grad-cam"]())
    scaled = ours["grad_cam"][:, 0] / ours["grad_cam"].max()
    assert (library_map - scaled).abs().max() < 0.02 or ours["grad_cam"].max() == 0

    seconds: dict[str, list[float]] = {key: [] for key in contestants}
    for _ in range(rounds):
        for key, run in contestants.items():  # in turn, so that a slow moment hits all alike
            start = clock()
            run()
            seconds[key].append(clock() - start)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    print(
        f"{name:15s} vislib {1e3 * middle['vislib']:7.1f} ms | "
        f"Captum's five calls {1e3 * middle['captum']:7.1f} ms = "
        f"{middle['captum'] / middle['vislib']:.2f} × | "
        f"{middle['vislib'] / middle['four forwards']:.2f} × four forwards | "
        f"Grad-CAM alone: pytorch-grad-cam takes "
        f"{middle['pytorch-grad-cam'] / middle['grad_cam alone']:.2f} × as long | "
        f"largest difference of the maps {worst:.0e}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["squeezenet1_0", "alexnet", "vgg19"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine: not wall time")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # Captum announces its hooks at every call
    for net in options.nets:
        compare(net, options.rounds, time.process_time if options.cpu_time else time.perf_counter)
