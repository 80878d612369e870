"""The doctor: content with a sound machine; each check notices its trouble and says what to do."""

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
✓ data and nets
All is well."""
# The machine that the tests run on may be short of memory.
ENOUGH = """\
import types, psutil
psutil.virtual_memory = lambda: types.SimpleNamespace(available=2**33)
from vislib import doctor"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small data folder with its checksums."""
    folder = tmp_path / "data"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "a.safetensors").write_bytes(b"weights")
    (folder / "scenes.json").write_bytes(b"{}")
    (folder / "README.md").write_bytes(b"# Card")
    (folder / ".hidden").write_bytes(b"x")
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
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == [
        "✓ one: is 1",
        "✗ two: ZeroDivisionError: integer division or modulo by zero",
    ]
    assert "uv sync" in told.out
    assert "something is wrong" in told.err
    monkeypatch.setattr(doctor, "CHECKS", {"one": checks["one"]})
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "✓ one: is 1\nAll is well.\n"


def test_advice_without_harm_is_told_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"one": doctor.python})
    text = doctor.text([doctor.Finding(True, "newer", "Look out.")])
    assert text == "! one: newer\n    Look out.\nAll is well."


@pytest.mark.parametrize("check", doctor.CHECKS.values(), ids=doctor.CHECKS)
def test_each_check_passes_here(
    check: Callable[[], doctor.Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimpleNamespace(available=2**33)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = check()
    assert found.ok, found
    assert found.what


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1, "final", 0))
    found = doctor.python()
    assert not found.ok
    assert found.what.startswith("3.9.1, the course needs ")


def test_packages_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy", "no-such-package", "neither ; sys_platform == 'none'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needed)
    found = doctor.packages()
    assert (found.ok, found.what) == (False, "no-such-package missing")
    needed.pop(1)
    monkeypatch.setattr(doctor, "_pins", lambda: ["numpy==1.0", "numpy==2.0 ; sys_platform == ''"])
    found = doctor.packages()
    assert found.ok
    assert "(tested: ==1.0)" in found.what
    assert "uv sync" in found.advice
    monkeypatch.setattr(doctor, "_pins", lambda: [])
    assert doctor.packages() == (True, "all 1 are there", "")


def test_without_the_folder_of_the_course(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PYPROJECT", tmp_path / "pyproject.toml")
    assert doctor._pins() == []


def test_torch_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = doctor.memory_and_disk()
    assert not found.ok
    assert "Delete" in found.advice
    disk.free = 2**33
    assert doctor.memory_and_disk().ok


def test_no_write_access(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = doctor.write_access()
    assert found.what == f"cannot write into {Path.cwd()}: Permission denied"
    assert "folder of your own" in found.advice


def test_kernel_that_does_not_start_or_is_of_another_python(
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
    assert "does not find vislib" in doctor.notebook_kernel().what


def test_widgets_without_their_part_of_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_core import paths

    monkeypatch.setattr(paths, "jupyter_path", lambda *parts: [])
    assert "lacks @jupyter-widgets" in doctor.widgets().what


def test_data_changed_or_missing(data: Path) -> None:
    assert doctor.data_and_nets() == (True, "2 files are whole", "")
    (data / "README.md").write_bytes(b"a card may be edited")
    assert doctor.data_and_nets().ok
    (data / "scenes.json").write_bytes(b"{ }")
    (data / "nets" / "a.safetensors").unlink()
    found = doctor.data_and_nets()
    assert found.what == "nets/a.safetensors is missing, scenes.json has changed"
    assert "git checkout" in found.advice
    doctor.SUMS.unlink()
    assert not doctor.data_and_nets().ok


def test_many_broken_files_are_summed_up(data: Path) -> None:
    for number in range(9):
        (data / f"{number}.json").write_bytes(b"1")
    assert doctor.write_checksums() == 11
    for number in range(9):
        (data / f"{number}.json").unlink()
    assert doctor.data_and_nets().what.endswith("2.json is missing and 6 more")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_sha256sum_reads_the_list(data: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=data, env=os.environ | {"LC_ALL": "C"}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.stdout == "nets/a.safetensors: OK\nscenes.json: OK\n"


def test_the_kernel_starts_while_the_other_checks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    both = threading.Barrier(2, timeout=20)

    def meets() -> doctor.Finding:
        both.wait()  # goes on only when the other check is running, too
        return doctor.Finding(True, "met")

    monkeypatch.setattr(doctor, "notebook_kernel", meets)
    checks = {"first": lambda: meets(), "kernel": meets, "last": doctor.python}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert [found.what for found in doctor.examine()][:2] == ["met", "met"]
