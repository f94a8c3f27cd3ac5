"""Docstrings and comments keep to the rules of CONTRIBUTING.md: short sentences, with a subject that does something."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mesh"
MOST_WORDS = 25
MODULES = sorted(PACKAGE.rglob("*.py"))

BREAKS = r"\n\s*\n|\n\s*[-*] |\n(?=\s*\w+(?:, \w+)*: )|\n(?=    )"  # paragraphs, lists, `Args` and `Raises`, examples
INDEFINITE = re.compile(r"(?i)^(who|what)\b|\b(whoever|whatever)\b")


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a docstring or a comment; code in backquotes counts as one word."""
    for block in re.split(BREAKS, text):
        plain = re.sub(r"`[^`]*`", "X", " ".join(block.split()))
        yield from (each for each in re.split(r"(?<=[.!?])\s+(?=[A-Z`\"])", plain) if each)


def docstrings_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def comments_of(source: str) -> Iterator[tuple[int, str]]:
    """Comments behind code, and runs of lines that are comments."""
    run: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("# ").rstrip()
        if token.line.strip().startswith("#") and run and line == last + 1:
            run.append(text)
        else:
            if run:
                yield first, " ".join(run)
            run, first = [text], line
        last = line if token.line.strip().startswith("#") else 0
    if run:
        yield first, " ".join(run)


def faults_in(source: str) -> list[str]:
    """Sentences against the rules, each with its line."""
    found = []
    for line, text in [*docstrings_of(ast.parse(source)), *comments_of(source)]:
        for sentence in sentences_of(text):
            words = len(re.findall(r"[\w'-]+", sentence))
            if words > MOST_WORDS:
                found.append(f"{line}: {words} words: {sentence}")
            elif INDEFINITE.search(sentence):
                found.append(f"{line}: no subject that does something: {sentence}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_a_native_engineer_reads_each_sentence_once(path: Path) -> None:
    assert faults_in(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""What comes then is had elsewhere."""',
        '"""Reads. Whoever asks is told."""',
        "x = 1  # who cares",
        f'"""{" ".join(["word"] * 26)}."""',
        "# one two three four five six seven eight nine ten eleven twelve thirteen\n"
        "# fourteen fifteen sixteen seventeen eighteen nineteen twenty 21 22 23 24 25 26",
    ],
)
def test_the_guard_sees_a_sentence_against_the_rules(source: str) -> None:
    assert len(faults_in(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        f'"""{" ".join(["word"] * 25)}. And another sentence."""',
        '"""Returns `what came of it`.\n\nRaises:\n    BrokerError: NATS did not answer.\n"""',
        "x = 1  # one\ny = 2  # two",
    ],
)
def test_the_guard_lets_plain_sentences_pass(source: str) -> None:
    assert faults_in(source) == []
