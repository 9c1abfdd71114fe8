"""Messages to workers. A lost message does no harm, because the database is authoritative."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from uuid import UUID

import redis
from django.conf import settings

from governance.notify import notify
from governance.quotas.wire import turns_key
from workers.app import app
from workers.wire import (
    CONTROLLER_CHANNEL,
    DEPLOYMENTS_CHANNEL,
    JOB_QUEUE,
    JOB_TASK,
    SNAPSHOT_CHANNEL,
    deployment_queue,
    wake_message,
)

logger = logging.getLogger(__name__)


def dispatch_job(job_id: UUID | str) -> bool:
    """Wake a compute worker with a message that names a waiting job. Return False if the broker
    does not answer; the sweeper sends again."""
    try:
        app.send_task(JOB_TASK, args=[str(job_id)], queue=JOB_QUEUE, retry=False)
    except Exception:
        # kombu raises its own errors here, and those of redis-py and sockets.
        logger.warning("Job %s could not be dispatched; the sweeper will.", job_id, exc_info=True)
        return False
    # Log records about the job have the ID `job-…` instead of this request's ID.
    logger.debug("Job %s was sent to %s", job_id, JOB_QUEUE)
    return True


def messages_waiting() -> int:
    """Return the number of messages that wait for compute workers; 0 without a broker."""
    try:
        return int(_client(settings.REDIS_URL).llen(JOB_QUEUE))
    except redis.RedisError:
        return 0


def queued_requests(deployment_ids: Collection[int]) -> dict[int, int] | None:
    """Return the number of queued requests of each deployment (one round trip), None without
    a broker."""
    try:
        with _client(settings.REDIS_URL).pipeline(transaction=False) as pipe:
            for each in deployment_ids:
                pipe.llen(deployment_queue(each))
                pipe.hget(turns_key(deployment_queue(each)), "length")
            numbers = [int(number or 0) for number in pipe.execute()]
            depths = map(sum, zip(numbers[::2], numbers[1::2], strict=True))
            return dict(zip(deployment_ids, depths, strict=True))
    except redis.RedisError:
        return None


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def wake_controller() -> None:
    """Wake the controller after a job's delivery, so that it does not wait for the next sweep."""
    notify(CONTROLLER_CHANNEL)


def wake_gateways() -> None:
    """Make gateways read their snapshot again, because a worker can answer for a deployment."""
    notify(SNAPSHOT_CHANNEL)


def wake_engines(workers: Collection[str] | None = None) -> None:
    """Make engine workers reconcile, the controller place and gateways read their snapshot:
    deployments changed. `workers` are those that reconcile; None means all.
    """
    notify(DEPLOYMENTS_CHANNEL, "" if workers is None else wake_message(workers))
    notify(SNAPSHOT_CHANNEL)


def wake_placement() -> None:
    """Make the controller place and gateways read their snapshot: wanted copies or workers changed.
    Workers are woken once something is assigned to them."""
    wake_engines(())
