"""Lists in a real browser: filters apply as they are chosen, and selected rows are compared."""

from __future__ import annotations

import pytest

from tests.live.browser import CHROMIUM, Browser
from tests.live.test_palette_browser import home
from tests.unit.assay.portal_data import Company

__all__ = ["home"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
ROWS = "document.querySelectorAll('#results tbody tr').length"
CHOOSE = """(() => {
  const field = document.getElementById('%s');
  field.focus();
  field.value = '%s';
  field.dispatchEvent(new Event('input', { bubbles: true }));
  field.dispatchEvent(new Event('change', { bubbles: true }));
})()"""
FOCUSED = "document.activeElement.id"


def test_filters_apply_as_they_are_chosen_and_selected_rows_are_compared(
    home: tuple[Browser, Company],
) -> None:
    browser, _ = home
    origin = browser.run("location.origin")
    browser.go(f"{origin}/jobs")
    loads = browser.loads
    assert browser.run(ROWS) == 3
    browser.run(CHOOSE % ("state", "failed"))
    browser.wait(f"{ROWS} === 1")
    assert browser.run("location.search") == "?state=failed&kind="
    assert browser.run(FOCUSED) == "state"
    browser.wait("document.getElementById('announcements').textContent === '1 result'")
    browser.run(CHOOSE % ("state", ""))
    browser.wait(f"{ROWS} === 3")

    # Rows are selected in a list that a filter replaced.
    button = "document.querySelector('#compare button').disabled"
    browser.wait(button)
    browser.click("#results [name=job]")
    assert browser.run(button) is True
    browser.click("#results tr:nth-child(2) [name=job]")
    assert browser.run(button) is False
    assert browser.loads == loads
    browser.press("#compare button")
    assert browser.heading == "Compare 2 runs"
    assert browser.run("Object.keys(Chart.instances).length") == 2

    # A typed filter applies when typing pauses, and the field keeps its text.
    browser.go(f"{origin}/models")
    loads = browser.loads
    browser.run("document.getElementById('q').focus()")
    browser.type("writ")
    browser.wait(f"{ROWS} === 1")
    browser.type("er")
    browser.wait("location.search.startsWith('?q=writer&')")
    assert browser.run("document.getElementById('q').value") == "writer"
    assert browser.run(FOCUSED) == "q"
    assert browser.loads == loads

    # Once the session has ended, a filter opens the sign-in page.
    browser.call("Network.clearBrowserCookies")
    browser.run("window.left = true")
    browser.type("s")
    browser.wait("window.left === undefined && document.readyState === 'complete'")
    assert browser.path == "/sign-in"
    assert browser.faults == []
