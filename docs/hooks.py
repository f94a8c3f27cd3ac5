"""What mkdocs does beside rendering: pages that lie elsewhere in the repository, and links that lead there.

A page links to files by their path in the repository, so that the links work in a clone and on a forge too. Here they
become links within the site. A file that is no page becomes a link to `repo_url` where mkdocs.yml has one, else text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"
# Files of the repository that are pages of the site too.
INCLUDED = {
    "README.md": "index.md",
    "nats/PROTOCOL.md": "protocol.md",
    "tests/bench/README.md": "benchmark-profiles.md",
    "examples/demo_model/README.md": "demo-model.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_SOURCES = {page: source for source, page in INCLUDED.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```[ ]*$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere."""
    for source, page in INCLUDED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Have every link lead somewhere in the site."""
    uri = page.file.src_uri
    source = _SOURCES.get(uri, f"{DOCS}/{uri}")

    def replaced(link: re.Match[str]) -> str:
        mark, label, target, anchor = link[1], link[2], link[3], link[4] or ""
        if not target or ":" in target:
            return link[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = INCLUDED.get(found) or (found.removeprefix(f"{DOCS}/") if found.startswith(f"{DOCS}/") else None)
        if inside is not None:
            return f"{mark}[{label}]({posixpath.relpath(inside, posixpath.dirname(uri) or '.')}{anchor})"
        if config.repo_url:
            return f"{mark}[{label}]({config.repo_url.rstrip('/')}/blob/HEAD/{found}{anchor})"
        return label if label.strip("`").endswith(posixpath.basename(found)) else f"{label} (`{found}`)"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)
