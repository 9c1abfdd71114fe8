"""Release drafts in the portal and the API."""

from __future__ import annotations

from typing import Any

import pytest

from registry.releases.drafts.models import ReleaseDraft
from registry.releases.models import Release
from registry.versions.models import VersionState
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_lists import SCOPE as API_SCOPE
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words
from workers.jobs.models import ChainDraft

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = {"list": 8, "list by API": 5}
CONTENT = {
    "environment": "staging", "deployment_name": "drafted", "departments": ["engineering"],
    "purpose": "Write docstrings.",
}  # fmt: skip


def saved(company: Company, **more: Any) -> ReleaseDraft:
    return ReleaseDraft.objects.create(
        version=company.second, department=company.departments["engineering"],
        content={**CONTENT, **more}, created_by=company.enzo,
    )  # fmt: skip


def test_a_form_is_saved_found_and_changed_before_it_is_complete(company: Company) -> None:
    client, form = signed_in(company.enzo), f"/versions/{company.second.pk}/release"
    wrong = client.post(form, {"save": "draft", "deployment_name": "not a name!"})
    assert wrong.status_code == 400
    assert not ReleaseDraft.objects.exists()
    answer = client.post(
        form,
        {
            "save": "draft", "environment": "staging", "personal_data": "no",
            "departments": [company.departments["engineering"].pk],
            "dossier-route": "", "dossier-overseers": "The team on duty.",
        },
        follow=True,
    )  # fmt: skip
    draft = ReleaseDraft.objects.get()
    assert draft.content == {
        "environment": "staging", "departments": ["engineering"],
        "risk_answers": {"personal_data": False},
        "dossier_fields": {"risks": [], "oversight": {"overseers": "The team on duty."}},
    }  # fmt: skip
    html = answer.content.decode()
    assert "The draft is saved. Nothing is submitted." in html
    assert 'value="The team on duty."' in html
    assert f'name="draft" value="{draft.pk}"' in html
    link = f"{form}?draft={draft.pk}"
    for page in (f"/versions/{company.second.pk}", "/release-drafts", "/tasks"):
        assert link in client.get(page).content.decode(), page
    client.post(link, {"save": "draft", "draft": draft.pk, "revision": 1, "purpose": "Write."})
    draft.refresh_from_db()
    assert (draft.content["purpose"], draft.revision) == ("Write.", 2)
    stale = client.post(link, {"save": "draft", "draft": draft.pk, "revision": 1, "purpose": "x"})
    assert stale.status_code == 409
    assert "was changed since you opened it" in words(stale.content.decode())
    assert not Release.objects.filter(deployment_name="drafted").exists()


def test_drafts_of_another_department_are_not_found(company: Company) -> None:
    draft = saved(company)
    fay, vera = signed_in(company.fay), signed_in(company.vera)
    form = f"/versions/{company.second.pk}/release?draft={draft.pk}"
    for client in (fay, vera):
        assert client.get(form).status_code == 404
        assert client.post(f"/release-drafts/{draft.pk}/delete").status_code == 404
        assert "No release drafts" in client.get("/release-drafts").content.decode()
    wrong = f"/versions/{company.first.pk}/release?draft={draft.pk}"
    assert signed_in(company.enzo).get(wrong).status_code == 404


def test_the_list_takes_as_many_queries_for_one_as_for_many(company: Company) -> None:
    saved(company)
    client = signed_in(company.enzo)
    assert inline_in(client.get("/release-drafts").content.decode()) == []
    api = Api(company.enzo)
    api.get("release-drafts")
    few, by_api = queries(client, "/release-drafts"), queries(api, "release-drafts")
    saved(company)
    assert queries(client, "/release-drafts") == few
    assert queries(api, "release-drafts") == by_api
    assert few - SCOPE == QUERIES["list"]
    assert by_api - API_SCOPE == QUERIES["list by API"]


def test_a_draft_of_a_recalled_version_says_that_it_cannot_be_submitted(company: Company) -> None:
    draft = saved(company)
    type(company.second).objects.filter(pk=company.second.pk).update(state=VersionState.RECALLED)
    client = signed_in(company.enzo)
    address = f"/versions/{company.second.pk}/release?draft={draft.pk}"
    html = client.get(address).content.decode()
    assert "so it cannot be submitted for release" in words(html)
    assert "Submit for review" not in html
    assert "It cannot be submitted." in words(client.get("/release-drafts").content.decode())
    deleted = client.post(f"/release-drafts/{draft.pk}/delete", follow=True)
    assert "The draft is deleted." in words(deleted.content.decode())


def test_the_page_of_a_job_shows_the_draft_at_the_end_of_its_chain(company: Company) -> None:
    draft = saved(company)
    row = ChainDraft.objects.create(
        first=company.done, after=company.done, content={"environment": "staging"}
    )
    client, address = signed_in(company.enzo), f"/jobs/{company.done.pk}"
    assert "Release draft for staging Waiting" in words(client.get(address).content.decode())
    ChainDraft.objects.filter(pk=row.pk).update(state="made", draft_id=draft.pk)
    link = f"/versions/{company.second.pk}/release?draft={draft.pk}"
    assert link in client.get(address).content.decode()
    assert link not in signed_in(company.vera).get(address).content.decode()
    draft.delete()
    assert "It was submitted or deleted" in words(client.get(address).content.decode())
