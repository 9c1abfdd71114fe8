"""Stored responses: `GET` and `DELETE /v1/responses/{id}`, its input items, and storing them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.db import Error, connection
from pydantic import ValidationError

from assay.gateway.admission import Admitted, Application
from assay.gateway.call import Call
from assay.gateway.errors import WrongMethod
from assay.gateway.http import Message, Send, encode, respond
from assay.gateway.snapshot import KeyEntry
from governance import rowsecurity
from governance.errors import DomainError, NotFound, Unavailable, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.principals import Principal, RequestContext, request_context
from registry.catalog.conversations import Conversation, Item, StoredRenderer
from registry.catalog.endpoints import Plan, dumps
from registry.catalog.requests import invalid, printable
from registry.responses.selectors import (
    response_chain,
    response_get,
    response_shown,
    retention_days,
)
from registry.responses.services import response_create, response_delete, response_finish

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

logger = logging.getLogger(__name__)

PATH = "/v1/responses"
THREADS = 4
WAITING_MAX = 256
# How long a process goes on by what it read of a department's retention, in seconds.
_KNOWN_S = 5.0
# How long the end of an answer waits for the database, in seconds.
_FINISH_S = 5.0
_ACTIONS = (Action.RESPONSE_CREATE, Action.RESPONSE_DELETE, Action.RESPONSE_VIEW)

T = TypeVar("T")


def label(path: str) -> str:
    """The path as metrics and the ledger name it; empty when it is not one of a stored response."""
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0].startswith("resp_"):
        return f"{PATH}/{{id}}"
    if len(parts) == 2 and parts[0].startswith("resp_") and parts[1] == "input_items":
        return f"{PATH}/{{id}}/input_items"
    return ""


def check_method(endpoint: str, method: str) -> None:
    """Raises WrongMethod unless `endpoint` takes `method`."""
    allowed = ("GET",) if endpoint.endswith("/input_items") else ("GET", "DELETE")
    if method not in allowed:
        raise WrongMethod(f"{endpoint} takes {' or '.join(allowed)}, not {printable(method, 10)}.")


def action_of(method: str) -> Action:
    """Return the action that a request on a stored response is."""
    return Action.RESPONSE_DELETE if method == "DELETE" else Action.RESPONSE_VIEW


async def answer(
    runtime: Runtime, call: Call, key: KeyEntry, path: str, method: str, send: Send
) -> None:
    """Answer a request on one stored response, and record it.

    Raises:
        DomainError: It is refused.
    """
    name = path.removeprefix(f"{PATH}/").partition("/")[0]
    shown: dict[str, Any]
    if method == "DELETE":
        await runtime.responses.run(call, key, lambda actor: _delete(actor, key, name))
        shown = {"id": name, "object": "response", "deleted": True}
    else:
        found = await runtime.responses.run(call, key, lambda actor: _get(actor, key, name))
        shown = _listed(found.items) if path.endswith("/input_items") else response_shown(found)
    call.recorded = True
    if method != "DELETE":  # The service records the deletion.
        runtime.ledger.record_bounded(call.entry("ok", ran=False))
    await respond(send, 200, encode(dumps(shown)), call.headers())


def _get(actor: Principal, key: KeyEntry, name: str) -> Any:
    return response_get(actor=actor, id=name, deployments=key.allowed_deployments)


def _delete(actor: Principal, key: KeyEntry, name: str) -> None:
    _get(actor, key, name)
    response_delete(actor=actor, id=name)


def _listed(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The items of the request, each with an ID."""
    data = [{"id": f"item_{number:03d}", **_item(item)} for number, item in enumerate(items)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": False,
    }


def _item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type", "message") != "message" or not isinstance(item["content"], str):
        return {"status": "completed", "type": "message", **item}
    kind = "output_text" if item["role"] == "assistant" else "input_text"
    part: dict[str, Any] = {"type": kind, "text": item["content"]}
    return {"status": "completed", "type": "message", **item, "content": [part]}


@dataclass(frozen=True, slots=True)
class Kept:
    """A response that is being stored under `id`."""

    id: str
    renderer: StoredRenderer


@dataclass(frozen=True, slots=True)
class Opened:
    """A plan with what its request continues: the responses of these IDs. `stores`: its own
    response is to be stored."""

    plan: Plan
    ancestors: list[str]
    stores: bool


async def open_conversation(runtime: Runtime, call: Call, key: KeyEntry, plan: Plan) -> Opened:
    """Return the plan after the earlier turns of its conversation.

    Raises:
        DomainError: It cannot be continued or stored, or the key may not.
    """
    conversation = plan.conversation
    if conversation is None:
        return Opened(plan, [], stores=False)
    stores = await runtime.responses.stores(call, key, conversation)
    ancestors, earlier = await runtime.responses.earlier(call, key, conversation)
    if stores or earlier:
        try:
            plan = conversation.plan_with(earlier, stores)
        except ValidationError as error:
            raise invalid(error) from None
        plan = replace(plan, conversation=conversation)
    return Opened(plan, ancestors, stores)


async def begin_storing(
    runtime: Runtime, call: Call, application: Application, admitted: Admitted, opened: Opened
) -> tuple[Kept, Admitted]:
    """Store the beginning of the response; the request is admitted again after it.

    Raises:
        DomainError: It cannot be stored, or is not admitted any more.
    """
    kept = await runtime.responses.begin(call, admitted.key, opened)
    return kept, application.admit(await runtime.refresher.knowing(application.token.public_id))


class ResponseDesk:
    """Runs the services in a few threads, so that no inference waits for the database."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="assay-responses")
        self._waiting = 0
        self._known: dict[str, tuple[float, bool]] = {}

    async def run(self, call: Call, key: KeyEntry, work: Callable[[Principal], T]) -> T:
        """Return what `work` returns for the key's principal, narrowed to what it can reach.

        Raises:
            DomainError: As `work`.
            Unavailable: Too much waits, or the database does not answer.
        """
        context = RequestContext(call.request_id, call.client_address)
        actor = _with_scopes(key.principal)
        return await self._in_thread(lambda: _narrowed(actor, context, work))

    async def earlier(
        self, call: Call, key: KeyEntry, conversation: Conversation
    ) -> tuple[list[str], list[Item]]:
        """Return the IDs and the items of what a request continues, the oldest first.

        Raises:
            DomainError: It cannot be continued, or the key may not.
        """
        previous = conversation.previous
        if previous is None:
            return [], []

        def read(actor: Principal) -> tuple[list[str], list[Item]]:
            chain = response_chain(actor=actor, id=previous, deployments=key.allowed_deployments)
            items: list[Item] = []
            for each in chain:
                items += each.items
                items += each.response["output"]
            return [each.pk for each in chain], items

        return await self.run(call, key, read)

    async def stores(self, call: Call, key: KeyEntry, conversation: Conversation) -> bool:
        """Return whether the response is stored. It may be some seconds behind the retention.

        Raises:
            WrongState: The caller wants it stored, and the department keeps none.
        """
        if conversation.store is False:
            return False
        department = key.department or ""
        read_at, keeps = self._known.get(department, (0.0, False))
        if conversation.store or time.monotonic() - read_at > _KNOWN_S or not read_at:
            days = await self.run(call, key, lambda actor: retention_days(_department(key)))
            keeps = days > 0
            self._known[department] = (time.monotonic(), keeps)
        if conversation.store and not keeps:
            raise keeps_none(key)
        return keeps

    async def begin(self, call: Call, key: KeyEntry, opened: Opened) -> Kept:
        """Store the beginning of a response.

        Raises:
            DomainError: As `response_create`; WrongState if the department keeps none any more.
        """
        plan = opened.plan
        renderer = cast(StoredRenderer, plan.renderer)
        items = () if plan.conversation is None else plan.conversation.items

        def store(actor: Principal) -> bool:
            made = response_create(
                actor=actor,
                department=_department(key),
                sender=key.recorded_as,
                id=renderer.id,
                deployment=plan.model,
                ancestors=opened.ancestors,
                items=[dict(item) for item in items],
                response=renderer.begun(),
            )
            return made is not None

        if not await self.run(call, key, store):
            self._known.pop(key.department or "", None)
            raise keeps_none(key)
        return Kept(renderer.id, renderer)

    async def finish(self, kept: Kept) -> None:
        """Store the end of a response. A failure leaves it without one, as `failed`."""
        try:
            async with asyncio.timeout(_FINISH_S):
                await self._in_thread(lambda: _finish(kept))
        except (DomainError, TimeoutError) as error:
            logger.warning("Response %s could not be stored: %s", kept.id, error)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("Too many stored responses are being used.", retry_after=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Error as error:
            raise Unavailable("The database does not answer.", retry_after=5) from error
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """Let what is under way end."""
        await asyncio.to_thread(self._threads.shutdown)


class KeepingSend:
    """Sends an answer, and stores the response before its last byte leaves."""

    def __init__(self, desk: ResponseDesk, kept: Kept, send: Send) -> None:
        self._desk, self._kept, self._send = desk, kept, send
        self._finished = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self.finish()
        await self._send(message)

    async def finish(self) -> None:
        """Store the end, whatever it is; once."""
        if not self._finished:
            self._finished = True
            await self._desk.finish(self._kept)


def keeps_none(key: KeyEntry) -> WrongState:
    """The refusal to store a response."""
    return WrongState(
        f"Department {key.department} keeps no responses, so this one cannot be stored.",
        code="responses_not_kept",
        hint="Send store: false, or have a lead set the retention of responses.",
    )


def _department(key: KeyEntry) -> Department:
    department = Department.objects.filter(slug=key.department).first()
    if department is None:
        raise NotFound("The department does not exist.")
    return department


def _finish(kept: Kept) -> bool:
    try:
        return response_finish(id=kept.id, response=kept.renderer.ended)
    finally:
        connection.close()


def _narrowed(actor: Principal, context: RequestContext, work: Callable[[Principal], T]) -> T:
    token = request_context.set(context)
    try:
        with rowsecurity.scope(actor):
            return work(actor)
    finally:
        request_context.reset(token)
        connection.close()


def _with_scopes(principal: Principal) -> Principal:
    """Return the caller, whose stored responses are theirs if they may ask: no key needs more
    scopes."""
    scopes = principal.scopes
    if scopes is None or Action.DEPLOYMENT_INVOKE.value not in scopes:
        return principal
    return replace(principal, scopes=scopes | {action.value for action in _ACTIONS})
