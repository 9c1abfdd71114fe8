"""Permission for a body before it is read: the view decides by the request's head alone.

`DjangoApplication` sends the head through Django, as a request without a body but with a `Permit`.
The view's base class then calls `allow_body` instead of the handler. A caller who may not send the
body is so refused before sending it, with the view's own error, and the refusal is audited.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from governance.principals import Principal, PrincipalKind

PERMIT = "assay.permit"


@dataclass(slots=True)
class Permit:
    """A request for permission. `holder` of the bytes is empty until permission is granted."""

    holder: str = ""

    def grant(self, actor: Principal) -> HttpResponse:
        """Permit the body. The returned response is not sent."""
        self.holder = holder_of(actor)
        return HttpResponse(status=204)


def permit_of(request: HttpRequest) -> Permit | None:
    """Return the `Permit` of a request that asks for permission; None for other requests."""
    scope = getattr(request, "scope", {})
    permit: Permit | None = scope.get(PERMIT)
    return permit


def holder_of(actor: Principal) -> str:
    """Return the holder that the actor's bodies count for: a person with all their tokens, or a
    department with all its keys.
    """
    if actor.kind == PrincipalKind.KEY:
        return f"department {actor.department}"
    return f"{actor.kind} {actor.id}"
