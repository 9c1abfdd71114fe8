"""`/v1/*` and `/v2/*` on raw ASGI: no Django middleware, no ORM on the way of a request."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.conf import settings

from assay.gateway import response_desk, responses, vector_stores
from assay.gateway.access import (
    Circumstances,
    ModelUnknown,
    Refused,
    declared_classification,
    known_task,
    model_unknown,
    require_ready,
    visible_deployments,
)
from assay.gateway.admission import Application
from assay.gateway.authentication import (
    KeyRefused,
    authenticate,
    presented_session,
    presented_token,
)
from assay.gateway.call import Call
from assay.gateway.database_probe import DatabaseProbe
from assay.gateway.endpoints import Route, find_route, named_model, routes
from assay.gateway.errors import (
    NoSuchPath,
    WrongMethod,
    error_headers,
    error_json,
)
from assay.gateway.execution import Execution
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
    too_large,
)
from assay.gateway.key_entries import KeyEntry
from assay.gateway.media import RequestMedia, media_body_limit
from assay.gateway.metrics import DURATION, INFLIGHT, REQUESTS, bound
from assay.gateway.prompts import check_prompt, with_prompt
from assay.gateway.quotas import QuotaStopped
from assay.gateway.retrieval import Asker, ground
from assay.gateway.runtime import Runtime
from assay.gateway.snapshot import DeploymentEntry
from governance.errors import DomainError, Unavailable
from governance.keys.tokens import ParsedToken
from governance.permissions import Action
from governance.principals import serving
from registry.catalog import TASKS
from registry.catalog.endpoints import Endpoint, dumps
from registry.catalog.requests import Body, RequestInvalid, printable

logger = logging.getLogger(__name__)

_MODELS = "/v1/models"


class InternalError(DomainError):
    """A fault of ours (500). The details are in the log under the request's id."""

    code = "internal_error"
    status = 500
    title = "Internal error"


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
        endpoint = _label(scope["path"])
        call = Call(endpoint=endpoint, client_address=client_address(scope))
        INFLIGHT.inc()
        try:
            with serving(call.request_id, call.client_address):
                await self._answer(runtime, call, scope, receive, send)
                logger.debug("%s ended: %s", endpoint, call.outcome)
        finally:
            INFLIGHT.dec()
            bound(REQUESTS, endpoint, call.outcome).inc()
            bound(DURATION, endpoint).observe(time.perf_counter() - call.started)

    async def _answer(
        self, runtime: Runtime, call: Call, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            await _route(runtime, call, scope, receive, send)
        except ClientGone:
            call.outcome = "cancelled"
        except DomainError as error:
            await _refuse(runtime, call, error, send)
        except asyncio.CancelledError:
            raise
        except Exception:
            # Nothing else may reach a caller; it would be a stack trace.
            logger.exception("Request %s failed.", call.request_id)
            fault = InternalError(f"An internal error occurred ({call.request_id}).")
            await _refuse(runtime, call, fault, send)


def _label(path: str) -> str:
    if path in (_MODELS, FEEDBACK):
        return path
    if kept := vector_stores.label(path) or responses.label(path):
        return kept
    route, name = find_route(path)
    if route is not None:
        return f"{route.path}/{{model}}" if name else path
    return f"{_MODELS}/{{id}}" if path.startswith(f"{_MODELS}/") else "other"


async def _route(runtime: Runtime, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
    path, method = scope["path"], scope["method"]
    route, name = (None, "") if path == FEEDBACK else find_route(path)
    if (known := runtime.refresher.snapshot) is not None:
        call.policy = known.policy.version
    if route is None:
        viewed = Action.FEEDBACK_CREATE if path == FEEDBACK else Action.DEPLOYMENT_VIEW
        call.action = viewed.value
    stores = vector_stores.label(path)
    if stores:
        search = stores.endswith("/search")
        call.action = (Action.KNOWLEDGE_SEARCH if search else Action.KNOWLEDGE_VIEW).value
    stored = responses.label(path)
    if stored:
        call.action = responses.action_of(method).value
    if route is None and call.endpoint == "other":
        raise NoSuchPath(
            f"Unknown request URL: {method} {printable(path)}.",
            hint=f"There are {_MODELS}, {FEEDBACK}, {vector_stores.PATH}, {', '.join(routes())}.",
        )
    if stores:
        vector_stores.check_method(stores, method)
    if stored:
        responses.check_method(stored, method)
    allowed = "GET" if route is None and path != FEEDBACK else "POST"
    if not stores and not stored and method != allowed:
        raise WrongMethod(f"{printable(path)} takes {allowed}, not {printable(method, 10)}.")
    token = presented_token(header(scope, b"authorization"), header(scope, b"x-api-key"))
    snapshot = await runtime.refresher.knowing(token.public_id)
    call.policy = snapshot.policy.version
    session = presented_session(header(scope, b"cookie"))
    call.key = authenticate(snapshot, token, call.client_address, session)
    circumstances = Circumstances(call.client_address, declared_classification(scope))
    if route is not None:
        opening = Opening(route, name, token, session, circumstances)
        await _infer(runtime, call, opening, scope, receive, send)
        return
    if path == FEEDBACK:
        await _take_feedback(runtime, call, call.key, scope, receive, send)
        return
    if stores:
        asker = Asker(token, session, circumstances)
        await vector_stores.answer(runtime, call, snapshot, call.key, asker, scope, receive, send)
        return
    if stored:
        await responses.answer(runtime, call, call.key, scope, send)
        return
    visible = visible_deployments(snapshot, call.key, circumstances)
    if path == _MODELS:
        await _list_models(call, visible, send)
    else:
        await _show_model(call, visible, path.removeprefix(f"{_MODELS}/"), send)
    call.recorded = True
    runtime.ledger.record_bounded(call.entry("ok", ran=False))


@dataclass(frozen=True, slots=True)
class Opening:
    """A request as far as its head tells: where it goes, and who sends it from where."""

    route: Route
    name: str
    token: ParsedToken
    session: bytes
    circumstances: Circumstances


async def _infer(
    runtime: Runtime, call: Call, opening: Opening, scope: Scope, receive: Receive, send: Send
) -> None:
    route = opening.route
    # Few bodies of media are received at a time. On a path that texts share, small ones, images or
    # not, are received as texts are.
    if route.takes_media and not (route.takes_others and _is_small(scope)):
        media = runtime.media.open(opening.token.public_id)
    else:
        media = runtime.media.answering()
    try:
        await _run(runtime, call, opening, media, scope, receive, send)
    finally:
        if media.holds_anything:
            runtime.ledger.spawn(media.close())


def _is_small(scope: Scope) -> bool:
    """Return whether the body states a length that every request may have."""
    declared = header(scope, b"content-length") or b""
    return declared.isdigit() and int(declared[:20]) <= settings.GATEWAY_MAX_BODY_BYTES


async def _run(
    runtime: Runtime,
    call: Call,
    opening: Opening,
    media: RequestMedia,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    route, token = opening.route, opening.token
    limit = media_body_limit() if media.received else settings.GATEWAY_MAX_BODY_BYTES
    body = await read_body(scope, receive, limit, route.content_types)
    endpoint = await _endpoint(runtime, call, opening, body, media)
    media.expected = endpoint.takes_media
    if not endpoint.takes_media and len(body.data) > settings.GATEWAY_MAX_BODY_BYTES:
        raise too_large(settings.GATEWAY_MAX_BODY_BYTES)
    if media.received:
        plan = await media.read(endpoint, body, call.request_id, opening.name)
    else:
        plan = endpoint.plan(body, call.request_id, opening.name)
    call.asked_for, call.streamed = plan.model, plan.stream
    opened = None
    if plan.conversation is not None and call.key is not None:
        opened = await response_desk.open_conversation(
            runtime, call, call.key, plan, plan.conversation
        )
        plan = opened.plan
    # The body took its time to come: what held at its first byte need not hold any more.
    snapshot = await runtime.refresher.knowing(token.public_id)
    if (named := snapshot.deployments.get(plan.model)) is not None:
        plan = with_prompt(plan, named.own_prompt)
    circumstances = replace(opening.circumstances, tokens=plan.tokens)
    if opened is not None:
        circumstances = opened.declared(circumstances)
    application = Application(token, circumstances, plan.model, opening.session)
    call.policy = snapshot.policy.version
    admitted = application.admit(snapshot)
    call.key, call.deployment = admitted.key, admitted.deployment
    call.decision, call.context = admitted.decision, admitted.context
    if call.deployment.task not in route.endpoints:
        right = endpoint_of(call.deployment)
        raise RequestInvalid(
            f"Deployment {call.deployment.name} is for {call.deployment.task}"
            + (f"; use POST {right} instead of {route.path}." if right else "."),
            param="model",
            code="wrong_endpoint",
        )
    check_prompt(plan, call.deployment.own_prompt)
    require_ready(call.deployment)
    if plan.grounding is not None:
        plan, application, admitted = await ground(runtime, call, plan, application)
        call.deployment = admitted.deployment
        call.decision, call.context = admitted.decision, admitted.context
    if runtime.ledger.blocked:
        raise Unavailable("Usage cannot be recorded, so requests are refused.", retry_after=2)
    kept = None
    if opened is not None and opened.stores:
        # A request that no limit has room for is neither written nor audited as stored.
        await Execution(runtime, call, plan, application, admitted, media).check_room()
        kept, admitted = await response_desk.begin_storing(
            runtime, call, application, admitted.key, opened
        )
        call.key, call.deployment = admitted.key, admitted.deployment
        call.decision, call.context = admitted.decision, admitted.context
    if kept is None:
        await Execution(runtime, call, plan, application, admitted, media).run(receive, send)
        return
    keeping = response_desk.KeepingSend(runtime.responses, kept, send)
    try:
        await Execution(runtime, call, plan, application, admitted, media).run(receive, keeping)
    finally:
        runtime.ledger.spawn(keeping.finish())


async def _endpoint(
    runtime: Runtime, call: Call, opening: Opening, body: Body, media: RequestMedia
) -> Endpoint:
    """Return the endpoint of the deployment's task, where several tasks share the path.

    A deployment that the key may not know of is read like one that does not exist.
    """
    route = opening.route
    if len(route.endpoints) == 1 or call.key is None:
        return route.first
    snapshot = await runtime.refresher.knowing(opening.token.public_id)
    model = await media.in_thread(named_model, body) if media.received else named_model(body)
    named = snapshot.deployments.get(model)
    if named is None or route.endpoints.get(named.task, route.first) is route.first:
        return route.first  # Whether or not the key may know of it.
    task = known_task(snapshot, call.key, model, opening.circumstances)
    return route.endpoints.get(task, route.first)


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
        "endpoint": endpoint_of(entry),
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


def endpoint_of(entry: DeploymentEntry) -> str:
    """Return the path that reaches a deployment; empty while its task is unavailable."""
    task = TASKS.get(entry.task)
    return "" if task is None else task.endpoints[0].path_to(entry.name)


async def _refuse(runtime: Runtime, call: Call, error: DomainError, send: Send) -> None:
    """Render the error, and have it recorded unless nothing was decided about anybody."""
    if isinstance(error, Refused):
        call.deployment, call.decision = error.deployment, error.decision
        call.context = error.context
    if isinstance(error, KeyRefused):
        call.key = error.key
    if isinstance(error, QuotaStopped):
        call.limit = error.limit.name
    if call.outcome == "ok":
        call.outcome = error.code
    if not call.recorded and (call.key is not None or isinstance(error, KeyRefused)):
        call.recorded = True
        entry = _as_decided(call, error).entry(error.code, reason=error.message, ran=False)
        # While a store is away nothing can be recorded; what was refused then is counted.
        runtime.ledger.record_bounded(entry, later=error.code == Unavailable.code)
    if call.responding:
        return  # The server closes the connection on the unfinished answer.
    headers: Headers = call.headers() + error_headers(error)
    if isinstance(error, QuotaStopped):
        headers += error.headers
    if error.status in {408, 413}:
        headers.append((b"connection", b"close"))
    await respond(send, error.status, error_json(error, call.endpoint), headers)


def _as_decided(call: Call, error: DomainError) -> Call:
    """The request to record: with the decision, also where the caller is told that the model does
    not exist."""
    if not isinstance(error, ModelUnknown) or error.hidden is None:
        return call
    refused = error.hidden
    return replace(
        call, deployment=refused.deployment, decision=refused.decision, context=refused.context
    )
