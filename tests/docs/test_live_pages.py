"""The gallery's saved pages open offline, and everything that they offer is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import NEEDED

pytestmark = [pytest.mark.slow, NEEDED]

PAGES = sorted((Path(__file__).parents[2] / "docs" / "extra" / "live").glob("*.html"))
TESTS = {"fact": 2, "people": 4}  # interventions that were saved


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_saved_page_offers_what_it_holds(path, width, browser):
    wrong, outside = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: outside.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".tlx-token")
    offered = page.locator(".tlx-how select").nth(0).locator("option:not([disabled])").all()
    for value in [option.get_attribute("value") for option in offered]:
        page.locator(".tlx-how select").nth(0).select_option(value)
        assert page.locator(".tlx-error-box").is_hidden(), value
    page.locator(".tlx-how select").nth(0).select_option("semantic")
    page.locator("[data-tab=test]").click()
    page.wait_for_timeout(200)
    assert page.locator(".tlx-result").count() == TESTS.get(path.stem, 0)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert [url for url in outside if not url.startswith(("file:", "data:", "blob:"))] == []
    assert wrong == []
    page.close()


def test_there_are_pages():
    assert {path.stem for path in PAGES} == {"fact", "people", "passages", "chat"}
