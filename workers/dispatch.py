"""Messages to the compute plane. Losing one loses nothing: the database row is the truth."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from uuid import UUID

import redis
from django.conf import settings

from governance.notify import notify
from workers.app import app
from workers.wire import (
    CONTROLLER_CHANNEL,
    DEPLOYMENTS_CHANNEL,
    JOB_QUEUE,
    JOB_TASK,
    SNAPSHOT_CHANNEL,
    deployment_queue,
)

logger = logging.getLogger(__name__)


def dispatch_job(job_id: UUID | str) -> bool:
    """Wake a compute worker, naming the job that waits. False when the broker does not answer: the
    sweeper sends again."""
    try:
        app.send_task(JOB_TASK, args=[str(job_id)], queue=JOB_QUEUE, retry=False)
    except Exception:
        # kombu raises its own, redis-py's and the socket's errors here, by transport.
        logger.warning("Job %s could not be dispatched; the sweeper will.", job_id, exc_info=True)
        return False
    # Records about the job have `job-` and its ID in place of this request's.
    logger.debug("Job %s was sent to %s", job_id, JOB_QUEUE)
    return True


def messages_waiting() -> int:
    """Return how many messages no compute worker has taken yet; 0 without a broker."""
    try:
        return int(_client(settings.REDIS_URL).llen(JOB_QUEUE))
    except redis.RedisError:
        return 0


def queued_requests(deployment_ids: Collection[int]) -> dict[int, int] | None:
    """Return how many requests to each deployment no worker has taken yet, in one round trip; None
    without a broker."""
    try:
        with _client(settings.REDIS_URL).pipeline(transaction=False) as pipe:
            for each in deployment_ids:
                pipe.llen(deployment_queue(each))
            return dict(zip(deployment_ids, pipe.execute(), strict=True))
    except redis.RedisError:
        return None


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def wake_controller() -> None:
    """A job was delivered: finish it now rather than at the next sweep."""
    notify(CONTROLLER_CHANNEL)


def wake_gateways() -> None:
    """A worker can answer for a deployment: read the snapshot now."""
    notify(SNAPSHOT_CHANNEL)


def wake_engines() -> None:
    """Deployments changed: reconcile now; gateways read their snapshot again."""
    notify(DEPLOYMENTS_CHANNEL)
    notify(SNAPSHOT_CHANNEL)
