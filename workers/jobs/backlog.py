"""How much work waits: jobs by state, and usage that is not in the ledger yet."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime

import redis
from django.conf import settings
from django.db.models import Count, Min

from governance.usage.records import USAGE_STREAM
from workers.jobs.models import Job, JobState

WAITING = (JobState.QUEUED, JobState.RUNNING, JobState.FINISHING)


@dataclass(frozen=True, slots=True)
class Backlog:
    """`jobs` are (state, how many, the oldest's creation); `usage` is None without a broker."""

    jobs: list[tuple[str, int, datetime]]
    usage: int | None


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def backlog() -> Backlog:
    """Return what waits on the whole platform; for pages of those who see all of it."""
    rows = (
        Job.objects.filter(state__in=WAITING)
        .order_by()
        .values("state")
        .annotate(many=Count("pk"), oldest=Min("created_at"))
    )
    by_state = {row["state"]: row for row in rows}
    jobs = [
        (state.label, by_state[state]["many"], by_state[state]["oldest"])
        for state in WAITING
        if state in by_state
    ]
    try:
        usage: int | None = int(_client(settings.REDIS_URL).xlen(USAGE_STREAM))
    except redis.RedisError:
        usage = None
    return Backlog(jobs, usage)
