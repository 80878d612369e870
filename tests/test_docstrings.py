"""The form of docstrings (Google style, checked examples), and the length of functions.

Each rule is a function that yields complaints about one function or class. Private names and the
internals of exercises and widgets need no sections.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vislib.measure.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "vislib").rglob("*.py"))
WITHOUT_SECTIONS = re.compile(r"vislib/(?:checks|widgets)/|/_\w+\.py$|/__main__\.py$")
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
LONG, LIMIT, LONG_FUNCTIONS = 60, 75, 4  # lines, lines, functions that may have more than LONG

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Documented(NamedTuple):
    """A public function, method or class."""

    node: Function | ast.ClassDef
    name: str
    is_method: bool

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters, for a class those of ``__init__``."""
        node = self.node
        if isinstance(node, ast.ClassDef):
            inits = [f for f in functions(node) if f.name == "__init__"]
            return Documented(inits[0], "", True).parameters if inits else []
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
        return [argument.arg for argument in named][int(self.is_method) :]

    @property
    def returned(self) -> str:
        """The type of the result; empty for a class, or if it is not annotated."""
        if isinstance(self.node, ast.ClassDef) or self.node.returns is None:
            return ""
        return ast.unparse(self.node.returns)

    @property
    def fields(self) -> list[str]:
        """The public fields of a dataclass or NamedTuple."""
        decorators = [*getattr(self.node, "decorator_list", []), *getattr(self.node, "bases", [])]
        if not any("dataclass" in ast.dump(d) or "NamedTuple" in ast.dump(d) for d in decorators):
            return []
        names = [
            line.target.id
            for line in self.node.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        ]
        return [name for name in names if not name.startswith("_")]


def functions(node: ast.AST) -> list[Function]:
    """The functions directly in a module or class."""
    return [n for n in ast.iter_child_nodes(node) if isinstance(n, Function)]


def documented(source: str) -> Iterator[Documented]:
    """The public functions and classes of a module, and the public methods of these classes."""
    tree = ast.parse(source)
    for function in functions(tree):
        yield Documented(function, function.name, is_method=False)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield Documented(node, node.name, is_method=False)
            for method in functions(node):
                static = any("staticmethod" in ast.dump(d) for d in method.decorator_list)
                yield Documented(method, f"{node.name}.{method.name}", is_method=not static)


def section(text: str, name: str) -> dict[str, str] | None:
    """The entries of a section by name, None without such a section."""
    match = re.search(rf"^{name}:\n((?:[ \t]+.*\n|\n)*)", text + "\n", re.M)
    if not match:
        return None
    lines = inspect.cleandoc(" \n" + match[1]).split("\n")
    entries: dict[str, str] = {}
    names = ""
    for line in lines:
        if entry := re.match(r"([\w*][\w*., ]*?):(?:\s+(.*)|$)", line):
            names = entry[1]
            entries[names] = entry[2] or ""
        elif names:
            entries[names] += " " + line.strip()
    return {name.strip(" *"): text for names, text in entries.items() for name in names.split(",")}


# --- The rules -----------------------------------------------------------------------------------


def parameters(one: Documented) -> Iterator[str]:
    """All parameters are in Args. More than two of them need Args, or backticks in the text."""
    listed = section(one.text, "Args")
    if listed is not None:
        for name in one.parameters:
            if name not in listed:
                yield f"Args lacks {name}"
        for name in listed:
            if name not in one.parameters:
                yield f"Args lists {name}, which is not a parameter"
    elif len(one.parameters) > 2:
        missing = [name for name in one.parameters if f"`{name}`" not in one.text]
        if missing:
            yield f"needs Args, or backticks for {', '.join(missing)}"


def attributes(one: Documented) -> Iterator[str]:
    """Each field of a dataclass or NamedTuple is in Attributes."""
    listed = section(one.text, "Attributes") or {}
    for name in one.fields:
        if name not in listed:
            yield f"Attributes lacks {name}"


def returns(one: Documented) -> Iterator[str]:
    """A function with Args and a result has Returns, unless the first line describes the result."""
    if one.returned in ("", "None", "bool", "Iterator[None]") or section(one.text, "Args") is None:
        return
    if section(one.text, "Returns") is None and section(one.text, "Yields") is None:
        first = one.text.partition("\n")[0]
        says = re.search(r"[×→]|[Rr]eturn|[Yy]ield", first)  # a shape, or the result in words
        if re.match(IMPERATIVE, first) and not says:
            yield f"needs Returns: the first line says what it does, not what it returns: {first!r}"


IMPERATIVE = re.compile(
    r"(?:Add|Apply|Ask|Build|Check|Compute|Cut|Do|Draw|Fetch|Find|Fold|Give|Go|Keep|Let|List|Load|"
    r"Make|Map|Mark|Measure|Move|Open|Pass|Print|Put|Read|Record|Replace|Run|Save|Search|Send|Set|"
    r"Show|Split|Start|Take|Train|Turn|Walk|Write)\b"
)


def raises(one: Documented) -> Iterator[str]:
    """Each exception that the function itself raises is in Raises."""
    if isinstance(one.node, ast.ClassDef):
        return
    listed = section(one.text, "Raises") or {}
    for name in sorted(raised(one.node)):
        if name not in listed:
            yield f"Raises lacks {name}"


def raised(function: Function) -> set[str]:
    """The classes of the exceptions that the body raises by name, without nested functions."""
    names = set()
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(call, ast.Name) and call.id[0].isupper():
                names.add(call.id)
        todo += ast.iter_child_nodes(node)
    return names - {"NotImplementedError", "AssertionError"}


def google_form(one: Documented) -> Iterator[str]:
    """Sections have the usual names and an empty line before them; errors are in Raises."""
    for name in re.findall(r"^(\w+):\n", one.text + "\n", re.M):
        if name.rstrip("s") in {s.rstrip("s") for s in SECTIONS} | {"Argument", "Parameter"}:
            if name not in SECTIONS:
                yield f"the section is called {name}, not one of {', '.join(SECTIONS)}"
            elif not re.search(rf"\n\n{name}:\n", one.text):
                yield f"needs an empty line before {name}"
    text = re.split(rf"^(?:{'|'.join(SECTIONS)}):\n", one.text, maxsplit=1, flags=re.M)[0]
    if match := re.search(ERROR_SENTENCE, text):
        yield f"{match.group()!r}: write a section Raises"


ERROR_SENTENCE = re.compile(
    r"`+\w*Error`+ (?:where|when|if|for|without|with|unless|before|names)\b|; `+\w*Error`+"
)
RULES: list[Callable[[Documented], Iterator[str]]] = [
    parameters, attributes, returns, raises, google_form,
]  # fmt: skip


def complaints(source: str, sections: bool = True) -> list[str]:
    lines = []
    for one in documented(source):
        if one.name.split(".")[-1].startswith("_"):
            continue
        rules = RULES if sections else [google_form]
        lines += [
            f"line {one.node.lineno}, {one.name}: {text}" for rule in rules for text in rule(one)
        ]
    return lines


def lengths(source: str) -> Iterator[tuple[int, str]]:
    """The lines of each function, with its docstring and without its decorators, and its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield (node.end_lineno or 0) - node.lineno + 1, f"{node.name} (line {node.lineno})"


# --- The package ---------------------------------------------------------------------------------


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_docstrings_have_the_right_form(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    messages = complaints(source, sections=not WITHOUT_SECTIONS.search(short(path)))
    assert not messages, "\n".join(messages)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_modules_have_a_docstring_and_postponed_annotations(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if len(tree.body) > 1:
        assert ast.unparse(tree.body[1]) == "from __future__ import annotations"


def test_functions_are_short() -> None:
    all_lengths = [
        (lines, f"{short(path)}: {name}")
        for path in SOURCES
        for lines, name in lengths(path.read_text(encoding="utf-8"))
    ]
    too_long = [f"{lines} lines: {name}" for lines, name in all_lengths if lines > LIMIT]
    assert not too_long, "\n".join(too_long)
    long = [f"{lines} lines: {name}" for lines, name in all_lengths if lines > LONG]
    assert len(long) <= LONG_FUNCTIONS, "\n".join(long)


METHODS_WITH_EXAMPLES = {
    method.function.__name__: method.function
    for method in METHODS.values()
    if method.function.__module__.startswith("vislib.explain")
}


def test_the_registry_has_explanation_methods() -> None:
    assert len(METHODS_WITH_EXAMPLES) >= 15


@pytest.mark.parametrize("name", METHODS_WITH_EXAMPLES)
def test_each_method_of_the_registry_has_an_example(name: str) -> None:
    assert ">>>" in (METHODS_WITH_EXAMPLES[name].__doc__ or "")


@pytest.mark.parametrize("path", sorted((ROOT / "vislib/explain").rglob("[!_]*.py")), ids=short)
def test_each_explanation_method_has_an_example(path: Path) -> None:
    for one in documented(path.read_text(encoding="utf-8")):
        is_method = one.parameters[:3] == ["model", "x", "target"] and one.returned == "Tensor"
        if is_method and not one.name.startswith("_"):
            assert ">>>" in one.text, f"{one.name} has no example"


# --- The rules themselves ------------------------------------------------------------------------

GOOD = '''
def f(model, x, *, size=1, **more) -> Tensor:
    """Find a map.

    Args:
        model, x: as usual.
        size: a number: 1 or more,
            such as 2.
        **more: the rest.

    Returns:
        The map.

    Raises:
        ValueError: `size` is 0.
    """
    if size:
        raise ValueError("size")

def half(x) -> float:
    """Half of x."""

class Point(NamedTuple):
    """A point.

    Attributes:
        x: across.
        y: up.
    """
    x: int
    y: int

    def shift(self, dx):
        """Move by `dx`."""
        def inner():
            raise ValueError
'''


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("size=1", "width=1", "Args lacks width"),
        ("size=1", "width=1", "Args lists size, which is not a parameter"),
        ("**more)", ")", "Args lists more"),
        ("half(x)", "half(x, y, z)", "needs Args, or backticks for x, y, z"),
        ("half(x)", "half(x, y, *z)", "needs Args, or backticks for x, y, z"),
        ("        y: up.\n", "", "Attributes lacks y"),
        ("    Returns:\n        The map.\n", "", "needs Returns"),
        ("        ValueError: `size`", "        KeyError: `size`", "Raises lacks ValueError"),
        ("Half of x.", "Half of x; ``ValueError`` where x is odd.", "write a section Raises"),
        ("    Returns:", "    Return:", "the section is called Return"),
        ("\n\n    Raises:", "\n    Raises:", "needs an empty line before Raises"),
    ],
)
def test_each_rule_can_fail(old: str, new: str, complaint: str) -> None:
    assert complaints(GOOD) == []
    assert old in GOOD
    assert any(complaint in text for text in complaints(GOOD.replace(old, new)))


def test_private_names_need_no_sections() -> None:
    assert complaints(GOOD.replace("def f(", "def _f(").replace("size=1", "width=1")) == []
    assert complaints(GOOD.replace("size=1", "width=1"), sections=False) == []


def test_lengths_count_the_docstring() -> None:
    assert (2, "half") in [(lines, name.split()[0]) for lines, name in lengths(GOOD)]
