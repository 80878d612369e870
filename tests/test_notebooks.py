"""The form of the notebooks (CONTRIBUTING.md), and the command that runs and stores them.

Each rule is a function that yields complaints. All rules apply to all notebooks, and each rule is
tested on a notebook that breaks it.
"""

from __future__ import annotations

import base64
import copy
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import nbformat.v4 as make
import pytest
from nbconvert import HTMLExporter

from vislib import cli, notebooks
from vislib.errors import InputError
from vislib.notebooks import WIDGET, tags
from vislib.show.output import NO_CAPTION

Notebook = dict[str, Any]
TAGS = {
    "exercise", "solution", "check", "solution-text", "claim", "live", "widget",
    "nbval-ignore-output", "raises-exception",
}  # fmt: skip
NOT_EVERYWHERE = re.compile(
    r"/(home|root|Users|tmp|work|mnt|opt|usr)/|[A-Z]:\\|site-packages|<ipython-input"
    r"|pypi\.org|pythonhosted\.org|/simple/|index-url|find-links"
)


# --- The rules ------------------------------------------------------------------------------------


def executed(notebook: Notebook) -> Iterator[str]:
    count = 0
    for cell in notebooks.code_cells(notebook):
        if cell["source"].strip():
            count += 1
            if cell["execution_count"] != count:
                yield f"not run in order from a clean kernel: {cell['source'][:60]!r}"
        if "raises-exception" not in tags(cell) and any(
            output["output_type"] == "error" for output in cell["outputs"]
        ):
            yield f"holds an error: {cell['source'][:60]!r}"


def alt_texts(notebook: Notebook) -> Iterator[str]:
    texts = set()
    for output in _outputs(notebook):
        for mime in output.get("data", {}):
            if mime.startswith("image/"):
                yield f"a figure ({mime}) has no alt text that reaches a reader: use vislib.show"
        for alt in _alts(output):
            if not alt or alt.startswith(NO_CAPTION):
                yield "a figure has no alt text: give it a caption"
            elif alt in texts:
                yield f"two figures have the alt text {alt!r}"
            texts.add(alt)
    for cell in _markdown(notebook):
        if "![](" in cell["source"]:
            yield f"an image has no alt text: {cell['source'][:60]!r}"


def _alts(output: dict[str, Any]) -> list[str]:
    """Alt texts of all images in an output; an image without one has an empty text."""
    page = output.get("data", {}).get("text/html", "")
    found = [re.search(r'\balt="([^"]*)"', tag) for tag in re.findall(r"<img\b[^>]*>", page)]
    return [html.unescape(alt[1]).strip() if alt else "" for alt in found]


def alt_lengths(notebook: Notebook) -> Iterator[str]:
    for output in _outputs(notebook):
        for alt in _alts(output):
            if not 80 <= len(alt) <= 200:
                yield f"an alt text has {len(alt)} characters, 80 to 200 are right: {alt!r}"


def header(notebook: Notebook) -> Iterator[str]:
    cells = notebook["cells"]
    try:
        text = notebooks.header(notebook)["source"]
    except InputError as error:
        yield str(error)
        return
    seconds = notebook["metadata"].get("vislib", {}).get("seconds")
    line = next(line for line in text.split("\n") if line.startswith("**Time:**"))
    if not re.fullmatch(
        rf"\*\*Time:\*\* \d+ minutes[^·]* · runs in {seconds} s on two cores", line
    ):
        yield f"the run took {seconds} s, but the header says {line!r}"
    if len(cells) < 2 or cells[1]["cell_type"] != "code":
        yield "the second cell should be code: the imports"


def exercises(notebook: Notebook) -> Iterator[str]:
    kinds = [
        {"exercise", "solution", "check", "solution-text"} & set(tags(c)) for c in _all(notebook)
    ]
    names = [min(kind, default="") for kind in kinds]
    letters = "".join(_LETTER[name] for name in names)
    rest = re.sub(r"esc+t", "", letters).replace("-", "")
    if rest:
        yield f"an exercise is exercise, solution, check, solution-text, in this order: {names}"
    texts = [c["source"] for c in _all(notebook) if "exercise" in tags(c)]
    for number, text in enumerate(texts, 1):
        for needed in (
            rf"^### Exercise {number} · \S",
            r"^Difficulty (●○○|●●○|●●●) · \d+ minutes",
            r"<details>\s*<summary>Hint</summary>",
            r"</details>",
        ):
            if not re.search(needed, text, re.M):
                yield f"exercise {number} lacks {needed!r}"
    for cell in _all(notebook):
        if "check" in tags(cell) and "check." not in cell["source"]:
            yield f"a check should call check.…: {cell['source']!r}"
        if "live" in tags(cell) and not cell["source"].startswith("#"):
            yield f"a live cell should begin with a comment: {cell['source'][:60]!r}"


_LETTER = {"exercise": "e", "solution": "s", "check": "c", "solution-text": "t", "": "-"}


def folded_solutions(notebook: Notebook) -> Iterator[str]:
    new = copy.deepcopy(notebook)
    try:
        notebooks.fold_solutions(new)
    except InputError as error:
        yield str(error)
        return
    if [c["source"] for c in _all(new)] != [c["source"] for c in _all(notebook)]:
        yield "a folded solution differs from the code cell: run vislib notebooks"


def size(notebook: Notebook) -> Iterator[str]:
    number = len(_all(notebook))
    if not 8 <= number <= 60:
        yield f"{number} cells: 25 to 45 are right"
    for cell in notebooks.code_cells(notebook):
        lines = sum(bool(line.strip()) for line in cell["source"].splitlines())
        if lines > 20:
            yield f"a code cell has {lines} lines: {cell['source'][:60]!r}"


def readable_anywhere(notebook: Notebook) -> Iterator[str]:
    texts = [cell["source"] for cell in _all(notebook)]
    for output in _outputs(notebook):
        texts += [output.get("text", ""), *output.get("traceback", [])]
        texts += [
            str(text) for mime, text in output.get("data", {}).items() if "image/" not in mime
        ]
    for text in texts:
        if match := NOT_EVERYWHERE.search(text):
            start = max(0, match.start() - 20)
            yield f"a path of one machine only: {text[start : match.end() + 20]!r}"


def clean(notebook: Notebook) -> Iterator[str]:
    if "version" in notebook["metadata"].get("language_info", {}):
        yield "the metadata names a version of Python"
    if set(notebook["metadata"]) - {"kernelspec", "language_info", "vislib"}:
        yield f"metadata of an editor: {sorted(notebook['metadata'])}"
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel should be python3"
    for cell in _all(notebook):
        if unknown := set(tags(cell)) - TAGS:
            yield f"unknown tags {sorted(unknown)}"
        if "widget" in tags(cell) and "nbval-ignore-output" not in tags(cell):
            yield "a widget cell needs the tag nbval-ignore-output"
    for cell in notebooks.code_cells(notebook):
        if any(WIDGET in output.get("data", {}) for output in cell["outputs"]):
            yield "a widget is stored, which readers cannot see"
        shown = "".join(str(output.get("data", "")) for output in cell["outputs"])
        if "A widget: run" in shown and "widget" not in tags(cell):
            yield "a cell that shows a widget needs the tag widget"


RULES: list[Callable[[Notebook], Iterator[str]]] = [
    executed, alt_texts, header, exercises, folded_solutions, size, readable_anywhere, clean,
]  # fmt: skip


def _all(notebook: Notebook) -> list[dict[str, Any]]:
    return notebook["cells"]


def _markdown(notebook: Notebook) -> Iterator[dict[str, Any]]:
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def _outputs(notebook: Notebook) -> Iterator[dict[str, Any]]:
    return (output for cell in notebooks.code_cells(notebook) for output in cell["outputs"])


def complaints(notebook: Notebook) -> list[str]:
    return [text for rule in RULES for text in rule(notebook)]


# --- The course's notebooks -----------------------------------------------------------------------


# Notebooks of the first version, which are rewritten one after the other.
FIRST_VERSION = {
    "01_perceptron", "02_gradient_descent", "03_backpropagation", "04_convolution",
    "05_filters_and_activations", "06_feature_space", "07_deconvnet", "08_guided_backprop",
    "09_cam", "10_grad_cam", "11_saliency_and_smoothgrad", "12_fullgrad", "13_occlusion",
    "14_relevance", "15_shapley", "16_activation_maximisation", "17_deep_dream",
    "18_style_transfer", "19_adversarial_examples", "24_do_the_measures_agree",
}  # fmt: skip


@pytest.mark.parametrize("path", notebooks.find(), ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    notebook = notebooks.read(path)
    messages = complaints(notebook)
    if path.stem not in FIRST_VERSION:
        messages += alt_lengths(notebook)
    assert not messages, "\n".join(messages)


def test_readme_holds_the_table() -> None:
    readme = (notebooks.FOLDER.parent / "README.md").read_text(encoding="utf-8")
    begin, end = notebooks.TABLE
    if not readme.strip() or not notebooks.find():
        pytest.skip("neither README nor notebooks are written yet")
    assert f"{begin}\n{notebooks.table()}\n{end}" in readme, "run vislib notebooks"


# --- The rules themselves -------------------------------------------------------------------------

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def _figure(alt: str) -> dict[str, Any]:
    page = f'<figure><img src="data:image/png;base64,{PNG}" alt="{alt}"></figure>'
    return make.new_output("display_data", data={"text/html": page, "text/plain": alt})


def _bare(mime: str) -> dict[str, Any]:
    return make.new_output("display_data", data={mime: PNG}, metadata={mime: {"alt": "a line"}})


def _good() -> Notebook:
    """A notebook as it should be: cells 4 to 7 are an exercise, 8 is live, 9 shows a widget."""
    code, text = make.new_code_cell, make.new_markdown_cell
    cells = [
        text(
            "# 42 · A title\n\nYou learn what a rule is. And more | so.\n\n"
            "**Time:** 40 minutes to work through · runs in 7 s on two cores"
        ),
        code("import math"),
        text("## A section\n\nWhat do you expect? See [next](43_next.ipynb#part)."),
        code("figure", outputs=[_figure("a line that rises")]),
        text(
            "### Exercise 1 · Halve\n\nDifficulty ●●○ · 10 minutes\n\nWrite it.\n\n"
            "<details><summary>Hint</summary>\n\nDivide.\n\n</details>",
            metadata={"tags": ["exercise"]},
        ),
        code(
            "def half(x):\n    # BEGIN SOLUTION\n    y = x / 2\n    return y\n    # END SOLUTION",
            metadata={"tags": ["solution"]},
        ),
        code("check.half(half)", metadata={"tags": ["check"]}),
        code(
            "# Show a half.\n\n# Then more.\nprint(half(3))  # this\n# last",
            metadata={"tags": ["live"]},
            outputs=[make.new_output("stream", text="1.5\n")],
        ),
        code(
            "slider",
            metadata={"tags": ["widget", "nbval-ignore-output"]},
            outputs=[make.new_output("display_data", data={"text/plain": "A widget: run this."})],
        ),
    ]
    notebook = make.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"display_name": "Python 3", "name": "python3"},
            "language_info": {"name": "python"},
            "vislib": {"seconds": 7},
        },
    )
    notebooks.fold_solutions(notebook)
    for count, cell in enumerate(notebooks.code_cells(notebook), 1):
        cell["execution_count"] = count
    return notebook


def _source(index: int, old: str, new: str) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        cell = notebook["cells"][index]
        assert old in cell["source"]
        cell["source"] = cell["source"].replace(old, new)

    return change


def _tags(index: int, *new: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook["cells"][index]["metadata"].update(tags=list(new))


def _output(index: int, *new: dict[str, Any]) -> Callable[[Notebook], None]:
    return lambda notebook: notebook["cells"][index]["outputs"].extend(new)


def _count(index: int, number: int | None) -> Callable[[Notebook], None]:
    return lambda notebook: notebook["cells"][index].update(execution_count=number)


ERROR = make.new_output("error", ename="ValueError", evalue="no", traceback=[])
STORED = make.new_output("display_data", data={WIDGET: {"model_id": "1"}})
PATH = make.new_output("stream", text="saved in /home/somebody/course\n")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_count(3, None), "not run in order"),
        (_count(3, 5), "not run in order"),
        (_output(1, ERROR), "holds an error"),
        (_output(3, _figure("")), "no alt text"),
        (_output(3, _figure(" ")), "no alt text"),
        (_output(3, _figure(f"{NO_CAPTION}: a chart")), "no alt text"),
        (_output(3, _bare("image/png")), "use vislib.show"),
        (_output(3, _bare("image/svg+xml")), "use vislib.show"),
        (_output(1, _figure("a line that rises")), "two figures"),
        (_source(2, "What do", "![](a.png) What do"), "no alt text"),
        (_source(0, "# 42", "42"), "the first cell must"),
        (_source(0, "**Time:**", "Time:"), "the first cell must"),
        (_source(0, "7 s", "8 s"), "the run took 7 s"),
        (_source(0, " · runs in 7 s on two cores", ""), "the run took 7 s"),
        (_source(0, "40 minutes", "a while"), "the run took 7 s"),
        (lambda notebook: notebook["cells"].pop(1), "the second cell"),
        (lambda notebook: notebook["cells"].pop(6), "in this order"),
        (lambda notebook: notebook["cells"].pop(4), "in this order"),
        (_tags(5), "in this order"),
        (_tags(2, "solution"), "in this order"),
        (_source(4, "Exercise 1", "Exercise 2"), "exercise 1 lacks"),
        (_source(4, "●●○", "medium"), "exercise 1 lacks"),
        (_source(4, "10 minutes", "soon"), "exercise 1 lacks"),
        (_source(4, "Hint", "Help"), "exercise 1 lacks"),
        (_source(4, "</details>", ""), "exercise 1 lacks"),
        (_source(6, "check.half(half)", "half(2)"), "a check should call"),
        (_source(8, "# Show a half.\n\n# Then more.\n", ""), "begin with a comment"),
        (_source(5, "x / 2", "x * 0.5"), "folded solution"),
        (_source(7, "x / 2", "x * 0.5"), "folded solution"),
        (lambda notebook: notebook["cells"].pop(7), "folded solution"),
        (_source(5, "# END SOLUTION", ""), "put # BEGIN SOLUTION"),
        (_source(1, "import math", "x = 1\n" * 21), "21 lines"),
        (lambda notebook: notebook["cells"].extend([make.new_markdown_cell("x")] * 60), "70 cells"),
        (lambda notebook: notebook["cells"].__delitem__(slice(2, None)), "2 cells"),
        (_output(1, PATH), "one machine only"),
        (_source(2, "What", "See C:\\course\\data. What"), "one machine only"),
        (_source(2, "What", "pip install --index-url here. What"), "one machine only"),
        (lambda notebook: notebook["metadata"].update(widgets={}), "metadata of an editor"),
        (lambda notebook: notebook["metadata"]["kernelspec"].update(name="x"), "should be python3"),
        (lambda notebook: notebook["metadata"]["language_info"].update(version="3"), "a version"),
        (_tags(8, "life"), "unknown tags"),
        (_tags(9, "widget"), "needs the tag nbval-ignore-output"),
        (_tags(9), "needs the tag widget"),
        (_output(9, STORED), "a widget is stored"),
    ],
)
def test_each_rule_can_fail(change: Callable[[Notebook], Any], complaint: str) -> None:
    notebook = _good()
    assert not complaints(notebook)
    change(notebook)
    assert any(complaint in text for text in complaints(notebook)), complaints(notebook)


@pytest.mark.parametrize(("length", "count"), [(79, 1), (80, 0), (200, 0), (201, 1)])
def test_alt_texts_that_are_too_short_or_too_long_are_found(length: int, count: int) -> None:
    cell = make.new_code_cell("figure", outputs=[_figure("x" * length)])
    assert len(list(alt_lengths(make.new_notebook(cells=[cell])))) == count


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A folder with a README and two notebooks that were never run."""
    (tmp_path / "notebooks").mkdir()
    marks = "\n".join(notebooks.TABLE)
    (tmp_path / "README.md").write_text(f"# Course\n\n{marks}\n\nMore.\n", encoding="utf-8")
    notebook = _good()
    text = '"what a \\"line\\" does"'
    cells = notebook["cells"]
    cells[0]["source"] = cells[0]["source"].replace("· runs in 7 s on two cores", "")
    cells[1]["source"] = (
        "import matplotlib.pyplot as plt\nimport ipywidgets\nfrom vislib import show\n"
        "class check: half = print\nprint(hash('a'))"
    )
    cells[3]["source"] = f"figure, axis = plt.subplots()\nshow.figure(figure, alt={text})"
    cells[9]["source"] = (
        "slider = ipywidgets.IntSlider()\n"
        "out = ipywidgets.interactive_output(print, {'end': slider})\n"
        "ipywidgets.VBox([slider, out])"
    )
    del cells[7], notebook["metadata"]["vislib"]
    notebook["metadata"]["widgets"] = {}
    for cell in notebooks.code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    notebooks.write(notebook, tmp_path / "notebooks" / "42_rules.ipynb")
    cells[5]["source"] = cells[5]["source"].replace("    y =", "    y = None +")
    notebooks.write(notebook, tmp_path / "notebooks" / "43_next.ipynb")
    return tmp_path / "notebooks"


def test_update_makes_a_good_notebook(course: Path) -> None:
    path = course / "42_rules.ipynb"
    source = notebooks.read(path)
    seconds = notebooks.update(path)
    notebook = notebooks.read(path)
    notebook["cells"][6]["outputs"] = []  # a printed function has an address
    assert complaints(notebook) == []
    assert notebook["metadata"]["vislib"]["seconds"] == seconds
    written = next(cell for cell in notebook["cells"] if "solution-text" in tags(cell))
    assert "```python\ny = x / 2\nreturn y\n```" in written["source"]
    assert [c["id"] for c in source["cells"]] == [
        c["id"] for c in notebook["cells"] if c is not written
    ]
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert re.search(r"""<img\s[^>]*alt='what a "line" does'""", page)
    stored = "".join(o.get("data", {}).get("text/html", "") for o in _outputs(notebook))
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', stored)
    assert base64.b64decode(png).startswith(b"\x89PNG")

    notebooks.update(path)
    again = notebooks.read(path)
    again["cells"][6]["outputs"] = []
    again["metadata"]["vislib"] = notebook["metadata"]["vislib"]
    again["cells"][0] = notebook["cells"][0]
    assert again == notebook


def test_a_failing_cell_is_named_and_the_file_stays(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = course / "43_next.ipynb"
    notebook = notebooks.read(path)
    notebook["cells"][3]["source"] = "1 / 0"
    notebooks.write(notebook, path)
    before = path.read_bytes()
    assert cli.main(["notebooks", str(path)]) == 1
    message = capsys.readouterr().err
    assert "cell 4 ('1 / 0') of 43_next.ipynb failed: ZeroDivisionError" in message
    assert path.read_bytes() == before
    assert not list(course.glob(".*"))


def test_a_cell_that_does_not_end_is_named(tmp_path: Path) -> None:
    cells = [make.new_code_cell("1"), make.new_code_cell("import time; time.sleep(60)")]
    notebook = make.new_notebook(cells=cells)
    with pytest.raises(InputError, match=r"cell 2 \('import time.* within 2 s"):
        notebooks.run(notebook, tmp_path / "a.ipynb", timeout=2)


@pytest.mark.timeout(60)
def test_a_run_never_waits_for_the_output_of_a_widget(tmp_path: Path) -> None:
    """With nbclient's own output widget, one of 60 large outputs makes it miss a reply."""
    show = "with out:\n    out.clear_output(wait=True)\n    display('x' * 1_000_000)"
    cells = [make.new_code_cell("import ipywidgets\nout = ipywidgets.Output()\nout")]
    cells += [make.new_code_cell(show) for _ in range(60)]
    notebooks.run(make.new_notebook(cells=cells), tmp_path / "a.ipynb", timeout=30)


def test_a_notebook_saved_meanwhile_is_not_overwritten(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = course / "42_rules.ipynb"

    def run(notebook: Notebook, path: Path, **options: Any) -> None:
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    monkeypatch.setattr("vislib.notebooks.execute.run", run)
    with pytest.raises(InputError, match="was changed while it ran"):
        notebooks.update(path)


@pytest.mark.parametrize(
    ("seconds", "before", "kept"),
    [(9, None, 9), (12, 10, 10), (13, 10, 13), (7, 10, 7), (8, 10, 10), (2, 1, 1), (3, 1, 3)],
)
def test_the_stored_run_time_ignores_small_changes(
    seconds: int, before: int | None, kept: int
) -> None:
    assert notebooks.steady(seconds, before) == kept


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("**Time:** 40 minutes", "**Time:** 40 minutes · runs in 9 s on two cores"),
        ("**Time:** 40 minutes · old", "**Time:** 40 minutes · runs in 9 s on two cores"),
    ],
)
def test_only_the_machine_part_of_the_time_changes(line: str, expected: str) -> None:
    cell = make.new_markdown_cell(f"# T\n\nA · b.\n\n{line}\n\n* more · here")
    notebooks.set_seconds(make.new_notebook(cells=[cell]), 9)
    assert cell["source"] == f"# T\n\nA · b.\n\n{expected}\n\n* more · here"


def test_notebooks_are_found_by_number_name_and_path(course: Path) -> None:
    rules, after = course / "42_rules.ipynb", course / "43_next.ipynb"
    assert notebooks.find(folder=course) == [rules, after]
    assert notebooks.find(["43", "42_rules"], course) == [after, rules]
    assert notebooks.find(["43_next.ipynb", str(rules)], course) == [after, rules]
    with pytest.raises(
        InputError, match=r"there is no notebook '42_rule' .* did you mean '42_rules'"
    ):
        notebooks.find(["42_rule"], course)


def test_the_table_is_written_into_the_readme(course: Path) -> None:
    readme = course.parent / "README.md"
    notebooks.write_table(course)
    first = readme.read_text(encoding="utf-8")
    row = "| [42](notebooks/42_rules.ipynb) | A title | You learn what a rule is. |  |"
    assert row in first
    assert first.startswith("# Course\n\n<!-- notebooks -->\n|")
    assert first.endswith("|\n<!-- /notebooks -->\n\nMore.\n")
    notebook = notebooks.read(course / "42_rules.ipynb")
    notebook["metadata"]["vislib"] = {"teaches": "a | b", "seconds": 9}
    notebooks.write(notebook, course / "42_rules.ipynb")
    notebooks.write_table(course)
    second = readme.read_text(encoding="utf-8")
    assert "| A title | a \\| b | 9 s |" in second
    notebooks.write_table(course)
    assert readme.read_text(encoding="utf-8") == second
    readme.write_text("# Course\n", encoding="utf-8")
    with pytest.raises(InputError, match="does not mark where the table goes"):
        notebooks.write_table(course)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"cells": [], "nbformat": 99}'])
def test_a_file_that_is_not_a_notebook_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.ipynb cannot be read as a notebook"):
        notebooks.read(path)


def test_all_parts_of_a_solution_are_folded() -> None:
    source = (
        "def f():\n    # BEGIN SOLUTION\n    a = 1\n    # END SOLUTION\n    b = 2\n"
        "# BEGIN SOLUTION\nif a:\n    c = 3\n# END SOLUTION"
    )
    assert notebooks.solution(make.new_code_cell(source)) == "a = 1\n\nif a:\n    c = 3"


def test_stored_notebooks_are_valid() -> None:
    for path in notebooks.find():
        nbformat.validate(nbformat.read(path, as_version=4))


def test_progress_bars_are_not_stored():
    bar = "benchmark: 100%|██████████| 12/12 [00:01<00:00,  9.49map set/s]"
    widget = {notebooks.WIDGET: {"model_id": "1"}}
    cell = make.new_code_cell(
        "run()",
        outputs=[
            make.new_output("stream", name="stderr", text=bar),
            make.new_output("display_data", data={"text/plain": bar, **widget}),
            make.new_output("display_data", data={"text/plain": "VBox()", **widget}),
            make.new_output("stream", name="stderr", text="a warning"),
        ],
    )
    notebook = make.new_notebook(cells=[cell])
    notebooks.clean(notebook)
    kept = [o.get("text") or o["data"]["text/plain"] for o in notebook["cells"][0]["outputs"]]
    assert kept == ["A widget: run this cell to use it.", "a warning"]
