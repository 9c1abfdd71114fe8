"""From feedback to a release draft, by the portal's screens."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from registry.feedback.models import Feedback, FeedbackState
from registry.releases.models import Release
from registry.versions.selectors import lineage
from tests.people import make_person
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from tests.unit.registry.feedback_world import FeedbackOffice, open_feedback_office
from tests.unit.registry.objects import evaluation, version
from tests.worlds import built_once, copied
from workers.jobs.models import Job

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

ACCEPTED = "/feedback?deployment=review-sentiment&state=accepted"
built = built_once(open_feedback_office)


@pytest.fixture
def office(built: FeedbackOffice, db: None) -> FeedbackOffice:
    return copied(built)


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, (path, response.status_code)
    text = response.content.decode()
    assert inline_in(text) == []
    return " ".join(text.split())


def post(client: Client, path: str, **fields: Any) -> Any:
    return client.post(path, fields)


def test_the_chain_from_feedback_to_a_release_draft(office: FeedbackOffice):
    client = signed_in(office.trainer)
    first, second = office.feedback(1), office.feedback(2, rating="up", correction="")
    assert "Review feedback on review-sentiment" in page(client, "/tasks")
    listed = page(client, "/feedback")
    assert "text 1" in listed
    assert "Accept selected" in listed
    post(client, "/feedback/review", id=[first.pk, second.pk], verdict="accept")
    assert set(Feedback.objects.values_list("state", flat=True)) == {FeedbackState.ACCEPTED}

    assert "Create a dataset version from 2 accepted" in page(client, ACCEPTED)
    form = page(client, "/feedback/dataset?deployment=review-sentiment")
    assert f'<option value="{office.train.pk}" selected>train v1' in form
    made = post(
        client,
        "/feedback/dataset?deployment=review-sentiment",
        dataset=office.train.dataset_id,
        base=office.train.pk,
    )
    assert made.headers["Location"] == "/datasets/train"
    data = office.train.dataset.versions.get(number=2)
    shown = page(client, "/datasets/train")
    assert "2 pieces of feedback </a> added to the rows of train v1" in shown
    assert f"/models/sentiment/fine-tune?again={office.tuned.pk}" in shown
    assert "text 1" in page(client, f"/feedback?data={data.pk}")

    Job.objects.create(
        id=office.tuned.job_id,
        kind="fine_tune",
        department=office.clinical,
        title="t",
        spec={"method": "full", "hyperparameters": {"epochs": 7}},
        created_by=office.trainer,
    )
    form = page(
        client, f"/models/sentiment/fine-tune?again={office.tuned.pk}&dataset_version={data.pk}"
    )
    assert 'name="h_epochs" value="7"' in form
    assert f'<option value="{office.base.pk}" selected>' in form
    assert f'<option value="{data.pk}" selected>' in form

    learned = version(office.tuned.model, office.trainer, "full", office.base, dataset_version=data)
    assert f"Request release: {learned}" not in page(client, "/tasks")
    evaluation(learned, office.test, office.trainer)
    release = office.release
    office.approve(release)
    assert f"/versions/{learned.pk}/release?like={release.pk}" in page(client, "/tasks")
    draft = page(client, f"/versions/{learned.pk}/release?like={release.pk}")
    assert "A draft, prefilled from" in draft
    assert "The pharmacists on duty." in draft
    assert "Sort reviews." in draft

    edges = {(edge["from"], edge["to"]) for edge in lineage(learned)["edges"]}
    assert {
        (f"feedback:{data.pk}", f"dataset_version:{data.pk}"),
        (f"dataset_version:{office.train.pk}", f"dataset_version:{data.pk}"),
        (f"dataset_version:{data.pk}", f"version:{learned.pk}"),
    } <= edges
    assert "2 pieces of feedback" in page(client, f"/versions/{learned.pk}")
    assert Release.objects.count() == 1


def test_one_piece_is_corrected_accepted_rejected_and_erased(office: FeedbackOffice):
    given = office.feedback(3, correction="", comment="<b>Not so</b>")
    client, path = signed_in(office.trainer), f"/feedback/{given.pk}"
    shown = page(client, path)
    assert "&lt;b&gt;Not so&lt;/b&gt;" in shown
    assert "Erase the content" not in shown
    refused = post(client, path, verdict="accept")
    assert refused.status_code == 400
    assert "the right answer is not known" in refused.content.decode().replace("\n", " ")
    assert post(client, path, verdict="neither").status_code == 400
    assert post(client, "/feedback/review", id=[given.pk]).status_code == 400
    post(client, path, verdict="accept", correction="mixed")
    assert "Accepted row" in page(client, path)
    post(client, path, verdict="reject")
    lead = signed_in(office.lead)
    post(lead, f"{path}/erase", reason="Requested.")
    assert "The content was erased" in page(lead, path)


def test_the_right_answer_keeps_its_spaces_and_line_breaks(office: FeedbackOffice):
    body, right = {"prompt": "def f(x):"}, "\n    return x\n"
    office.tuned.model.task = "text-completion"
    office.tuned.model.save(update_fields=["task"])
    given = office.feedback(5, input=body, correction=right)
    client, path = signed_in(office.trainer), f"/feedback/{given.pk}"
    area = client.get(path).content.decode().split("<textarea", 1)[1]
    # A browser leaves out the first line break of a text area.
    assert area.split(">", 1)[1].split("</textarea>")[0] == f"\n{right}"
    post(client, path, verdict="accept", correction=right.replace("\n", "\r\n"))
    given.refresh_from_db()
    assert given.row == {"text": "def f(x):\n    return x\n"}
    event = AuditEvent.objects.get(action="feedback:review")
    assert b'"corrected":false' in bytes(event.canonical)


def test_people_see_neither_others_feedback_nor_a_review_of_their_own(office: FeedbackOffice):
    own = office.feedback(4, office.trainer)
    client = signed_in(office.trainer)
    assert "another person must review it" in page(client, f"/feedback/{own.pk}")
    assert "Accept selected" not in page(client, "/feedback")
    for outsider in (make_person("Lex", "lead@legal"), make_person("Vi", "viewer@clinical")):
        other = signed_in(outsider)
        assert other.get(f"/feedback/{own.pk}").status_code == 404
        assert "No feedback here" in page(other, "/feedback?state=")
        assert other.get("/feedback/dataset?deployment=review-sentiment").status_code == 404


def test_a_page_of_feedback_costs_as_many_queries_for_ten_as_for_one(office: FeedbackOffice):
    client = signed_in(office.trainer)
    counts = []
    for number in range(10):
        office.feedback(200 + number, office.submitter)
        if number in (0, 9):
            counts.append(queries(client, "/feedback"))
    assert counts[0] == counts[1]
