"""Sending notices: about reviews by mail and webhook, about accounts by mail."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time

import httpx
from django.conf import settings
from django.db import close_old_connections

from governance.audit.streaming.https import HttpsSender
from governance.audit.streaming.sending import SendFailed, failure_words
from governance.mail import mail_send
from governance.outgoing import outgoing_send_due
from governance.people.recoveries.notices import account_notices_send_due
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

EVERY_S = 20.0


def run(stop: threading.Event) -> None:
    """Record and send due notices every 20 s until `stop` is set. A separate loop, so that a mail
    server that hangs does not delay other work.
    """
    while not stop.is_set():
        close_old_connections()
        reminders_record_due()
        notices_send_due()
        account_notices_send_due()
        stop.wait(EVERY_S)


def notices_send_due() -> int:
    """Send due notices about reviews; returns the number of accepted messages."""
    rows = ReviewNotice.objects.select_related("reminder__review__department", "person")
    return outgoing_send_due(rows, send=_send, needless=_skip_reason)


def _skip_reason(notice: ReviewNotice) -> str:
    """Return the reason to skip a notice; empty if it must be sent."""
    if notice.reminder.review.state not in WAITING:
        return "The review has ended."
    if notice.person is not None and not (notice.person.is_active and notice.person.email):
        return "The person has left."
    return ""


def _send(notice: ReviewNotice) -> None:
    server, webhook = settings.MAIL_SERVER, settings.REVIEW_WEBHOOK
    if notice.channel == Channel.MAIL and server is not None and notice.person is not None:
        _mail(server, notice, notice.person.email)
    elif notice.channel == Channel.WEBHOOK and webhook is not None:
        _post(webhook, notice)
    else:
        raise SendFailed("No channel is set for this notice.")


def _mail(server: MailServer, notice: ReviewNotice, to: str) -> None:
    """Mail the notice. Raises SendFailed if the server does not accept it."""
    mail_send(
        server,
        to=to,
        subject=mail_subject(notice),
        text=mail_text(notice),
        message_id=f"assay-notice-{notice.pk}",
    )


class WebhookSender(HttpsSender):
    """Sender of one POST, with the limits of those to a SIEM: it checks certificates, follows no
    redirects, and reads only part of the answer.
    """

    def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Send the body. Raises SendFailed if the receiver does not accept it."""
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
    """Return `t=<seconds>,v1=<hex>`: HMAC-SHA256 with the secret over `<seconds>.<body>`."""
    mac = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
