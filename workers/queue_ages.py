"""Read the length of deployments' queues, and the time of the oldest request in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from governance.quotas.wire import waiting_key
from workers.wire import deployment_queue

# Queues that one call of the broker looks at, which it does not interrupt for other commands.
_TOGETHER = 500
# Messages are pushed on the left, and their properties come last (`workers.celery_message`). Only
# the time is returned: a message may have megabytes. The names of queues are arguments, because the
# broker's users may only read them, and a script's keys count as written.
_SCRIPT = (
    f"local WAITING = '{waiting_key('')}'"
    + """
local function sent_at(message)
    return message and string.match(string.sub(message, -1024), '"timestamp":([%d.]+)')
end
local answer = {}
for _, queue in ipairs(ARGV) do
    local length = redis.pcall('LLEN', queue)
    local since = nil
    if type(length) ~= 'number' then length = 0 end
    if length > 0 then since = sent_at(redis.call('LINDEX', queue, -1)) end
    -- Also behind an empty queue, which fast workers may leave between two calls of a gateway.
    local waiting = WAITING .. queue
    for _, department in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
        local list = waiting .. ':' .. department
        length = length + redis.call('LLEN', list)
        local other = sent_at(redis.call('LINDEX', list, -1))
        if other and (not since or tonumber(other) < tonumber(since)) then since = other end
    end
    answer[#answer + 1] = length
    answer[#answer + 1] = since or ''
end
return answer
"""
)


class Queue(NamedTuple):
    """Number of requests in a queue, and the time at which the oldest was sent, in seconds since
    the epoch; None if it is not known."""

    length: int
    since: float | None


def read_queues(client: redis.Redis, deployment_ids: Sequence[int]) -> dict[int, Queue]:
    """Return the queue of each deployment, with one round trip for each 500.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    script = client.register_script(_SCRIPT)
    queues = {}
    for start in range(0, len(deployment_ids), _TOGETHER):
        some = deployment_ids[start : start + _TOGETHER]
        answer: Any = script(args=[deployment_queue(pk) for pk in some])
        for pk, length, since in zip(some, answer[::2], answer[1::2], strict=True):
            queues[pk] = Queue(int(length), float(since) if since else None)
    return queues
