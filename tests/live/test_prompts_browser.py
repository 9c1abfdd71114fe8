"""The form of a prompt version in a real browser: its rows and its preview follow the text."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.portal_data import tell_story
from workers.jobs.models import Job

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
PREVIEW = "[...document.querySelectorAll('#preview pre')].map((each) => each.textContent)"
ROWS = "[...document.querySelectorAll('[data-variable]')].map((each) => each.dataset.variable)"
CHANGED = "document.getElementById('prompt-form').dispatchEvent(new Event('input'))"


def test_variables_follow_the_text_and_the_preview_shows_what_the_model_reads(
    live_server: Any, policy: object, redis: object
) -> None:
    with transaction.atomic():
        company = tell_story()
    session = proofs.signed_in(Client(), company.enzo).cookies["sessionid"]
    browser = Browser()
    try:
        browser.call(
            "Network.setCookie", name="sessionid", value=session.value, url=live_server.url
        )
        browser.go(f"{live_server.url}/models/docstring-writer/prompts/new")
        assert browser.run(PREVIEW) == ["Hello"]
        browser.fill(system="You write for {{team}}.", template="Say: {{ input }}")
        browser.run(CHANGED)
        assert browser.run(ROWS) == ["team"]
        assert browser.run(PREVIEW) == ["You write for {{team}}.", "Say: Hello"]
        browser.run("document.getElementById('sample-team').focus()")
        browser.type("Care")
        assert browser.run(PREVIEW)[0] == "You write for Care."
        browser.run("document.getElementById('v_team_description').value = 'Who reads it'")
        browser.run("document.querySelector('[name=example_user]').value = 'Hi'")
        browser.run("document.querySelector('[name=example_assistant]').value = 'Hey'")
        browser.run(CHANGED)
        assert browser.run(PREVIEW)[1:3] == ["Say: Hi", "Hey"]
        # A name that is retyped keeps what was said of it.
        browser.fill(system="You write for {{tea}}.")
        browser.run(CHANGED)
        assert browser.run(ROWS) == ["tea"]
        browser.fill(system="You write for {{team}}.")
        browser.run(CHANGED)
        assert browser.run("document.getElementById('v_team_description').value") == "Who reads it"
        browser.run("document.getElementById('prompt-more').click()")
        assert browser.run("document.querySelectorAll('[name=example_user]').length") == 3
        browser.press("#prompt-form button[type=submit]")
        assert browser.path.startswith("/jobs/")
        assert browser.faults == []
    finally:
        browser.close()
    job = Job.objects.get(kind="prompt")
    assert job.result is not None
    assert job.result["parameters"]["variables"][0]["description"] == "Who reads it"
    assert job.result["parameters"]["examples"] == [{"user": "Hi", "assistant": "Hey"}]
