"""Release drafts that are submitted, by the form and by the API."""

from __future__ import annotations

import pytest

from registry.releases.drafts.models import ReleaseDraft
from registry.releases.models import Release
from tests.people import make_person
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import signed_in
from tests.unit.assay.test_release_draft_surfaces import CONTENT
from tests.unit.assay.test_review_comparison import words
from tests.unit.registry.office import ANSWERS, FIELDS, Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def test_a_draft_is_submitted_by_the_form_and_is_gone(office: Office) -> None:
    version = office.tuned
    draft = ReleaseDraft.objects.create(
        version=version, department=office.clinical, content=CONTENT, created_by=office.submitter
    )
    client = signed_in(office.trainer)
    address = f"/versions/{version.pk}/release?draft={draft.pk}"
    incomplete = client.post(address, {"draft": draft.pk, "environment": "staging"})
    assert incomplete.status_code == 400
    assert ReleaseDraft.objects.filter(pk=draft.pk).exists()
    words_of = {True: "yes", False: "no"}
    answers = {
        name: words_of[value] if isinstance(value, bool) else value
        for name, value in ANSWERS.items()
    }
    filled = {
        **answers, "draft": draft.pk, "environment": "staging", "deployment_name": "drafted",
        "departments": [office.clinical.pk], "visibility": "department", "purpose": "Sort.",
        "tier": "limited", "engine": "own", "precision": "stored", "revision": 1,
    }  # fmt: skip
    ReleaseDraft.objects.filter(pk=draft.pk).update(revision=2)
    stale = client.post(address, filled)
    assert stale.status_code == 409
    assert "was changed since you opened it" in words(stale.content.decode())
    assert not Release.objects.filter(deployment_name="drafted").exists()
    ReleaseDraft.objects.filter(pk=draft.pk).update(revision=1)
    submitted = client.post(address, filled)
    assert submitted.status_code == 302, words(submitted.content.decode())[:2000]
    release = Release.objects.get(deployment_name="drafted")
    assert release.submitted_by == office.trainer
    assert not ReleaseDraft.objects.exists()


def test_drafts_by_the_api(office: Office) -> None:
    tuned, fay = office.tuned, Api(make_person("Fay", "lead@finance"))
    submitter = Api(office.submitter)
    made = submitter.post("release-drafts", {"version": tuned.pk, "environment": "staging"})
    assert made.status_code == 201, made.content
    path = f"release-drafts/{made.body['id']}"
    assert made.body["content"] == {"environment": "staging"}
    problem_of(fay.get(path), 404)
    problem_of(fay.put(path, {}), 404)
    problem_of(fay.post(f"{path}/submit"), 404)
    assert fay.get("release-drafts").body["results"] == []
    problem_of(submitter.post(f"{path}/submit"), 400)
    complete = {
        **CONTENT, "departments": ["clinical"], "risk_answers": ANSWERS, "dossier_fields": FIELDS
    }  # fmt: skip
    changed = submitter.put(path, {**complete, "revision": 1})
    assert (changed.body["revision"], changed.body["content"]) == (2, complete)
    problem_of(submitter.put(path, {"revision": 1}), 409, "draft_changed")
    assert len(submitter.get("release-drafts", model="sentiment").body["results"]) == 1
    release = submitter.post(f"{path}/submit")
    assert release.status_code == 201, release.content
    assert release.body["state"] == "in_review"
    problem_of(submitter.get(path), 404)
    other = submitter.post("release-drafts", {"version": tuned.pk})
    assert submitter.delete(f"release-drafts/{other.body['id']}").status_code == 204
