"""The course's notebooks: run them and store what they show, and make the versions for teaching.

A notebook is its own source. What can be derived is written here and never by hand: outputs, folded
solutions, run time in the header and in the README, and the lab, live and finished versions.
"""

from __future__ import annotations

import os
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vislib.errors import InputError, nearest
from vislib.paths import DATA, write_whole

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = DATA.parent / "notebooks"
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
TABLE = ("<!-- notebooks -->", "<!-- /notebooks -->")
WIDGET = "application/vnd.jupyter.widget-view+json"
_KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
}

Notebook = dict[str, Any]
Cell = dict[str, Any]


def find(names: Sequence[str | Path] = (), folder: Path = FOLDER) -> list[Path]:
    """Paths of notebooks named `03`, `03_backpropagation` or by their path; all without a name."""
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names and not known:
        raise InputError(f"there are no notebooks in {folder}: use a copy of the whole course")
    if not names:
        return list(known.values())
    found = []
    for name in map(str, names):
        stem = Path(name).name.removesuffix(".ipynb")
        number = stem.zfill(2) if stem else ""
        matching = [path for s, path in known.items() if s.split("_")[0] == number]
        if name.endswith(".ipynb") and Path(name).is_file():
            found.append(Path(name))
        elif stem in known:
            found.append(known[stem])
        elif matching:
            found += matching
        else:
            raise InputError(f"there is no notebook {name!r} in {folder}: {nearest(stem, known)}")
    return found


def read(path: Path) -> Notebook:
    """A notebook from its file; `InputError` when it is not one."""
    import nbformat

    try:
        notebook: Notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as a notebook: {reason}") from error
    return notebook


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook all at once: whoever reads it meanwhile sees the old or the new one."""
    import nbformat

    text = nbformat.writes(notebook, version=4)
    write_whole(path, (text if text.endswith("\n") else text + "\n").encode())


def tags(cell: Cell) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


# --- Running -------------------------------------------------------------------------------------


def update(path: Path, *, timeout: int = 600) -> int:
    """Run a notebook and write it back with outputs, folded solutions and run time, in seconds.

    When a cell fails, `InputError` names it, and the file stays as it was.
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
    """The time before, unless the new one differs by more than a quarter (and a second).

    A change in the file should mean something.
    """
    if before and abs(seconds - before) <= max(1, 0.25 * before):
        return before
    return seconds


def run(notebook: Notebook, path: Path, *, timeout: int = 600) -> None:
    """Run all cells in place, in a fresh kernel that starts in the folder of `path`.

    A cell that fails, or takes more than `timeout` seconds, is an `InputError`.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from nbclient.output_widget import OutputWidget

    class SilentOutput(OutputWidget):
        """Catches what a widget shows, and tells the kernel nothing of it.

        What nbclient's own sends can swallow the reply that comes on the same socket, and then the
        run waits for ever (nbclient's issue 312).
        """

        def sync_state(self) -> None:
            pass

    started: list[int] = []
    inline = "module://matplotlib_inline.backend_inline"
    client = NotebookClient(
        cast("NotebookNode", notebook),
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=50"],
        coalesce_streams=True,
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
    )
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = SilentOutput
    for cell in code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    try:
        client.execute(env=os.environ | {"PYTHONHASHSEED": "0", "MPLBACKEND": inline})
    except CellExecutionError as error:
        where = _where(notebook, started)
        raise InputError(f"{where} of {path.name} failed: {error.ename}: {error.evalue}") from error
    except (CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel died or hung
        raise InputError(
            f"{_where(notebook, started)} of {path.name} did not end within {timeout} s, or its "
            "kernel died. Try it in JupyterLab, or give a longer --timeout"
        ) from error


def _where(notebook: Notebook, started: list[int]) -> str:
    if not started:
        return "the start"
    first_line = notebook["cells"][started[-1]]["source"].strip().partition("\n")[0]
    return f"cell {started[-1] + 1} ({first_line[:60]!r})"


def clean(notebook: Notebook) -> None:
    """Take out what differs from machine to machine or run to run and means nothing to a reader.

    Widgets do not live on in a file: their outputs become a line that says so, and progress bars
    go.
    """
    own = notebook["metadata"].get("vislib", {})
    notebook["metadata"] = {**_KERNEL, "vislib": own}
    for cell in notebook["cells"]:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell["metadata"].pop(key, None)
    for cell in code_cells(notebook):
        cell["outputs"] = [output for output in cell["outputs"] if not _is_progress(output)]
        for output in cell["outputs"]:
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/plain": "A widget: run this cell to use it."}


def _is_progress(output: dict[str, Any]) -> bool:
    """Whether it is a bar of tqdm, as a widget or as text."""
    data = output.get("data", {})
    text = data.get("text/plain", "") if WIDGET in data else ""
    if output.get("name") == "stderr":
        text = output["text"]
    return re.search(r"%\|.*\| *\d+/\d+ \[", "".join(text)) is not None


def code_cells(notebook: Notebook) -> Iterator[Cell]:
    """The code cells in their order."""
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


# --- What is derived from a notebook --------------------------------------------------------------


def solution(cell: Cell) -> str:
    """The part of a solution cell that the learner is to write, without its indentation."""
    parts = _SOLUTION.findall(cell["source"] + "\n")
    return "\n\n".join(textwrap.dedent(part).strip("\n") for _, part in parts)


_SOLUTION = re.compile(rf"^([ \t]*){BEGIN}[^\n]*\n(.*?)^[ \t]*{END}[^\n]*\n", re.M | re.S)
_NOT_MARKED = f"would stay: it needs the tag solution, and lines {BEGIN} and {END} around it"


def fold_solutions(notebook: Notebook, name: str = "the notebook") -> None:
    """Write the folded solution below each exercise anew, from its solution cell."""
    import nbformat

    cells = [cell for cell in notebook["cells"] if "solution-text" not in tags(cell)]
    for index in reversed(range(len(cells))):
        if "solution" not in tags(cells[index]):
            continue
        code = solution(cells[index])
        if not code:
            raise InputError(
                f"{name}, cell {index + 1} is tagged solution: put {BEGIN} and {END} around "
                "what the learner is to write"
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


def header(notebook: Notebook, name: str = "the notebook") -> Cell:
    """The first cell, which holds the title and the line with the time; `InputError` without."""
    cells = notebook["cells"]
    if cells and cells[0]["cell_type"] == "markdown":
        source = cells[0]["source"]
        if source.startswith("# ") and re.search(r"^\*\*Time:\*\*", source, re.M):
            return cells[0]
    raise InputError(
        f"{name}: the first cell must be Markdown, begin with '# Title' and hold a line that "
        "begins with **Time:**"
    )


def set_seconds(notebook: Notebook, seconds: int) -> None:
    """Store the run time, and write it behind the minutes in the header."""
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
    """The README's table: each notebook's number, title, what it teaches and its run time.

    What it teaches is `metadata.vislib.teaches`, or the first sentence below the title.
    """
    lines = ["| | Notebook | What it teaches | Runs in |", "| --- | --- | --- | --- |"]
    for path in find(folder=folder):
        notebook = read(path)
        own = notebook["metadata"].get("vislib", {})
        title, _, text = header(notebook, path.name)["source"].removeprefix("# ").partition("\n")
        sentence = re.match(r".+?(?:[.:!?](?=\s|$)|$)", " ".join(text.split("\n\n")[0].split()))
        number = path.stem.split("_")[0]
        cells = (
            f"[{number}]({prefix}{path.name})",
            re.sub(rf"^{number}\W+", "", title.strip()),
            own.get("teaches") or (sentence.group() if sentence else ""),
            f"{own['seconds']} s" if "seconds" in own else "",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def write_table(folder: Path = FOLDER) -> None:
    """Write the table between its marks: in the README beside the folder, and in notebook 00."""
    readme = folder.parent / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    new = _with_table(text, table(folder))
    if new is None:
        raise InputError(
            f"{readme} has no place for the table: add the lines {' and '.join(TABLE)}"
        )
    if new != text:
        write_whole(readme, new.encode())
    for path in folder.glob("00_*.ipynb"):
        notebook = read(path)
        for cell in notebook["cells"]:
            cell["source"] = _with_table(cell["source"], table(folder, prefix="")) or cell["source"]
        write(notebook, path)


def _with_table(text: str, new: str) -> str | None:
    """The text with a new table between the marks; None where they are not there."""
    before, begin, rest = text.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    return f"{before}{begin}\n{new}\n{end}{after}" if end else None


# --- Versions for teaching ------------------------------------------------------------------------


def labs(paths: Sequence[Path], out: Path, *, nbgrader: bool = False) -> list[Path]:
    """Write the lab, live and finished version of notebooks into `out`; give the new files.

    With `nbgrader` also ``out/source/NAME/NAME.ipynb``: with `out` as the course folder,
    ``nbgrader generate_assignment NAME`` and ``nbgrader autograde NAME`` take it from there.
    A file that is there already and differs is an `InputError`: somebody's work may be in it.
    """
    new: dict[Path, Notebook] = {}
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            raise InputError(f"several of the notebooks are called {path.name}: one at a time")
        if path.parent.resolve() == out.resolve():
            raise InputError(f"--out {out} holds the notebooks themselves: choose another folder")
        versions = {"lab": lab(read(path), path.name), "live": live(read(path), path.name)}
        versions["finished"] = read(path)
        for suffix, notebook in versions.items():
            if suffix != "lab":
                set_slides(notebook)
            names = {other.name: f"{other.stem}.{suffix}.ipynb" for other in paths}
            _relink(notebook, path.parent, out, names)
            new[out / f"{path.stem}.{suffix}.ipynb"] = notebook
        if nbgrader:
            notebook, folder = read(path), out / "source" / path.stem
            set_nbgrader(notebook, path.stem)
            _relink(notebook, path.parent, folder, {})
            new[folder / path.name] = notebook
    for target, notebook in new.items():
        if target.exists() and read(target) != notebook:
            raise InputError(
                f"{target} is there already and differs: move it, or choose another --out"
            )
    for target, notebook in new.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write(notebook, target)
    return list(new)


def lab(notebook: Notebook, name: str = "the notebook") -> Notebook:
    """The learner's version: stubs for solutions, exercises without outputs; the lesson stays."""
    title = "This exercise"
    cells = [cell for cell in notebook["cells"] if "solution-text" not in tags(cell)]
    for cell in cells:
        if "exercise" in tags(cell):
            title = re.sub(r"[^\w ·,:()-]", "", cell["source"].partition("\n")[0]).strip()
        if "solution" in tags(cell):
            stub = (
                f'# Your code here\n\\1raise NotImplementedError("{title}: write your code here")\n'
            )
            cell["source"], count = _SOLUTION.subn(rf"\1{stub}", cell["source"] + "\n")
            cell["source"] = cell["source"].rstrip("\n")
            if not count:
                raise InputError(f"{name}, {title}: the solution {_NOT_MARKED}")
        if cell["cell_type"] == "code" and (BEGIN in cell["source"] or END in cell["source"]):
            raise InputError(f"{name}, {title}: a solution there {_NOT_MARKED}")
        if {"solution", "check"} & set(tags(cell)):
            cell["outputs"], cell["execution_count"] = [], None
    notebook["cells"] = cells
    return notebook


def live(notebook: Notebook, name: str = "the notebook") -> Notebook:
    """The lecturer's version: as the lab, and of cells to be typed only the first comments stay."""
    for cell in code_cells(lab(notebook, name)):
        if "live" in tags(cell):
            comments = re.match(r"(?:[ \t]*(?:#[^\n]*)?(?:\n|$))*", cell["source"])
            cell["source"] = comments.group().strip() if comments else ""
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def set_slides(notebook: Notebook) -> None:
    """Make a talk of a notebook: a slide for each section and exercise, the rest step by step."""
    for cell in notebook["cells"]:
        level = re.match(r"#*", cell["source"] * (cell["cell_type"] == "markdown"))
        depth = len(level.group()) if level else 0
        if "solution-text" in tags(cell):
            kind = "skip"  # the solution cell itself is on the slide
        elif "exercise" in tags(cell) or depth in (1, 2):
            kind = "slide"
        else:
            kind = "subslide" if depth else "fragment"
        cell["metadata"]["slideshow"] = {"slide_type": kind}


def set_nbgrader(notebook: Notebook, name: str) -> None:
    """Mark solutions and checks as nbgrader does; the points of an exercise are its full dots ●."""
    notebook["cells"] = [cell for cell in notebook["cells"] if "solution-text" not in tags(cell)]
    points = 1
    for cell in notebook["cells"]:
        if "exercise" in tags(cell):
            points = cell["source"].count("●") or 1
        if {"solution", "check"} & set(tags(cell)):
            answer = "solution" in tags(cell)
            cell["metadata"]["nbgrader"] = {
                "schema_version": 3,
                "grade_id": f"{name}-{cell['id']}",
                "solution": answer,
                "grade": not answer,
                "locked": not answer,
                "task": False,
                **({} if answer else {"points": points}),
            }


def _relink(notebook: Notebook, old: Path, new: Path, names: dict[str, str]) -> None:
    """Let relative links of a notebook that moves from `old` to `new` lead to the same place.

    `names` holds the notebooks that move along, with their new names.
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
