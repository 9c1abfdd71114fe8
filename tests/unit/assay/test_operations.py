"""Workers, health and single sign-on: what the pages say, to whom, at which cost."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.refusals import refusal_record
from governance.errors import NotAuthenticated
from governance.people.models import GroupMapping, RoleAssignment
from governance.people.signing_in import sign_in_attempt
from tests.proofs import signed_in
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in
from workers.deployments.models import Replica
from workers.jobs.models import Job, JobEvent, JobState

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
PAGES = ("/nodes", "/health", "/single-sign-on")
# At most, whatever there is to show; the menu asks some of them.
QUERIES = {"/nodes": 25, "/health": 20, "/single-sign-on": 22}


@pytest.fixture
def company(company: Company, redis: Any) -> Company:
    return company


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.content[:500])
    text: str = answer.content.decode()
    assert inline_in(text) == []
    return text


@pytest.mark.parametrize("who", ["ada", "omar", "asha"])
def test_who_sees_the_whole_platform_sees_its_operation(company: Company, who: str) -> None:
    client = signed_in(Client(), company.people[who])
    assert 'href="/nodes"' in text_of(client, "/")
    for path in PAGES:
        text_of(client, path)


@pytest.mark.parametrize("who", ["enzo", "carla"])
def test_others_neither_see_it_nor_a_link_to_it(company: Company, who: str) -> None:
    client = signed_in(Client(), company.people[who])
    assert 'href="/nodes"' not in text_of(client, "/")
    for path in (*PAGES, "/health/checks"):
        assert client.get(path).status_code in {403, 404}, path
    assert "may not view node:" in client.get("/nodes").content.decode()
    assert "may not view the audit log:" in client.get("/single-sign-on").content.decode()


def test_a_worker_whose_job_logs_nothing_is_silent_only_without_a_lease(company: Company) -> None:
    ada, job = signed_in(Client(), company.people["ada"]), Job.objects.filter(state="running")
    JobEvent.objects.update(at=timezone.now() - timedelta(hours=1))
    job.update(worker="compute@far")
    page = text_of(ada, "/nodes")
    assert "compute@far" in page
    assert "Silent" not in page
    job.update(lease_until=timezone.now())
    assert "Silent" in text_of(ada, "/nodes")


def test_a_worker_shows_what_it_holds_runs_and_when_it_last_reported(company: Company) -> None:
    ada = signed_in(Client(), company.people["ada"])
    replica = Replica.objects.exclude(state="stopped").first()
    assert replica is not None
    page = text_of(ada, "/nodes")
    assert replica.worker in page
    assert replica.deployment.name in page
    assert "Silent" not in page
    Replica.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert "Silent" in text_of(ada, "/nodes")
    job = Job.objects.first()
    assert job is not None
    Job.objects.filter(pk=job.pk).update(
        state=JobState.RUNNING, worker="compute@far", lease_until=timezone.now()
    )
    page = text_of(ada, "/nodes")
    assert "compute@far" in page
    assert job.title in page


def test_without_workers_the_page_says_what_it_is_for(company: Company) -> None:
    Replica.objects.all().delete()
    Job.objects.filter(state=JobState.RUNNING).update(state=JobState.CANCELED)
    page = text_of(signed_in(Client(), company.people["ada"]), "/nodes")
    assert "No workers" in page


def test_health_shows_queues_and_each_check_without_credentials(
    company: Company, settings: Any
) -> None:
    settings.MLFLOW_TRACKING_URI = "http://robot:hunter2-secret@127.0.0.1:9"
    ada = signed_in(Client(), company.people["ada"])
    page = text_of(ada, "/health")
    assert 'hx-get="/health/checks"' in page
    checks = text_of(ada, "/health/checks")
    assert "hunter2" not in checks
    for name in ("PostgreSQL", "Redis or Valkey", "MLflow", "Audit sealing", "Workers"):
        assert f"<strong>{name}</strong>" in checks
    assert re.search(r"\d+ failed · \d+ works? +· \d+ not set up", " ".join(checks.split()))


def test_health_says_when_the_broker_is_away(company: Company, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    page = text_of(signed_in(Client(), company.people["ada"]), "/health")
    assert "The broker does not answer" in page


def test_single_sign_on_shows_its_state_and_no_secret(company: Company, settings: Any) -> None:
    ada = signed_in(Client(), company.people["ada"])
    assert "not set up" in text_of(ada, "/single-sign-on")
    settings.OIDC_ISSUER = "https://login.example.org"
    settings.OIDC_CLIENT_ID = "assay-client"
    settings.OIDC_CLIENT_SECRET = "plum-secret"
    settings.SCIM_TOKEN = "scim-secret-token"
    vera = company.people["vera"]
    SocialAccount.objects.create(user=vera, provider="oidc", uid="v-1")
    GroupMapping.objects.create(group="Staff", role="auditor")
    RoleAssignment.objects.create(person=vera, role="auditor", source="sso", group="staff")
    refusal_record(
        NotAuthenticated(
            "The identity provider names two different people. You are not signed in.",
            code="single_sign_on_refused",
            attempt=sign_in_attempt(person=None),
        )
    )
    page = text_of(ada, "/single-sign-on")
    for said in ("login.example.org", "assay-client", "Vera Viewer", "Staff", "1 person"):
        assert said in page, said
    assert "names two different people" in page
    assert "secret" not in page.replace("CLIENT_SECRET_FILE", "")


@pytest.mark.parametrize("address", QUERIES)
def test_a_page_costs_as_many_queries_whatever_there_is(company: Company, address: str) -> None:
    ada = signed_in(Client(), company.people["ada"])
    replica = Replica.objects.exclude(state="stopped").first()
    assert replica is not None
    ada.get(address)
    counts = []
    for number in range(12):
        if number in {1, 11}:
            with CaptureQueriesContext(connection) as captured:
                text_of(ada, address)
            counts.append(len(captured))
        Replica.objects.create(
            deployment=replica.deployment,
            worker=f"engine@{number}",
            state="ready",
            heartbeat_at=timezone.now(),
        )
        GroupMapping.objects.create(group=f"g{number}", role="auditor")
    assert counts[0] == counts[1] <= QUERIES[address], [q["sql"][:120] for q in captured]
