"""Feedback: taken on recorded requests alone, reviewed by another person, and made into data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from governance.audit.models import AuditEvent
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    WrongState,
)
from governance.people.erasure import person_erase
from governance.people.services import person_deactivate
from registry.catalog import TASKS
from registry.datasets.models import DatasetVersion
from registry.datasets.services import dataset_create
from registry.feedback.datasets import feedback_dataset_version
from registry.feedback.models import Feedback, FeedbackState
from registry.feedback.selectors import feedback_unused, feedback_visible_to
from registry.feedback.services import (
    feedback_create,
    feedback_erase,
    feedback_review,
)
from tests.people import make_person, set_up_alone
from tests.proofs import proven
from tests.stored import stored_file
from tests.unit.registry.feedback_world import FeedbackOffice, open_feedback_office
from tests.worlds import built_once, copied

pytestmark = pytest.mark.django_db

built = built_once(open_feedback_office)


@pytest.fixture
def office(built: FeedbackOffice, db: None) -> FeedbackOffice:
    return copied(built)


def send(office: FeedbackOffice, request_id: str, **said: Any) -> tuple[Feedback, bool]:
    return feedback_create(
        **{
            "actor": office.key,
            "department": office.clinical,
            "sender": "app",
            "request_id": request_id,
            "rating": "up",
            **said,
        }
    )


def accept(office: FeedbackOffice, *feedback: Feedback, **more: Any) -> None:
    feedback_review(
        actor=proven(office.trainer),
        feedback_ids=[each.pk for each in feedback],
        accept=True,
        **more,
    )


def rows_of(version: DatasetVersion) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stored_file(version.digest).read_bytes().split(b"\n")[:-1]]


def test_feedback_names_what_answered_and_the_audit_log_holds_no_content(office: FeedbackOffice):
    given = office.feedback(1, comment="A pharmacist said so.")
    assert (given.deployment, given.release, given.version) == (
        "review-sentiment",
        office.release,
        office.tuned,
    )
    event = AuditEvent.objects.get(action="feedback:create")
    said = bytes(event.canonical).decode()
    assert "pharmacist" not in said
    assert "text 1" not in said
    assert '"has_correction":true' in said


@pytest.mark.parametrize("form", ["{}", "classify-{}", "chatcmpl-{}"])
def test_the_id_of_the_answer_names_its_request(office: FeedbackOffice, form: str):
    request_id = office.answered(2)
    given, made = send(office, form.format(request_id if form == "{}" else request_id[4:]))
    assert made
    assert given.request_id == request_id


def test_feedback_sent_twice_is_one_and_other_feedback_is_refused(office: FeedbackOffice):
    request_id = office.answered(3)
    first, made = send(office, request_id)
    again, new = send(office, request_id)
    assert (first, made, new) == (again, True, False)
    with pytest.raises(WrongState, match="already exists with other content"):
        send(office, request_id, rating="down")


def test_a_request_of_another_department_or_of_none_is_not_found(office: FeedbackOffice):
    theirs = office.answered(4, department="legal")
    unanswered = office.answered(5, release=None)
    failed = office.answered(21, outcome="failed")
    for request_id in (theirs, unanswered, failed, "req_" + "0" * 32, "req_1", ""):
        with pytest.raises(NotFound, match="no such answered request"):
            send(office, request_id)


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        ({"rating": ""}, InvalidInput, "is empty"),
        ({"rating": "", "correction": " \n"}, InvalidInput, "is empty"),
        ({"rating": "fine"}, InvalidInput, "not a rating"),
        ({"input": {"input": ["a", "b"]}, "answer": "x"}, InvalidInput, "has 2 texts"),
        ({"input": {"messages": []}}, InvalidInput, "does not fit /v1/classify"),
        ({"input": {"input": "a" * 70_000}}, TooLarge, "at most 65,536"),
        ({"input": {"input": "\0"}}, InvalidInput, "NUL"),
        ({"input": {"input": float("nan")}}, InvalidInput, "cannot be stored"),
        ({"input": {"input": "a"}, "correction": "b" * 200}, InvalidInput, "label"),
        ({"correction": "b" * 40_000}, InvalidInput, "at most 32000"),
        ({"correction": "b" + " " * 32_000}, InvalidInput, "at most 32000"),
        ({"answer": " \0 "}, InvalidInput, "NUL"),
        ({"comment": "b" * 2_001}, InvalidInput, "at most 2000"),
    ],
)
def test_what_is_sent_is_bounded_and_fits_the_task(
    office: FeedbackOffice, said: dict[str, Any], error: type[DomainError], why: str
):
    with pytest.raises(error, match=why):
        send(office, office.answered(6), **said)
    assert not Feedback.objects.exists()


def test_a_reviewer_freezes_the_row_and_may_correct_it(office: FeedbackOffice):
    corrected, rated = office.feedback(7), office.feedback(8, rating="up", correction="")
    unknown = office.feedback(9, correction="")
    accept(office, corrected, rated)
    with pytest.raises(InvalidInput, match="the right answer is not known"):
        accept(office, unknown)
    accept(office, unknown, correction=" mixed\n")
    accept(office, office.feedback(20), correction="bad")
    rows = list(Feedback.objects.order_by("pk").values_list("row", flat=True))
    assert [row["label"] for row in rows] == ["bad", "good", "mixed", "bad"]
    events = AuditEvent.objects.filter(action="feedback:review").order_by("pk")
    said = [b'"corrected":true' in bytes(event.canonical) for event in events]
    assert said == [False, False, True, False]
    assert feedback_unused(proven(office.lead)).count() == 4


def test_nobody_reviews_their_own_feedback(office: FeedbackOffice):
    given = office.feedback(10, office.trainer)
    with pytest.raises(NotPermitted, match="another person must review it"):
        accept(office, given)
    feedback_review(actor=proven(office.submitter), feedback_ids=[given.pk], accept=True)
    with pytest.raises(DatabaseError, match="feedback_reviewed_by_another"), transaction.atomic():
        Feedback.objects.filter(pk=given.pk).update(reviewed_by=office.trainer)


def test_nobody_reviews_the_feedback_of_an_account_that_they_set_up_alone(office: FeedbackOffice):
    given = office.feedback(10, office.submitter)
    set_up_alone(office.trainer, office.submitter)
    with pytest.raises(NotPermitted, match="set up the account"):
        accept(office, given)


def test_only_the_department_sees_its_feedback(office: FeedbackOffice):
    given = office.feedback(11)
    for who in (make_person("Lex", "lead@legal"), make_person("Adi", "admin"), office.compliance):
        assert not feedback_visible_to(proven(who)).exists()
        with pytest.raises(NotFound):
            feedback_review(actor=proven(who), feedback_ids=[given.pk], accept=False)
    viewer = proven(make_person("Vi", "viewer@clinical"))
    assert not feedback_visible_to(viewer).exists()


def test_the_database_keeps_what_was_sent(office: FeedbackOffice):
    given = office.feedback(12)
    for change in ({"correction": "good"}, {"deployment": "other"}, {"rating": "up"}):
        with pytest.raises(DatabaseError, match="is final"), transaction.atomic():
            Feedback.objects.filter(pk=given.pk).update(**change)


def test_a_lead_erases_content_and_the_record_stays(office: FeedbackOffice):
    given = office.feedback(13)
    with pytest.raises(NotPermitted):
        feedback_erase(actor=proven(office.trainer), feedback_id=given.pk, reason="Asked for.")
    feedback_erase(actor=proven(office.lead), feedback_id=given.pk, reason="Asked for.")
    kept = Feedback.objects.get()
    assert (kept.input, kept.answer, kept.correction, kept.state) == (None, "", "", "erased")
    with pytest.raises(WrongState):
        accept(office, kept)


def test_erasing_a_person_erases_the_feedback_that_they_sent(office: FeedbackOffice):
    office.feedback(14, office.submitter)
    admin = proven(make_person("Ada", "admin"))
    person_deactivate(actor=admin, person_id=office.submitter.pk, reason="Left.")
    person_erase(actor=admin, person_id=office.submitter.pk, reason="Asked for it.")
    assert Feedback.objects.get().state == FeedbackState.ERASED


def test_accepted_feedback_extends_a_dataset_and_corrects_its_rows(office: FeedbackOffice):
    known, new = office.feedback(15, input={"input": "text 3"}), office.feedback(30)
    accept(office, known, new)
    made = feedback_dataset_version(
        actor=proven(office.trainer),
        dataset=office.train.dataset,
        feedback_ids=[known.pk, new.pk],
        base=office.train,
    )
    rows = rows_of(made)
    assert len(rows) == 21
    assert {"label": "bad", "text": "text 3"} in rows
    assert {"label": "good", "text": "text 3"} not in rows
    assert made.base == office.train
    assert set(made.feedback.all()) == {known, new}
    assert not feedback_unused(proven(office.trainer)).exists()
    said = bytes(AuditEvent.objects.get(action="dataset_version:create").canonical).decode()
    assert f'"feedback_numbers":[{known.pk},{new.pk}]' in said
    assert '"replaced_rows":1' in said


def test_data_is_made_of_accepted_feedback_of_the_same_task_and_department(office: FeedbackOffice):
    pending = office.feedback(16)
    actor = proven(office.trainer)

    def make(**changes: Any) -> DatasetVersion:
        return feedback_dataset_version(
            **{
                "actor": actor,
                "dataset": office.train.dataset,
                "feedback_ids": [pending.pk],
                **changes,
            }
        )

    with pytest.raises(WrongState, match="only accepted feedback becomes data"):
        make()
    with pytest.raises(InvalidInput, match="Choose 1 to"):
        make(feedback_ids=[])
    accept(office, pending)
    public = dataset_create(
        actor=actor,
        name="open",
        department=office.clinical,
        task="text-classification",
        classification="public",
        license="CC0",
    )
    with pytest.raises(InvalidInput, match="is only public"):
        make(dataset=public, base=office.train)
    other = dataset_create(
        actor=actor,
        name="sums",
        department=office.clinical,
        task="summarization",
        classification="internal",
        license="CC0",
    )
    with pytest.raises(InvalidInput, match="holds summarization data"):
        make(dataset=other)
    assert rows_of(make(dataset=public)) == [{"label": "bad", "text": "text 16"}]


INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "moderation": ({"input": "You fool."}, "insult"),
    "question-answering": (
        {"inputs": {"question": "Who?", "context": "Ada did."}},
        "Ada",
    ),
    "summarization": ({"inputs": "A long text."}, "A text."),
    "tabular-classification": ({"table": {"age": [52]}}, "benign"),
    "text-classification": ({"input": "Fine."}, "positive"),
    "text-completion": ({"prompt": "def half(x):"}, "\n    return x / 2\n"),
    "text-generation": ({"messages": [{"role": "user", "content": "Hi"}]}, "Hello."),
    "translation": ({"inputs": "Yes"}, "Oui"),
    "zero-shot-classification": (
        {"inputs": "Fine.", "parameters": {"candidate_labels": ["good", "bad"]}},
        "good",
    ),
}


@pytest.mark.parametrize("name", sorted(name for name in TASKS if TASKS[name].feedback_row))
def test_each_task_makes_a_row_of_a_request_and_its_right_answer(office: FeedbackOffice, name: str):
    body, answer = INPUTS[name]
    office.tuned.model.task = name
    office.tuned.model.save(update_fields=["task"])
    endpoint = TASKS[name].endpoints[-1 if name == "text-completion" else 0]
    request_id = office.answered(17, endpoint=endpoint.path_to("{model}"))
    given, _ = send(office, request_id, input=body, correction=answer)
    accept(office, given)
    task = TASKS[name]
    row = Feedback.objects.get().row
    assert name != "text-completion" or row == {"text": "def half(x):\n    return x / 2\n"}
    assert task.row.model_validate(row)
    assert task.evaluation is not None
    assert task.evaluation.request(row)


def test_a_task_without_rows_of_feedback_takes_a_rating_alone(office: FeedbackOffice):
    office.tuned.model.task = "image-classification"
    office.tuned.model.save(update_fields=["task"])
    given, made = send(office, office.answered(18))
    assert made
    assert given.rating == "up"
    with pytest.raises(InvalidInput, match="makes no rows of feedback"):
        send(office, office.answered(19), input={"inputs": "x"})
