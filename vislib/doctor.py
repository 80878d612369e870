"""Is everything there that the course needs? Looks without the network, and says what to do."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vislib.paths import DATA

SUMS = DATA / "SHA256SUMS"
PYPROJECT = DATA.parent / "pyproject.toml"
GIB = 2**30


class Finding(NamedTuple):
    """What one check found. A finding that is `ok` can still hold advice."""

    ok: bool
    what: str
    advice: str = ""


def report() -> None:
    """Print what was found, for a notebook: a healthy machine prints the same as any other."""
    print(text(examine()))


def examine() -> list[Finding]:
    """Run all checks; one that breaks is a finding too.

    A kernel takes a second to start, PyTorch takes longer to load: the one happens meanwhile.
    """
    with ThreadPoolExecutor(1) as beside:
        kernel = (
            beside.submit(_run, notebook_kernel) if notebook_kernel in CHECKS.values() else None
        )
        return [
            kernel.result() if kernel and check is notebook_kernel else _run(check)
            for check in CHECKS.values()
        ]


def text(findings: list[Finding], *, details: bool = False) -> str:
    """The findings line by line, and one line that sums up."""
    lines = []
    for name, finding in zip(CHECKS, findings, strict=True):
        mark = "✗" if not finding.ok else "!" if finding.advice else "✓"
        told = details or mark != "✓"
        lines.append(f"{mark} {name}: {finding.what}" if told else f"{mark} {name}")
        lines += [f"    {finding.advice}"] * bool(finding.advice)
    well = all(finding.ok for finding in findings)
    return "\n".join([*lines, "All is well." if well else "Something is wrong: see ✗ above."])


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        return Finding(False, f"{type(error).__name__}: {error}", SET_UP)


SET_UP = "Set the course up again, as the README says: uv sync, or conda env update."


def python() -> Finding:
    """The version of Python is one that the course is made for."""
    from packaging.specifiers import SpecifierSet

    wanted = metadata.metadata("vislib")["Requires-Python"] or ""
    version = ".".join(map(str, sys.version_info[:3]))
    if version in SpecifierSet(wanted):
        return Finding(True, f"{version} in {sys.prefix}")
    return Finding(False, f"{version}, the course needs {wanted}", SET_UP)


def packages() -> Finding:
    """All packages are there, in the versions that the course was tested with."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires("vislib") or []]
    names = [each.name for each in needed if not each.marker or each.marker.evaluate()]
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
    return Finding(True, f"all {len(names)} are there{tested}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pins() -> list[str]:
    """The tested versions, where the course's own folder is at hand."""
    if not PYPROJECT.is_file():
        return []
    with PYPROJECT.open("rb") as file:
        return tomllib.load(file)["tool"]["uv"]["constraint-dependencies"]


def torch() -> Finding:
    """PyTorch computes, and differentiates, on each device that it says it has."""
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
    """2 GB of memory and 1 GB of disk are free."""
    import psutil  # comes with the notebook kernel

    memory = psutil.virtual_memory().available / GIB
    disk = shutil.disk_usage(Path.cwd()).free / GIB
    what = f"{memory:.1f} GB of memory and {disk:.1f} GB of disk are free"
    if memory < 2:
        return Finding(False, what, "A notebook needs up to 2 GB: close other programs.")
    if disk < 1:
        return Finding(False, what, "Delete what you no longer need: 1 GB should be free.")
    return Finding(True, what)


def write_access() -> Finding:
    """Files can be written where we are, and in the folder for temporary files."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"vislib")
        except OSError as error:
            advice = "Copy the course into a folder of your own, such as your home folder."
            return Finding(False, f"cannot write into {folder}: {error.strerror}", advice)
    return Finding(True, str(Path.cwd()))


def notebook_kernel() -> Finding:
    """A notebook's kernel starts, and finds `vislib`."""
    if "ipykernel" in sys.modules:
        return Finding(True, "this is one")
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
        advice = f"Its kernel is of another Python: in this one run jupyter lab. {SET_UP}"
        return Finding(False, "a kernel starts, but does not find vislib", advice)
    return Finding(True, "starts and finds vislib")


def widgets() -> Finding:
    """A slider can be made, and JupyterLab has the part that draws it."""
    import ipywidgets
    from jupyter_core.paths import jupyter_path

    slider = ipywidgets.IntSlider()
    bundle = slider._repr_mimebundle_()
    slider.close()
    if "application/vnd.jupyter.widget-view+json" not in bundle:
        return Finding(False, "a slider has no picture", SET_UP)
    part = "@jupyter-widgets/jupyterlab-manager"
    if not any((Path(folder) / part).is_dir() for folder in jupyter_path("labextensions")):
        return Finding(False, f"JupyterLab lacks {part}", SET_UP)
    return Finding(True, f"ipywidgets {ipywidgets.__version__}")


def data_and_nets() -> Finding:
    """Every file of `data/` is as it was shipped."""
    again = "Fetch the folder data/ again: git checkout -- data, or a fresh copy of the course."
    if not SUMS.is_file():
        return Finding(False, f"there is no {SUMS}", again)
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
        return Finding(False, f"{', '.join(wrong[:3])}{more}", again)
    return Finding(True, f"{len(lines)} files are whole")


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python,
    "packages": packages,
    "PyTorch": torch,
    "memory and disk": memory_and_disk,
    "write access": write_access,
    "notebook kernel": notebook_kernel,
    "widgets": widgets,
    "data and nets": data_and_nets,
}


def write_checksums() -> int:
    """Write the list that `data_and_nets` compares with (`sha256sum -c` reads it); give its length.

    Texts for people (.md) and hidden files are not in it.
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
