"""Requests for inference: read, admitted by the snapshot, run, and refused in one way.

Batches (`batch_runner.py`) come in here too, so that a line passes what an online request passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.conf import settings

from assay.gateway.access.admission import Application
from assay.gateway.access.authentication import KeyRefused
from assay.gateway.access.decisions import (
    Circumstances,
    ModelUnknown,
    Refused,
    is_ready,
    known_task,
)
from assay.gateway.access.prompts import check_prompt, with_prompt
from assay.gateway.access.snapshot import DeploymentEntry
from assay.gateway.http.asgi import Receive, Scope, Send, header, parsed, read_body, too_large
from assay.gateway.knowledge.retrieval import ground
from assay.gateway.quota.quotas import QuotaStopped
from assay.gateway.run.call import Call
from assay.gateway.run.execution import Execution
from assay.gateway.run.media import RequestMedia, media_body_limit
from assay.gateway.run.routes import Route, named_model
from assay.gateway.stored import conversations as response_desk
from assay.server.permits import holder_of
from governance.errors import DomainError, Unavailable
from governance.keys.tokens import ParsedToken
from registry.catalog import TASKS, is_own
from registry.catalog.endpoints import Endpoint
from registry.catalog.requests import Body, RequestInvalid

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Opening:
    """A request as far as its head tells: where it goes, and who sends it from where."""

    route: Route
    name: str
    token: ParsedToken
    session: bytes
    circumstances: Circumstances


async def infer(
    runtime: Runtime, call: Call, opening: Opening, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request whose key is authenticated as `call.key`.

    Raises:
        DomainError: it is refused, or failed before a byte of the answer was sent.
        ClientGone: the client hung up; what it used is being settled.
    """
    route = opening.route
    # Few bodies of media are received at a time. On a path that texts share, small ones, images or
    # not, are received as texts are.
    owner = holder = opening.token.public_id
    if call.key is not None:
        owner, holder = call.key.owner, holder_of(call.key.principal)
    if route.takes_media and not (route.takes_others and _is_small(scope)):
        media = runtime.media.open(owner, holder)
    else:
        media = runtime.media.answering(owner, holder)
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
    task, endpoint = await _endpoint(runtime, call, opening, body, media)
    media.expected = endpoint.takes_media
    if not endpoint.takes_media and len(body.data) > settings.GATEWAY_MAX_BODY_BYTES:
        raise too_large(settings.GATEWAY_MAX_BODY_BYTES)
    if not is_own(task):
        plan = await runtime.plug_ins.call(task, endpoint.plan, body, call.request_id, opening.name)
    elif media.received:
        plan = await media.read(endpoint, body, call.request_id, opening.name)
    else:
        plan = await parsed(body, endpoint.plan, body, call.request_id, opening.name)
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
        right = deployment_path(call.deployment)
        raise RequestInvalid(
            f"Deployment {call.deployment.name} is for {call.deployment.task}"
            + (f"; use POST {right} instead of {route.path}." if right else "."),
            param="model",
            code="wrong_endpoint",
        )
    check_prompt(plan, call.deployment.own_prompt)
    if not is_ready(call.deployment):
        admitted = await runtime.cold_starts.loaded(application, admitted)
        call.key, call.deployment = admitted.key, admitted.deployment
        call.decision, call.context = admitted.decision, admitted.context
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
) -> tuple[str, Endpoint]:
    """Return the deployment's task and its endpoint, where several tasks share the path.

    A deployment that the key may not know of is read like one that does not exist.
    """
    route = opening.route
    first = next(iter(route.endpoints.items()))
    if len(route.endpoints) == 1 or call.key is None:
        return first
    snapshot = await runtime.refresher.knowing(opening.token.public_id)
    if media.received:
        model = await media.in_thread(named_model, body)
    else:
        model = await parsed(body, named_model, body)
    named = snapshot.deployments.get(model)
    if named is None or route.endpoints.get(named.task, route.first) is route.first:
        return first  # Whether or not the key may know of it.
    task = known_task(snapshot, call.key, model, opening.circumstances)
    return (task, route.endpoints[task]) if task in route.endpoints else first


def deployment_path(entry: DeploymentEntry) -> str:
    """Return the path that reaches a deployment; empty while its task is unavailable."""
    task = TASKS.get(entry.task)
    return "" if task is None else task.endpoints[0].path_to(entry.name)


def record_refusal(runtime: Runtime, call: Call, error: DomainError) -> None:
    """Note how the call ended, and have it recorded unless nothing was decided about anybody."""
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


def _as_decided(call: Call, error: DomainError) -> Call:
    """The request to record: with the decision, also where the caller is told that the model does
    not exist."""
    if not isinstance(error, ModelUnknown) or error.hidden is None:
        return call
    refused = error.hidden
    return replace(
        call, deployment=refused.deployment, decision=refused.decision, context=refused.context
    )
