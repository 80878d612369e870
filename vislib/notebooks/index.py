"""The header of a notebook with its run time, and the table of all notebooks in the README."""

from __future__ import annotations

import re
from pathlib import Path

from vislib.errors import InputError
from vislib.notebooks.files import FOLDER, Cell, Notebook, find, read, write
from vislib.paths import write_whole

TABLE = ("<!-- notebooks -->", "<!-- /notebooks -->")


def header(notebook: Notebook, name: str = "the notebook") -> Cell:
    """First cell, which contains the title and the line with the run time.

    Raises:
        InputError: the first cell is not such a header. The message begins with `name`.
    """
    cells = notebook["cells"]
    if cells and cells[0]["cell_type"] == "markdown":
        source = cells[0]["source"]
        if source.startswith("# ") and re.search(r"^\*\*Time:\*\*", source, re.M):
            return cells[0]
    raise InputError(
        f"{name}: the first cell must be Markdown, begin with '# Title' and contain a line that "
        "begins with **Time:**"
    )


def set_seconds(notebook: Notebook, seconds: int) -> None:
    """Store the run time in the metadata, and write it after the minutes in the header."""
    notebook["metadata"].setdefault("vislib", {})["seconds"] = seconds
    cell = header(notebook)
    cell["source"] = re.sub(
        r"^(\*\*Time:\*\*[^·\n]*?)[ ]*(·.*)?$",
        rf"\1 · runs in {seconds} s on two cores",
        cell["source"],
        count=1,
        flags=re.M,
    )


def table(folder: Path = FOLDER, *, prefix: str = "notebooks/") -> str:
    """Table for the README: the number, title, subject and run time of each notebook.

    The subject is `metadata.vislib.teaches`; without it, the first sentence below the title.

    Args:
        folder: folder of the notebooks.
        prefix: prefix of the file names in the links.

    Returns:
        The table in Markdown.
    """
    lines = ["| | Notebook | What it teaches | Runs in |", "| --- | --- | --- | --- |"]
    for path in find(folder=folder):
        notebook = read(path)
        vislib = notebook["metadata"].get("vislib", {})
        title, _, text = header(notebook, path.name)["source"].removeprefix("# ").partition("\n")
        sentence = re.match(r".+?(?:[.:!?](?=\s|$)|$)", " ".join(text.split("\n\n")[0].split()))
        number = path.stem.split("_")[0]
        cells = (
            f"[{number}]({prefix}{path.name})",
            re.sub(rf"^{number}\W+", "", title.strip()),
            vislib.get("teaches") or (sentence.group() if sentence else ""),
            f"{vislib['seconds']} s" if "seconds" in vislib else "",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def write_table(folder: Path = FOLDER) -> None:
    """Write the table between its marks, in the README beside the folder and in notebook 00.

    Raises:
        InputError: the README does not contain the marks of `TABLE`.
    """
    readme = folder.parent / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    new = _with_table(text, table(folder))
    if new is None:
        raise InputError(f"{readme} does not mark where the table goes: add {' and '.join(TABLE)}")
    if new != text:
        write_whole(readme, new.encode())
    for path in folder.glob("00_*.ipynb"):
        notebook = read(path)
        for cell in notebook["cells"]:
            cell["source"] = _with_table(cell["source"], table(folder, prefix="")) or cell["source"]
        write(notebook, path)


def _with_table(text: str, new: str) -> str | None:
    """Text with a new table between the marks; None if the text does not contain them."""
    before, begin, rest = text.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    return f"{before}{begin}\n{new}\n{end}{after}" if end else None
