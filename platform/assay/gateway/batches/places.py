"""Limit on the lines of all batches that run on one deployment at a time ("places").

A worker takes more requests from its queue than its engine runs, so a short queue does not prove
that the engine has room. Places are counted in Valkey for all gateways.
"""

from __future__ import annotations

import redis.asyncio
from django.conf import settings

from assay.gateway.quota.quotas import GRACE_S
from workers.wire import deployment_queue

# A line may start while at most this many requests wait in the deployment's queue.
QUEUE_SHORT = 1
# A place expires after some seconds, in case its process dies. If another holder was refused in the
# last half second, a holder that has just left a place cannot take it again. The keys are passed as
# arguments: a script that declared the queue as a key would need the right to read it, which
# gateways do not have.
_TAKE = """
local places, wanted, queue = ARGV[1], ARGV[2], ARGV[3]
local holder, again, most, waiting, seconds = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if redis.call('LLEN', queue) > tonumber(waiting) then return 0 end
if again == '1' and redis.call('EXISTS', wanted) == 1 then return 0 end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
redis.call('ZREM', places, holder)
if redis.call('ZCOUNT', places, '-inf', '+inf') >= tonumber(most) then
  redis.call('SET', wanted, '1', 'PX', 500)
  return 0
end
redis.call('ZADD', places, now + tonumber(seconds), holder)
redis.call('EXPIRE', places, seconds)
return 1
"""


def places_key(deployment: int) -> str:
    """Return the Valkey key of the taken places."""
    return f"assay:batch-lines:{deployment}"


def waiting_key(deployment: int) -> str:
    """Return the Valkey key that exists while a holder waits for a place."""
    return f"{places_key(deployment)}:wanted"


class BatchPlaces:
    """Places of all deployments. A holder is one of the concurrent loops of a batch."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._script = client.register_script(_TAKE)

    async def take(self, deployment: int, holder: str, *, again: bool) -> bool:
        """Take a place on a deployment; return false if all are taken.

        Args:
            again: the holder has just left a place, and yields to others.

        Raises:
            redis.RedisError, OSError: Redis does not answer.
        """
        taken = await self._script(
            args=[
                places_key(deployment),
                waiting_key(deployment),
                deployment_queue(deployment),
                holder,
                int(again),
                settings.BATCH_DEPLOYMENT_LINES,
                QUEUE_SHORT,
                settings.GATEWAY_REQUEST_TIMEOUT_S + GRACE_S,
            ],
        )
        return bool(taken)

    async def leave(self, deployment: int, holder: str) -> None:
        """Leave the place. Raises redis.RedisError, OSError: then it expires by itself."""
        await self._client.zrem(places_key(deployment), holder)
