"""The site builds without a warning, and its pictures are readable on light and on dark pages."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))
LIGHT, DARK = "#ffffff", "#0d1117"  # the pages of a forge, by day and by night


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) == len(PAGES) + 1  # and 404.html
    protocol = (tmp_path / "site" / "protocol" / "index.html").read_text()
    assert "mesh.req.&lt;model&gt;" in protocol
    shown = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.html"))
    assert not re.search(r'(?:src|href)="https?://(?!squidfunk|www\.mkdocs)[^"]*\.(?:js|css|woff2?)', shown)


def luminance(color: str) -> float:
    """Relative luminance. Source: WCAG 2.1."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_readable_on_light_and_on_dark(picture: Path) -> None:
    root = ElementTree.fromstring(picture.read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title") is not None
    assert root.find(f"{space}desc") is not None
    style = root.findtext(f"{space}style") or ""
    fills = dict(re.findall(r"\.([\w-]+) \{ (?:fill|stroke): (#\w{6})", style))
    for name in ("box", "store"):
        assert contrast(fills[name], fills["box-text"]) > 4.5
    for name in {"label", "line", "dot", "frame"} & set(fills):
        assert min(contrast(fills[name], LIGHT), contrast(fills[name], DARK)) > 4
