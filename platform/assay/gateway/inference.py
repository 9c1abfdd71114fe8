"""Inference requests: reading, admission by the snapshot, execution and refusal.

Lines of batches (`batches/line.py`) use the same path, and so pass the same checks.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from django.conf import settings

from assay.gateway.access.admission import Admitted, Caller, ModelRequest
from assay.gateway.access.authentication import KeyRefused
from assay.gateway.access.call import Call
from assay.gateway.access.decisions import InvocationDenied, ModelUnknown, is_ready, known_task
from assay.gateway.access.prompts import add_prompt_tokens, check_prompt
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.asgi import Receive, Scope, Send, header, parsed, read_body, too_large
from assay.gateway.knowledge.retrieval import Retrieval
from assay.gateway.quota.ledger import Ledger
from assay.gateway.quota.quotas import QuotaStopped
from assay.gateway.run.cold_start import ColdStarts
from assay.gateway.run.execution import Execution
from assay.gateway.run.fallback import RoutedExecution
from assay.gateway.run.media import MediaDesk, RequestMedia, media_body_limit
from assay.gateway.run.parts import Parts
from assay.gateway.run.routing import Aim, TargetChoice, Traits, modalities_of, moved, place_of
from assay.gateway.stored.conversations import Opened, ResponseDesk, StoringSend
from assay.server.permits import holder_of
from governance.errors import DomainError, Unavailable
from registry.catalog import is_own
from registry.catalog.endpoints import Endpoint, Plan
from registry.catalog.requests import Body, RequestInvalid
from registry.catalog.routes import Route, deployment_path, named_model


@dataclass(frozen=True, slots=True)
class Opening:
    """Route and caller of a request, known before its body is read. `name` is the deployment that
    the path names, if any."""

    route: Route
    name: str
    caller: Caller


class Inference:
    """Answers requests for inference."""

    def __init__(
        self,
        parts: Parts,
        media: MediaDesk,
        cold_starts: ColdStarts,
        retrieval: Retrieval,
        responses: ResponseDesk,
    ) -> None:
        self._parts = parts
        self._media = media
        self._cold_starts = cold_starts
        self._retrieval = retrieval
        self._responses = responses

    async def infer(
        self, call: Call, opening: Opening, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request whose key is authenticated as `call.key`.

        Raises:
            DomainError: it was refused, or failed before a byte of the answer was sent.
            ClientGone: the client hung up; its use is being settled.
        """
        route = opening.route
        # Only a few media bodies are received at a time. On a path shared with text, small bodies
        # are received like text, even if they contain images.
        owner = holder = opening.caller.token.public_id
        if call.key is not None:
            owner, holder = call.key.owner, holder_of(call.key.principal)
        if route.takes_media and not (route.takes_others and _is_small(scope)):
            media = self._media.open(owner, holder)
        else:
            media = self._media.answering(owner, holder)
        try:
            await self._run(call, opening, media, scope, receive, send)
        finally:
            if media.holds_anything:
                self._parts.ledger.spawn(media.close())

    async def _run(
        self,
        call: Call,
        opening: Opening,
        media: RequestMedia,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        parts, caller = self._parts, opening.caller
        plan = await self._plan(call, opening, media, scope, receive)
        call.requested_model, call.streamed = plan.model, plan.stream
        opened = None
        if plan.conversation is not None and call.key is not None:
            opened = await self._responses.open(call, call.key, plan, plan.conversation)
            plan, caller = opened.plan, opened.declared(caller)
        # Receiving the body takes time, so the key and the release must be checked again.
        snapshot = await parts.refresher.knowing(caller.token.public_id)
        call.policy = snapshot.policy.version
        choice = None
        if plan.model in snapshot.targets:
            began = None if opened is None else opened.earlier.release
            choice = self._choice(call, plan, caller, began)
            admitted, plan, model_request = await self._chosen(choice, snapshot)
            call.route = choice.route(admitted.deployment)
            if began and admitted.deployment.release != began:
                call.moved = moved(began, plan.model)
        else:
            if (deployment := snapshot.deployments.get(plan.model)) is not None:
                plan = add_prompt_tokens(plan, deployment.own_prompt)
            model_request = ModelRequest(caller.under(tokens=plan.tokens), plan.model)
            admitted = model_request.admit(snapshot)
        call.admit(admitted)
        _check(plan, admitted, opening.route)
        if not is_ready(admitted.deployment):
            waited_from = call.elapsed_ms
            admitted = await self._cold_starts.loaded(model_request, admitted)
            call.load_ms = call.elapsed_ms - waited_from
        if plan.grounding is not None:
            plan, model_request, admitted, grounded = await self._retrieval.ground(
                call, plan, model_request, plan.grounding
            )
            if choice is not None:
                choice.model_request, choice.grounded = model_request, grounded.plan_for
        parts.ledger.require_open()
        request = parts, call, plan, model_request, admitted, media
        execution = Execution(*request) if choice is None else RoutedExecution(*request, choice)
        if opened is None or not opened.stores:
            await execution.run(receive, send)
            return
        # A request over quota is neither stored nor audited as stored.
        await execution.check_room()
        keeper = await self._begin(call, execution, model_request, admitted, opened, send)
        try:
            await execution.run(receive, keeper or send)
        finally:
            if keeper is not None:
                parts.ledger.spawn(keeper.finish())

    async def _plan(
        self, call: Call, opening: Opening, media: RequestMedia, scope: Scope, receive: Receive
    ) -> Plan:
        """Return the plan of the body. Raises DomainError, or ClientGone if the client hung up."""
        limit = media_body_limit() if media.received else settings.GATEWAY_MAX_BODY_BYTES
        body = await read_body(scope, receive, limit, opening.route.content_types)
        call.received = len(body.data)
        task, endpoint = await self._endpoint(call, opening, body, media)
        media.expected = endpoint.takes_media
        if not endpoint.takes_media and len(body.data) > settings.GATEWAY_MAX_BODY_BYTES:
            raise too_large(settings.GATEWAY_MAX_BODY_BYTES)
        arguments = (body, call.request_id, opening.name)
        if not is_own(task):
            return await self._parts.plug_ins.call(task, endpoint.plan, *arguments)
        if media.received:
            # Parsing 33 MiB would block every other request.
            return await media.in_thread(endpoint.plan, *arguments)
        return await parsed(body, endpoint.plan, *arguments)

    def _choice(self, call: Call, plan: Plan, caller: Caller, began: int | None) -> TargetChoice:
        """Return the choice among the targets of the plan's deployment. Requests that name no user
        are spread evenly: one key has the requests of many users."""
        key = call.key
        traits = Traits(
            endpoint=_path_of(call.endpoint),
            department="" if key is None else key.department or "",
            prompt_tokens=plan.prompt_tokens,
            modalities=modalities_of(plan),
            place=place_of("" if key is None else key.owner, plan.user or call.request_id),
            release=began,
        )
        self._parts.router.retries.earn(plan.model)
        model_request = ModelRequest(caller.under(tokens=plan.tokens), plan.model)
        return TargetChoice(self._parts.router, model_request, plan, traits)

    async def _chosen(self, choice: TargetChoice, snapshot: Snapshot) -> Aim:
        """Return the target that answers. Wake those that would, but are scaled to zero."""
        aim = choice.take(snapshot)
        for deployment_id in choice.asleep:
            self._parts.ledger.spawn(self._cold_starts.ask(deployment_id))
        return aim

    async def _endpoint(
        self, call: Call, opening: Opening, body: Body, media: RequestMedia
    ) -> tuple[str, Endpoint]:
        """Return the deployment's task and endpoint; several tasks may share a path.

        A deployment that the key may not know of is treated as if it did not exist.
        """
        route, caller = opening.route, opening.caller
        first = next(iter(route.endpoints.items()))
        if len(route.endpoints) == 1 or call.key is None:
            return first
        snapshot = await self._parts.refresher.knowing(caller.token.public_id)
        if media.received:
            model = await media.in_thread(named_model, body)
        else:
            model = await parsed(body, named_model, body)
        deployment = snapshot.deployments.get(model)
        if deployment is None or route.endpoints.get(deployment.task, route.first) is route.first:
            return first  # Even if the key may not know of it.
        task = known_task(snapshot, call.key, model, caller.circumstances)
        return (task, route.endpoints[task]) if task in route.endpoints else first

    async def _begin(
        self,
        call: Call,
        execution: Execution,
        model_request: ModelRequest,
        admitted: Admitted,
        opened: Opened,
        send: Send,
    ) -> StoringSend | None:
        """Store the beginning of the response, and admit the request again afterward.

        Returns None if the department has just stopped keeping responses and the caller did not
        request storage.

        Raises:
            DomainError: it cannot be stored, or is no longer admitted.
        """
        classification = model_request.caller.circumstances.classification
        renderer = await self._responses.begin(call, admitted.key, opened, classification)
        keeper = None if renderer is None else StoringSend(self._responses, renderer, call, send)
        try:
            token = model_request.caller.token
            execution.admit(
                model_request.admit(await self._parts.refresher.knowing(token.public_id))
            )
        except DomainError:
            if keeper is not None:
                await keeper.finish()
            raise
        return keeper


def _path_of(endpoint: str) -> str:
    """Return the path of an endpoint's label, without the deployment that it may name."""
    return endpoint.removesuffix("/{model}")


def _is_small(scope: Scope) -> bool:
    """Return true if the declared length is within the limit for all requests."""
    declared = header(scope, b"content-length") or b""
    return declared.isdigit() and int(declared[:20]) <= settings.GATEWAY_MAX_BODY_BYTES


def _check(plan: Plan, admitted: Admitted, route: Route) -> None:
    """Raise RequestInvalid if the deployment cannot take the request."""
    deployment = admitted.deployment
    if deployment.task not in route.endpoints:
        path = deployment_path(deployment.task, deployment.name)
        raise RequestInvalid(
            f"Deployment {deployment.name} is for {deployment.task}"
            + (f"; use POST {path} instead of {route.path}." if path else "."),
            param="model",
            code="wrong_endpoint",
        )
    check_prompt(plan, deployment.own_prompt)


def record_refusal(ledger: Ledger, call: Call, error: DomainError) -> None:
    """Set the outcome of the call, and record it if a key was identified."""
    if isinstance(error, InvocationDenied):
        call.decided(error.grounds)
    if isinstance(error, KeyRefused):
        call.key = error.key
    if isinstance(error, QuotaStopped):
        call.limit = error.limit.name
    call.status = error.status
    if call.outcome == "ok":
        call.outcome = error.code
    if not call.recorded and (call.key is not None or isinstance(error, KeyRefused)):
        call.recorded = True
        recorded = call
        if isinstance(error, ModelUnknown) and error.hidden is not None:
            # The record has the decision, although the caller only learns "does not exist".
            recorded = copy.copy(call)
            recorded.decided(error.hidden.grounds)
        entry = recorded.entry(error.code, reason=error.message, ran=False)
        # While a store is unavailable nothing can be recorded; refusals are only counted.
        ledger.record_bounded(entry, later=error.code == Unavailable.code)
