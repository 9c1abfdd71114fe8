"""A gateway without governance, the reference of `benchmarks.governance`: an ASGI application.

It sends chats to the same workers, over the same queue and reply stream, and renders the answers
with the same code, but without key, policy, reservation and records. It belongs only to the
benchmarks: neither package nor image contains it, and the product has no setting that disables
governance.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, cast

import django
from asgiref.sync import sync_to_async
from django.conf import settings

from assay.gateway.run.events import answer_of, piece
from assay.gateway.run.pipeline import Pipeline
from assay.gateway.run.reply_streams import Replies
from registry.catalog.endpoints import Plan, StreamRenderer
from registry.catalog.requests import Body
from registry.catalog.routes import find_route
from workers.celery_message import inference_message
from workers.sealing import GatewaySeals
from workers.wire import Delta, Done, InferenceRequest, deployment_queue
from workers.wire_keys import WireKey

REQUEST_S = 300.0


class Ungoverned:
    """Serves POST /v1/chat/completions, streamed, from ready deployments."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self._start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._replies.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _start(self) -> None:
        django.setup()
        self._commands = Pipeline(settings.REDIS_URL, timeout_s=2)
        self._replies = Replies(Pipeline(settings.REDIS_URL, timeout_s=10), self._commands)
        self._replies.start()
        self._seals = GatewaySeals(WireKey(settings.WIRE_KEY))
        self._deployments: dict[str, tuple[int, str, tuple[str, ...]]] = {}

    async def _answer(self, receive: Any, send: Any) -> None:
        data = b""
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        route, _ = find_route("/v1/chat/completions")
        if route is None:
            raise RuntimeError("No task answers chats.")
        request_id = str(uuid.uuid4())
        plan = route.first.plan(Body("application/json", data), request_id, "")
        inbox = self._replies.open(request_id)
        await self._send_to_workers(request_id, plan)
        renderer = cast(StreamRenderer, plan.renderer)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pending = renderer.opening()
        while isinstance(event := await inbox.get(), Delta):
            pending += renderer.delta(piece(event))
            if pending and inbox.empty():
                body, pending = pending.encode(), ""
                await send({"type": "http.response.body", "body": body, "more_body": True})
        self._replies.close(request_id)
        if not isinstance(event, Done):
            raise RuntimeError(f"The request failed: {event}")
        closing = pending + renderer.closing(answer_of(event))
        await send({"type": "http.response.body", "body": closing.encode()})

    async def _send_to_workers(self, request_id: str, plan: Plan) -> None:
        if plan.model not in self._deployments:
            self._deployments[plan.model] = await sync_to_async(_deployment)(plan.model)
        pk, digest, workers = self._deployments[plan.model]
        now = time.time()
        request = InferenceRequest(
            request_id=request_id,
            deployment_id=pk,
            deployment=plan.model,
            digest=digest,
            reply_stream=self._replies.stream,
            inputs=plan.inputs.to_wire(),
            options=plan.options.to_wire(),
            stream=plan.stream,
            enqueued_at=now,
            deadline=now + REQUEST_S,
            expires_at=now + REQUEST_S,
        )
        sealed, reader = self._seals.seal(request, workers)
        self._replies.expect(request_id, reader)
        message = inference_message(request, sealed)
        await self._commands.execute_command("LPUSH", deployment_queue(pk), message)


def _deployment(name: str) -> tuple[int, str, tuple[str, ...]]:
    """Return the ID of a deployment, its digest, and the public keys of its workers."""
    from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey

    deployment = Deployment.objects.select_related("release__version").get(
        name=name, state="serving"
    )
    ready = Replica.objects.filter(deployment=deployment, state=ReplicaState.READY)
    keys = WorkerKey.objects.filter(worker__in=ready.values("worker"))
    return (
        deployment.pk,
        deployment.release.version.digest,
        tuple(keys.values_list("public_key", flat=True)),
    )


application = Ungoverned()
