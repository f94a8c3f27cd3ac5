"""Every link of every page leads to a file, and every anchor to a heading."""

import posixpath
import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, text_of


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        found = posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) if target else page
        assert (ROOT / found).exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(found), f"{page} links to {link}; there are {sorted(anchors(found))}"


def test_a_page_of_docs_is_reached_from_another() -> None:
    reached = {
        posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))
        for page in PAGES
        for link in links(page)
    }
    assert [page for page in PAGES if page not in reached | {"README.md"}] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])  # which tells of what was
def test_every_path_that_prose_names_is_there(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"`((?:mesh|tests|nats|examples|docs)/[\w./-]+)`", prose)
    assert [path for path in named if not re.search(r"FAMILY|NAME", path) and not (ROOT / path).exists()] == []
