"""The Celery application. Web processes send by task name; only workers import task modules."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import after_setup_logger, worker_ready, worker_shutdown
from django.conf import settings

if TYPE_CHECKING:
    from workers.presence import Presence

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
# A worker serves no URL: Django's system checks would import the whole portal into it.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("assay")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Sending gives up at once when the broker is away; kombu would hold the caller for seconds.
app.conf.broker_transport_options = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
    **app.conf.broker_transport_options,
}


@after_setup_logger.connect  # type: ignore[untyped-decorator]
def _keep_log_level(logger: logging.Logger, **_: Any) -> None:
    # Celery has set the root logger to its own `--loglevel`, in place of `ASSAY_LOG_LEVEL`.
    logger.setLevel(settings.LOG_LEVEL)


# Of the worker that this process is, if it is one.
_presences: list[Presence] = []


@worker_ready.connect  # type: ignore[untyped-decorator]
def _present(sender: Any, **_: Any) -> None:
    from workers.presence import Presence

    _presences.append(Presence(sender.hostname))
    _presences[-1].start()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _gone(**_: Any) -> None:
    if _presences:
        _presences.pop().end()
