"""Folded solutions, and the versions of a notebook for a class.

lab       the learner's version, with stubs in place of the solutions
live      the lecturer's version, in which cells tagged `live` contain only their first comments
finished  the complete notebook; the live and finished versions are also talks with slides
nbgrader  the complete notebook with marked solutions, from which nbgrader makes an assignment
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from vislib.errors import InputError
from vislib.notebooks.files import Cell, Notebook, code_cells, read, tags, write

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
_SOLUTION = re.compile(rf"^([ \t]*){BEGIN}[^\n]*\n(.*?)^[ \t]*{END}[^\n]*\n", re.M | re.S)
_NOT_MARKED = (
    f"would stay in the lab: give the cell the tag solution, and put {BEGIN} and {END} around "
    "the solution"
)


# --- Folded solutions -----------------------------------------------------------------------------


def solution(cell: Cell) -> str:
    """Code between the solution marks of a cell, without its indentation."""
    parts = _SOLUTION.findall(cell["source"] + "\n")
    return "\n\n".join(textwrap.dedent(part).strip("\n") for _, part in parts)


def fold_solutions(notebook: Notebook, name: str = "the notebook") -> None:
    """Replace the folded solution below each exercise by the code of its solution cell.

    Raises:
        InputError: a cell tagged `solution` has no solution marks. The message begins with `name`.
    """
    import nbformat

    cells = [cell for cell in notebook["cells"] if "solution-text" not in tags(cell)]
    for index in reversed(range(len(cells))):
        if "solution" not in tags(cells[index]):
            continue
        code = solution(cells[index])
        if not code:
            raise InputError(
                f"{name}, cell {index + 1} is tagged solution: put {BEGIN} and {END} around the "
                "code that the learner will write"
            )
        after = index + 1
        while after < len(cells) and "check" in tags(cells[after]):
            after += 1
        text = nbformat.v4.new_markdown_cell(
            f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>",
            metadata={"tags": ["solution-text"]},
            id=f"{cells[index]['id'][:55]}-solution",
        )
        cells.insert(after, text)
    notebook["cells"] = cells


# --- Versions for teaching ------------------------------------------------------------------------


def labs(paths: Sequence[Path], out: Path, *, nbgrader: bool = False) -> list[Path]:
    """Write the lab, live and finished versions of notebooks.

    Args:
        paths: files of the notebooks.
        out: folder for the new files ``NAME.lab.ipynb``, ``NAME.live.ipynb`` and
            ``NAME.finished.ipynb``, which is created if it is missing.
        nbgrader: whether to also write ``out/source/NAME/NAME.ipynb``, where ``nbgrader
            generate_assignment NAME`` and ``nbgrader autograde NAME`` expect the notebook if `out`
            is the course folder.

    Returns:
        The paths of the new files.

    Raises:
        InputError: a new file exists already and differs (it may contain somebody's work), `out` is
            the folder of the notebooks, two notebooks have the same name, or a solution is not
            marked. In these cases no file is written.
    """
    new: dict[Path, Notebook] = {}
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            raise InputError(f"several of the notebooks are called {path.name}: choose one of them")
        if path.parent.resolve() == out.resolve():
            raise InputError(
                f"--out {out} contains the notebooks themselves: choose another folder"
            )
        for version, notebook in _versions(path).items():
            names = {other.name: f"{other.stem}.{version}.ipynb" for other in paths}
            relink(notebook, path.parent, out, names)
            new[out / f"{path.stem}.{version}.ipynb"] = notebook
        if nbgrader:
            notebook, folder = read(path), out / "source" / path.stem
            set_nbgrader(notebook, path.stem)
            relink(notebook, path.parent, folder, {})
            new[folder / path.name] = notebook
    for target, notebook in new.items():
        if target.exists() and read(target) != notebook:
            raise InputError(f"{target} exists already and differs: move it, or change --out")
    for target, notebook in new.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write(notebook, target)
    return list(new)


def _versions(path: Path) -> dict[str, Notebook]:
    """Lab, live and finished versions of a notebook, by the names of the versions."""
    versions = {
        "lab": lab(read(path), path.name),
        "live": live(read(path), path.name),
        "finished": read(path),
    }
    set_slides(versions["live"])
    set_slides(versions["finished"])
    return versions


def lab(notebook: Notebook, name: str = "the notebook") -> Notebook:
    """Learner's version: stubs replace the solutions, and exercises have no outputs.

    Cells tagged `claim`, the authors' own asserts, are left out. All other cells keep their code
    and outputs. The notebook is changed in place.

    Raises:
        InputError: a solution is not marked, so that it would reach the learners. The message
            begins with `name`.
    """
    title = "This exercise"
    cells = _for_learners(notebook)
    for cell in cells:
        if "exercise" in tags(cell):
            title = re.sub(r"[^\w ·,:()-]", "", cell["source"].partition("\n")[0]).strip()
        if "solution" in tags(cell):
            stub = (
                f'# Your code here\n\\1raise NotImplementedError("{title}: write your code here")\n'
            )
            cell["source"], count = _SOLUTION.subn(rf"\1{stub}", cell["source"] + "\n")
            cell["source"] = cell["source"].rstrip("\n")
            # The solution is folded in JupyterLab, but its stub must be visible.
            cell["metadata"].pop("jupyter", None)
            if not count:
                raise InputError(f"{name}, {title}: the solution {_NOT_MARKED}")
        if cell["cell_type"] == "code" and (BEGIN in cell["source"] or END in cell["source"]):
            raise InputError(f"{name}, {title}: a solution {_NOT_MARKED}")
        if {"solution", "check"} & set(tags(cell)):
            cell["outputs"], cell["execution_count"] = [], None
    notebook["cells"] = cells
    return notebook


def live(notebook: Notebook, name: str = "the notebook") -> Notebook:
    """Lecturer's version: the lab, with only the first comments in cells tagged `live`.

    The notebook is changed in place.

    Raises:
        InputError: as in `lab`.
    """
    for cell in code_cells(lab(notebook, name)):
        if "live" in tags(cell):
            comments = re.match(r"(?:[ \t]*(?:#[^\n]*)?(?:\n|$))*", cell["source"])
            cell["source"] = comments.group().strip() if comments else ""
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def _for_learners(notebook: Notebook) -> list[Cell]:
    """Cells of a notebook without the folded solutions and the authors' own asserts."""
    return [c for c in notebook["cells"] if not {"solution-text", "claim"} & set(tags(c))]


def set_slides(notebook: Notebook) -> None:
    """Mark cells as slides: a slide for each section and exercise, all other cells step by step."""
    for cell in notebook["cells"]:
        level = re.match(r"#*", cell["source"] * (cell["cell_type"] == "markdown"))
        depth = len(level.group()) if level else 0
        if {"solution-text", "claim"} & set(tags(cell)):
            # The slide shows the solution cell itself.
            kind = "skip"
        elif "exercise" in tags(cell) or depth in (1, 2):
            kind = "slide"
        else:
            kind = "subslide" if depth else "fragment"
        cell["metadata"]["slideshow"] = {"slide_type": kind}


def set_nbgrader(notebook: Notebook, name: str) -> None:
    """Mark solutions and checks for nbgrader; an exercise gets one point for each full dot ●."""
    notebook["cells"] = _for_learners(notebook)
    points = 1
    for cell in notebook["cells"]:
        if "exercise" in tags(cell):
            points = cell["source"].count("●") or 1
        if {"solution", "check"} & set(tags(cell)):
            is_solution = "solution" in tags(cell)
            cell["metadata"].pop("jupyter", None)
            cell["metadata"]["nbgrader"] = {
                "schema_version": 3,
                "grade_id": f"{name}-{cell['id']}",
                "solution": is_solution,
                "grade": not is_solution,
                "locked": not is_solution,
                "task": False,
                **({} if is_solution else {"points": points}),
            }


def relink(notebook: Notebook, old: Path, new: Path, names: dict[str, str]) -> None:
    """Change relative links so that they still work after the notebook has moved.

    Args:
        notebook: notebook whose links are changed in place.
        old: folder of the notebook before the move.
        new: folder of the notebook after the move.
        names: new names of all notebooks that move together, by their old names.
    """

    def moved(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if link in names:
            return f"{before}{names[link]}{after}"
        if not re.match(r"[a-z]+:|/", link, re.I) and (old / link).exists():
            link = Path(os.path.relpath(old / link, new)).as_posix()
        return f"{before}{link}{after}"

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(
                r"""(\]\(|(?:href|src)=")([^)\s#"]+)((?:#[^)\s"]*)?[)"])""", moved, cell["source"]
            )
