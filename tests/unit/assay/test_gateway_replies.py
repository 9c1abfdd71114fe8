"""Reply streams of a gateway: stopping leaves none behind and waits for no reading."""

from __future__ import annotations

import asyncio
import os
import time

import redis as redis_module

from assay.gateway.pipeline import Pipeline
from assay.gateway.replies import Replies


async def test_its_stream_is_deleted_while_a_read_blocks(redis: redis_module.Redis) -> None:
    reader, commands = (Pipeline(os.environ["REDIS_URL"], timeout_s=10) for _ in range(2))
    replies = Replies(reader, commands)
    redis.xadd(replies.stream, {"id": "1"})
    replies.start()
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await replies.stop()
    assert time.monotonic() - begun < 0.5
    assert not redis.exists(replies.stream)
    await asyncio.gather(reader.aclose(), commands.aclose())
