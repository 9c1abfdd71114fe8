"""`/v1/*` and `/v2/*` on raw ASGI: no Django middleware, no ORM on the way of a request."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from datetime import UTC, datetime

from assay.gateway.access import (
    Circumstances,
    declared_classification,
    model_unknown,
    visible_deployments,
)
from assay.gateway.authentication import authenticate, presented_session, presented_token
from assay.gateway.call import Call
from assay.gateway.database_probe import DatabaseProbe
from assay.gateway.endpoints import find_route, routes
from assay.gateway.errors import (
    InternalError,
    NoSuchPath,
    WrongMethod,
    error_headers,
    error_json,
)
from assay.gateway.feedback import BODY_MAX_BYTES, feedback_body
from assay.gateway.feedback import PATH as FEEDBACK
from assay.gateway.http import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    client_address,
    encode,
    header,
    read_body,
    respond,
)
from assay.gateway.inference import Opening, deployment_path, infer, record_refusal
from assay.gateway.key_entries import KeyEntry
from assay.gateway.metrics import DURATION, INFLIGHT, REQUESTS, bound
from assay.gateway.paths import MODELS, own_label
from assay.gateway.quotas import QuotaStopped
from assay.gateway.repeats import once
from assay.gateway.retrieval import Asker
from assay.gateway.runtime import Runtime
from assay.gateway.snapshot import DeploymentEntry
from assay.gateway.stored import Asked
from assay.gateway.surfaces import surface_of, surface_paths
from assay.gateway.tracing import begin_request
from assay.server.connections import prove
from assay.server.permits import holder_of
from governance.errors import DomainError
from governance.permissions import Action
from governance.principals import serving
from registry.catalog.endpoints import dumps
from registry.catalog.requests import printable

logger = logging.getLogger(__name__)


class Gateway:
    """The ASGI application. Its runtime starts with the first request or with the lifespan."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self.database = DatabaseProbe()

    def start(self) -> Runtime:
        """The runtime, started on the running event loop if it is not yet."""
        if self._runtime is None:
            self._runtime = Runtime()
            self._runtime.start()
        return self._runtime

    async def stop(self) -> None:
        """Settle what is under way and close every connection."""
        if self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            await runtime.stop()
        await self.database.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before `serving`: the tasks that it starts outlive this request.
        runtime = self.start()
        endpoint = _label(scope["method"], scope["path"])
        call = Call(endpoint=endpoint, client_address=client_address(scope))
        if (trace := begin_request(scope, endpoint)) is not None:
            call.trace, send = trace, trace.watching(send)
        INFLIGHT.inc()
        try:
            with serving(call.request_id, call.client_address):
                await self._answer(runtime, call, scope, receive, send)
                logger.debug("%s ended: %s", endpoint, call.outcome)
        finally:
            INFLIGHT.dec()
            bound(REQUESTS, endpoint, call.outcome).inc()
            bound(DURATION, endpoint).observe(time.perf_counter() - call.started)
            if trace is not None:
                trace.end(call)

    async def _answer(
        self, runtime: Runtime, call: Call, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            await _route(runtime, call, scope, receive, send)
        except ClientGone:
            call.outcome = "canceled"
        except DomainError as error:
            await _refuse(runtime, call, error, send)
        except asyncio.CancelledError:
            raise
        except Exception:
            # Nothing else may reach a caller; it would be a stack trace.
            logger.exception("Request %s failed.", call.request_id)
            fault = InternalError(f"An internal error occurred ({call.request_id}).")
            await _refuse(runtime, call, fault, send)


def _label(method: str, path: str) -> str:
    if label := own_label(method, path):
        return label
    route, name = find_route(path)
    if route is not None:
        return f"{route.path}/{{model}}" if name else path
    return "other"


async def _route(runtime: Runtime, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
    path, method = scope["path"], scope["method"]
    surface = surface_of(method, path)
    route, name = (None, "") if surface is not None or path == FEEDBACK else find_route(path)
    if (known := runtime.refresher.snapshot) is not None:
        call.policy = known.policy.version
    if surface is not None:
        call.action = surface.action_of(call.endpoint, method).value
    elif route is None:
        viewed = Action.FEEDBACK_CREATE if path == FEEDBACK else Action.DEPLOYMENT_VIEW
        call.action = viewed.value
    if call.endpoint == "other":
        hint = f"There are {MODELS}, {FEEDBACK}, {', '.join((*surface_paths(), *routes()))}."
        raise NoSuchPath(f"Unknown request URL: {method} {printable(path)}.", hint=hint)
    if surface is not None:
        surface.check_method(call.endpoint, method)
    allowed = "GET" if route is None and path != FEEDBACK else "POST"
    if surface is None and method != allowed:
        raise WrongMethod(f"{printable(path)} takes {allowed}, not {printable(method, 10)}.")
    token = presented_token(header(scope, b"authorization"), header(scope, b"x-api-key"))
    snapshot = await runtime.refresher.knowing(token.public_id)
    call.policy = snapshot.policy.version
    session = presented_session(header(scope, b"cookie"))
    call.key = authenticate(snapshot, token, call.client_address, session)
    prove(scope, holder_of(call.key.principal))
    circumstances = Circumstances(call.client_address, declared_classification(scope))
    async with once(runtime, call, scope):
        if route is not None:
            opening = Opening(route, name, token, session, circumstances)
            await infer(runtime, call, opening, scope, receive, send)
        elif path == FEEDBACK:
            await _take_feedback(runtime, call, call.key, scope, receive, send)
        elif surface is not None:
            asker = Asker(token, session, circumstances)
            asked = Asked(runtime, call, snapshot, call.key, asker, scope, receive, send)
            await surface.answer(asked)
        else:
            visible = visible_deployments(snapshot, call.key, circumstances)
            await _answer_models(runtime, call, visible, path, send)


async def _answer_models(
    runtime: Runtime,
    call: Call,
    visible: list[tuple[DeploymentEntry, bool]],
    path: str,
    send: Send,
) -> None:
    if path == MODELS:
        await _list_models(call, visible, send)
    else:
        await _show_model(call, visible, path.removeprefix(f"{MODELS}/"), send)
    call.recorded = True
    runtime.ledger.record_bounded(call.entry("ok", ran=False))


async def _take_feedback(
    runtime: Runtime, call: Call, key: KeyEntry, scope: Scope, receive: Receive, send: Send
) -> None:
    body = await read_body(scope, receive, BODY_MAX_BYTES, ("application/json",))
    answer, made = await runtime.feedback.take(key, body, call.request_id, call.client_address)
    # The service records what is new.
    call.recorded = True
    if not made:
        runtime.ledger.record_bounded(call.entry("ok", ran=False))
    await respond(send, 201 if made else 200, feedback_body(answer), call.headers())


async def _list_models(call: Call, visible: list[tuple[DeploymentEntry, bool]], send: Send) -> None:
    models = [_model(entry, usable) for entry, usable in visible]
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
    # The last three fields are Anthropic's.
    listed = {"first_id": None, "last_id": None, **ends, "has_more": False}
    body = encode(dumps({"object": "list", "data": models, **listed}))
    await respond(send, 200, body, call.headers())


async def _show_model(
    call: Call, visible: list[tuple[DeploymentEntry, bool]], name: str, send: Send
) -> None:
    call.asked_for = name
    for entry, usable in visible:
        if entry.name == name:
            await respond(send, 200, encode(dumps(_model(entry, usable))), call.headers())
            return
    raise model_unknown(name)


def _model(entry: DeploymentEntry, usable: bool) -> dict[str, object]:
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.created_at),
        "owned_by": entry.department,
        "task": entry.task,
        "endpoint": deployment_path(entry),
        "release": entry.release,
        "digest": entry.digest,
        "usable": usable,
        "ready": entry.ready_until > time.time(),
        # Anthropic's.
        "type": "model",
        "display_name": entry.name,
        "created_at": _moment(entry.created_at),
        "lifecycle": "active",
        "retires_at": _moment(entry.expires_at) if math.isfinite(entry.expires_at) else None,
    }


def _moment(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


async def _refuse(runtime: Runtime, call: Call, error: DomainError, send: Send) -> None:
    """Render the error, and have it recorded unless nothing was decided about anybody."""
    record_refusal(runtime, call, error)
    if call.responding:
        return  # The server closes the connection on the unfinished answer.
    headers: Headers = call.headers() + error_headers(error)
    if isinstance(error, QuotaStopped):
        headers += error.headers
    if error.status in {408, 413}:
        headers.append((b"connection", b"close"))
    await respond(send, error.status, error_json(error, call.endpoint), headers)
