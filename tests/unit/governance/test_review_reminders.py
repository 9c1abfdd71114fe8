"""Reminders of reviews: who is told when, once each, by a real mail server and a real receiver."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.services import Subject
from governance.audit.streaming.destinations import Destination
from governance.outgoing import ATTEMPTS_MAX, LEASE
from governance.people.models import Person
from governance.principals import Principal
from governance.reviews.absences.services import absence_set
from governance.reviews.models import Review
from governance.reviews.reminders.channels import (
    MailServer,
    Webhook,
    mail_server_from,
    webhook_from,
)
from governance.reviews.reminders.models import ReminderKind, ReviewNotice, ReviewReminder
from governance.reviews.reminders.schedule import reminders_record_due
from governance.reviews.reminders.sending import (
    notices_send_due,
    signature,
)
from governance.reviews.services import review_decide
from tests.unit.audit_support import bodies
from tests.unit.governance.siem_support import Collector, make_certificates

Open = Callable[..., Review]
pytestmark = pytest.mark.sweep
SECRET = "a secret of more than thirty-two characters"
# The mail server logs the end of a connection, possibly after pytest closed the test's output.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)


@pytest.fixture(autouse=True)
def nothing_set(settings: Any) -> None:
    settings.MAIL_SERVER = None
    settings.REVIEW_WEBHOOK = None
    settings.PORTAL_URL = "https://assay.example"


class Postbox:
    """Mail received by a real SMTP server in a thread. `answer` is its reply to each message."""

    def __init__(self) -> None:
        self.answer = "250 OK"
        self.mails: list[Message] = []
        self.to: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content))
            self.to.extend(envelope.rcpt_tos)
        return self.answer


@pytest.fixture
def postbox(settings: Any) -> Iterator[Postbox]:
    box = Postbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    settings.MAIL_SERVER = MailServer("smtp", "127.0.0.1", port, "Assay <assay@assay.example>")
    yield box
    server.stop()


@pytest.fixture
def receiver(settings: Any, tmp_path: Path) -> Iterator[Collector]:
    """A receiver over HTTPS whose certificate is checked."""
    certificates = make_certificates(tmp_path)
    collector = Collector(certificates.serving())
    settings.REVIEW_WEBHOOK = Webhook(
        Destination("review-webhook", collector.url, ca_file=str(certificates.authority)), SECRET
    )
    yield collector
    collector.close()


@pytest.fixture
def due(opened: Open) -> Callable[..., Review]:
    """A review that was opened a month ago and is due in so many days."""

    def make(days: float, **changes: Any) -> Review:
        review = opened(due_at=timezone.now() + timedelta(days=days), **changes)
        past = timezone.now() - timedelta(days=30)
        Review.objects.filter(pk=review.pk).update(opened_at=past)
        review.refresh_from_db()
        return review

    return make


def moved(review: Review, days: float) -> None:
    Review.objects.filter(pk=review.pk).update(due_at=timezone.now() + timedelta(days=days))


def kinds() -> list[str]:
    return list(ReviewReminder.objects.order_by("pk").values_list("kind", flat=True))


def people_of(kind: str) -> list[int]:
    return ReviewReminder.objects.get(kind=kind).people


def test_each_moment_is_told_once_and_administrators_when_it_is_overdue(
    due: Callable[..., Review],
    compliance: Principal,
    risk: Principal,
    actor: Callable[..., Principal],
) -> None:
    admin = actor("Ada", "admin")
    review = due(3.5)
    assert reminders_record_due() == 0
    expected = []
    for days, said in (
        (2.9, ["early"]),
        (0.9, ["late"]),
        (-0.1, ["overdue", "escalated"]),
        (-30, []),
    ):
        moved(review, days)
        assert reminders_record_due() == len(said)
        assert reminders_record_due() == 0
        expected += said
        assert kinds() == expected
    assert people_of("early") == sorted([compliance.person_id, risk.person_id])
    assert people_of("escalated") == [admin.person_id]
    told = bodies(action__in=("review:remind", "review:escalate"))
    assert [body["data"]["kind"] for body in told] == expected
    assert {body["actor_id"] for body in told} == {"controller"}


def test_after_a_standstill_only_the_last_is_said(
    due: Callable[..., Review], compliance: Principal
) -> None:
    due(0.5)
    assert reminders_record_due() == 1
    assert kinds() == ["late"]


def test_nothing_is_said_of_a_moment_before_the_review_was_opened(opened: Open) -> None:
    review = opened(due_at=timezone.now() + timedelta(hours=12))
    assert reminders_record_due() == 0
    moved(review, -0.01)
    Review.objects.filter(pk=review.pk).update(opened_at=timezone.now() - timedelta(hours=1))
    assert reminders_record_due() == 2


def test_only_who_can_still_decide_is_told(
    due: Callable[..., Review],
    compliance: Principal,
    risk: Principal,
    actor: Callable[..., Principal],
    submitter: Principal,
) -> None:
    away, deputy = actor("Abe", "reviewer:compliance"), actor("Priya", "reviewer:privacy")
    gone = Person.objects.get(pk=actor("Gus", "reviewer:compliance").person_id)
    gone.is_active = False
    gone.save()
    made_it = actor("Mia", "reviewer:compliance")
    now = timezone.now()
    absence_set(
        actor=away,
        deputy=Person.objects.get(pk=deputy.person_id),
        specialty="compliance",
        starts_at=now - timedelta(hours=1),
        ends_at=now + timedelta(days=3),
    )
    review = due(2.5, excluded_people=[made_it.person_id])
    review_decide(
        actor=risk, review_id=review.pk, verdict="approve", reason="ok", digest=review.digest
    )
    reminders_record_due()
    assert people_of("early") == sorted([compliance.person_id, deputy.person_id])
    # Once changes are requested it is the submitter's turn.
    review_decide(
        actor=compliance,
        review_id=review.pk,
        verdict="request_changes",
        reason="?",
        digest=review.digest,
    )
    moved(review, 0.5)
    reminders_record_due()
    assert people_of("late") == [submitter.person_id]


def test_what_has_ended_is_not_spoken_of(
    due: Callable[..., Review], compliance: Principal, postbox: Postbox
) -> None:
    review = due(-1)
    reminders_record_due()
    review_decide(
        actor=compliance, review_id=review.pk, verdict="reject", reason="no", digest=review.digest
    )
    assert notices_send_due() == 0
    assert postbox.mails == []
    assert set(ReviewNotice.objects.values_list("error", flat=True)) == {"The review has ended."}
    ReviewReminder.objects.all().delete()
    assert reminders_record_due() == 0


def test_mail_is_plain_text_with_a_link_and_goes_out_once(
    due: Callable[..., Review], compliance: Principal, risk: Principal, postbox: Postbox
) -> None:
    review = due(2.5)
    Review.objects.filter(pk=review.pk).update(subject_name="thing\r\nBcc: all@evil.example")
    reminders_record_due()
    assert notices_send_due() == 2
    assert notices_send_due() == 0
    assert sorted(postbox.to) == ["cora@example.org", "rolf@example.org"]
    mail = postbox.mails[0]
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Due within 3 days: thing Bcc: all@evil.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert f"https://assay.example/reviews/{review.pk}" in text
    assert "approval for compliance, model-risk" in text
    assert {notice.sent_at is None for notice in ReviewNotice.objects.all()} == {False}


def test_the_webhook_is_signed_and_names_nobody(
    due: Callable[..., Review], compliance: Principal, receiver: Collector
) -> None:
    review = due(-1)
    reminders_record_due()
    assert notices_send_due() == 2
    said = [json.loads(line) for line in receiver.lines]
    assert [each["event"] for each in said] == ["review.overdue", "review.escalated"]
    assert said[0]["review"]["id"] == review.pk
    assert said[0]["review"]["missing"] == ["compliance", "model-risk"]
    assert said[0]["review"]["url"] == f"https://assay.example/reviews/{review.pk}"
    assert b"Cora" not in receiver.lines[0]
    headers, body = receiver.posts[0], receiver.lines[0]
    at, mac = headers["Assay-Signature"].removeprefix("t=").split(",v1=")
    given = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert mac == given
    assert headers["Assay-Signature"] == signature(SECRET, body, int(at))
    assert headers["Assay-Event"] == "review.overdue"
    assert headers["Assay-Delivery"] == str(said[0]["delivery"])


@pytest.mark.parametrize("answer", [500, (302, {"Location": "http://127.0.0.1:1/"}), "drop", 401])
def test_what_is_not_taken_is_tried_again_a_bounded_number_of_times(
    due: Callable[..., Review], compliance: Principal, receiver: Collector, answer: Any
) -> None:
    receiver.answer = lambda: answer
    due(2.5)
    reminders_record_due()
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert notices_send_due() == 0
        notice = ReviewNotice.objects.get()
        assert notice.attempts == attempt
        assert notice.error.startswith("https://localhost:")
        assert SECRET not in notice.error
        if attempt < ATTEMPTS_MAX:
            assert notice.next_at is not None
            assert notice.next_at > timezone.now()
            ReviewNotice.objects.update(next_at=timezone.now())
    assert notice.next_at is None
    receiver.answer = lambda: 200
    assert notices_send_due() == 0


def test_what_is_taken_at_last_is_sent(
    due: Callable[..., Review], compliance: Principal, receiver: Collector, postbox: Postbox
) -> None:
    """And a receiver that is away holds up no other notice."""
    receiver.answer = lambda: 503
    postbox.answer = "451 Later"
    due(2.5)
    reminders_record_due()
    assert notices_send_due() == 0
    errors = ReviewNotice.objects.filter(channel="mail").values_list("error", flat=True)
    assert all("answers 451" in error for error in errors)
    postbox.answer = "250 OK"
    ReviewNotice.objects.update(next_at=timezone.now())
    assert notices_send_due() == 1
    receiver.answer = lambda: 200
    ReviewNotice.objects.filter(sent_at=None).update(next_at=timezone.now())
    assert notices_send_due() == 1
    assert len(receiver.lines) == len(postbox.mails) == 1


def test_a_certificate_that_is_not_trusted_gets_nothing(
    due: Callable[..., Review], compliance: Principal, receiver: Collector, settings: Any
) -> None:
    settings.REVIEW_WEBHOOK = Webhook(Destination("review-webhook", receiver.url), SECRET)
    due(2.5)
    reminders_record_due()
    assert notices_send_due() == 0
    assert "certificate is not trusted" in ReviewNotice.objects.get().error
    assert receiver.lines == []


def test_what_another_process_is_sending_is_left_to_it(
    due: Callable[..., Review], compliance: Principal, receiver: Collector
) -> None:
    due(2.5)
    reminders_record_due()
    # As `_claimed` leaves it, in a process that has not come back.
    ReviewNotice.objects.update(next_at=timezone.now() + LEASE, attempts=1)
    assert notices_send_due() == 0
    ReviewNotice.objects.update(next_at=timezone.now())
    assert notices_send_due() == 1


def test_without_mail_or_webhook_it_is_recorded_alone(
    due: Callable[..., Review], compliance: Principal
) -> None:
    due(2.5)
    assert reminders_record_due() == 1
    assert not ReviewNotice.objects.exists()
    assert bodies(action="review:remind")[0]["data"]["channels"] == []


def test_the_database_takes_no_reminder_twice(due: Callable[..., Review]) -> None:
    review = due(2.5)
    ReviewReminder.objects.create(review=review, kind=ReminderKind.EARLY)
    with pytest.raises(IntegrityError, match="each_reminder_once"), transaction.atomic():
        ReviewReminder.objects.create(review=review, kind=ReminderKind.EARLY)
    reminder = ReviewReminder.objects.get()
    ReviewNotice.objects.create(reminder=reminder, channel="webhook")
    with pytest.raises(IntegrityError, match="each_notice_once"), transaction.atomic():
        ReviewNotice.objects.create(reminder=reminder, channel="webhook")
    with pytest.raises(IntegrityError, match="mail_goes_to_somebody"), transaction.atomic():
        ReviewNotice.objects.create(reminder=reminder, channel="mail")


@pytest.mark.django_db(transaction=True)
def test_two_controllers_tell_once(
    due: Callable[..., Review], compliance: Principal, receiver: Collector
) -> None:
    due(-1)
    start = threading.Barrier(2)

    def one() -> None:
        start.wait()
        try:
            reminders_record_due()
            notices_send_due()
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds() == ["overdue", "escalated"]
    assert AuditEvent.objects.filter(action__startswith="review:re").count() == 1
    assert sorted(json.loads(line)["event"] for line in receiver.lines) == [
        "review.escalated",
        "review.overdue",
    ]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://mail.example", "must begin with"),
        ("smtp://ann:secret@mail.example", "not sent unencrypted"),
        ("smtps://mail.example/path", "without a path or query"),
        ("smtps://", "without a path or query"),
        ("smtps://mail.example:99999", "malformed"),
    ],
)
def test_a_mail_server_that_cannot_be_used_is_refused_without_its_password(
    url: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        mail_server_from(url, sender="assay@example.org")
    assert "secret" not in str(caught.value)


def test_a_mail_server_is_read_from_its_url() -> None:
    made = mail_server_from("smtp+tls://ann%40x:p%3Aw@mail.example", sender="a@example.org")
    assert made == MailServer("smtp+tls", "mail.example", 587, "a@example.org", "ann@x", "p:w")
    assert "p:w" not in repr(made)
    assert mail_server_from("", sender="a@example.org") is None
    with pytest.raises(ValueError, match="ASSAY_EMAIL_FROM"):
        mail_server_from("smtps://mail.example", sender="nobody")


@pytest.mark.parametrize(
    ("url", "secret", "why"),
    [
        ("http://hook.example/x", SECRET, "over https"),
        ("https://ann:pw@hook.example/x", SECRET, "credentials"),
        ("syslog+tls://hook.example", SECRET, "https"),
        ("https://hook.example/x", "short", "at least 32"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused(url: str, secret: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        webhook_from(url, secret=secret, ca_file="", production=True)
    assert webhook_from("", secret="", ca_file="", production=True) is None


def test_one_behind_many_that_were_reminded_of_is_not_forgotten(
    due: Callable[..., Review],
) -> None:
    first = due(0.5)
    same = {
        field.attname: getattr(first, field.attname)
        for field in Review._meta.concrete_fields
        if field.attname not in ("id", "subject_id")
    }
    before = Review.objects.bulk_create(Review(**same, subject_id=f"b{n}") for n in range(250))
    Review.objects.update(opened_at=first.opened_at)
    ReviewReminder.objects.bulk_create(
        ReviewReminder(review=review, kind=ReminderKind.LATE, people=[])
        for review in (first, *before)
    )
    last = due(0.9, subject=Subject("thing", "last", "thing last"))
    assert reminders_record_due() == 1
    assert ReviewReminder.objects.get(review=last).kind == ReminderKind.LATE
