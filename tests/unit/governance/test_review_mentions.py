"""Mentions in comments: of people who may see the review, by handles that name one person."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_django import DjangoAssertNumQueries

from governance.people.erasure import person_erase
from governance.people.models import Person
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.reminders.models import ReviewReminder
from governance.reviews.services import review_decide
from governance.reviews.threads.drafts import draft_add
from governance.reviews.threads.mentions import (
    MENTIONS_MAX,
    Offer,
    mention_parts,
    mentions_offered,
    mentions_resolved,
    mentions_seen,
    mentions_unseen,
)
from governance.reviews.threads.models import Anchor, Mention, ThreadComment
from governance.reviews.threads.services import thread_open, thread_resolve
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

Make = Callable[..., Principal]


@pytest.fixture
def review(opened: Callable[..., Review]) -> Review:
    return opened()


def say(actor: Principal, review: Review, text: str) -> ThreadComment:
    return thread_open(actor=actor, review_id=review.pk, anchor=Anchor(), text=text)


def address(principal: Principal, email: str) -> None:
    Person.objects.filter(pk=principal.person_id).update(email=email)


def handles(actor: Principal, review: Review, typed: str) -> list[str]:
    return [offer.handle for offer in mentions_offered(actor, review, typed)]


def test_a_mention_is_kept_by_number_shown_by_name_and_told_once(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    entry = say(compliance, review, "Please look, @dora (and @DORA): @dora.")
    assert entry.text.count(f"@person-{submitter.person_id}") == 3
    entry.refresh_from_db()
    assert mention_parts(entry) == [
        ("Please look, ", ""), ("", "Dora"), (" (and ", ""), ("", "Dora"), ("): ", ""),
        ("", "Dora"), (".", ""),
    ]  # fmt: skip
    (told,) = ReviewReminder.objects.all()
    assert (told.kind, told.people) == ("mentioned", [submitter.person_id])
    (body,) = bodies(action="review:comment")
    assert body["data"]["mentions"] == [submitter.person_id]
    assert body["reason"] == entry.text


def test_a_mention_is_a_task_until_the_review_is_opened(
    review: Review, compliance: Principal, submitter: Principal, risk: Principal
) -> None:
    entry = say(compliance, review, "@dora @rolf")
    assert [each.comment for each in mentions_unseen(submitter)] == [entry]
    mentions_seen(actor=submitter, review_id=review.pk)
    assert not mentions_unseen(submitter).exists()
    assert mentions_unseen(risk).count() == 1


def test_a_person_is_told_again_only_after_they_have_looked(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    for _ in range(3):
        say(compliance, review, "@dora")
    assert ReviewReminder.objects.count() == 1
    assert mentions_unseen(submitter).count() == 3
    mentions_seen(actor=submitter, review_id=review.pk)
    say(compliance, review, "@dora")
    assert ReviewReminder.objects.count() == 2


def test_who_may_not_see_the_review_is_neither_offered_nor_mentioned(
    review: Review, actor: Make
) -> None:
    # An administrator sees Fay, who sees nothing of clinical.
    ada = actor("Ada", "admin")
    actor("Fay", "lead@finance")
    assert handles(ada, review, "fa") == []
    entry = say(ada, review, "@fay @fay@example.org")
    assert entry.text == "@fay @fay@example.org"
    assert not Mention.objects.exists()


def test_who_may_see_it_and_whom_the_writer_may_not_know_stays_plain_text(
    review: Review, submitter: Principal, compliance: Principal, actor: Make
) -> None:
    colleague = actor("Cleo", "viewer@clinical")
    number = f"person-{compliance.person_id}"
    assert handles(submitter, review, "c") == ["cleo"]
    entry = say(submitter, review, f"@cora @cora@example.org @{number} @cleo")
    assert entry.text == f"@cora @cora@example.org @{number} @person-{colleague.person_id}"
    entry.refresh_from_db()
    # The number that was typed shows as a number, and as no name.
    assert "Cora" not in str(mention_parts(entry))
    # A person who has commented is offered by name, without their address.
    review_decide(
        actor=compliance, review_id=review.pk, verdict="comment", reason="Hm.", digest=review.digest
    )
    assert mentions_offered(submitter, review, "co") == [Offer(number, "Cora")]
    assert mentions_resolved(submitter, review, "@cora")[1] == []
    (person,) = mentions_resolved(submitter, review, f"@{number}")[1]
    assert person.name == "Cora"


def test_a_handle_that_names_two_people_names_neither(
    review: Review, compliance: Principal, risk: Principal, actor: Make
) -> None:
    first, second = actor("Sam One", "viewer@clinical"), actor("Sam Two", "viewer@clinical")
    address(first, "sam@one.example")
    address(second, "Sam@two.example")
    assert handles(compliance, review, "sam") == ["sam@one.example", "Sam@two.example"]
    text, people = mentions_resolved(compliance, review, "@sam or @sam@two.example, bob@rolf")
    assert text == f"@sam or @person-{second.person_id}, bob@rolf"
    assert [person.pk for person in people] == [second.person_id]
    # Alone among those who may see it, the short one is enough.
    Person.objects.filter(pk=first.person_id).update(is_active=False)
    assert handles(compliance, review, "two") == ["Sam"]


def test_a_handle_that_looks_like_a_number_names_the_person_of_that_number(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    address(risk, f"person-{submitter.person_id}@example.org")
    assert handles(compliance, review, "rolf") == [f"person-{risk.person_id}"]
    _, people = mentions_resolved(compliance, review, f"@person-{submitter.person_id}")
    assert [person.pk for person in people] == [submitter.person_id]


def test_erasing_a_person_erases_their_name_where_they_were_mentioned(
    review: Review, compliance: Principal, submitter: Principal, actor: Make
) -> None:
    entry = say(compliance, review, "Thanks, @dora!")
    Person.objects.filter(pk=submitter.person_id).update(is_active=False)
    person_erase(actor=actor("Ada", "admin"), person_id=submitter.person_id, reason="Requested.")
    entry.refresh_from_db()
    assert "dora" not in entry.text.lower()
    assert mention_parts(entry)[1] == ("", f"Erased person {submitter.person_id}")


def test_a_draft_mentions_when_it_is_submitted(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    draft_add(actor=compliance, review_id=review.pk, text="@dora?")
    assert not Mention.objects.exists()
    review_decide(
        actor=compliance, review_id=review.pk, verdict="comment", reason="So.", digest=review.digest
    )
    assert [mention.person_id for mention in Mention.objects.all()] == [submitter.person_id]


def test_a_word_of_who_resolves_mentions_too_and_nobody_mentions_themselves(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    thread = say(compliance, review, "Who? @cora").thread
    assert not Mention.objects.exists()
    thread_resolve(actor=compliance, review_id=review.pk, thread_id=thread.pk, text="Thanks @dora")
    assert [mention.person_id for mention in Mention.objects.all()] == [submitter.person_id]


def test_mentions_of_one_comment_are_bounded(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    unknown = " ".join(f"@nobody{number}" for number in range(MENTIONS_MAX))
    assert mentions_resolved(compliance, review, f"{unknown} @dora")[1] == []
    assert mentions_resolved(compliance, review, f"@dora {unknown}")[1] != []
    assert handles(compliance, review, "\x00") == handles(compliance, review, " ") == []
    assert handles(compliance, review, "d" * 5000) == []


def test_many_people_cost_no_more_queries_than_few(
    review: Review,
    compliance: Principal,
    actor: Make,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(12):
        actor(f"Vic{number}", "viewer@clinical")
    with django_assert_num_queries(10):
        assert len(mentions_offered(compliance, review, "vic")) == 8
    with django_assert_num_queries(0):
        mentions_resolved(compliance, review, "No one at all, or a@b.example.")
    with django_assert_num_queries(5):
        assert len(mentions_resolved(compliance, review, "@vic1 @vic2 @vic3")[1]) == 3
