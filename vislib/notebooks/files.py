"""Find, read and write notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vislib.errors import InputError, nearest
from vislib.paths import DATA, write_whole

FOLDER = DATA.parent / "notebooks"

Notebook = dict[str, Any]
Cell = dict[str, Any]


def find(names: Sequence[str | Path] = (), folder: Path = FOLDER) -> list[Path]:
    """Find the files of notebooks.

    Args:
        names: numbers (`03`), names (`03_backpropagation`) or paths; none for all notebooks.
        folder: folder to which numbers and names refer.

    Returns:
        The paths, in the order of `names`, or sorted if `names` is empty.

    Raises:
        InputError: the folder contains no notebooks, or a name matches none of them.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names and not known:
        raise InputError(f"there are no notebooks in {folder}: use a copy of the whole course")
    if not names:
        return list(known.values())
    paths = []
    for name in map(str, names):
        stem = Path(name).name.removesuffix(".ipynb")
        number = stem.zfill(2) if stem else ""
        matching = [path for s, path in known.items() if s.split("_")[0] == number]
        if name.endswith(".ipynb") and Path(name).is_file():
            paths.append(Path(name))
        elif stem in known:
            paths.append(known[stem])
        elif matching:
            paths += matching
        else:
            raise InputError(f"there is no notebook {name!r} in {folder}: {nearest(stem, known)}")
    return paths


def read(path: Path) -> Notebook:
    """Read a notebook from its file.

    Raises:
        InputError: the file cannot be read, or is not a valid notebook.
    """
    import nbformat

    try:
        notebook: Notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as a notebook: {reason}") from error
    return notebook


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook in one step, so that other programs see either the old or the new file."""
    import nbformat

    text = nbformat.writes(notebook, version=4)
    write_whole(path, (text if text.endswith("\n") else text + "\n").encode())


def tags(cell: Cell) -> list[str]:
    """Tags of a cell."""
    return cell["metadata"].get("tags", [])


def code_cells(notebook: Notebook) -> Iterator[Cell]:
    """Code cells of a notebook, in their order."""
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
