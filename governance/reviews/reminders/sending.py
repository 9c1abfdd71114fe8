"""Notices on their way: each is tried until it is accepted, a bounded number of times."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from datetime import datetime, timedelta

import httpx
from django.conf import settings
from django.db import close_old_connections, transaction
from django.utils import timezone

from governance.audit.streaming.https import HttpsSender
from governance.audit.streaming.sending import SendFailed, failure_words
from governance.mail import mail_send
from governance.reviews.inbox import WAITING
from governance.reviews.reminders.channels import MailServer, Webhook
from governance.reviews.reminders.messages import (
    EVENTS,
    mail_subject,
    mail_text,
    webhook_body,
)
from governance.reviews.reminders.models import Channel, ReminderKind, ReviewNotice
from governance.reviews.reminders.schedule import reminders_record_due

logger = logging.getLogger(__name__)
ATTEMPTS_MAX = 8
# How long one process has a notice to itself; longer than both time limits of sending together.
LEASE = timedelta(minutes=3)
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=3)
PER_ROUND = 50
EVERY_S = 20.0


def run(stop: threading.Event) -> None:
    """Record and send what is due every 20 s until `stop`, in a loop of its own: a mail server that
    hangs delays nothing else.
    """
    while not stop.is_set():
        close_old_connections()
        reminders_record_due()
        notices_send_due()
        stop.wait(EVERY_S)


def notices_send_due() -> int:
    """Send what is due; returns how many were accepted.

    A notice is one process's while it sends it; one that dies meanwhile leaves it to be sent again,
    so that a receiver may see it twice, with the same delivery number.
    """
    sent = 0
    for _ in range(PER_ROUND):
        notice = _claimed(timezone.now())
        if notice is None:
            break
        sent += _tried(notice)
    return sent


def _claimed(now: datetime) -> ReviewNotice | None:
    with transaction.atomic():
        notice = (
            ReviewNotice.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("reminder__review__department", "person")
            .filter(next_at__lte=now, attempts__lt=ATTEMPTS_MAX)
            .order_by("next_at", "pk")
            .first()
        )
        if notice is not None:
            notice.attempts += 1
            notice.next_at = now + LEASE
            notice.save(update_fields=["attempts", "next_at"])
    return notice


def _tried(notice: ReviewNotice) -> bool:
    """Send it and record the result, unless another process has taken it."""
    mine = ReviewNotice.objects.filter(pk=notice.pk, attempts=notice.attempts)
    needless = _needless(notice)
    if needless:
        mine.update(next_at=None, error=needless)
        return False
    try:
        _sent(notice)
    except SendFailed as error:
        over = notice.attempts >= ATTEMPTS_MAX
        wait = min(FIRST_WAIT * 2 ** (notice.attempts - 1), LONGEST_WAIT)
        mine.update(next_at=None if over else timezone.now() + wait, error=error.words[:200])
        logger.warning("Notice %s was not taken: %s", notice.pk, error.words)
        return False
    mine.update(next_at=None, sent_at=timezone.now(), error="")
    return True


def _needless(notice: ReviewNotice) -> str:
    """Why it is not to be sent any more; empty when it is."""
    if notice.reminder.review.state not in WAITING:
        return "The review has ended."
    if notice.person is not None and not (notice.person.is_active and notice.person.email):
        return "The person has left."
    return ""


def _sent(notice: ReviewNotice) -> None:
    server, webhook = settings.MAIL_SERVER, settings.REVIEW_WEBHOOK
    if notice.channel == Channel.MAIL and server is not None and notice.person is not None:
        _mail(server, notice, notice.person.email)
    elif notice.channel == Channel.WEBHOOK and webhook is not None:
        _post(webhook, notice)
    else:
        raise SendFailed("Nothing is set to send it by.")


def _mail(server: MailServer, notice: ReviewNotice, to: str) -> None:
    """Raises SendFailed: the server did not take it."""
    mail_send(
        server,
        to=to,
        subject=mail_subject(notice),
        text=mail_text(notice),
        message_id=f"assay-notice-{notice.pk}",
    )


class WebhookSender(HttpsSender):
    """One POST, bounded as those to a SIEM are: certificates are checked, nothing is followed, and
    no more than a part of the answer is read.
    """

    def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Raises SendFailed: the receiver did not accept."""
        try:
            answer = self._post(body, {**self._headers(), **headers})
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise SendFailed(f"{self._to.address}: {failure_words(error)}.") from None
        finally:
            self.close()
        self._judge(answer)


def _post(webhook: Webhook, notice: ReviewNotice) -> None:
    body = webhook_body(notice)
    WebhookSender(webhook.destination).post(
        body,
        {
            "Content-Type": "application/json",
            "Assay-Event": EVENTS[ReminderKind(notice.reminder.kind)],
            "Assay-Delivery": str(notice.pk),
            "Assay-Signature": signature(webhook.secret, body, int(time.time())),
        },
    )


def signature(secret: str, body: bytes, at: int) -> str:
    """`t=<seconds>,v1=<hex>`: HMAC-SHA256 with the secret over `<seconds>.<body>`."""
    mac = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
