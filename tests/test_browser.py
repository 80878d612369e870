"""Widgets in a real browser: JupyterLab in Chromium, each slider moved from the keyboard.

Without Chromium these tests are skipped, except where the variable CI is set.
"""

from __future__ import annotations

import ast
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat.v4 as make
import numpy as np
import pytest
from PIL import Image

from vislib import notebooks
from vislib.notebooks import tags

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    not CHROMIUM and "CI" not in os.environ, reason="Chromium is not installed"
)

TINY = """\
import ipywidgets
import matplotlib.pyplot as plt
from vislib import show

def draw(height):
    figure, axis = plt.subplots(figsize=(2, 2))
    axis.bar([0], [height])
    axis.set_ylim(0, 10)
    show.figure(figure, alt=f"a bar of height {height}")

slider = ipywidgets.IntSlider(5, 0, 10, description="height")
ipywidgets.VBox([slider, ipywidgets.interactive_output(draw, {"height": slider})])"""
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# All cells are in the page, also those below the window, and JupyterLab asks no questions.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
IMAGES = (
    """cell => Array.from(cell.querySelectorAll('.jp-OutputArea img')).map(i => i.src).join()"""
)


class Server(NamedTuple):
    """JupyterLab, which shows the notebooks of a folder."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("jupyter")
    folder = root / "notebooks"
    folder.mkdir()
    for name, text in SETTINGS.items():
        file = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
                f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
            ],
            stdout=log,
            stderr=log,
            env=os.environ | {name: str(root / folder) for name, folder in folders.items()},
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", process, root / "server.log")
        yield Server(f"http://127.0.0.1:{port}", token, folder)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI needs Chromium: install the package chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            args=OPTIONS,
            viewport={"width": 1200, "height": 1400},
        )
        yield context
        context.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def _errors(page: Page) -> list[str]:
    """The errors of the page from now on, as they come.

    JupyterLab's complaint about an incomplete message of a kernel is left out: on a busy machine, a
    line that debugpy writes at the start of a kernel can cause it. If an output is lost in this
    way, the test still notices it, because the image does not change.
    """
    errors: list[str] = []

    def keep(text: str) -> None:
        if not text.startswith("Kernel message validation error"):
            errors.append(text)

    page.on("pageerror", lambda error: keep(str(error)))
    page.on("console", lambda line: keep(line.text) if line.type == "error" else None)
    return errors


def _check(page: Page, server: Server, path: Path, screenshots: Path, patience: int = 60) -> int:
    """As `_move_sliders`, without an error in the console; keeps a screenshot of a failure."""
    errors = _errors(page)
    try:
        moved = _move_sliders(page, server, path, patience)
        assert not errors, errors
    except Exception as error:
        screenshot = screenshots / f"{path.stem}.png"
        page.screenshot(path=screenshot)
        raise AssertionError(f"{path.name}: {error}\nSee {screenshot}") from error
    return moved


def _empty_others(cells: list[dict[str, Any]]) -> None:
    """Empty each code cell whose names are used by no widget cell and by no cell that one needs."""
    needed: set[str] = set()
    for cell in reversed(cells):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        if "widget" in tags(cell) or _given(tree) & needed:
            needed |= _used(tree)
        else:
            cell["source"] = ""


def _given(tree: ast.Module) -> set[str]:
    """Names that a cell defines, imports, assigns, or may change: rows[i] = 1, rows.pop()."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=short):
                names.add(short or name.partition(".")[0])
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Subscript(value=changed, ctx=ast.Store()):
                names |= _used(changed)
            case ast.Attribute(value=changed, ctx=ast.Store()):
                names |= _used(changed)
            case ast.Expr(value=ast.Call(func=changed)):
                names |= _used(changed)
    return names


def _used(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _run(page: Page, server: Server, path: Path) -> Locator:
    """Run a notebook's widgets, and the cells that they need, in the page; return the notebook.

    All other cells are emptied, because nbval has run them already.
    """
    notebook = notebooks.read(path)
    _empty_others(notebook["cells"])
    notebooks.write(notebook, server.folder / path.name)
    page.goto(f"{server.url}/lab/tree/{path.name}?token={server.token}&reset")
    page.wait_for_function(f"{KERNEL} === 'idle'", timeout=120_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(f"{KERNEL} === 'idle'", timeout=300_000)
    assert not page.locator("[data-mime-type*=stderr], [data-mime-type*=error]").all_inner_texts()
    return page.locator(".jp-Notebook")


def _move_sliders(page: Page, server: Server, path: Path, patience: int) -> int:
    """Run a notebook in the page, move each slider of its widget cells, and count the sliders.

    `patience` is the number of seconds that a new image may take.
    """
    book = _run(page, server, path)
    cells = notebooks.read(path)["cells"]
    moved = 0
    for index, cell in enumerate(cells):
        if "widget" not in tags(cell):
            continue
        box = book.locator(f".jp-Cell[data-windowed-list-index='{index}']")
        handles = box.locator(".noUi-handle")
        handles.first.wait_for(timeout=60_000)
        for number in range(handles.count()):
            _move(page, box, handles.nth(number), patience)
            moved += 1
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    return moved


def _move(page: Page, box: Any, handle: Any, patience: int) -> None:
    """Focus a slider's handle, press an arrow key, and wait until the image has changed."""
    box.locator(".jp-OutputArea img").first.wait_for(timeout=60_000)
    at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")

    def press() -> None:
        handle.focus()
        page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")

    _changes(page, box, press, patience)


def _changes(page: Page, box: Any, act: Callable[[], Any], patience: int = 60) -> None:
    """Do something, and wait until the image in the cell has changed."""
    before = box.evaluate(IMAGES)
    act()
    page.wait_for_function(
        f"([cell, before]) => {{ const now = ({IMAGES})(cell); return now && now !== before }}",
        arg=[box.element_handle(), before],
        timeout=1000 * patience,
    )


def _with_widgets() -> list[Path]:
    return [
        path
        for path in notebooks.find()
        if any("widget" in tags(cell) for cell in notebooks.read(path)["cells"])
    ]


def _tiny(folder: Path, source: str) -> Path:
    tagged = {"tags": ["widget", "nbval-ignore-output"]}
    cells = [make.new_markdown_cell("# Tiny"), make.new_code_cell(source, metadata=tagged)]
    notebook = make.new_notebook(cells=cells)
    notebooks.clean(notebook)  # without the name of a kernel JupyterLab would ask for one
    notebooks.write(notebook, folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def test_the_toolbox_from_upload_to_figure(page: Page, server: Server, tmp_path: Path) -> None:
    """Notebook 05: an uploaded image, a broken one, another network and layer, another unit."""
    errors = _errors(page)
    path = _tiny(tmp_path, "from vislib.widgets import toolbox\ntoolbox.toolbox('emoji_vgg')")
    box = _run(page, server, path).locator("[data-windowed-list-index='1']")
    image = box.locator(".jp-OutputArea img")
    image.first.wait_for(timeout=120_000)
    size = image.first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert min(size) > 300, f"one whole figure, not {size}"

    own, broken = tmp_path / "own.png", tmp_path / "broken.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(own)
    broken.write_bytes(own.read_bytes()[:200])
    button = box.locator("button.jupyter-button")

    def upload(path: Path) -> None:
        with page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(path)

    _changes(page, box, lambda: upload(own))
    selects = box.locator("select")
    assert selects.nth(0).input_value() == "own.png"
    assert "own.png" in box.locator("option").all_inner_texts()
    before = box.evaluate(IMAGES)
    upload(broken)
    box.get_by_text("broken.png is damaged or cut short").wait_for(timeout=60_000)
    assert box.evaluate(IMAGES) == before, "a broken file leaves the figure as it is"

    _changes(page, box, lambda: selects.nth(1).select_option("emoji_alexnet"))
    assert "net.features.11" in selects.nth(2).locator("option").all_inner_texts()
    _changes(page, box, lambda: selects.nth(2).select_option("net.features.1"))
    _changes(page, box, lambda: selects.nth(0).select_option("scene 1003"))
    _move(page, box, box.locator(".noUi-handle").first, 60)
    assert box.locator(".widget-readout").inner_text() == "1"
    assert image.count() == 1, "the new figure should replace the old one"
    page.screenshot(path=tmp_path / "toolbox.png")
    assert not errors, errors
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def test_a_slider_changes_the_figure(page: Page, server: Server, tmp_path: Path) -> None:
    assert _check(page, server, _tiny(tmp_path, TINY), tmp_path) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (TINY.replace("[height])", "[3])"), "Timeout"),  # the figure does not follow the slider
        (TINY + "\n1 / 0", "ZeroDivisionError"),
    ],
)
def test_errors_and_missing_updates_are_noticed(
    source: str, reason: str, page: Page, server: Server, tmp_path: Path
) -> None:
    path = _tiny(tmp_path, source)
    with pytest.raises(AssertionError, match=rf"{reason}[\s\S]*See .*tiny\.png"):
        _check(page, server, path, tmp_path, patience=5)
    assert (tmp_path / "tiny.png").stat().st_size > 5000


@pytest.mark.parametrize("path", _with_widgets(), ids=lambda path: path.stem)
def test_widgets_of_the_course(page: Page, server: Server, path: Path, tmp_path: Path) -> None:
    assert _check(page, server, path, tmp_path) > 0
