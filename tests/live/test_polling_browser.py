"""Pages that follow something, in a real browser: they ask nothing while nobody looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.people.models import Department, Person
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.sign_in_support import PASSWORD, with_password
from workers.jobs.models import Job, JobEvent

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

ASKED = "performance.getEntriesByType('resource').filter((e) => e.name.includes('running')).length"
# Counts what a page would have asked; it hears of each request after the page's own script did.
COUNT = """
window.kept = 0;
window.addEventListener("htmx:beforeRequest", (event) => {
  if (event.defaultPrevented) kept += 1;
});
"""
UNLIMITED = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
HIDE = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true })"


@pytest.fixture
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.close()


def test_a_hidden_tab_asks_for_nothing_and_goes_on_when_it_is_seen(
    browser: Browser,
    live_server: Any,
    policy: object,
    redis: object,
    person: Callable[..., Person],
) -> None:
    lead = with_password(person("Enzo", "lead@engineering"))
    browser.go(f"{live_server.url}/")
    browser.fill(email=lead.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    browser.run(COUNT)
    browser.wait(f"{ASKED} >= 1")

    browser.run(HIDE % "true")
    browser.wait("document.querySelector('.htmx-request') === null")
    asked = browser.run(ASKED)
    browser.wait("kept >= 2")
    assert browser.run(ASKED) == asked

    browser.run(HIDE % "false")
    browser.wait(f"{ASKED} > {asked}")
    assert browser.faults == []


def test_the_page_of_a_job_offers_what_the_new_state_allows(
    browser: Browser,
    live_server: Any,
    policy: object,
    redis: object,
    person: Callable[..., Person],
) -> None:
    lead = with_password(person("Enzo", "lead@engineering"))
    job = Job.objects.create(
        kind="fine_tune", state="running", title="Adapt", attempt=1, fence=1, worker="compute@a",
        department=Department.objects.get(slug="engineering"), created_by=lead, spec={},
        started_at=timezone.now(), lease_until=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    JobEvent.objects.create(job=job, attempt=1, step=1, message="Began.", data={"loss": 2.5})
    browser.go(f"{live_server.url}/jobs/{job.pk}")
    browser.fill(email=lead.email, password=PASSWORD)
    browser.press("form[action^='/sign-in'] button")
    browser.wait("document.querySelector('form[action$=pause]') !== null")
    # A single point is drawn with a marker.
    point = "Chart.getChart(document.querySelector('canvas')).getDatasetMeta(0).data[0]"
    assert browser.run(f"{point}.options.radius") == 3

    # The bar, the lead, the duration and the number of lines are updated.
    JobEvent.objects.create(job=job, attempt=1, message="Saved a checkpoint.")
    Job.objects.update(
        progress={"step": 10, "total": 40, "phase": "training"},
        started_at=timezone.now() - timedelta(hours=3),
        worker="compute@b",
    )
    browser.wait("document.querySelector('[data-log-count]').textContent === '2 lines'")
    for name, text in (
        ("progress", "10 / 40"),
        ("job-lead", "on compute@b"),
        ("job-details", "3 h"),
    ):
        browser.wait(f"document.getElementById('{name}').textContent.includes('{text}')")

    Job.objects.update(
        state="paused", worker="", lease_until=None, stop_reason="A person paused it."
    )
    browser.wait("document.querySelector('form[action$=resume]') !== null")
    assert browser.faults == []


def test_a_page_asks_less_often_while_the_server_refuses(
    browser: Browser,
    live_server: Any,
    policy: object,
    redis: object,
    person: Callable[..., Person],
) -> None:
    lead = with_password(person("Enzo", "lead@engineering"))
    browser.go(f"{live_server.url}/")
    browser.fill(email=lead.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    browser.run(COUNT)
    browser.call("Network.enable")
    browser.call("Network.emulateNetworkConditions", offline=True, **UNLIMITED)

    browser.wait("kept >= 1")
    browser.call("Network.emulateNetworkConditions", offline=False, **UNLIMITED)
    browser.wait("refusing.size === 0")
