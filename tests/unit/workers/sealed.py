"""Requests as they travel: sealed by a gateway's keys, opened by a worker's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from redis import Redis

from workers.celery_tasks.answering import Answerer
from workers.celery_tasks.hosting import EngineHost
from workers.celery_tasks.replies import Replies
from workers.sealing import GatewaySeals, ReplyReader, ReplySeals, WorkerSeals
from workers.wire import Event, InferenceRequest
from workers.wire_keys import WireKey


class Wire:
    """The keys of one gateway and one engine worker, and the replies that the gateway waits for.

    With a realm, the worker is on a node.
    """

    def __init__(self, realm: str = "") -> None:
        self.key = WireKey(settings.WIRE_KEY)
        self.gateway = GatewaySeals(self.key)
        self.worker = worker_seals(realm)
        self._readers: dict[bytes, ReplyReader] = {}

    def seal(self, request: InferenceRequest, *workers: str) -> dict[str, Any]:
        """The message of `request` for workers of these addresses, else for this one."""
        recipients = workers or (self.worker.address,)
        message, self._readers[request.request_id.encode()] = self.gateway.seal(request, recipients)
        return message

    def open(self, request: InferenceRequest) -> tuple[InferenceRequest, ReplySeals]:
        """The request on the worker's side."""
        return self.worker.open(self.seal(request))

    def read(self, redis: Redis, stream: str = "replies") -> list[Event]:
        """The events of every entry. Call it once: replies are checked in their order."""
        return [event for fields in entries(redis, stream) for event in self.events(fields)]

    def events(self, fields: Mapping[bytes, bytes]) -> list[Event]:
        return self._readers[fields[b"id"]].open(fields)


def worker_seals(realm: str = "") -> WorkerSeals:
    """A worker's keys; with a realm, as a node has them: its own secret and no other."""
    key = WireKey(settings.WIRE_KEY)
    return WorkerSeals(WireKey(key.node_secret(realm)) if realm else key, realm)


@contextmanager
def answering(redis: Redis, host: EngineHost, most: int = 8) -> Iterator[Answerer]:
    """An answerer whose requests have ended, and whose replies are written, after the block."""
    replies = Replies(redis)
    answerer = Answerer(host, replies, most=most)
    try:
        yield answerer
        answerer.drain()
    finally:
        answerer.close()
        replies.close()


def entries(redis: Redis, stream: str = "replies") -> Iterable[Mapping[bytes, bytes]]:
    return [fields for _, fields in redis.xrange(stream)]
