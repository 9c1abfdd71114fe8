"""Celery application. Web processes send by task name; only workers import task modules."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import after_setup_logger, worker_ready, worker_shutdown
from django.conf import settings
from kombu import Queue

from workers import transport
from workers.wire import IDLE_QUEUE, JOB_QUEUE

if TYPE_CHECKING:
    from workers.presence import Presence

logger = logging.getLogger(__name__)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
# Workers serve no URLs, and Django's system checks would import the whole portal into them.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("assay", amqp=transport.Messaging)
app.config_from_object("django.conf:settings", namespace="CELERY")
transport.install()
# Senders name the queue, so no bindings are needed. Bindings are keys that any worker could
# corrupt.
app.conf.task_queues = [Queue(name, no_declare=True) for name in (JOB_QUEUE, IDLE_QUEUE)]
# A network may drop a connection silently. So a command waits for its answer at most
# `socket_timeout`, and a connection that waits for messages is replaced after twice
# `health_check_interval` (kombu's default is 25 s). Any other connection that was quiet for this
# interval is tested before use, and replaced once: otherwise a message that was just taken would be
# lost with it.
app.conf.broker_transport_options = {
    # A worker keeps messages that it has fetched but not begun in memory, and gives them back when
    # it ends (`transport`). kombu would keep them in keys that all workers share, with two
    # transactions for each message.
    "ack_emulation": False,
    "priority_steps": [0],
    # Short, so that a worker is back soon after a network heals.
    "socket_timeout": 3,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 8,
    "retry_on_timeout": True,
    # Sending fails at once if the broker is unreachable; kombu would block the caller for seconds.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}


@after_setup_logger.connect  # type: ignore[untyped-decorator]
def _keep_log_level(logger: logging.Logger, **_: Any) -> None:
    # Celery has set the root logger to its `--loglevel`; restore `ASSAY_LOG_LEVEL`.
    logger.setLevel(settings.LOG_LEVEL)


SESSION_CHECK_S = 30.0
# Presence of this process, if it is a worker.
_presences: list[Presence] = []
_stop = threading.Event()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _present(sender: Any, **_: Any) -> None:
    # Imported here because senders import this module, too, and do not need it.
    from workers.presence import Presence

    _presences.append(Presence(sender.hostname))
    _presences[-1].start()
    if settings.NODE_URL:
        threading.Thread(target=_keep_session, name="assay-session", daemon=True).start()


def _keep_session() -> None:
    """Keep this node's session, and with it its user on the broker, even while it is idle."""
    # Imported here for the reason in `_present`.
    from governance.errors import DomainError
    from workers.broker import node_client

    while not _stop.wait(SESSION_CHECK_S):
        try:
            node_client().keep()
        except DomainError as error:
            logger.warning("The session of this node was not kept: %s", error.message)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _gone(**_: Any) -> None:
    _stop.set()
    if _presences:
        _presences.pop().end()
