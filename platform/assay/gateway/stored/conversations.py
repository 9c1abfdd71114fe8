"""Store responses, and continue stored ones."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from pydantic import ValidationError

from assay.gateway.access.admission import Caller
from assay.gateway.access.call import Call
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.asgi import Message, Send
from assay.gateway.stored.database_desk import DatabaseDesk, department_of
from governance.errors import DomainError, Unavailable, WrongState
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS, base_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from registry.catalog.conversations import Conversation, Item, StoredRenderer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import invalid
from registry.resources import department_resource
from registry.responses.selectors import response_chain, retention_days
from registry.responses.services import response_create, response_finish

logger = logging.getLogger(__name__)

KEYS_MAX = 4096
# Period for which a process caches whether a key's department keeps responses, in seconds.
_KNOWN_S = 5.0
# Maximum wait of an answer's last byte for the database, in seconds.
_FINISH_S = 5.0


@dataclass(frozen=True, slots=True)
class Earlier:
    """The responses that a request continues: their IDs and items, oldest first, the highest
    classification declared for them, and the release that answered last; all empty if it continues
    none."""

    ancestors: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    classification: str = ""
    release: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A plan that includes the earlier turns. `stores`: its response will be stored."""

    plan: Plan
    conversation: Conversation[Plan]
    earlier: Earlier
    stores: bool

    def declared(self, caller: Caller) -> Caller:
        """Return the caller with a classification no lower than the earlier turns'."""
        if not self.earlier.classification:
            return caller
        both = (caller.circumstances.classification, self.earlier.classification)
        return caller.under(classification=max(both, key=CLASSIFICATIONS.index))


class ResponseDesk(DatabaseDesk):
    """Stores responses, and reads the responses that requests continue."""

    def __init__(self) -> None:
        super().__init__("responses", refusal="Too many stored responses are being used.")
        self._retention_known: dict[str, tuple[float, bool]] = {}

    async def open(
        self, call: Call, key: KeyEntry, plan: Plan, conversation: Conversation[Plan]
    ) -> Opened:
        """Return the plan including the earlier turns of its conversation.

        Raises:
            DomainError: it cannot be continued or stored, or the key may not do so.
        """
        stores = await self.stores(call, key, conversation)
        earlier = await self.earlier(call, key, conversation)
        if stores or earlier.items:
            try:
                plan = conversation.plan_with(earlier.items, stores)
            except ValidationError as error:
                raise invalid(error) from None
        return Opened(plan, conversation, earlier, stores)

    async def earlier(self, call: Call, key: KeyEntry, conversation: Conversation[Plan]) -> Earlier:
        """Return the responses that a request continues.

        Raises:
            DomainError: they cannot be continued, or the key may not do so.
        """
        previous = conversation.previous
        if previous is None:
            return Earlier()

        def read(actor: Principal) -> Earlier:
            chain = response_chain(
                actor=actor,
                id=previous,
                deployments=key.allowed_deployments,
                size_max=settings.GATEWAY_MAX_BODY_BYTES,
            )
            items = [
                item
                for each in chain
                for item in (*each.items, *filter(_continues, each.response["output"]))
            ]
            declared = [each.classification for each in chain if each.classification]
            return Earlier(
                ancestors=tuple(each.pk for each in chain),
                items=tuple(items),
                classification=max(declared, key=CLASSIFICATIONS.index, default=""),
                release=chain[-1].release if chain else None,
            )

        return await self.run(call, key, read)

    async def stores(self, call: Call, key: KeyEntry, conversation: Conversation[Plan]) -> bool:
        """Return true if the response will be stored.

        If the caller leaves this to the department, its setting may be read from a cache of
        `_KNOWN_S` seconds.

        Raises:
            WrongState: the caller requests storage, but the department keeps no responses.
        """
        if conversation.store:
            if not await self.run(call, key, lambda actor: retention_days(department_of(key)) > 0):
                raise _keeps_none(key)
            return True
        if conversation.store is False or key.person is not None:
            return False
        read_at, keeps = self._retention_known.get(key.public_id, (-_KNOWN_S, False))
        if time.monotonic() - read_at > _KNOWN_S:
            try:
                keeps = await self.run(call, key, lambda actor: _keeps(actor, call, key))
            except Unavailable:
                # The answers of a department that keeps none must not depend on the database.
                if keeps:
                    raise
            self._know(key, keeps=keeps)
        return keeps

    def _know(self, key: KeyEntry, *, keeps: bool) -> None:
        if len(self._retention_known) >= KEYS_MAX:
            self._retention_known.clear()
        self._retention_known[key.public_id] = (time.monotonic(), keeps)

    async def begin(
        self, call: Call, key: KeyEntry, opened: Opened, classification: str
    ) -> StoredRenderer | None:
        """Store the beginning of a response. Returns None if the department no longer keeps any.

        Raises:
            DomainError: as `response_create`; WrongState if the caller requested storage.
        """
        plan = opened.plan
        renderer = cast(StoredRenderer, plan.renderer)

        def store(actor: Principal) -> bool:
            response = response_create(
                actor=actor,
                department=department_of(key),
                sender=key.recorded_as,
                id=renderer.id,
                deployment=plan.model,
                release=None if call.deployment is None else call.deployment.release,
                ancestors=opened.earlier.ancestors,
                items=[dict(item) for item in opened.conversation.items],
                response=renderer.begun(),
                classification=classification,
            )
            return response is not None

        if await self.run(call, key, store):
            return renderer
        self._know(key, keeps=False)
        if opened.conversation.store:
            raise _keeps_none(key)
        # The answer then states that it is not stored.
        renderer.forgo()
        return None

    async def finish(self, renderer: StoredRenderer, release: int | None) -> None:
        """Store the end of a response, which `release` answered. If that fails, it is `failed`."""
        try:
            async with asyncio.timeout(_FINISH_S):
                await self.in_thread(
                    lambda: response_finish(
                        id=renderer.id, response=renderer.ended, release=release
                    )
                )
        except (DomainError, TimeoutError) as error:
            logger.warning("Response %s could not be stored: %s", renderer.id, error)


def _continues(item: dict[str, Any]) -> bool:
    """Return true if an item of an answer can be continued; a truncated function call cannot."""
    if item["type"] != "function_call":
        return True
    try:
        return isinstance(json.loads(item["arguments"]), dict)
    except (ValueError, RecursionError):
        return False


class StoringSend:
    """Sends an answer, and stores the response before its last byte is sent."""

    def __init__(
        self, desk: ResponseDesk, renderer: StoredRenderer, call: Call, send: Send
    ) -> None:
        self._desk, self._renderer, self._call, self._send = desk, renderer, call, send
        self._finished = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self.finish()
        await self._send(message)

    async def finish(self) -> None:
        """Store the end of the response, complete or not; only once."""
        if not self._finished:
            self._finished = True
            deployment = self._call.deployment
            release = None if deployment is None else deployment.release
            await self._desk.finish(self._renderer, release)


def _keeps_none(key: KeyEntry) -> WrongState:
    return WrongState(
        f"Department {key.department} keeps no responses, so this one cannot be stored.",
        code="responses_not_kept",
        hint="Send store: false, or have a lead set the retention of responses.",
    )


def _keeps(actor: Principal, call: Call, key: KeyEntry) -> bool:
    """Return true if the department keeps responses and the policy lets this key store them."""
    department = department_of(key)
    if not retention_days(department):
        return False
    resource = department_resource("response", department)
    context = base_context(call.client_address)
    policy = active_policy()
    return decide(policy, actor, Action.RESPONSE_CREATE, resource, context).allowed
