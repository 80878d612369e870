"""Two small nets for scikit-learn's handwritten digits: one that reads them, one that writes them.

The digits are 1,797 real ones of 8×8 pixels (Alpaydin & Kaynak 1998, "Optical Recognition of
Handwritten Digits"). `Reader` gives class scores. `Writer` is a decoder ``g(z)``, trained as half
of a variational autoencoder: codes z drawn from a standard normal distribution become digits, so
``‖z‖²`` measures how unusual a digit is.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes".

    uv run python -m vislib.nets.digits      trains both anew, in about a minute of CPU time
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.paths import DATA

WEIGHTS = DATA / "nets" / "digits_decoder.safetensors"
CODE = 10  # numbers in a code
HELD_OUT = 297  # the last digits, which neither net has seen


class Reader(nn.Sequential):
    """A small convolutional net: N×1×8×8 in [0, 1] to N×10 logits."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, 10)),
        )


class Writer(nn.Sequential):
    """The decoder: codes N×10 to digits N×1×8×8 in [0, 1]."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(CODE, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU()),
            *(nn.Linear(128, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))),
        )


class Encoder(nn.Sequential):
    """The other half of the autoencoder: digits to the mean and log-variance of their codes."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(), nn.Linear(64, 128), nn.ReLU()),
            *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * CODE)),
        )


def data(*, held_out: bool = False) -> tuple[Tensor, Tensor]:
    """The 1,500 digits to train on, M×1×8×8 in [0, 1], and what they are; or the 297 others."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    part = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
    return x[part], torch.from_numpy(digits.target)[part]


def load() -> tuple[Reader, Writer]:
    """Both nets with the shipped weights, in eval mode."""
    from safetensors.torch import load_file

    tensors = load_file(WEIGHTS)
    reader, writer = Reader(), Writer()
    for name, net in (("reader", reader), ("writer", writer)):
        start = f"{name}."
        mine = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
        net.load_state_dict(mine)
        net.eval()
    return reader, writer


def train(
    out: str | Path = WEIGHTS, *, epochs: int = 120, readings: int = 30, seed: int = 0
) -> dict[str, str]:
    """Train both nets from a seed, write their weights, and return their card.

    The writer sees all digits `epochs` times, the reader `readings` times.
    """
    from safetensors.torch import save_file

    x, y = data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader, writer, encoder = Reader(), Writer(), Encoder()
        _epochs(reader, lambda b: F.cross_entropy(reader(_shifted(x[b])), y[b]), len(x), readings)
        both = nn.ModuleList([writer, encoder])
        _epochs(both, lambda b: evidence_bound(encoder, writer, x[b]), len(x), epochs)
    new, label = data(held_out=True)
    with torch.no_grad():
        right = float((reader(new).argmax(dim=1) == label).float().mean())
        apart = float((writer(encoder(new)[:, :CODE]) - new).square().mean().sqrt())
    card = {
        "reader_unseen": f"{right:.4f}",
        "writer_rms_unseen": f"{apart:.4f}",
        "parameters": str(sum(p.numel() for net in (reader, writer) for p in net.parameters())),
        "seed": str(seed),
        "date": datetime.date.today().isoformat(),
        "command": "python -m vislib.nets.digits",
    }
    tensors = {f"reader.{key}": value for key, value in reader.state_dict().items()}
    tensors |= {f"writer.{key}": value for key, value in writer.state_dict().items()}
    save_file(tensors, out, metadata=card)
    Path(out).chmod(0o644)  # it is written private, and a course is shared
    return card


def evidence_bound(
    encoder: Callable[[Tensor], Tensor], writer: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Minus the evidence lower bound, per digit: ``‖x − g(z)‖²/2σ² + KL(q(z|x) ‖ N(0, 1))``.

    z is drawn from ``q = N(mean, variance)`` of the encoder; σ = 0.15.
    """
    mean, log_variance = encoder(x).chunk(2, dim=1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    apart = (writer(z) - x).square().flatten(1).sum(dim=1) / (2 * 0.15**2)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
    return (apart + kl).mean()


def _shifted(x: Tensor) -> Tensor:
    """The digits moved by up to a pixel, as the reader is to know them."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    return F.pad(x, (1, 1, 1, 1))[..., 1 + down : 9 + down, 1 + right : 9 + right]


def _epochs(net: nn.Module, loss: Callable[[Tensor], Tensor], count: int, epochs: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(count).split(100):
            optimiser.zero_grad()
            loss(batch).backward()
            optimiser.step()
        schedule.step()


if __name__ == "__main__":
    for key, value in train().items():
        print(f"{key}: {value}")
