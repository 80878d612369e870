"""Time SmoothGrad and integrated gradients against Captum's, with the maps compared.

    uv run python tests/perf/smoothgrad.py [NET ...] [--copies 50] [--pixels 224] [--repeats 3]

Both run in this process, in turn, on the same image and the same untrained net, Captum with batches
of the same size. Told is the least CPU time of several repeats, which other work on the machine
changes little. The maps of SmoothGrad differ by their noise; those of integrated gradients must not
differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor
from torchvision.models import get_model

from vislib.explain.averaging import integrated_gradients, smoothgrad

CLASS, BATCH, LEVEL = 7, 4, 0.15


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The function's result, and its seconds of CPU time, those of all threads together."""
    start = time.process_time()
    return function(), time.process_time() - start


def compare(name: str, copies: int, pixels: int, repeats: int) -> None:
    """Print one line for each method: seconds of both, their ratio, and how far the maps are
    apart."""
    torch.manual_seed(0)
    model, x = get_model(name, weights=None).eval(), torch.rand(1, 3, pixels, pixels)
    sigma = LEVEL * float(x.max() - x.min())
    tunnel = NoiseTunnel(Saliency(model))
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "SmoothGrad": (
            lambda: smoothgrad(model, x, CLASS, level=LEVEL, n=copies, batch=BATCH),
            lambda: tunnel.attribute(
                x,
                nt_samples=copies,
                nt_samples_batch_size=BATCH,
                stdevs=sigma,
                target=CLASS,
                abs=False,
            ),
        ),
        "integrated": (
            lambda: integrated_gradients(model, x, CLASS, steps=copies, batch=BATCH),
            lambda: IntegratedGradients(model).attribute(
                x,
                target=CLASS,
                n_steps=copies,
                internal_batch_size=BATCH,
                method="riemann_middle",
            ),
        ),
    }
    model(x)  # the first run of a net is slower than the others
    for method, (ours, theirs) in pairs.items():
        rounds = [(timed(theirs), timed(ours)) for _ in range(repeats)]
        (expected, _), (seen, _) = rounds[0]
        seconds, own = (min(one[side][1] for one in rounds) for side in (0, 1))
        apart = float((seen - expected).abs().max() / expected.abs().max())
        ratio = seconds / own
        print(f"{name:14} {method:11} {own:9.2f} {seconds:9.2f} {ratio:8.2f} {apart:11.1e}")


def main() -> None:
    """Compare on the nets of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("nets", nargs="*", default=["squeezenet1_0", "resnet18", "vgg16"])
    parser.add_argument("--copies", type=int, default=50, help="noisy copies, and steps")
    parser.add_argument("--pixels", type=int, default=224, help="side of the image")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of these counts")
    arguments = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads; CPU seconds for one image, "
        f"{arguments.copies} gradients in batches of {BATCH}"
    )
    print("net            method         vislib    Captum    ratio  difference")
    for name in arguments.nets:
        compare(name, arguments.copies, arguments.pixels, arguments.repeats)


if __name__ == "__main__":
    main()
