"""The evidence pack through the API and the portal."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import audit_record
from governance.people.models import Person
from governance.principals import service_principal
from registry.releases.evidence_verifier import check
from registry.releases.models import Release
from registry.releases.selectors import release_review
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import signed_in
from tests.unit.registry.office import Office
from workers.deployments.models import Deployment
from workers.deployments.states import deployment_subject

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def office(office: Office, redis: object, settings: Any, tmp_path: Path) -> Office:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return office


@pytest.fixture
def release(office: Office) -> Release:
    return office.submit()


def holds(content: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return all(ok for ok, _, _ in check(files))


def test_the_api_gives_it_out_and_says_so_in_the_log(office: Office, release: Release) -> None:
    carla = Api(office.compliance)
    early = problem_of(carla.get(f"releases/{release.pk}/evidence"), 409, "wrong_state")
    assert "not sealed" in early["detail"]
    seal_once()
    answer = carla.get(f"releases/{release.pk}/evidence")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert f"assay-release-{release.pk}-evidence.zip" in answer.headers["Content-Disposition"]
    assert holds(answer.content)
    event = AuditEvent.objects.get(action="release:evidence")
    assert (event.subject_id, event.outcome) == (str(release.pk), "allowed")
    assert event.actor_id == str(office.compliance.pk)


def test_where_it_serves_is_in_it(office: Office, release: Release) -> None:
    made = Deployment.objects.create(
        name="review-sentiment",
        release=release,
        department=office.clinical,
        state="stopped",
        created_by=office.submitter,
    )
    audit_record(
        actor=service_principal("controller"),
        action="deployment:stop",
        subject=deployment_subject(made),
        department="clinical",
    )
    seal_once()
    answer = Api(office.compliance).get(f"releases/{release.pk}/evidence")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert b"deployment:stop" in archive.read("events.json")
    assert holds(answer.content)


def test_of_another_department_there_is_none(
    office: Office, release: Release, person: Callable[..., Person]
) -> None:
    seal_once()
    path = f"releases/{release.pk}/evidence"
    finance = person("Fay", "lead@finance")
    problem_of(Api(finance).get(path), 404, "not_found")
    problem_of(Api(person("Nobody")).get(path), 404, "not_found")
    problem_of(Api(office.submitter).get("releases/999999999/evidence"), 404)
    assert signed_in(finance).get(f"/{path}").status_code == 404
    viewer = person("Vera", "viewer@clinical")
    problem_of(Api(viewer).get(path), 403)
    refused = AuditEvent.objects.filter(action="release:evidence", outcome="denied")
    assert refused.filter(actor_id=str(viewer.pk)).count() == 1


def test_the_portal_offers_it_to_who_may_have_it(
    office: Office, release: Release, person: Callable[..., Person]
) -> None:
    review = release_review(release)
    assert review is not None
    link = f'href="/releases/{release.pk}/evidence"'
    lead, viewer = person("Lena", "lead@clinical"), person("Vera", "viewer@clinical")
    for page in (f"/releases/{release.pk}", f"/reviews/{review.pk}"):
        assert link in signed_in(lead).get(page).content.decode()
        assert link not in signed_in(viewer).get(page).content.decode()
    early = signed_in(lead).get(f"/releases/{release.pk}/evidence")
    assert early.status_code == 409
    assert "not sealed in the log yet" in early.content.decode()
    seal_once()
    answer = signed_in(lead).get(f"/releases/{release.pk}/evidence")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert holds(answer.content)
