"""Incidents and emergency access at the gateway: what is let through, told, and cut."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from governance.people.models import Person, RoleAssignment
from registry.incidents.services import incident_open
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.services import emergency_access_end
from tests.proofs import proven
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Endless, Stream
from tests.waiting import wait_until
from workers.deployments.models import Deployment

pytestmark = pytest.mark.sweep

__all__ = ["stage"]


def granted(stage: Stage, deployment: Deployment, **times: float) -> EmergencyAccess:
    """Grant emergency access for `times`."""
    second, _ = Person.objects.get_or_create(email="s@example.org", defaults={"name": "Second"})
    RoleAssignment.objects.get_or_create(person=second, role="admin")
    now = timezone.now()
    end = now + timedelta(**times)
    made = EmergencyAccess.objects.create(
        release=deployment.release, department=deployment.department, hours=2, reason="Night.",
        dossier_digest=deployment.release.dossier_digest, excluded_people=[], state="active",
        asked_by=stage.person, asked_at=now, confirmed_by=second, confirmed_at=now, ends_at=end,
        due_at=end + timedelta(hours=24),
    )  # fmt: skip
    stage.notify()
    return made


def under_review(stage: Stage, **more: Any) -> Deployment:
    return stage.deployment(state="in_review", approved_at=None, expires_at=None, **more)


def test_what_serves_by_emergency_access_answers_and_every_answer_says_so(stage: Stage) -> None:
    deployment = under_review(stage)
    token = stage.key()
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "release_not_servable")

    emergency = granted(stage, deployment, hours=1)
    wait_until(lambda: stage.post(CHAT, token, json=GOOD).status_code == 200)
    answer = stage.post(CHAT, token, json=GOOD)
    ends = emergency.ends_at.isoformat(timespec="seconds")  # type: ignore[union-attr]
    assert answer.headers["x-assay-emergency-access"] == f"until {ends}"
    metrics = httpx.get(f"{stage.url}/metrics").text
    assert "assay_emergency_access_active 1.0" in metrics
    assert "assay_emergency_access_reviews_overdue 0.0" in metrics


def test_an_approved_release_says_nothing_of_the_kind(stage: Stage) -> None:
    stage.deployment()
    assert "x-assay-emergency-access" not in stage.post(CHAT, stage.key(), json=GOOD).headers


def test_it_ends_to_the_second_whether_or_not_anybody_says_so(stage: Stage) -> None:
    deployment = under_review(stage)
    token = stage.key()
    emergency = granted(stage, deployment, seconds=1.5)
    wait_until(lambda: stage.post(CHAT, token, json=GOOD).status_code != 200)
    assert emergency.ends_at is not None
    assert timezone.now() >= emergency.ends_at
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "release_not_servable")
    assert EmergencyAccess.objects.get().state == "active"


def test_of_another_dossier_it_lets_nothing_through(stage: Stage) -> None:
    deployment = under_review(stage)
    token = stage.key()
    deployment.release.dossier_digest = "1" * 64
    granted(stage, deployment, hours=1)
    assert stage.post(CHAT, token, json=GOOD).status_code == 403


def test_ending_it_cuts_what_runs(stage: Stage) -> None:
    deployment = under_review(stage, behavior=Endless(stage))
    emergency = granted(stage, deployment, hours=1)
    stream = Stream(stage, stage.key())
    admin = Person.objects.get(email="s@example.org")
    emergency_access_end(actor=proven(admin), emergency_access_id=emergency.pk, reason="Over.")
    assert "is in review; it may not serve" in stream.end()
    assert '"code": "release_not_servable"' in stream.lines[-1]


def test_an_incident_cuts_what_runs_and_refuses_what_comes(stage: Stage) -> None:
    deployment = stage.deployment(behavior=Endless(stage))
    RoleAssignment.objects.create(person=stage.person, role="admin")
    token = stage.key()
    stream = Stream(stage, token)
    incident_open(
        actor=proven(stage.person), title="Bad", happened="Bad.", severity="critical",
        versions=[deployment.release.version_id],
    )  # fmt: skip
    assert "is suspended; it may not serve" in stream.end()
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "release_not_servable")
    assert 'assay_incidents_open{severity="critical"} 1.0' in httpx.get(f"{stage.url}/metrics").text
