"""The Celery application. Web processes send by task name; only workers import task modules."""

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
# A worker serves no URL: Django's system checks would import the whole portal into it.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("assay")
app.config_from_object("django.conf:settings", namespace="CELERY")
transport.install()
# Senders name queues, so that these need no bindings: keys that every worker could spoil.
app.conf.task_queues = [Queue(name, no_declare=True) for name in (JOB_QUEUE, IDLE_QUEUE)]
# A network may drop a connection without a word: a command waits for its answer no longer than
# `socket_timeout`, and a connection on which messages are awaited is made anew after twice
# `health_check_interval` (kombu's default is 25 s). Any other one that was quiet for so long is
# tried before it is used, and made anew once: a message that was just taken would be lost with it.
app.conf.broker_transport_options = {
    # A worker keeps what it has fetched and not begun in its memory, and gives it back when it ends
    # (`transport`). kombu would keep it in keys that all workers share, at two transactions for
    # each message.
    "ack_emulation": False,
    "priority_steps": [0],
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 8,
    "retry_on_timeout": True,
    # Sending gives up at once when the broker is away; kombu would hold the caller for seconds.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}


@after_setup_logger.connect  # type: ignore[untyped-decorator]
def _keep_log_level(logger: logging.Logger, **_: Any) -> None:
    # Celery has set the root logger to its own `--loglevel`, in place of `ASSAY_LOG_LEVEL`.
    logger.setLevel(settings.LOG_LEVEL)


SESSION_CHECK_S = 30.0
# Of the worker that this process is, if it is one.
_presences: list[Presence] = []
_stop = threading.Event()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _present(sender: Any, **_: Any) -> None:
    # Senders import this module, too, and need none of it.
    from workers.presence import Presence

    _presences.append(Presence(sender.hostname))
    _presences[-1].start()
    if settings.NODE_URL:
        threading.Thread(target=_keep_session, name="assay-session", daemon=True).start()


def _keep_session() -> None:
    """Keep the session of this node, and with it its user of the broker, also while it is idle."""
    # As in `_present`.
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
