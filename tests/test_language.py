"""The words and phrases of the course: the field's vocabulary, and plain English sentences.

The rules cover the docstrings, comments and texts of the package, and the texts for readers and
contributors. A rule contains only what a program can find with few false alarms. Text in backticks,
code, paths and `ALLOWED` phrases are left out.

The notebooks may not exceed the numbers of `CEILINGS`. When a notebook has been revised, lower its
numbers there. `python tests/test_language.py` prints all findings and the numbers of today.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "vislib").rglob("*.py"))
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Rule(NamedTuple):
    """A phrase that should not be used, and the words to write in its place."""

    pattern: str
    advice: str
    not_in: str = "^$"  # a regular expression for the files that it does not apply to


OWN = "(?:its|their|your|our|his|her)"
MODEL = "(?:nets?|networks?|models?)"
RULES = {
    "slope": Rule(r"\bslopes?\b", "gradient"),
    "place": Rule(
        r"(?<!decimal )\bplaces\b(?! (?:the|a|each|every|one)\b)"
        r"|\b(?:the|a|each|every|any|no|one|same|this|that|another|its|their|wrong) place\b",
        "position (in a map), pixel (in an image)",
    ),
    "own": Rule(
        rf"\bof {OWN} own\b(?=\W*$| ?[.,;:)]| (?:and|or|that|to|for|in|on|at|with|so|is|are)\b)",
        "its, separate, individual; or leave it out",
    ),
    "anew": Rule(r"\banew\b", "again, new"),
    "alike": Rule(r"\balike\b", "similar, the same, equally"),
    "is no": Rule(
        r"(?<!\bthere )\b(?:is|are|was|were) no\b(?! (?:longer|more)\b)"
        r"|\bknows? no\b|\basks? nobody\b|\bhangs? on\b",
        "is not a, are not, does not know",
    ),
    "stands": Rule(r"\bst(?:ands?|ood)\b(?! (?:for|out)\b)(?!-)", "is, is written"),
    "lies": Rule(r"\bl(?:ies?|ying)\b", "is"),
    "whatever": Rule(
        r"\bwh(?:at|o)ever\b|\b(?-i:Who) (?:wants|asks|needs|looks|reads)\b", "name the noun"
    ),
    "share": Rule(
        r"\bshares?(?= of\b)"
        r"|(?:\b(?:the|a|what|its|their|this|mean|own|same|equal|largest|larger|smaller)|'s)"
        r" shares?\b",
        "fraction, proportion; relevance in LRP",
    ),
    "wanted": Rule(r"\bwanted\b", "expected, target"),
    "picture": Rule(
        r"\bpictures?\b", "image, or figure", not_in=r"vislib/(?:show\.py|widgets/|notebooks/)"
    ),
    "net": Rule(r"(?<![\w./-])nets?(?![\w/(=-]|\.\w)", "network, model"),
    "answer": Rule(
        rf"\b{MODEL}(?:'s?)? answers?\b|\bwhat (?:the|a) {MODEL} says\b"
        r"|\bclass(?:es)? (?:that (?:is|are) )?asked (?:for|about)\b",
        "prediction, predicted class; target class",
    ),
    "other words": Rule(
        r"\bnudges?\b|\bgoodness\b|\bstrangers?\b|\btastes?\b|\bfurther (?:up|down)\b"
        r"|\b(?:upper|lower)(?:most)? layers?\b|\bwindows? of (?:a|the|each|its) units?\b",
        "the field's word: perturbation, fidelity, control, objective, early or late layer, "
        "receptive field",
    ),
    "first line": Rule(
        r"^§(?:What|Who|Whose|Whom)\b", "begin a docstring with a noun phrase or an imperative"
    ),
    "half comment": Rule(r"^# ?of\b", "begin a comment with its noun"),
}
# Names and idioms that contain a word of the rules.
ALLOWED = re.compile(
    r"all[- ]convolutional net\b"  # Springenberg et al. 2015
    r"|\bt(?:akes?|aken|ook) the place of\b",
    re.IGNORECASE,
)


NOT_PROSE = (
    r"^\s*(?:>>>|\.\.\. )[^\n]*",  # an example
    r"^[ \t]+\*{0,2}\w+(?:, \w+)*(?:: | {2,})",  # the name of an argument, or of a row in a list
    r"``.*?``|`[^`]*`|\$[^$]*\$|\"\w+\"",  # code, formulas, single words in quotation marks
    r"\]\([^)]*\)|https?://\S+|<[^>]*>",  # links, HTML
)
# Words that the name of a variable or argument should not contain, where _ separates words.
NAMES = {"slope", "slopes", "place", "places", "share", "shares", "wanted", "told"}
# The most findings that each notebook may have, in the order of RULES. Numbers may only decrease.
CEILINGS = """
00  0  1  0  0  0  1  1  4  0  4  0  7 15  1  0  0  0
01 14  0  0  0  0  0  2  0  1  0  0  4 21  0  9  0  0
02  0  1  0  1  0  1  1  2  0  0  0  1  9  0  1  0  0
03 11  2  0  0  0  1  1  3  0  4  0 14 23  1  0  0  0
04  0 12  0  0  0  0  0  3  1  3  0 26 21  1  1  0  0
05  0 14  2  0  3  3  2  4  1  3  0 51 32  0  1  0  0
06  0  3  2  0  9  1  3  6  4  5  0 69 48  0  1  0  0
07  0  6  1  0  3  3  1  1  0  3  0 33 19  0  1  0  0
08  0  4  1  0  5  5  0  2  1 13  0 16 43  1  2  0  0
09  0 40  1  0  0  3  2  3  2  5  0 10 46  0  0  1  0
10 16 24  3  0  5  1  1  3  1  5  0 29 49  1  0  0  1
11  7  1  2  0  2  3  0  1  1  6  0 18 24  0  0  0  0
12 12 11  3  0  4  2  1  2  2 11  0 50 28  0  0  0  0
13  0 18  1  0  2  0  0  1  0  4  0  9 18  0  0  0  0
14  8  5  0  0  1  5  1  9  1 10  0  6 25  1  1  0  0
15  0  1  0  0  7  2  2  5  2  9  0 16 29  2  0  0  0
16  0  4  0  0  0  0  0  2  0  2  2  5 41  3  3  0  0
17  0 12  0  1  0  0  0  0  1  3  0  2 16  0  2  0  0
18  0 11  1  0  1  0  1  0  0  2  0 10 24  0  1  0  0
19  1  0  1  2  2  2  1  3  2  7  0  8 47  1  5  0  0
23  0  4  2  0  0  2  3  5  0 15  0  7 48  0  0  0  1
24  0  7  1  0  0  1  4  5  2 11  0  3 22  0  0  0  0
"""


class Text(NamedTuple):
    """A text with its file and line. A docstring begins with §, a comment with #."""

    where: str
    text: str


# --- The texts of a file -------------------------------------------------------------------------


def python_texts(source: str, name: str) -> Iterator[Text]:
    """The docstrings, comments and strings of several words."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node) is not None and isinstance(first, ast.Expr):
                docstrings.add(first.value)
                yield Text(f"{name}:{first.lineno}", "§" + prose(ast.get_docstring(node) or ""))
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if node in docstrings or node in inside:
            continue
        if (text := string(node)) and re.search(r"\w\s+\S*\w", text):
            yield Text(f"{name}:{node.lineno}", prose(text))
    yield from comments(source, name)


def string(node: ast.AST) -> str:
    """The text of a string or f-string; an expression in it becomes {}."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(string(part) or "{}" for part in node.values)
    return ""


def comments(source: str, name: str) -> Iterator[Text]:
    """The comments, those on successive lines as one."""
    lines: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row = token.start[0]
        own_line = not source.splitlines()[row - 1][: token.start[1]].strip()
        if lines and not (own_line and row == last + 1):
            yield Text(f"{name}:{start}", "# " + prose(" ".join(lines)))
            lines = []
        start = row if not lines else start
        lines.append(token.string.lstrip("# "))
        last = row if own_line else 0
    if lines:
        yield Text(f"{name}:{start}", "# " + prose(" ".join(lines)))


def document_texts(source: str, name: str) -> Iterator[Text]:
    """The paragraphs of a Markdown file, without a table that a program writes."""
    source = re.sub(r"<!-- notebooks -->.*?<!-- /notebooks -->", cut, source, flags=re.S)
    source = re.sub(r"```.*?```", cut, source, flags=re.S)
    line = 1
    for paragraph in source.split("\n\n"):
        yield Text(f"{name}:{line}", prose(paragraph))
        line += paragraph.count("\n") + 2


def notebook_texts(source: str, name: str) -> Iterator[Text]:
    """The Markdown cells, and the comments and strings of the code cells."""
    for number, cell in enumerate(json.loads(source)["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from (
                Text(f"{name}, cell {number}", part.text) for part in document_texts(text, name)
            )
        else:
            code = re.sub(r"^[%!].*", "", text, flags=re.M)
            for part in python_texts(code, name):
                yield Text(f"{name}, cell {number}", part.text)


def cut(match: re.Match[str]) -> str:
    """Nothing, in as many lines as before."""
    return "\n" * match.group().count("\n")


def prose(text: str) -> str:
    """The text in one line, without code, names of arguments, links and `ALLOWED` phrases."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, "…", text, flags=re.M | re.S)
    return ALLOWED.sub("…", " ".join(text.split()))


# --- The rules applied ---------------------------------------------------------------------------


def texts(path: Path) -> Iterator[Text]:
    """All texts of a file."""
    reader = {".py": python_texts, ".md": document_texts, ".ipynb": notebook_texts}[path.suffix]
    return reader(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())


def findings(texts: Iterator[Text]) -> Iterator[tuple[str, str]]:
    """The name of each rule that is broken, and where."""
    for where, text in texts:
        for name, rule in RULES.items():
            if re.search(rule.not_in, where):
                continue
            for match in re.finditer(rule.pattern, text, re.IGNORECASE):
                around = text[max(0, match.start() - 30) : match.end() + 30]
                yield name, f"{where}: {match.group()!r} in {around!r}: write {rule.advice}"


def names(source: str) -> Iterator[tuple[int, str]]:
    """The line and name of each variable and argument that a program defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


# --- The files of the course ---------------------------------------------------------------------


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=short)
def test_texts_use_the_words_of_the_field(path: Path) -> None:
    messages = [message for _, message in findings(texts(path))]
    assert not messages, "\n".join(messages)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_names_use_the_words_of_the_field(path: Path) -> None:
    forbidden = [
        f"line {line}: {name}"
        for line, name in names(path.read_text(encoding="utf-8"))
        if NAMES & set(name.lower().replace("in_place", "").split("_"))
    ]
    assert not forbidden, "\n".join(forbidden)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_do_not_get_worse(path: Path) -> None:
    rows = [line.split() for line in CEILINGS.split("\n") if line]
    limits = {row[0]: dict(zip(RULES, map(int, row[1:]), strict=True)) for row in rows}
    limit = limits.get(path.stem.split("_")[0], dict.fromkeys(RULES, 0))
    numbers = Counter(name for name, _ in findings(texts(path)))
    worse = {name: limit[name] for name in RULES if numbers[name] > limit[name]}
    messages = [message for name, message in findings(texts(path)) if name in worse]
    assert not worse, f"more findings than {worse}:\n" + "\n".join(messages)


# --- The rules themselves ------------------------------------------------------------------------

BROKEN = {
    "slope": ["the slopes of the loss"],
    "place": ["the largest value of each place", "at all places", "find its place in the map"],
    "own": ["with a hatch of its own", "weights of their own.", "a folder of\nyour own is best"],
    "anew": ["compute it anew"],
    "alike": ["which images are alike"],
    "is no": [
        "a mean is no proof",
        "these are no maps",
        "It knows no class",
        "it hangs on it",
    ],
    "stands": ["the text stands below", "how to read it stands beside"],
    "lies": ["P lies on the object", "what lies behind"],
    "whatever": ["whatever the image", "Who wants more reads on"],
    "share": ["the share of the energy", "the mask's share", "What share falls on it"],
    "wanted": ["the wanted class"],
    "picture": ["each picture has a label"],
    "net": ["the net is wrong", "two nets", "a trained net."],
    "answer": ["the model's answer", "what the network says", "the class that is asked for"],
    "other words": ["a nudge", "strangers get a map", "the upper layers", "the window of a unit"],
    "first line": ['def f():\n    """What the model sees."""'],
    "half comment": ["x = 1  # of two parts"],
}
CORRECT = [
    "There is no file, and it is no longer in place. Round to 3 decimal places, in place of 2.",
    "Methods that share one pass; each stands for a family. Divide by the sum of its own sign.",
    'The network `net` of `vislib.nets` in data/nets, --nets, nets.load, NETS_2, the column "net".',
    "A map places the vectors in the plane.",
    "A standard network on its own line. The all-convolutional net can take the place of it.",
    "``the share of slopes``, [a position](the/place.md) and $slope$ are not prose.",
]


def broken(text: str) -> set[str]:
    """The rules that a text, or a program with a text, breaks."""
    source = text if re.search(r"# |def ", text) else f"x = {text!r}"
    return {name for name, _ in findings(python_texts(source, "vislib/core.py"))}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_finds_its_phrases(name: str) -> None:
    for text in BROKEN[name]:
        assert broken(text) == {name}, text


@pytest.mark.parametrize("text", CORRECT)
def test_correct_sentences_pass(text: str) -> None:
    assert broken(text) == set()


def test_all_kinds_of_texts_are_read() -> None:
    source = (
        '"""An anew.\n\n    anew: an argument.\n\n>>> anew\n"""\n'
        "def f(x):  # an anew\n    # and\n    # anew\n"
        "    raise ValueError(f'{x} came anew {x}' ' and anew')\n"
    )
    where = [message.split(" ")[0] for _, message in findings(python_texts(source, "a"))]
    assert where == ["a:1:", "a:10:", "a:10:", "a:7:", "a:8:"]


def test_tables_of_programs_and_code_are_not_read() -> None:
    text = "Anew.\n\n<!-- notebooks -->\nanew\n<!-- /notebooks -->\n\n```\nanew\n```\n\nanew"
    where = [message.split(" ")[0] for _, message in findings(document_texts(text, "a"))]
    assert where == ["a:1:", "a:11:"]


def test_other_names_are_noticed() -> None:
    source = "def f(mask_share, *, x):\n    for place in x:\n        wanted = place.slope\n"
    assert {name for _, name in names(source)} == {"mask_share", "x", "place", "wanted"}


if __name__ == "__main__":
    for path in [*SOURCES, *DOCUMENTS]:
        for name, message in findings(texts(path)):
            print(f"[{name}] {message}")
    print("notebook", *RULES)
    for path in NOTEBOOKS:
        numbers = Counter(name for name, _ in findings(texts(path)))
        print(path.stem.split("_")[0], *(f"{numbers[name]:2}" for name in RULES))
