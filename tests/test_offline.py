"""The settings of `conftest.py`: no network connection in tests, their subprocesses and notebook
kernels, and test workers that divide the cores among themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import pytest
import torch
from jupyter_client.manager import start_new_kernel

CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)])
def test_connecting_is_blocked(address: tuple) -> None:
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    for method in ("connect", "connect_ex"):
        with socket.socket(family) as caller, pytest.raises(RuntimeError, match="work offline"):
            getattr(caller, method)(address)


def test_names_and_datagrams_are_blocked() -> None:
    with pytest.raises(RuntimeError, match=r"'example\.org'"):
        urllib.request.urlopen("http://example.org")
    with pytest.raises(RuntimeError, match="work offline"):
        socket.gethostbyname("example.org")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as caller,
        pytest.raises(RuntimeError, match="work offline"),
    ):
        caller.sendto(b"?", ("192.0.2.1", 53))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_open(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_unix_sockets_are_open() -> None:
    first, second = socket.socketpair()
    first.close()
    second.close()


def test_subprocesses_are_blocked() -> None:
    done = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "NetworkBlocked" in done.stderr


def test_notebook_kernels_are_blocked() -> None:
    manager, client = start_new_kernel()
    try:
        reply = client.execute_interactive(CONNECT, timeout=60, output_hook=lambda message: None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["ename"] == "NetworkBlocked"


def test_a_notebook_alone_is_blocked(tmp_path: Path) -> None:
    # For `pytest notebooks/01_perceptron.ipynb`, only the conftest.py at the root is read
    root = Path(__file__).parents[1]
    shutil.copy(root / "conftest.py", tmp_path)
    shutil.copytree(root / "tests" / "offline", tmp_path / "tests" / "offline")
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CONNECT)])
    notebook.cells[0].execution_count = 1
    nbformat.write(notebook, tmp_path / "notebooks" / "a.ipynb")
    command = "-m pytest -p no:cacheprovider --rootdir=. --nbval --nbval-current-env notebooks"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "NetworkBlocked" in done.stdout


def test_workers_share_the_cores() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert workers * torch.get_num_threads() <= max(workers, os.cpu_count() or 1)
