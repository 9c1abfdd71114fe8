"""The acting principal. Services take a `Principal`, never a request."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class PrincipalKind(StrEnum):
    """Kind of actor."""

    PERSON = "person"
    KEY = "key"
    SERVICE = "service"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class ActorRole:
    """A role of an actor; `department` is None for a platform-wide role."""

    role: str
    department: str | None = None
    specialty: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """A person's second factor: its method (`governance.people.proof.METHODS`) and its time."""

    method: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """An actor, resolved once from its credential and passed down unchanged.

    `id` is the primary key of the person or API key as text, or the name of the service.
    `department` is the slug of an API key's department; a person's departments are in `roles`.
    `scopes` restricts a token's actions (None: unrestricted). `person_id` is set for people and
    for personal tokens, so that separation of duties always sees the human being. `proof` is the
    latest proof of the session or token, however old; it is not part of the actor's identity.
    `unconfirmed` is True for a person who may decide for others but whose sign-in only one
    administrator has set up: their proof does not count for such a decision.
    """

    kind: PrincipalKind
    id: str
    name: str
    department: str | None = None
    roles: frozenset[ActorRole] = field(default_factory=frozenset)
    scopes: frozenset[str] | None = None
    person_id: int | None = None
    key_id: int | None = None
    proof: Proof | None = field(default=None, compare=False)
    unconfirmed: bool = field(default=False, compare=False)

    @property
    def departments(self) -> frozenset[str]:
        """Slugs of the actor's departments."""
        slugs = {r.department for r in self.roles if r.department is not None}
        if self.department is not None:
            slugs.add(self.department)
        return frozenset(slugs)

    @property
    def specialties(self) -> frozenset[str]:
        """Specialties in which the actor is a reviewer."""
        return frozenset(r.specialty for r in self.roles if r.role == "reviewer")


ANONYMOUS = Principal(kind=PrincipalKind.ANONYMOUS, id="anonymous", name="anonymous")


def service_principal(name: str) -> Principal:
    """Return the principal of one of the platform's processes, such as `controller`."""
    return Principal(kind=PrincipalKind.SERVICE, id=name, name=name)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Properties of the current request, recorded with every audit event."""

    request_id: str = ""
    client_address: str = ""


_NO_REQUEST = RequestContext()
request_context: contextvars.ContextVar[RequestContext] = contextvars.ContextVar(
    "assay_request_context",
    default=_NO_REQUEST,
)


@contextlib.contextmanager
def serving(request_id: str, client_address: str = "") -> Iterator[None]:
    """Set the current request: its ID goes into log records and audit events."""
    token = request_context.set(RequestContext(request_id, client_address))
    try:
        yield
    finally:
        request_context.reset(token)


@contextlib.contextmanager
def background(work: str, actor: Principal) -> Iterator[None]:
    """Mark background work of the platform: outside a request, its audit events have `work`, such
    as `job-…`, in place of a request ID.
    """
    if request_context.get().request_id or actor.kind is not PrincipalKind.SERVICE:
        yield
        return
    with serving(work[:64]):
        yield
