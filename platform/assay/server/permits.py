"""Permission for a body before any of it is read: its view is asked with the request's head alone.

`DjangoApplication` sends the head through Django, as a request without a body that carries a
`Permit`. The base of each view then calls `allow_body` in place of the handler, so that whoever may
not send the body has their answer before they send it: in the view's own words, and audited.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from governance.principals import Principal, PrincipalKind

PERMIT = "assay.permit"


@dataclass(slots=True)
class Permit:
    """The question, and its answer: the holder of the bytes; empty while they are not permitted."""

    holder: str = ""

    def grant(self, actor: Principal) -> HttpResponse:
        """Permit the body; the response never leaves the process."""
        self.holder = holder_of(actor)
        return HttpResponse(status=204)


def permit_of(request: HttpRequest) -> Permit | None:
    """Return the question that a request carries, if it is one."""
    scope = getattr(request, "scope", {})
    permit: Permit | None = scope.get(PERMIT)
    return permit


def holder_of(actor: Principal) -> str:
    """Return the name under which the actor's bodies count: a person with all their tokens, a
    department with all its keys.
    """
    if actor.kind == PrincipalKind.KEY:
        return f"department {actor.department}"
    return f"{actor.kind} {actor.id}"
