"""Checks of this machine and of the course's files, with advice. No network connection is needed.

Each check is a function without arguments that returns a `Finding`. `CHECKS` lists them in the
order in which they run.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vislib.paths import DATA

SUMS = DATA / "SHA256SUMS"
PYPROJECT = DATA.parent / "pyproject.toml"
GIB = 2**30


class Finding(NamedTuple):
    """Result of one check.

    Attributes:
        ok: whether the check passed.
        what: observation, in a few words.
        advice: what to do; a check that passed may also give advice.
    """

    ok: bool
    what: str
    advice: str = ""


SET_UP = "Set the course up again, as the README describes: uv sync, or conda env update."


def report() -> None:
    """Print the result of all checks for a notebook: the same text on every healthy machine."""
    print(text(examine()))


def examine() -> list[Finding]:
    """Run all checks, and return a finding for each; a check that raises has failed."""
    return [_run(check) for check in CHECKS.values()]


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        return Finding(False, f"{type(error).__name__}: {error}", SET_UP)


def text(findings: list[Finding], *, details: bool = False) -> str:
    """Format findings for reading.

    Args:
        findings: one for each check, in the order of `CHECKS`.
        details: whether to show the observations of all checks, not only of those with advice or
            a failure.

    Returns:
        One line for each finding, marked ✓ (passed), ! (passed, with advice) or ✗ (failed), with
        its advice on the next line. The last line is the `summary`.
    """
    lines = []
    for name, finding in zip(CHECKS, findings, strict=True):
        mark = "✗" if not finding.ok else "!" if finding.advice else "✓"
        shown = details or mark != "✓"
        lines.append(f"{mark} {name}: {finding.what}" if shown else f"{mark} {name}")
        lines += [f"    {finding.advice}"] * bool(finding.advice)
    return "\n".join([*lines, summary(findings)])


def summary(findings: list[Finding]) -> str:
    """Number of failed checks, or that all passed, in one line."""
    failed = sum(not finding.ok for finding in findings)
    if not failed:
        return "All checks passed."
    return f"{failed} check{'s' * (failed > 1)} failed; see the lines marked ✗"


# --- The checks -----------------------------------------------------------------------------------


def python() -> Finding:
    """Check that the course supports this version of Python."""
    from packaging.specifiers import SpecifierSet

    required = metadata.metadata("vislib")["Requires-Python"] or ""
    version = ".".join(map(str, sys.version_info[:3]))
    if version in SpecifierSet(required):
        return Finding(True, f"{version} in {sys.prefix}")
    return Finding(False, f"{version}, but the course needs {required}", SET_UP)


def packages() -> Finding:
    """Check that all packages are installed, in the versions that were tested."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires("vislib") or []]
    names = [one.name for one in needed if not one.marker or one.marker.evaluate()]
    missing = [name for name in names if _version(name) is None]
    if missing:
        return Finding(False, f"{', '.join(missing)} missing", SET_UP)
    others = [
        f"{pin.name} {_version(pin.name)} (tested: {pin.specifier})"
        for pin in map(Requirement, _pins())
        if pin.name in names
        and (not pin.marker or pin.marker.evaluate())
        and not pin.specifier.contains(_version(pin.name) or "", prereleases=True)
    ]
    if others:
        return Finding(True, ", ".join(others), f"If something does not work: {SET_UP}")
    tested = ", in the versions that were tested" * bool(_pins())
    return Finding(True, f"all {len(names)} are installed{tested}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pins() -> list[str]:
    """Tested versions; empty if the folder of the course is missing."""
    if not PYPROJECT.is_file():
        return []
    with PYPROJECT.open("rb") as file:
        return tomllib.load(file)["tool"]["uv"]["constraint-dependencies"]


def torch() -> Finding:
    """Check that PyTorch computes a convolution and its gradient on each available device."""
    import torch

    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else None
    for device in filter(None, ("cpu", gpu)):
        x = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
        torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3, device=device)).sum().backward()
        if x.grad is None or x.grad.sum().item() != 36:
            return Finding(False, f"{torch.__version__} computes wrongly on {device}", SET_UP)
    threads = torch.get_num_threads()
    return Finding(True, f"{torch.__version__}, {threads} CPU threads, GPU: {gpu or 'none'}")


def memory_and_disk() -> Finding:
    """Check that 2 GB of memory and 1 GB of disk are free."""
    import psutil  # installed with the notebook kernel

    memory = psutil.virtual_memory().available / GIB
    disk = shutil.disk_usage(Path.cwd()).free / GIB
    what = f"{memory:.1f} GB of memory and {disk:.1f} GB of disk are free"
    if memory < 2:
        return Finding(False, what, "A notebook needs up to 2 GB: close other programs.")
    if disk < 1:
        return Finding(False, what, "Delete files that you no longer need: 1 GB should be free.")
    return Finding(True, what)


def write_access() -> Finding:
    """Check that files can be written to the current folder and to the temporary folder."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"vislib")
        except OSError as error:
            advice = "Copy the course to a folder that you can write to, such as your home folder."
            return Finding(False, f"cannot write to {folder}: {error.strerror}", advice)
    return Finding(True, str(Path.cwd()))


def notebook_kernel() -> Finding:
    """Check that a notebook kernel starts and can import `vislib`."""
    if "ipykernel" in sys.modules:
        return Finding(True, "this code runs in a kernel")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(
        startup_timeout=30, extra_arguments=["--IPKernelApp.log_level=50"]
    )
    try:
        reply = client.execute_interactive(
            "import vislib", timeout=30, output_hook=lambda message: None
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        advice = (
            "The notebook's kernel uses another Python. Start Jupyter with "
            f"{sys.executable} -m jupyterlab. {SET_UP}"
        )
        return Finding(False, "a kernel starts, but cannot import vislib", advice)
    return Finding(True, "starts and imports vislib")


def widgets() -> Finding:
    """Check that sliders can be displayed: ipywidgets, and its extension for JupyterLab."""
    import ipywidgets
    from jupyter_core.paths import jupyter_path

    slider = ipywidgets.IntSlider()
    bundle = slider._repr_mimebundle_()
    slider.close()
    if "application/vnd.jupyter.widget-view+json" not in bundle:
        return Finding(False, "sliders cannot be displayed (ipywidgets is not enabled)", SET_UP)
    extension = "@jupyter-widgets/jupyterlab-manager"
    if not any((Path(folder) / extension).is_dir() for folder in jupyter_path("labextensions")):
        return Finding(False, f"JupyterLab lacks the extension {extension}", SET_UP)
    return Finding(True, f"ipywidgets {ipywidgets.__version__}")


def data_files() -> Finding:
    """Check that every file of `data/` has its original content."""
    remedy = "Fetch the folder data/ again: git checkout -- data, or a fresh copy of the course."
    if not SUMS.is_file():
        return Finding(False, f"{SUMS} does not exist", remedy)
    wrong = []
    lines = SUMS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        digest, _, name = line.partition("  ")
        if not (DATA / name).is_file():
            wrong.append(f"{name} is missing")
        elif _sha256(DATA / name) != digest:
            wrong.append(f"{name} has changed")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Finding(False, f"{', '.join(wrong[:3])}{more}", remedy)
    return Finding(True, f"{len(lines)} files are unchanged")


def efficientnet() -> Finding:
    """Check that EfficientNet-Lite0 is installed unaltered and recognises the cat Chelsea."""
    import torch
    from skimage.data import chelsea

    from vislib import nets

    try:
        model = nets.load("efficientnet_lite0")
    except nets.WeightsError as error:
        return Finding(False, str(error))
    image = torch.from_numpy(chelsea()).permute(2, 0, 1)[None] / 255
    half = torch.nn.functional.avg_pool2d(image, 2)
    with torch.no_grad():
        probabilities = model(half).softmax(dim=1)[0]
    best = model.classes[int(probabilities.argmax())]
    what = f"{best} with probability {probabilities.max():.2f}"
    # On every machine on which PyTorch computes correctly, this is Egyptian cat with 0.88.
    if best == "Egyptian cat" and abs(probabilities.max() - 0.88) < 0.02:
        return Finding(True, what)
    return Finding(False, f"{what}, for the Egyptian cat of scikit-image (0.88)", SET_UP)


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python,
    "packages": packages,
    "PyTorch": torch,
    "memory and disk": memory_and_disk,
    "write access": write_access,
    "notebook kernel": notebook_kernel,
    "widgets": widgets,
    "EfficientNet-Lite0": efficientnet,
    "data and networks": data_files,
}


# --- For maintainers ------------------------------------------------------------------------------


def write_checksums() -> int:
    """Write the checksums that `data_files` compares with, and return their number.

    The list has all files of `data/` except texts (.md), Python scripts, unfinished downloads and
    hidden files. ``sha256sum -c`` can read the list.
    """
    files = sorted(
        path.relative_to(DATA).as_posix()
        for path in DATA.rglob("*")
        if path.is_file() and path != SUMS and path.suffix not in (".md", ".part", ".py", ".pyc")
    )
    names = [name for name in files if not any(part[0] == "." for part in name.split("/"))]
    lines = [f"{_sha256(DATA / name)}  {name}\n" for name in names]
    SUMS.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
