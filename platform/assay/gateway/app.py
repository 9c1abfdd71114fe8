"""`/v1/*` and `/v2/*` on raw ASGI: requests pass no Django middleware and no ORM."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from assay.access_log import log_request
from assay.gateway.access.admission import Caller
from assay.gateway.access.authentication import authenticate, presented_session, presented_token
from assay.gateway.access.call import CLIENT_GONE, Call
from assay.gateway.access.decisions import Circumstances, declared_classification
from assay.gateway.http.asgi import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    client_address,
    header,
    respond,
)
from assay.gateway.http.errors import (
    InternalError,
    NoSuchPath,
    WrongMethod,
    error_headers,
    error_json,
)
from assay.gateway.inference import Opening, record_refusal
from assay.gateway.monitoring.database_probe import DatabaseProbe
from assay.gateway.monitoring.metrics import INFLIGHT
from assay.gateway.monitoring.tallies import record
from assay.gateway.monitoring.tracing import begin_request
from assay.gateway.paths import GatewayPath, own_path, own_paths
from assay.gateway.quota.ledger import Ledger
from assay.gateway.quota.quotas import QuotaStopped
from assay.gateway.run.repeats import once
from assay.gateway.runtime import Runtime
from assay.gateway.stored.requests import OwnRequest
from assay.server.connections import prove
from assay.server.permits import holder_of
from governance.errors import DomainError
from governance.principals import serving
from registry.catalog.endpoints import REFUSED_PATHS
from registry.catalog.requests import printable
from registry.catalog.routes import Route, find_route, routes

logger = logging.getLogger(__name__)


class _Target(NamedTuple):
    """Destination of a request: one of the gateway's own paths, or a task's route with the
    deployment named in the path."""

    own: GatewayPath | None
    route: Route | None
    name: str


class Gateway:
    """The ASGI application. Its runtime starts with the first request or with the lifespan."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self.database = DatabaseProbe()

    def start(self) -> Runtime:
        """Return the runtime, first starting it on the running event loop if necessary."""
        if self._runtime is None:
            self._runtime = Runtime()
            self._runtime.start()
        return self._runtime

    async def stop(self) -> None:
        """Settle running requests and close every connection."""
        if self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            await runtime.stop()
        await self.database.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before `serving`: the tasks that it starts outlive this request.
        runtime = self.start()
        path, endpoint = scope["path"], "other"
        own, route, name = own_path(scope["method"], path), None, ""
        if own is not None:
            endpoint = own.label
        else:
            route, name = find_route(path)
            if route is not None:
                endpoint = route.label(name)
        call = Call(endpoint=endpoint, client_address=client_address(scope))
        if (trace := begin_request(scope, endpoint)) is not None:
            call.traceparent, send = trace.traceparent, trace.watching(send)
        INFLIGHT.inc()
        try:
            with serving(call.request_id, call.client_address):
                await _answer(runtime, call, _Target(own, route, name), scope, receive, send)
        finally:
            INFLIGHT.dec()
            record(call)
            _log(call, scope["method"])
            if trace is not None:
                trace.end(call)


def _log(call: Call, method: str) -> None:
    """Write the request's line of the access log."""
    done, deployment = call.done, call.deployment
    log_request(
        method,
        call.endpoint,
        call.status,
        call.elapsed_ms / 1000,
        request_id=call.request_id,
        outcome=call.outcome,
        department="" if call.key is None else call.key.department,
        deployment="" if deployment is None else deployment.name,
        queue_ms=None if done is None else done.queue_ms,
        first_token_ms=call.first_token_ms,
        prompt_tokens=None if done is None else done.prompt_tokens,
        completion_tokens=None if done is None else done.completion_tokens,
    )


async def _answer(
    runtime: Runtime, call: Call, target: _Target, scope: Scope, receive: Receive, send: Send
) -> None:
    try:
        await _route(runtime, call, target, scope, receive, send)
    except ClientGone:
        call.outcome, call.status = "canceled", CLIENT_GONE
    except DomainError as error:
        await _refuse(runtime.ledger, call, error, scope["path"], send)
    except asyncio.CancelledError:
        raise
    except Exception:
        # Callers get this error in place of a stack trace.
        logger.exception("A request failed.")
        fault = InternalError(f"An internal error occurred ({call.request_id}).")
        await _refuse(runtime.ledger, call, fault, scope["path"], send)


async def _route(
    runtime: Runtime, call: Call, target: _Target, scope: Scope, receive: Receive, send: Send
) -> None:
    own, route, name = target
    path, method, refresher = scope["path"], scope["method"], runtime.parts.refresher
    if (current := refresher.snapshot) is not None:
        call.policy = current.policy.version
    if own is None and route is None:
        all_paths = f"There are {', '.join((*own_paths(), *routes()))}."
        raise NoSuchPath(
            f"Unknown request URL: {method} {printable(path)}.",
            hint=REFUSED_PATHS.get(path, all_paths),
        )
    allowed = ("POST",) if own is None else tuple(own.operations)
    if method not in allowed:
        takes = " or ".join(allowed)
        raise WrongMethod(f"{call.endpoint} takes {takes}, not {printable(method, 10)}.", allowed)
    operation = None if own is None else own.operations[method]
    if operation is not None:
        call.action = operation.action.value
    token = presented_token(header(scope, b"authorization"), header(scope, b"x-api-key"))
    snapshot = await refresher.knowing(token.public_id)
    call.policy = snapshot.policy.version
    session = presented_session(header(scope, b"cookie"))
    key = call.key = authenticate(snapshot, token, call.client_address, session)
    prove(scope, holder_of(key.principal))
    circumstances = Circumstances(call.client_address, declared_classification(scope))
    caller = Caller(token, circumstances, session)
    async with once(runtime.client, call, scope):
        if operation is not None and own is not None:
            desks = runtime.desks
            await operation.answer(
                OwnRequest(desks, call, own.id, snapshot, key, caller, scope, receive, send)
            )
        elif route is not None:
            opening = Opening(route, name, caller)
            await runtime.inference.infer(call, opening, scope, receive, send)


async def _refuse(ledger: Ledger, call: Call, error: DomainError, path: str, send: Send) -> None:
    """Send the error in the format of `path`, and record it if a key was identified."""
    record_refusal(ledger, call, error)
    if call.responding:
        return  # The server closes the connection on the unfinished answer.
    headers: Headers = call.headers() + error_headers(error)
    if isinstance(error, QuotaStopped):
        headers += error.headers
    if error.status in {408, 413}:
        headers.append((b"connection", b"close"))
    await respond(send, error.status, error_json(error, path), headers)
