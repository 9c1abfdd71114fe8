"""`assay served` against a real server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from governance.keys.services import access_token_create
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.assay.test_cli import Run, run
from tests.unit.assay.test_served_surfaces import kept

__all__ = ["run"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


@pytest.fixture
def company(redis: object) -> Company:
    with transaction.atomic():
        made = tell_story()
        kept(made.deployment, 20, 10)
        kept(made.deployment, 5)
    return made


@pytest.fixture
def call(company: Company, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `assay …` as the auditor."""
    _, token = access_token_create(person=company.asha, name="cli")
    monkeypatch.setenv("ASSAY_SERVER", live_server.url)
    monkeypatch.setenv("ASSAY_TOKEN", token)
    return run


def test_the_command_line_says_what_served_and_who_approved_it(call: Run, company: Company) -> None:
    _, out, _ = call("served", "engineering", code=0)
    assert company.first.digest in out
    assert "Carla Compliance" in out
    assert "still serving" in out
    then = (timezone.now() - timedelta(days=15)).strftime("%Y-%m-%dT%H:%M")
    _, out, _ = call("served", "engineering", "--at", then, code=0)
    assert company.first.digest in out
    assert "still serving" not in out
    between = (timezone.now() - timedelta(days=7)).isoformat()
    _, out, _ = call("served", "engineering", "--at", between, code=0)
    assert "No deployments visible to you served Engineering" in out
    _, out, _ = call("served", "engineering", "--since", "2000-01-01", code=0)
    assert out.count(company.first.digest[:12]) == 2
    assert "pending" in out


def test_what_is_no_moment_or_no_department_is_one_sentence(call: Run) -> None:
    _, _, err = call("served", "engineering", "--at", "yesterday", code=1)
    assert err.startswith("Error: --at is not a date and time: yesterday.")
    _, _, err = call("served", "engineering", "--at", "2999-01-01", code=4)
    assert "is in the future; what serves then is not known." in err
    _, _, err = call("served", "nowhere", code=4)
    assert "There is no department nowhere." in err
