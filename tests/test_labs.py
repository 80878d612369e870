"""Lab, live and finished versions of the notebooks, and what nbgrader makes of them."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat.v4 as make
import pytest
from nbconvert import SlidesExporter

from vislib import cli, notebooks
from vislib.errors import InputError
from vislib.notebooks import publish, tags

Notebook = dict[str, Any]
OPEN = "write your code here|is not written yet"  # the error of an unsolved exercise


def _cell(source: str, *names: str, code: bool = True) -> dict[str, Any]:
    new = make.new_code_cell if code else make.new_markdown_cell
    return new(source, metadata={"tags": list(names)} if names else {})


@pytest.fixture
def course(once: Path, tmp_path: Path) -> Path:
    """Two notebooks: 42 has a function and a value to write, 43 has no exercise."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "notebooks"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("course")
    folder = root / "notebooks"
    folder.mkdir()
    (root / "README.md").write_text("# Course\n", encoding="utf-8")
    links = (
        "Next: [43](43_next.ipynb), [a part](43_next.ipynb#part), [read](../README.md), "
        '<a href="43_next.ipynb">43</a>, [web](https://example.org/a.ipynb), [gone](gone.md), '
        "[top](#a)"
    )
    hint = "\n\nDifficulty ●●○ · 10 minutes\n\nWrite it."
    cells = [
        _cell("# 42 · Title\n\n**Time:** 9 minutes", code=False),
        _cell("from vislib import checks\n\nclass check:\n    @staticmethod\n    def half(f):\n"
              "        checks.same(checks.call(f, 3.0), 1.5, what='half')"),
        _cell(f"## A section\n\n{links}", code=False),
        _cell("print('lesson')"),
        _cell("# Print two.\n# In a loop?\n\nprint(2)  # a comment", "live"),
        _cell(f'### Exercise 1 · "Halve" it {hint}', "exercise", code=False),
        _cell(
            "def half(x):\n    '''Half.'''\n    # BEGIN SOLUTION\n    y = x / 2\n\n    return y\n"
            "    # END SOLUTION\n\nprint('made')",
            "solution",
        ),
        _cell("check.half(half)", "check"),
        _cell(f"### Exercise 2 · Value{hint.replace('●●○', '●○○')}", "exercise", code=False),
        _cell("# BEGIN SOLUTION\nvalue = 3\n# END SOLUTION", "solution"),
        _cell("assert value == 3", "check"),
        _cell("### More\n\nText", code=False),
    ]  # fmt: skip
    notebooks.write(make.new_notebook(cells=cells), folder / "42_rules.ipynb")
    notebooks.update(folder / "42_rules.ipynb")
    notebooks.write(make.new_notebook(cells=cells[:1]), folder / "43_next.ipynb")
    return root


@pytest.fixture
def made(course: Path) -> dict[str, Notebook]:
    out = course.parent / "labs"
    notebooks.labs(notebooks.find(folder=course), out)
    return {
        path.name.split(".")[1]: notebooks.read(path)
        for path in sorted(out.glob("42_rules.*.ipynb"))
    }


def _source(notebook: Notebook, start: str) -> str:
    return next(c["source"] for c in notebook["cells"] if c["source"].startswith(start))


def test_lab_has_stubs_for_solutions(made: dict[str, Notebook]) -> None:
    lab = made["lab"]
    assert _source(lab, "def half") == (
        "def half(x):\n    '''Half.'''\n"
        "    # Your code here\n"
        '    raise NotImplementedError("Exercise 1 · Halve it: write your code here")\n'
        "\nprint('made')"
    )
    assert _source(lab, "# Your code here") == (
        '# Your code here\nraise NotImplementedError("Exercise 2 · Value: write your code here")'
    )
    assert not any("solution-text" in tags(cell) for cell in lab["cells"])
    assert "y = x / 2" not in str(lab)
    shown = ["".join(o.get("text", "") for o in c["outputs"]) for c in notebooks.code_cells(lab)]
    assert shown == ["", "lesson\n", "2\n", "", "", "", ""]


def test_live_cells_keep_their_first_comments(made: dict[str, Notebook]) -> None:
    live = made["live"]
    cell = next(cell for cell in live["cells"] if "live" in tags(cell))
    assert cell["source"] == "# Print two.\n# In a loop?"
    assert cell["outputs"] == []
    assert cell["execution_count"] is None
    assert "NotImplementedError" in _source(live, "def half")


def test_claims_are_left_out_and_stubs_are_not_folded() -> None:
    claim, solution = (
        _cell("assert 1", "claim"),
        _cell("# BEGIN SOLUTION\n1\n# END SOLUTION", "solution"),
    )
    for cell in (claim, solution):
        cell["metadata"]["jupyter"] = {"source_hidden": True}
    notebook = make.new_notebook(cells=[claim, solution])
    publish.set_slides(notebook)
    assert claim["metadata"]["slideshow"] == {"slide_type": "skip"}
    (stub,) = notebooks.lab(notebook)["cells"]
    assert stub is solution and "jupyter" not in stub["metadata"]


def test_finished_is_complete(course: Path, made: dict[str, Notebook]) -> None:
    original = notebooks.read(course / "42_rules.ipynb")
    for cell in (*made["finished"]["cells"], *original["cells"]):
        cell["metadata"].pop("slideshow", None)
        cell["source"] = "" if "Next:" in cell["source"] else cell["source"]
    assert made["finished"] == original


@pytest.mark.parametrize("version", ["lab", "live", "finished"])
def test_links_lead_to_the_same_files(version: str, made: dict[str, Notebook]) -> None:
    assert _source(made[version], "## A section").split("\n\n")[1] == (
        f"Next: [43](43_next.{version}.ipynb), [a part](43_next.{version}.ipynb#part), "
        f'[read](../README.md), <a href="43_next.{version}.ipynb">43</a>, '
        "[web](https://example.org/a.ipynb), [gone](gone.md), [top](#a)"
    )


def test_links_to_files_that_do_not_move(course: Path) -> None:
    out = course.parent / "deep" / "er"
    notebooks.labs([course / "42_rules.ipynb"], out)
    text = _source(notebooks.read(out / "42_rules.lab.ipynb"), "## A section")
    assert "[43](../../notebooks/43_next.ipynb)" in text
    assert "[read](../../README.md)" in text


def test_slides(made: dict[str, Notebook]) -> None:
    kinds = [cell["metadata"]["slideshow"]["slide_type"] for cell in made["finished"]["cells"]]
    assert kinds == [
        "slide", "fragment", "slide", "fragment", "fragment",
        "slide", "fragment", "fragment", "skip",
        "slide", "fragment", "fragment", "skip", "subslide",
    ]  # fmt: skip
    html, _ = SlidesExporter().from_notebook_node(made["finished"])
    # one section for each slide, each in a section of its stack
    assert html.count("<section") == 4 + 5
    assert "<summary>Solution" not in html


def test_work_is_not_overwritten(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = course.parent / "labs"
    arguments = ["labs", str(course / "42_rules.ipynb"), "--out", str(out)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.split() == [
        str(out / f"42_rules.{version}.ipynb") for version in ("lab", "live", "finished")
    ]
    assert cli.main(arguments) == 0  # the same again
    work = notebooks.read(out / "42_rules.lab.ipynb")
    work["cells"][-1]["source"] = "my notes"
    notebooks.write(work, out / "42_rules.lab.ipynb")
    assert cli.main(arguments) == 1
    assert "42_rules.lab.ipynb exists already and differs" in capsys.readouterr().err
    assert notebooks.read(out / "42_rules.lab.ipynb") == work
    with pytest.raises(InputError, match="contains the notebooks themselves"):
        notebooks.labs([course / "42_rules.ipynb"], course)


# --- They run up to the first exercise ------------------------------------------------------------


def _until(notebook: Notebook, tag: str) -> Notebook:
    """The notebook up to and with the first cell of that tag."""
    cells = notebook["cells"]
    last = next((i for i, cell in enumerate(cells) if tag in tags(cell)), len(cells))
    notebook["cells"] = cells[: last + 1]
    return notebook


def _runs_up_to_its_first_exercise(path: Path, folder: Path) -> None:
    lab = _until(notebooks.lab(notebooks.read(path)), "check")
    live = _until(notebooks.live(notebooks.read(path)), "live")
    typed = [cell["source"] for cell in notebooks.code_cells(live) if "live" not in tags(cell)]
    same = [cell["source"] for cell in notebooks.code_cells(lab)]
    assert typed[: len(same)] == same[: len(typed)]  # so one run serves both
    if not any("check" in tags(cell) for cell in lab["cells"]):
        notebooks.run(lab, folder / path.name)
        return
    with pytest.raises(InputError, match=OPEN):
        notebooks.run(lab, folder / path.name)


def test_a_lab_runs_up_to_its_first_exercise(course: Path) -> None:
    _runs_up_to_its_first_exercise(course / "42_rules.ipynb", course)


@pytest.mark.parametrize("path", notebooks.find(), ids=lambda path: path.stem)
def test_each_lab_runs_up_to_its_first_exercise(path: Path, tmp_path: Path) -> None:
    _runs_up_to_its_first_exercise(path, tmp_path)


# --- nbgrader -------------------------------------------------------------------------------------


def test_nbgrader_metadata(course: Path) -> None:
    out = course.parent / "labs"
    written = notebooks.labs([course / "42_rules.ipynb"], out, nbgrader=True)
    assert written[-1] == out / "source" / "42_rules" / "42_rules.ipynb"
    notebook = notebooks.read(written[-1])
    marked = [c["metadata"]["nbgrader"] for c in notebook["cells"] if "nbgrader" in c["metadata"]]
    assert [m["solution"] for m in marked] == [True, False, True, False]
    assert [m["grade"] for m in marked] == [m["locked"] for m in marked]
    assert [m.get("points") for m in marked] == [None, 2, None, 1]
    assert len({m["grade_id"] for m in marked}) == 4
    assert {m["schema_version"] for m in marked} == {3}
    assert not any("solution-text" in tags(cell) for cell in notebook["cells"])


def _nbgrader(command: str, folder: Path) -> None:
    path = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
    )
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command.split()],
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder), "JUPYTER_CONFIG_DIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_nbgrader_grades_a_right_and_a_wrong_submission(course: Path) -> None:
    pytest.importorskip("nbgrader")
    out, name = course.parent / "labs", "42_rules"
    notebooks.labs([course / f"{name}.ipynb"], out, nbgrader=True)
    _nbgrader(f"generate_assignment {name}", out)
    release = notebooks.read(out / "release" / name / f"{name}.ipynb")
    assert "y = x / 2" not in str(release)
    answers = {
        "right": ("return x * 0.5", "value = 3"),
        "wrong": ("return x / 3", "value = 3"),
    }
    for student, codes in answers.items():
        notebook = notebooks.read(out / "release" / name / f"{name}.ipynb")
        solutions = [cell for cell in notebook["cells"] if "solution" in tags(cell)]
        for cell, code in zip(solutions, codes, strict=False):
            cell["source"] = cell["source"].replace("raise NotImplementedError()", code)
        checks = [cell for cell in notebook["cells"] if "check" in tags(cell)]
        checks[0]["source"] = "pass"  # a student who cheats: nbgrader puts the check back
        target = out / "submitted" / student / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        notebooks.write(notebook, target)
    _nbgrader(f"autograde {name}", out)
    _nbgrader("export", out)
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert scores == {"right": 3, "wrong": 1}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (_cell("# BEGIN SOLUTION\nsecret = 1", "solution"), "would stay"),
        (_cell("secret = 1", "solution"), "would stay"),
        (_cell("# BEGIN SOLUTION\nsecret = 1\n# END SOLUTION"), "give the cell the tag solution"),
    ],
)
def test_an_unmarked_solution_does_not_reach_the_learners(
    course: Path, cell: Any, message: str
) -> None:
    notebook = notebooks.read(course / "43_next.ipynb")
    notebook["cells"].append(cell)
    notebooks.write(notebook, course / "43_next.ipynb")
    with pytest.raises(InputError, match=f"43_next.ipynb, .*{message}"):
        notebooks.labs([course / "43_next.ipynb"], course.parent / "labs")
    assert not (course.parent / "labs").exists()


def test_two_notebooks_of_the_same_name_are_refused(course: Path) -> None:
    (course / "again").mkdir()
    shutil.copy(course / "43_next.ipynb", course / "again")
    both = [course / "43_next.ipynb", course / "again" / "43_next.ipynb"]
    with pytest.raises(InputError, match="several of the notebooks are called 43_next"):
        notebooks.labs(both, course.parent / "labs")


@pytest.mark.parametrize("name", ["", "."])
def test_an_empty_name_is_not_notebook_00(course: Path, name: str) -> None:
    (course / "43_next.ipynb").rename(course / "00_start.ipynb")
    with pytest.raises(InputError, match="there is no notebook"):
        notebooks.find([name], course)


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no notebooks in"):
        notebooks.find(folder=tmp_path)
