"""The language of names, comments, docstrings, messages, pages and docs: plain technical English, one word per concept.

Each :class:`Rule` is a row of the glossary: what not to write, what to write, and an example of each. A word that is
also ordinary English has a pattern that catches only the other use; its ``fine`` example shows what passes. ``python
-m tests.project.test_language [PATH …]`` prints what is found.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCOPE = (
    "ddtl",
    "docs",
    "conf",
    "benchmarks",
    "tools",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "Makefile",
    "pyproject.toml",
    "train.py",
    "sweep.py",
)


@dataclass(frozen=True)
class Rule:
    """What not to write in text; a blank of the pattern is any white space."""

    pattern: str
    instead: str
    wrong: str  # an example that is caught
    fine: str  # ordinary English, or the right word, which is not

    def search(self, text: str) -> Iterator[re.Match[str]]:
        return _compiled(self.pattern).finditer(text)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


RULES = (
    Rule(r"\btold\b", "reported, given, distinguished", "the sweep is told", "the sweep is notified"),
    Rule(r"\b(?:asked|asks)\b", "requested, given", "what was asked for", "what was requested"),
    Rule(r"\b(?:said|unsaid)\b", "reported, stated", "as was said", "as stated"),
    # A page or a message may say how or why, as in ordinary English; data and functions do not say so, little or
    # nothing.
    Rule(
        r"\bsay(?:s|ing)? (?:so|nothing|little|anything|otherwise|who|of|it|non-)\b|: say what\b"
        r"|\bwhat (?:\S+ ){1,4}says?\b",
        "state, report, show, give",
        "where the record does not say so",
        "the page says how; in 7 of, say, 10 runs",
    ),
    # "is called" of a function or a name is ordinary; a class or a threshold after it is not.
    Rule(
        r"\bcalled (?:COVID|NonCOVID|positive|negative|at|right|rightly|wrong|wrongly|correctly)\b|\bmiscalled\b"
        r"|\b(?:image|slice|patient|everything|that)s? (?:(?:is|are|was|were|that is) )+called\b",
        "predicted (COVID), at threshold",
        "images called COVID",
        "the function is called once",
    ),
    Rule(r"\banew\b", "again; recompute, rewrite", "trained anew", "trained again"),
    Rule(r"\bonce more\b", "again", "runs once more", "runs once"),
    Rule(r"\b(?:go|goes|going|gone|went) on\b", "resume, continue", "the run goes on", "the run resumes"),
    Rule(
        r"\b(?:stands?|stood|standing)\b(?! (?:for|out)\b)(?!-)",
        "is in, appears in",
        "it stands in the record",
        "p stands for it",
    ),
    # "lies between" is what one says of a number.
    Rule(
        r"\b(?:lie|lies|lay|lying) (?!between\b|outside\b|inside\b)",
        "is in, is next to",
        "the file lies in a folder",
        "a value lies between 0 and 1",
    ),
    # A lock is held, a statement holds for something, data are held out.
    Rule(
        r"\bholds?\b(?! (?:for|if|when|where|only|exactly|out|back|its lock|the lock|a lock)\b)(?![.,:;)])"
        r"|\bholding\b(?! (?:the|a|its) lock)",
        "contains, is",
        "a folder that holds runs",
        "the formula holds for two classes",
    ),
    Rule(r"\bpictur\w+", "image", "a picture of a lung", "an image of a lung"),
    # Deep, machine and transfer learning, learning rates and curves, and scikit-learn keep their names.
    Rule(
        r"(?<!scikit-)\b(?:learn|learns|learned|learnt|unlearned)\b|\b(?<!transfer\s)learning (?:from|of)\b",
        "train on, fit",
        "patients it learned from",
        "deep learning with scikit-learn at a learning rate",
    ),
    # "look" as the use of a test set, and what was "looked at"; to look something up is ordinary.
    Rule(
        r"\b(?:later|earlier|another|each|every|this|that|the|a|one|first|\w+th|\w+rd|\w+nd) looks?\b(?! like)"
        r"|\blook (?:number|of)\b|\blooks? at\b|\blook(?:ed|ing)\b(?! up)|\bhow-?manieth\b"
        r"|\blooks (?:taken|planned|so far)\b",
        "test-set use; evaluation; examine",
        "the third look at it",
        "look up a key",
    ),
    Rule(r"\bfile(?:-| )facts?\b|\bfacts of (?:the )?files?\b", "file metadata", "the file facts", "the file metadata"),
    Rule(r"\bcommon(?:est|er)\b", "majority class", "the commonest class", "a common class"),
    # A difference is "minus"; "less than" is ordinary.
    Rule(
        r"\b(?:winner|default|first|second|random|home|mean|this|other|one|a|of two) less (?!than\b)"
        r"|\bless (?:the )?(?:default|second|first|winner|random|this|the other|its|that)\b",
        "minus",
        "winner less default",
        "less than the default",
    ),
    Rule(
        r"\blos(?:s|ses|t|es) (?:on|to|of) (?:an)?(?:other|external)\b|\bloss (?:elsewhere|across)\b",
        "drop (in-domain minus external)",
        "its loss on another test set",
        "the loss on the validation images",
    ),
    # "ways" for methods; "the same way", "either way" and "two-way" are ordinary.
    Rule(
        r"(?<![-/])\bways\b(?! around)|\b(?:each|every|reported|best) way\b",
        "methods",
        "the reported way",
        "either way; a two-way table",
    ),
    Rule(r"\belsewhere\b", "external; on other machines, in other places", "scored elsewhere", "scored externally"),
    Rule(r"\bat home\b|\bhome and away\b", "in-domain", "scores at home", "the home page"),
    # "away from" is a direction.
    Rule(r"\baway\b(?! from\b)", "external; remove", "thrown away", "away from 0"),
    Rule(r"\bmend(?:s|ed|ing)?\b", "fix, repair", "the file is mended", "the file is amended"),
    Rule(r"\bt(?:ake|akes|aken|aking|ook) (?:away|back)\b", "remove, undo", "take back what differs", "take the first"),
    Rule(r"\bbeside\b", "next to, with, in the same folder", "the page beside it", "besides"),
    Rule(r"\b(?:what|which|that) is so\b", "true and predicted labels; if so", "what is so", "so that it is"),
    Rule(r"\bdeal(?:s|t|ing)?\b(?! with\b)", "assign", "dealt over the folds", "deal with errors"),
    Rule(r"\bkept together\b|\bkeeps? \w+ together\b", "never split", "patients kept together", "put together"),
    Rule(r"\ba word with\b|\bsigns? of life\b|\bbeats?\b", "heartbeat, report", "a sign of life", "a heartbeat"),
    # Distance to the training images; "far too wide" and "as far as" are ordinary.
    Rule(
        r"\bfar from\b(?! (?:0|it)\b)|\b(?:is|are|was|were|be) far\b(?! (?:too|more|less|beyond|from 0)\b)",
        "out of distribution (OOD)",
        "images far from training",
        "how far the run has come; far too wide",
    ),
    # An image is turned upright.
    Rule(r"\bupright (?:line|bar|axis)", "vertical", "an upright line", "an image that is turned upright"),
    Rule(r"\b(?:leave|leaves|leaving|left) out\b", "exclude", "images left out", "leave-one-out"),
    Rule(
        r"\blines? to type\b|\brepeat it\b|\bto repeat (?:it|this)\b",
        "command; Reproduce",
        "the line to type",
        "a repeat",
    ),
    # A figure's "paper"; an article is a paper too.
    Rule(r"\b(?:figure|chart|plot)s?(?:.s)? paper\b", "page background", "the figure's paper", "the paper of Youden"),
    # "is no X" for "is not a X"; "there is no X", "is no longer" and comparatives are ordinary.
    Rule(
        r"(?<!there\s)(?<!where\s)\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b"
        r"|larger\b|smaller\b|wider\b|narrower\b|different\b|one\b|such\b|slower\b|faster\b|higher\b|lower\b|later\b|earlier\b)",
        "is not a …",
        "the word is no URL",
        "there is no URL; is no longer",
    ),
    Rule(r"\b(?:is|are) to (?:look|be)\b", "expected …; must be", "a key is to look like", "a key is expected"),
)

# Parts of names, between underscores and capitals.
PARTS = {
    "told": "reported, given",
    "asked": "requested",
    "said": "reported, a noun",
    "unsaid": "unreported",
    "anew": "again",
    "picture": "image",
    "pictures": "images",
    "look": "use (of a test set), measure",
    "looks": "uses, measurements",
    "learnt": "fitted",
    "learned": "trained",
    "learn": "train, fit",
    "commonest": "majority",
    "commoner": "majority",
    "ways": "methods",
    "way": "method",
    "elsewhere": "external",
    "away": "external",
    "mend": "repair",
    "beside": "next to",
    "deal": "assign",
    "dealt": "assigned",
    "dealing": "assignment",
    "beat": "heartbeat",
    "far": "ood",
    "fewer": "subset",
    "lives": "is_alive",
    "bears": "a verb that says what it tests",
    "called": "predicted",
}
# Whole names of functions, classes, attributes and modules: a participle names no action and no thing.
WHOLE = {
    "stack": "preload",
    "keeping": "cleanup",
    "rounds": "remote, repetitions",
    "broken_off": "failures",
    "shown": "format_…",
    "written": "export_…, write_…",
    "known": "a noun",
    "alone": "a verb",
    "made": "make_…",
    "begun": "start_…",
    "kept": "keep_…",
    "again": "a verb",
    "less": "minus",
    "at_home": "in_domain",
    "home": "in_domain, root",
    "left_out": "excluded",
}


@dataclass(frozen=True)
class Allowed:
    path: str  # a file, or a folder for all below it
    text: str  # the name or the key; of a text the part that is quoted in the finding
    reason: str


ALLOWED = (
    Allowed("ddtl", "file_facts", "a key of results.json, study.json and controls.json"),
    Allowed("benchmarks/sentences.py", "file_facts", "that key of results.json"),
    Allowed("docs/gallery", "far_from_training", "a column of predictions.csv"),
    Allowed("ddtl/inference", "far_from_training", "a key of predictions.json and a column of predictions.csv"),
    Allowed("ddtl/inference", "pictures", "a key of predictions.json"),
    Allowed("ddtl/explain/explain.py", "pictures", "the folder of the images below explain/, which explain.json names"),
    Allowed("ddtl/explain/explain.py", "pictures/{}-{}.webp", "a file in that folder"),
    Allowed("ddtl/explain/explain.py", "picture", "a key of explain.json"),
    Allowed("ddtl/records/explanation.py", "picture", "that key of explain.json"),
    Allowed("ddtl/records/explanation.py", "called", "a key of explain.json"),
    Allowed("ddtl/reports/run/cases.py", "picture", "that key of explain.json"),
    Allowed("ddtl/api/runs.py", "picture", "that key of explain.json"),
    Allowed("ddtl/reports/study/export.py", "seeds_asked", "a column of cells.csv"),
    Allowed("ddtl/sweeps/store/storages.py", "beats", "the folder of heartbeats in a sweep's folder"),
    Allowed("ddtl/records/ledger.py", "look", "a key of ledgers that earlier versions wrote"),
    Allowed("ddtl/records/run.py", "look", "a key of results.json that earlier versions wrote"),
)


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    kind: str
    word: str
    instead: str
    context: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}: {self.word!r} in {self.context!r}; write {self.instead}"


def parts(name: str) -> list[str]:
    """The lower-case words of a name: split at underscores and capitals."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str, bool]]:
    """The names that a module defines with their lines, and whether they are of a function, a class or an attribute."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id, False


def check_name(path: str, line: int, name: str, kind: str = "name", is_definition: bool = True) -> Iterator[Finding]:
    whole = "_".join(parts(name))
    if is_definition and whole in WHOLE:
        yield Finding(path, line, kind, name, WHOLE[whole], name)
    if "file_facts" in whole:
        yield Finding(path, line, kind, "file_facts", "file_metadata", name)
    for part in dict.fromkeys(parts(name)):
        if part in PARTS:
            yield Finding(path, line, kind, part, PARTS[part], name)


def check_text(path: str, line: int, text: str, kind: str) -> Iterator[Finding]:
    if re.fullmatch(r"[a-z]+(?:_[a-z]+)+", text):
        yield from check_name(path, line, text, kind, is_definition=False)
        return
    for rule in RULES:
        for match in rule.search(text):
            start = text.rfind("\n", 0, match.start()) + 1
            end = text.find("\n", match.end())
            context = " ".join(
                text[max(start, match.start() - 60) : min(end if end >= 0 else len(text), match.end() + 50)].split()
            )
            yield Finding(path, line + text.count("\n", 0, match.start()), kind, match.group(), rule.instead, context)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """The comments of a Python file; those that follow each other line by line are one."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("# fmt:", "# type:", "# noqa")):
            continue
        whole_line = not token.line[: token.start[1]].strip()
        if not (block and whole_line and token.start[0] == last + 1):
            if block:
                yield first, "\n".join(block)
            block, first = [], token.start[0]
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    if block:
        yield first, "\n".join(block)


def strings(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str, str]]:
    """The line, the kind and the text of each string; what is filled in reads as ``{}``."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            values = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "string", "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, "docstring" if id(node) in docstrings else "string", node.value


def check_python(path: str, source: str) -> Iterator[Finding]:
    nodes = list(ast.walk(ast.parse(source)))
    for line, name, is_definition in names(nodes):
        yield from check_name(path, line, name, is_definition=is_definition)
    for line, kind, text in strings(nodes):
        yield from check_text(path, line, text, kind)
    for line, text in comments(source):
        yield from check_text(path, line, text, "comment")


def check_file(path: str, source: str) -> Iterator[Finding]:
    """What is found in a file of the repository; of a kind of file that nobody reads, nothing."""
    stem, suffix = Path(path).stem, Path(path).suffix
    kinds = {".md": "docs", ".jinja": "template", ".html": "template", ".js": "template", ".css": "template"}
    if suffix == ".py":
        yield from check_name(path, 1, stem, "module")
        yield from check_python(path, source)
    elif suffix in kinds:
        yield from check_text(path, 1, source, kinds[suffix])
    elif suffix in (".yaml", ".toml") or stem == "Makefile":
        yield from check_text(path, 1, source, "configuration")


def files() -> Iterator[Path]:
    for place in SCOPE:
        found = ROOT / place
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in name and not name.startswith("docs/generated/"):
                yield path


def is_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)


@cache
def all_findings() -> tuple[Finding, ...]:
    found: list[Finding] = []
    for path in files():
        if path.suffix in (".py", ".md", ".jinja", ".html", ".js", ".css", ".yaml", ".toml", ""):
            found += check_file(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    return tuple(found)


def allows(entry: Allowed, finding: Finding) -> bool:
    is_quoted = " " in finding.context and " " in entry.text and entry.text in finding.context
    return is_below(finding.path, (entry.path,)) and (is_quoted or entry.text == finding.context)


def test_only_the_words_of_the_glossary_are_used() -> None:
    found = [str(each) for each in all_findings() if not any(allows(entry, each) for entry in ALLOWED)]
    assert not found, f"{len(found)} places:\n" + "\n".join(found[:200])


def test_each_exception_is_needed() -> None:
    found = all_findings()
    assert [entry for entry in ALLOWED if not any(allows(entry, each) for each in found)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.wrong)
def test_a_rule_catches_its_example_and_not_ordinary_english(rule: Rule) -> None:
    assert list(rule.search(rule.wrong))
    assert not list(rule.search(rule.fine))
    assert list(rule.search(rule.wrong.replace(" ", "\n    "))), "a phrase may go over the end of a line"


@pytest.mark.parametrize(
    ("path", "source", "kind"),
    [
        ("ddtl/x.py", "def told() -> None: ...", "name"),
        ("ddtl/x.py", "class Asked: ...", "name"),
        ("ddtl/x.py", "def f(learnt: int) -> None: ...", "name"),
        ("ddtl/x.py", "class A:\n    def __init__(self):\n        self.pictures = 1", "name"),
        ("ddtl/x.py", "class A:\n    file_facts: int", "name"),
        ("ddtl/rounds.py", "", "module"),
        ("ddtl/x.py", "A = 'a picture'", "string"),
        ("ddtl/x.py", "A = f'{1} is told'", "string"),
        ("ddtl/x.py", "A = 'file_facts'", "string"),
        ("ddtl/x.py", '"""The run goes on."""', "docstring"),
        ("ddtl/x.py", "def f():\n    '''Holds a\n    picture.'''", "docstring"),
        ("ddtl/x.py", "A = 1  # the commonest", "comment"),
        ("ddtl/x.py", "# the run goes\n# on", "comment"),
        ("ddtl/x.html.jinja", "<p>{{ n }} pictures</p>", "template"),
        ("ddtl/x.html", "<p>elsewhere</p>", "template"),
        ("ddtl/x.js", "// drawn anew", "template"),
        ("docs/x.md", "Patients are dealt.", "docs"),
        ("conf/x.yaml", "a: 1  # beside it", "configuration"),
    ],
)
def test_a_planted_word_is_found(path: str, source: str, kind: str) -> None:
    assert kind in {found.kind for found in check_file(path, source)}


def test_what_is_written_right_passes() -> None:
    source = '"""Return the images of a split."""\n\ndef load_split(path: str) -> None: ...  # deep learning\n'
    assert not list(check_file("ddtl/x.py", source))


if __name__ == "__main__":
    for each in all_findings():
        if (len(sys.argv) < 2 or is_below(each.path, tuple(sys.argv[1:]))) and not any(
            allows(a, each) for a in ALLOWED
        ):
            print(each)
