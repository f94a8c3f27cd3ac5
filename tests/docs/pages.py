"""The pages of the repository: their code blocks, the commands in these, their links and their headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
WRITTEN = [page for page in DOCS if not page.startswith("docs/reference/")]
OTHERS = ["nats/PROTOCOL.md", "tests/bench/README.md", "examples/demo_model/README.md"]
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", *DOCS, *OTHERS]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^)\s]+)\)")
_SEPARATES = re.compile(r"[|&;]+|[<>]+")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    language: str
    code: str
    line: int  # of its first line of code, from 1

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def text_of(page: str) -> str:
    """A page as it stands."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, of one language or of all."""
    text = text_of(page)
    found = [Block(page, each[1], each[2], text.count("\n", 0, each.start()) + 2) for each in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def without_code(page: str) -> str:
    """A page's prose: no block, and no inline code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text_of(page)))


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, as words. What comes behind a pipe is another command."""
    for line in block.code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        skips = False
        for word in lexer:
            if _SEPARATES.fullmatch(word):
                if words and not word.startswith(("<", ">")):
                    yield words
                    words = []
                skips = word.startswith(("<", ">"))
            elif skips:
                skips = False
            elif words or not re.match(r"\w+=", word):
                words.append(word)
        if words:
            yield words


def links(page: str) -> list[str]:
    """Where a page's links lead, in order."""
    return _LINK.findall(without_code(page))


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return frozenset(slug(heading) for heading in headings)


def slug(heading: str) -> str:
    """A heading's anchor, as forges and the site make it."""
    kept = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip()
    return re.sub(r"[\s]+", "-", kept)
