"""Reply streams of a gateway: stopping leaves none behind and waits for no reading."""

from __future__ import annotations

import asyncio
import os

import pytest
import redis as redis_module

from assay.gateway.run.pipeline import Pipeline
from assay.gateway.run.reply_streams import Replies


async def test_its_stream_is_deleted_while_a_read_blocks(
    redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.gateway.run.reply_streams._BLOCK_MS", 600_000)
    reader, commands = (Pipeline(os.environ["REDIS_URL"], timeout_s=600) for _ in range(2))
    replies = Replies(reader, commands)
    redis.xadd(replies.stream, {"id": "1"})
    replies.start()
    while not any(client["cmd"] == "xread" for client in redis.client_list()):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await replies.stop()
    assert not redis.exists(replies.stream)
    await asyncio.gather(reader.aclose(), commands.aclose())
