"""Lists in a real browser: filters that apply as they are chosen, and selections of rows."""

from __future__ import annotations

import pytest
from django.utils import timezone

from registry.feedback.models import Feedback, FeedbackState
from tests.live.browser import CHROMIUM, Browser
from tests.live.test_palette_browser import home
from tests.unit.assay.portal_data import Company
from workers.jobs.models import Job

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
CHOSEN = "document.querySelector('[data-chosen]').textContent"
CHECKED = "document.querySelectorAll('#results tbody input:checked').length"
NEXT = "nav[aria-label=Pages] a:last-child"
CLEAR = "[data-choose-none]"


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


def add_jobs(company: Company, count: int) -> None:
    Job.objects.bulk_create(
        Job(
            kind="evaluate", state="succeeded", title=f"Evaluate docstring-writer v{number}",
            department=company.departments["engineering"], created_by=company.devi, spec={},
        )
        for number in range(count)
    )  # fmt: skip


def add_feedback(company: Company, count: int) -> None:
    Feedback.objects.bulk_create(
        Feedback(
            request_id=f"req_{number:032x}", department=company.departments["engineering"],
            deployment="docstring-writer", endpoint="/v1/chat/completions", task="text-generation",
            release=company.live, version=company.first, version_name="docstring-writer v1",
            rating="down", input={"messages": [{"role": "user", "content": f"Question {number}"}]},
            correction="Answer", sender="app", answered_at=timezone.now(),
        )
        for number in range(count)
    )  # fmt: skip


def test_selected_rows_stay_selected_on_other_pages(home: tuple[Browser, Company]) -> None:
    browser, company = home
    add_jobs(company, 30)
    add_feedback(company, 30)
    origin = browser.run("location.origin")
    browser.go(f"{origin}/jobs")
    assert browser.run(CHOSEN) == "Select 2 to 8 fine-tunes or evaluations."
    browser.click("#results [name=job]")
    browser.press(NEXT)
    assert browser.run(CHOSEN) == "1 selected (1 on other pages)"
    browser.click("#results [name=job]")
    browser.press("#compare button")
    assert browser.heading == "Compare 2 runs"

    # A comparison keeps the selection, for another one.
    browser.go(f"{origin}/jobs")
    assert browser.run(CHOSEN) == "2 selected (1 on other pages)"
    browser.click(CLEAR)
    assert browser.run(CHECKED) == 0
    assert browser.run("document.querySelector('#compare button').disabled") is True

    # A decision on feedback ends the selection.
    browser.go(f"{origin}/feedback")
    browser.click("[data-choose-page]")
    assert browser.run(CHOSEN) == "25 selected"
    browser.press(NEXT)
    browser.click("#results [name=id]")
    assert browser.run(CHOSEN) == "26 selected (25 on other pages)"
    browser.press("[value=reject]")
    assert Feedback.objects.filter(state=FeedbackState.REJECTED).count() == 26
    assert browser.run(CHOSEN) == "Select feedback to accept or reject it."
    assert browser.run(CHECKED) == 0
    assert browser.faults == []
