"""Outgoing messages, each sent until it is accepted or has failed too often."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import models, transaction
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.streaming.sending import SendFailed

logger = logging.getLogger(__name__)
ATTEMPTS_MAX = 8
# A process reserves a message for this long; longer than the time limits of sending it.
LEASE = timedelta(minutes=3)
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=3)
PER_ROUND = 50


class Outgoing(models.Model):
    """A message, sent at `next_at` and retried until it is accepted or given up.

    A process moves `next_at` ahead before it sends, so that other processes do not send it too.
    """

    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        abstract = True


Message = TypeVar("Message", bound=Outgoing)


def outgoing_send_due(
    rows: QuerySet[Message],
    *,
    send: Callable[[Message], None],
    needless: Callable[[Message], str],
) -> int:
    """Send the due messages among `rows`; return how many were accepted.

    `send` raises SendFailed; `needless` returns the reason not to send a message anymore, or "".
    If a process dies while it sends a message, another one sends it again: a receiver may get it
    twice, with the same number.
    """
    sent = 0
    for _ in range(PER_ROUND):
        message = _claimed(rows, timezone.now())
        if message is None:
            break
        sent += _tried(message, send, needless)
    return sent


def _claimed(rows: QuerySet[Message], now: datetime) -> Message | None:
    with transaction.atomic():
        message = (
            rows.select_for_update(of=("self",), skip_locked=True)
            .filter(next_at__lte=now, attempts__lt=ATTEMPTS_MAX)
            .order_by("next_at", "pk")
            .first()
        )
        if message is not None:
            message.attempts += 1
            message.next_at = now + LEASE
            message.save(update_fields=["attempts", "next_at"])
    return message


def _tried(
    message: Message, send: Callable[[Message], None], needless: Callable[[Message], str]
) -> bool:
    """Send it and record the result, unless another process has taken it."""
    mine = type(message)._default_manager.filter(pk=message.pk, attempts=message.attempts)
    if reason := needless(message):
        mine.update(next_at=None, error=reason)
        return False
    try:
        send(message)
    except SendFailed as error:
        given_up = message.attempts >= ATTEMPTS_MAX
        wait = min(FIRST_WAIT * 2 ** (message.attempts - 1), LONGEST_WAIT)
        mine.update(next_at=None if given_up else timezone.now() + wait, error=error.words[:200])
        logger.warning("Notice %s was not taken: %s", message.pk, error.words)
        return False
    mine.update(next_at=None, sent_at=timezone.now(), error="")
    return True
