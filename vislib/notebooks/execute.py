"""Run a notebook in a new kernel and store its outputs."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vislib.errors import InputError
from vislib.notebooks.files import Notebook, code_cells, read, write
from vislib.notebooks.index import header, set_seconds
from vislib.notebooks.publish import fold_solutions

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"
_BACKEND = "module://matplotlib_inline.backend_inline"
_KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
}


def update(path: Path, *, timeout: int = 600) -> int:
    """Run a notebook and write it back with outputs, folded solutions and run time.

    If anything fails, the file is not changed.

    Args:
        path: file of the notebook.
        timeout: seconds that one cell may take.

    Returns:
        The run time in seconds that is stored (see `steady`).

    Raises:
        InputError: a cell failed or took too long (the message names the cell), the header or a
            solution is not marked as required, or the file changed during the run.
    """
    source = path.read_bytes()
    notebook = read(path)
    header(notebook, path.name)
    fold_solutions(notebook, path.name)
    start = time.perf_counter()
    run(notebook, path, timeout=timeout)
    seconds = max(1, round(time.perf_counter() - start))
    seconds = steady(seconds, notebook["metadata"].get("vislib", {}).get("seconds"))
    clean(notebook)
    set_seconds(notebook, seconds)
    if path.read_bytes() != source:
        raise InputError(f"{path.name} was changed while it ran: save it and run it again")
    write(notebook, path)
    return seconds


def steady(seconds: int, before: int | None) -> int:
    """Run time to store: `before`, or `seconds` if they differ by over a quarter and over 1 s.

    Otherwise small differences between runs would change the file each time.
    """
    if before and abs(seconds - before) <= max(1, 0.25 * before):
        return before
    return seconds


def run(notebook: Notebook, path: Path, *, timeout: int = 600) -> None:
    """Run all cells of a notebook in a new kernel, in place.

    Args:
        notebook: notebook whose outputs are replaced.
        path: file of the notebook, for messages. The kernel starts in the folder of this file.
        timeout: seconds that one cell may take.

    Raises:
        InputError: a cell failed, took longer than `timeout`, or stopped the kernel.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    started: list[int] = []
    client = _client(notebook, path.parent, timeout, started)
    for cell in code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    try:
        client.execute(env=os.environ | {"PYTHONHASHSEED": "0", "MPLBACKEND": _BACKEND})
    except CellExecutionError as error:
        where = _last_cell(notebook, started)
        raise InputError(f"{where} of {path.name} failed: {error.ename}: {error.evalue}") from error
    # A RuntimeError means that the kernel died or does not answer.
    except (CellTimeoutError, RuntimeError) as error:
        raise InputError(
            f"{_last_cell(notebook, started)} of {path.name} did not end within {timeout} s, or "
            "its kernel died: run the cell in JupyterLab, or give a longer --timeout"
        ) from error


def _client(notebook: Notebook, folder: Path, timeout: int, started: list[int]) -> NotebookClient:
    """Client that runs the notebook and appends the index of each cell to `started`."""
    from nbclient import NotebookClient
    from nbclient.output_widget import OutputWidget

    class SilentOutput(OutputWidget):
        """Widget for outputs that sends no messages to the kernel.

        The messages of nbclient's class can swallow a reply that arrives on the same socket, and
        the run then waits forever (issue 312 of nbclient).
        """

        def sync_state(self) -> None:
            pass

    client = NotebookClient(
        cast("NotebookNode", notebook),
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=50"],
        coalesce_streams=True,
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
    )
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = SilentOutput
    return client


def _last_cell(notebook: Notebook, started: list[int]) -> str:
    """Number and first line of the cell that started last, for a message."""
    if not started:
        return "the start"
    first_line = notebook["cells"][started[-1]]["source"].strip().partition("\n")[0]
    return f"cell {started[-1] + 1} ({first_line[:60]!r})"


def clean(notebook: Notebook) -> None:
    """Remove, in place, everything that differs between machines or runs.

    A line of text replaces each widget, which a stored file cannot show. Progress bars are removed.
    """
    vislib = notebook["metadata"].get("vislib", {})
    notebook["metadata"] = {**_KERNEL, "vislib": vislib}
    for cell in notebook["cells"]:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell["metadata"].pop(key, None)
    for cell in code_cells(notebook):
        cell["outputs"] = [output for output in cell["outputs"] if not _is_progress(output)]
        for output in cell["outputs"]:
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/plain": "A widget: run this cell to use it."}


def _is_progress(output: dict[str, Any]) -> bool:
    """Whether the output is a progress bar of tqdm, as a widget or as text."""
    data = output.get("data", {})
    text = data.get("text/plain", "") if WIDGET in data else ""
    if output.get("name") == "stderr":
        text = output["text"]
    return re.search(r"%\|.*\| *\d+/\d+ \[", "".join(text)) is not None
