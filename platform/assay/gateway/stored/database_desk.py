"""Calls of services and selectors for the gateway, in a few threads outside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from django.db import Error, connection

from assay.gateway.access.call import Call
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.waiting import WaitingBound
from governance import rowsecurity
from governance.errors import NotFound, Unavailable
from governance.people.models import Department
from governance.permissions import Action
from governance.principals import Principal, RequestContext, request_context

THREADS = 4
# Maximum of waiting calls in total and per department, so that none can block the others. Ends of
# stored answers are not counted; running requests limit them.
WAITING_MAX = 1024
DEPARTMENT_WAITING_MAX = 128
# Actions on its department's stored objects that a key with `deployment:invoke` may do.
_ACTIONS = (
    Action.BATCH_CANCEL,
    Action.BATCH_CREATE,
    Action.BATCH_VIEW,
    Action.FEEDBACK_CREATE,
    Action.FILE_CREATE,
    Action.FILE_DELETE,
    Action.FILE_VIEW,
    Action.RESPONSE_CREATE,
    Action.RESPONSE_DELETE,
    Action.RESPONSE_UPDATE,
    Action.RESPONSE_VIEW,
)

T = TypeVar("T")


class DatabaseDesk:
    """Runs database work in its own threads, so that inference does not wait for it."""

    def __init__(
        self,
        name: str,
        *,
        refusal: str,
        threads: int = THREADS,
        total: int = WAITING_MAX,
        of_department: int = DEPARTMENT_WAITING_MAX,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"assay-{name}")
        self._waiting = WaitingBound(total=total, of_department=of_department, refusal=refusal)

    async def run(self, call: Call, key: KeyEntry, work: Callable[[Principal], T]) -> T:
        """Run `work` as `run_as` does, in the context of `call`."""
        return await self.run_as(key, RequestContext(call.request_id, call.client_address), work)

    async def run_as(
        self, key: KeyEntry, context: RequestContext, work: Callable[[Principal], T]
    ) -> T:
        """Return the result of `work` for the key's principal, limited to rows that it may access.

        Raises:
            DomainError: as `work`.
            Unavailable: too many calls wait, or the database does not answer.
        """
        actor = _with_scopes(key.principal)
        with self._waiting.place(key.department or ""):
            return await self.in_thread(lambda: _narrowed(actor, context, work))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, and release its database connection.

        Raises:
            Unavailable: the database does not answer.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _closed, work)
        except Error as error:
            raise Unavailable("The database does not answer.", retry_after=5) from error

    async def stop(self) -> None:
        """Wait for running work."""
        await asyncio.to_thread(self._threads.shutdown)


def department_of(key: KeyEntry) -> Department:
    """Return the department that the key belongs to.

    Raises:
        NotFound: it does not exist.
    """
    department = Department.objects.filter(slug=key.department).first()
    if department is None:
        raise NotFound("The department does not exist.")
    return department


def _narrowed(actor: Principal, context: RequestContext, work: Callable[[Principal], T]) -> T:
    token = request_context.set(context)
    try:
        with rowsecurity.scope(actor):
            return work(actor)
    finally:
        request_context.reset(token)


def _closed(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        connection.close()


def _with_scopes(principal: Principal) -> Principal:
    """Return the principal with the scopes for stored objects added, if it may invoke deployments.
    Keys need no further scopes for them."""
    scopes = principal.scopes
    if scopes is None or Action.DEPLOYMENT_INVOKE.value not in scopes:
        return principal
    return replace(principal, scopes=scopes | {action.value for action in _ACTIONS})
