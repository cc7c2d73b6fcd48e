"""Check the mechanical rules of plain English: see "Language" in CONTRIBUTING.md.

    python .ci/language.py [PATH ...]            list violations; exit with 1 if there are any
    python .ci/language.py --counts [PATH ...]   print how often each pattern occurs per 10,000 words
    python .ci/language.py --list [PATH ...]     list every occurrence of a pattern with a maximum

Prose is docstrings, comments and, in the package, string literals of more than one word; in tests also the names
of test functions; and the text of the documents outside code blocks. PATH limits the check to files below it.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = ("tests/wire/runner_corpus", "tests/wire/recorded", ".venv", "dist")


class Rule(NamedTuple):
    name: str
    pattern: str
    maximum: float | None
    """Occurrences allowed per 10,000 words; None if the pattern is only counted."""


# The maximum is the highest rate in h11, httpx, gidgethub, stamina, trio, lightkube and llm. A maximum of 0 allows
# no exception.
RULES = [
    Rule("nobody, somebody, anybody", r"\b(?:nobody|somebody|anybody)\b", 0),
    Rule("told, tell(s)", r"\b(?:told|tells?)\b", 2.9),
    Rule("said, say(s)", r"\b(?:said|says?)\b", 15.2),
    Rule("stand(s), stood", r"\b(?:stands?|stood)\b", 0.5),
    Rule("is none, is no X", r"\b(?:is|are|was|were) (?:none\b|no \w)", 5.7),
    Rule("of its own, ours, theirs", r"\b(?:of (?:its|their|our|his|one's) own|ours|theirs)\b", 0.5),
    Rule("whoever, whatever", r"\b(?:whoever|whatever|whichever)\b", 3),
    Rule("begin(s), began, begun", r"\b(?:begins?|began|begun)\b", 3),
    Rule("X's (own, last) word(s)", r"\b\w+'s? (?:own |last )?words?\b", 0),
    Rule("anew", r"\banew\b", 0),
    Rule("is to be, are to be", r"\b(?:is|are) to be\b", 0),
    Rule("for ever, in vain, as a rule, all the same", r"\b(?:for ever|in vain|as a rule|all the same)\b", 0),
    Rule("surely", r"\bsurely\b", 0),
    Rule("so many", r"\bso many\b", 0),
    Rule("N are the most", r"\b(?:are|is) the most\b(?! \w+ly)", 0),
    Rule("special value as a riddle", r"; (?:None|False|True|\"\"): ", 0),
    Rule("should", r"\bshould\b", None),
    Rule("you, your", r"\b(?:you|your)\b", None),
    Rule("default(s)", r"\bdefaults?\b", None),
]


class Text(NamedTuple):
    path: Path
    line: int
    kind: str
    text: str


def python_texts(path: Path, *, strings: bool) -> Iterator[Text]:
    source = path.read_text()
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else []:
            # Docstrings of modules, classes and functions, and those below an attribute.
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                docstrings.add(id(child.value))
                yield Text(path, child.lineno, "docstring", child.value.value)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield Text(path, node.lineno, "test name", node.name.replace("_", " "))
    for node in ast.walk(tree) if strings else ():
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        if re.search(r"[a-z] [a-z]", node.value):
            yield Text(path, node.lineno, "string", node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], "comment", token.string)


def document_texts(path: Path) -> Iterator[Text]:
    in_code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield Text(path, number, "document", re.sub(r"`[^`]*`", "`code`", line))


def texts(area: str) -> Iterator[Text]:
    if area == "documents":
        for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]:
            yield from document_texts(path)
        return
    folders = {"package": ["gke_sandbox"], "tests": ["tests"], "others": [".ci", "benchmarks", "examples"]}[area]
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not str(path.relative_to(ROOT)).startswith(SKIPPED) and path != Path(__file__).resolve():
                yield from python_texts(path, strings=area == "package")


AREAS = ("package", "tests", "documents", "others")


def words(found: list[Text]) -> int:
    return sum(len(re.findall(r"[A-Za-z']+", each.text)) for each in found)


def matches(rule: Rule, found: list[Text]) -> list[Text]:
    compiled = re.compile(rule.pattern, re.IGNORECASE)
    return [each for each in found for _ in compiled.finditer(" ".join(each.text.split()))]


def style_violations(each: Text) -> Iterator[str]:
    """Rules that are not about words."""
    if each.kind == "docstring" and re.match(r"What\b", each.text.lstrip()):
        yield "the first line starts with 'What'; use the imperative for functions and a noun for classes"
    if each.kind == "comment" and each.text.startswith("#:"):
        yield 'attribute documentation is a """string""" below the attribute, not a #: comment'


def main(arguments: list[str]) -> int:
    below = tuple(str(Path(each).resolve()) for each in arguments if not each.startswith("--"))
    by_area = {
        area: [each for each in texts(area) if not below or str(each.path).startswith(below)] for area in AREAS
    }
    if "--counts" in arguments:
        totals = {area: words(found) for area, found in by_area.items()}
        print(f"{'per 10,000 words':44}" + "".join(f"{area:>11}" for area in AREAS))
        print(f"{'words':44}" + "".join(f"{totals[area]:11}" for area in AREAS))
        for rule in RULES:
            rates = [len(matches(rule, by_area[area])) * 10_000 / max(totals[area], 1) for area in AREAS]
            print(f"{rule.name:44}" + "".join(f"{rate:11.1f}" for rate in rates))
        return 0
    failed = False
    for area, found in by_area.items():
        total = words(found)
        for rule in RULES:
            if rule.maximum is None:
                continue
            hits = matches(rule, found)
            # A small area may use a word once.
            allowed = max(rule.maximum * total / 10_000, 1 if rule.maximum else 0)
            if len(hits) > (0 if "--list" in arguments else allowed):
                failed = True
                for each in hits:
                    print(f"{each.path.relative_to(ROOT)}:{each.line}: {rule.name} ({each.kind})")
                print(f"{area}: {rule.name}: {len(hits)} in {total} words; maximum {rule.maximum} per 10,000\n")
        for each in found:
            for problem in style_violations(each):
                failed = True
                print(f"{each.path.relative_to(ROOT)}:{each.line}: {problem}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
