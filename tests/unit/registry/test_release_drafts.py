"""Drafts of release requests: who sees them, what they may hold, and how they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import RoleAssignment
from governance.reviews.models import Review
from registry.releases.drafts import services
from registry.releases.drafts.models import RETENTION_DAYS, ReleaseDraft
from registry.releases.drafts.selectors import release_drafts_visible_to
from registry.releases.drafts.services import (
    release_draft_create,
    release_draft_delete,
    release_draft_submit,
    release_draft_update,
    release_drafts_expire_due,
)
from registry.releases.models import Release
from registry.versions.models import VersionState
from tests.people import make_person
from tests.proofs import proven
from tests.unit.audit_support import bodies, recorded
from tests.unit.registry.office import ANSWERS, FIELDS, Office

pytestmark = pytest.mark.django_db
WHERE = {
    "environment": "production",
    "deployment_name": "review-sentiment",
    "departments": ["clinical"],
}
COMPLETE = {
    **WHERE,
    "purpose": "Sort reviews.",
    "risk_answers": ANSWERS,
    "dossier_fields": FIELDS,
}


def drafted(office: Office, content: dict[str, Any] | None = None) -> ReleaseDraft:
    return release_draft_create(
        actor=proven(office.submitter),
        version=office.tuned,
        content=WHERE if content is None else content,
    )


def test_a_draft_is_no_release_and_opens_no_review(office: Office) -> None:
    draft = drafted(office, {"environment": "staging"})
    assert draft.content == {"environment": "staging"}
    assert not Release.objects.exists()
    assert not Review.objects.exists()
    (event,) = bodies(action="release_draft:create", subject_id=str(draft.pk))
    assert "staging" not in str(event)


def test_members_who_may_submit_share_drafts_and_others_do_not_see_them(office: Office) -> None:
    draft = drafted(office)
    colleague = make_person("Cora", "developer@clinical")
    for outsider in ("developer@finance", "viewer@clinical", "reviewer:compliance", "admin"):
        actor = proven(make_person(f"Other {outsider}", outsider))
        assert not release_drafts_visible_to(actor).exists()
        with pytest.raises(NotFound):
            release_draft_delete(actor=actor, draft_id=draft.pk)
    changed = release_draft_update(
        actor=proven(colleague), draft_id=draft.pk, content={**WHERE, "purpose": "Sort."}
    )
    assert (changed.content["purpose"], changed.revision) == ("Sort.", 2)
    release_draft_delete(actor=proven(colleague), draft_id=draft.pk)
    assert not ReleaseDraft.objects.exists()
    assert recorded(action="release_draft:delete").actor_name == "Cora"


def test_a_change_that_rests_on_an_older_revision_is_refused(office: Office) -> None:
    draft = drafted(office)
    actor = proven(office.submitter)
    release_draft_update(actor=actor, draft_id=draft.pk, content=WHERE, revision=1)
    with pytest.raises(WrongState, match="was changed since"):
        release_draft_update(actor=actor, draft_id=draft.pk, content={}, revision=1)
    draft.refresh_from_db()
    assert draft.content == WHERE


def test_submitting_a_complete_draft_is_a_request_like_any_other(office: Office) -> None:
    draft = drafted(office, COMPLETE)
    release = release_draft_submit(actor=proven(office.trainer), draft_id=draft.pk)
    assert release.submitted_by == office.trainer
    direct = office.submit(deployment_name="other")
    for section in ("risk", "risks", "oversight", "serving"):
        assert release.dossier.get(section) == direct.dossier.get(section)
    assert not ReleaseDraft.objects.exists()
    (event,) = bodies(action="release_draft:submit")
    assert event["data"]["release"] == release.pk
    assert recorded(action="release:submit", subject_id=str(release.pk)).actor_name == "Tara"


def test_a_draft_that_is_refused_at_submission_stays(office: Office) -> None:
    actor = proven(office.submitter)
    incomplete = drafted(office)
    with pytest.raises(InvalidInput, match="lacks purpose"):
        release_draft_submit(actor=actor, draft_id=incomplete.pk)
    unanswered = drafted(office, {**WHERE, "purpose": "Sort."})
    with pytest.raises(InvalidInput, match="risk answers"):
        release_draft_submit(actor=actor, draft_id=unanswered.pk)
    assert ReleaseDraft.objects.count() == 2
    assert not Release.objects.exists()


def test_a_person_who_lost_the_role_submits_nothing(office: Office) -> None:
    draft = drafted(office, COMPLETE)
    RoleAssignment.objects.filter(person=office.submitter, role="developer").delete()
    with pytest.raises((NotFound, NotPermitted)):
        release_draft_submit(actor=proven(office.submitter), draft_id=draft.pk)
    assert not Release.objects.exists()


def test_no_draft_of_a_recalled_version_is_saved_or_submitted(office: Office) -> None:
    draft = drafted(office, COMPLETE)
    type(office.tuned).objects.filter(pk=office.tuned.pk).update(state=VersionState.RECALLED)
    with pytest.raises(WrongState, match="recalled"):
        release_draft_submit(actor=proven(office.submitter), draft_id=draft.pk)
    office.tuned.refresh_from_db()
    with pytest.raises(WrongState, match="recalled"):
        drafted(office)
    assert release_drafts_visible_to(proven(office.submitter)).get() == draft


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"state": "approved"}, "state"),
        ({"environment": "moon"}, "environment"),
        ({"departments": ["nowhere"]}, "departments"),
        ({"purpose": "x" * 1001}, "purpose"),
        ({"purpose": "a\0b"}, "purpose"),
        ({"risk_answers": {"score": "x"}}, "risk_answers.score"),
        ({"risk_answers": {"notes": 7}}, "risk_answers.notes"),
        ({"dossier_fields": {"x": 1}}, "dossier_fields.x"),
        ({"dossier_fields": {"risks": ["\0"]}}, "content"),
        ({"dossier_fields": {"risks": ["x" * 70_000]}}, "content"),
    ],
)
def test_content_is_bounded(office: Office, content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        drafted(office, content)
    assert field in refused.value.fields
    assert not ReleaseDraft.objects.exists()


def test_a_department_has_a_bounded_number(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "DRAFTS_MAX", 1)
    drafted(office)
    with pytest.raises(WrongState, match="has 1 release drafts"):
        drafted(office)


def test_a_draft_that_nobody_changes_expires(office: Office) -> None:
    old, new = drafted(office), drafted(office)
    long_ago = timezone.now() - timedelta(days=RETENTION_DAYS, minutes=1)
    ReleaseDraft.objects.filter(pk=old.pk).update(updated_at=long_ago)
    assert [release_drafts_expire_due(), release_drafts_expire_due()] == [1, 0]
    assert ReleaseDraft.objects.get() == new
    event = recorded(action="release_draft:expire")
    assert (event.subject_id, event.actor_kind) == (str(old.pk), "service")
