"""Two small networks for scikit-learn's handwritten digits: a classifier and a generator.

There are 1,797 digits of 8×8 pixels (Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten
Digits"). `Reader` returns class scores. `Writer` is a decoder ``g(z)``, trained as one half of a
variational autoencoder (Kingma & Welling 2014, "Auto-Encoding Variational Bayes"): it maps codes z
from a standard normal distribution to digits, so ``‖z‖²`` measures how unusual a digit is.

    uv run python -m vislib.nets.digits      trains both again, in about a minute of CPU time
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vislib.paths import DATA

WEIGHTS = DATA / "nets" / "digits_decoder.safetensors"
CODE = 10  # the number of values in a code
HELD_OUT = 297  # the number of digits on which neither network was trained: the last ones


class Reader(nn.Sequential):
    """Small convolutional network: digits, N×1×8×8 in [0, 1], to N×10 logits."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, 10)),
        )


class Writer(nn.Sequential):
    """Decoder: codes, N×10, to digits, N×1×8×8 in [0, 1]."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(CODE, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU()),
            *(nn.Linear(128, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))),
        )


class Encoder(nn.Sequential):
    """Encoder: digits, N×1×8×8, to the mean and the log-variance of their codes, N×20."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(), nn.Linear(64, 128), nn.ReLU()),
            *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * CODE)),
        )


def data(*, held_out: bool = False) -> tuple[Tensor, Tensor]:
    """Load the 1,500 training digits, or the 297 held-out ones.

    Args:
        held_out: whether to load the digits on which the networks were not trained.

    Returns:
        The digits, M×1×8×8 in [0, 1], and their classes, M numbers from 0 to 9.

    >>> x, y = data()
    >>> x.shape, y.shape
    (torch.Size([1500, 1, 8, 8]), torch.Size([1500]))
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    part = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
    return x[part], torch.from_numpy(digits.target)[part]


def load() -> tuple[Reader, Writer]:
    """Load the reader and the writer that ship with the course, in evaluation mode.

    >>> reader, writer = load()
    >>> reader(writer(torch.zeros(1, 10))).shape
    torch.Size([1, 10])
    """
    tensors = load_file(WEIGHTS)
    reader, writer = Reader(), Writer()
    for name, net in (("reader", reader), ("writer", writer)):
        prefix = f"{name}."
        state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        net.load_state_dict(state)
        net.eval()
    return reader, writer


def train(
    out: str | Path = WEIGHTS, *, epochs: int = 120, readings: int = 30, seed: int = 0
) -> dict[str, str]:
    """Train both networks, and write their weights to one file.

    Args:
        out: safetensors file; by default the one that ships with the course.
        epochs: number of passes over the digits in the training of the writer.
        readings: number of passes over the digits in the training of the reader.
        seed: seed of the weights and of all random draws. PyTorch's global random state is not
            changed.

    Returns:
        The card, which is also stored in the file: the reader's accuracy and the writer's
        root-mean-square error on the held-out digits, the number of parameters, the seed, the date
        and the command.
    """
    x, y = data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader, writer, encoder = Reader(), Writer(), Encoder()
        _epochs(reader, lambda b: F.cross_entropy(reader(_shifted(x[b])), y[b]), len(x), readings)
        both = nn.ModuleList([writer, encoder])
        _epochs(both, lambda b: evidence_bound(encoder, writer, x[b]), len(x), epochs)
    new, label = data(held_out=True)
    with torch.no_grad():
        accuracy = float((reader(new).argmax(dim=1) == label).float().mean())
        error = float((writer(encoder(new)[:, :CODE]) - new).square().mean().sqrt())
    card = {
        "reader_unseen": f"{accuracy:.4f}",
        "writer_rms_unseen": f"{error:.4f}",
        "parameters": str(sum(p.numel() for net in (reader, writer) for p in net.parameters())),
        "seed": str(seed),
        "date": datetime.date.today().isoformat(),
        "command": "python -m vislib.nets.digits",
    }
    tensors = {f"reader.{key}": value for key, value in reader.state_dict().items()}
    tensors |= {f"writer.{key}": value for key, value in writer.state_dict().items()}
    save_file(tensors, out, metadata=card)
    # safetensors writes files that only their owner may read, but many users may share the course.
    Path(out).chmod(0o644)
    return card


def evidence_bound(
    encoder: Callable[[Tensor], Tensor], writer: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Negative evidence lower bound, the loss of a variational autoencoder.

        −ELBO = ‖x − g(z)‖² / 2σ² + KL( q(z|x) ‖ N(0, 1) ),    σ = 0.15

    The code z is drawn from ``q(z|x) = N(mean, variance)``, which the encoder returns.

    Args:
        encoder: function from digits to the means and log-variances of their codes, N×20.
        writer: function from codes, N×10, to digits.
        x: digits, N×1×8×8 in [0, 1].

    Returns:
        The mean over the digits, one number.
    """
    mean, log_variance = encoder(x).chunk(2, dim=1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    error = (writer(z) - x).square().flatten(1).sum(dim=1) / (2 * 0.15**2)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
    return (error + kl).mean()


def _shifted(x: Tensor) -> Tensor:
    """Shift all digits by the same random vector of up to one pixel, as an augmentation."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    return F.pad(x, (1, 1, 1, 1))[..., 1 + down : 9 + down, 1 + right : 9 + right]


def _epochs(net: nn.Module, loss: Callable[[Tensor], Tensor], count: int, epochs: int) -> None:
    """Minimise ``loss(indices)`` over random batches of 100 of the indices below `count`."""
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
