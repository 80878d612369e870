"""The course's notebooks: run them, store their outputs, and write the versions for teaching.

The notebook itself is the source. These modules write everything that can be derived from it, which
is never written by hand: outputs, folded solutions, the run time in the header and in the README,
and the lab, live and finished versions.

    files    find, read and write notebooks
    execute  run a notebook in a new kernel and store the result (`vislib notebooks`)
    index    the header with the run time, and the table of all notebooks in the README
    publish  folded solutions; lab, live, finished and nbgrader versions; slides (`vislib labs`)
"""

from __future__ import annotations

from vislib.notebooks.execute import WIDGET, clean, run, steady, update
from vislib.notebooks.files import FOLDER, code_cells, find, read, tags, write
from vislib.notebooks.index import TABLE, header, set_seconds, table, write_table
from vislib.notebooks.publish import fold_solutions, lab, labs, live, solution

__all__ = [
    "FOLDER",
    "TABLE",
    "WIDGET",
    "clean",
    "code_cells",
    "find",
    "fold_solutions",
    "header",
    "lab",
    "labs",
    "live",
    "read",
    "run",
    "set_seconds",
    "solution",
    "steady",
    "table",
    "tags",
    "update",
    "write",
    "write_table",
]
