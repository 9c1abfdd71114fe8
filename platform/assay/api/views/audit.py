"""The audit log: events, exports, the signed head, and streams to a SIEM."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.utils import OpenApiResponse
from pydantic import Field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.pagination import CursorPagination
from assay.api.renderers import PlainText
from assay.api.representations.governance import (
    AuditEventAnswer,
    AuditEventDetail,
    CheckpointAnswer,
    ConsistencyProofAnswer,
    InclusionProofAnswer,
)
from assay.api.routes import Routes
from assay.downloads import audit_log_file
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.search.pages import EventPage, audit_event_page
from governance.audit.search.schemas import AuditEventsQuery
from governance.audit.selectors import (
    audit_checkpoints_visible_to,
    audit_event_get,
    latest_checkpoint,
)
from governance.audit.streaming.selectors import StreamState, audit_streams_visible_to
from governance.audit.tree.proofs import consistency_proof, inclusion_proof
from governance.errors import InvalidInput, NotFound
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.schemas import Filter, Schema

TreeSize = Annotated[int, Field(ge=0, le=2**63 - 1)]
_PLACE = re.compile(r"([ba])=([0-9]{1,18})")
_WAYS = {"b": "before", "a": "after"}


routes = Routes("Audit", AuditEventDetail)


class AuditEventsView(Endpoint):
    """Events."""

    @operation(
        "Audit",
        "List audit events, newest first",
        query=AuditEventsQuery,
        answer=AuditEventAnswer,
        paged=True,
        description=(
            "A page searches a bounded number of events. If few of them match, it may have fewer "
            "than requested, or none, although `next` is not null; then follow `next`."
        ),
    )
    def get(self, request: Request) -> Response:
        query = self.query_as(AuditEventsQuery)
        page = audit_event_page(
            actor=self.actor,
            event_filter=query.filter(),
            size=size_of(request),
            **place_of(request),
        )
        return page_answer(request, page, lambda rows: self.rendered(rows, AuditEventAnswer))


@routes.get("audit/events/<id:event_id>", "One audit event, with the bytes that were hashed")
def show(actor: Principal, event_id: int) -> AuditEvent:
    return audit_event_get(actor=actor, id=event_id)


@routes.get(
    "audit/events/<id:event_id>/proof",
    "The proof that an event is in the log, for `assay audit check`",
    answer=InclusionProofAnswer,
)
def proof(actor: Principal, event_id: int) -> dict[str, Any]:
    return inclusion_proof(audit_event_get(actor=actor, id=event_id))


class ConsistencyQuery(Filter):
    """Sizes of two checkpoints; `new` is the latest if omitted."""

    old: TreeSize
    new: TreeSize | None = None


@routes.get(
    "audit/consistency",
    "The proof that the log only grew, for `assay audit consistent`",
    answer=ConsistencyProofAnswer,
)
def consistency(actor: Principal, query: ConsistencyQuery) -> dict[str, Any]:
    return consistency_proof(actor=actor, old_size=query.old, new_size=query.new)


@routes.list("audit/checkpoints", "List checkpoints", answer=CheckpointAnswer)
def checkpoints(actor: Principal) -> QuerySet[AuditCheckpoint]:
    return audit_checkpoints_visible_to(actor).prefetch_related("cosignatures")


class AuditExportView(Endpoint):
    """The whole log, for verification outside of Assay."""

    renderer_classes = (PlainText, *Endpoint.renderer_classes)

    @operation(
        "Audit",
        "The sealed log as JSON lines, for `assay audit verify`",
        answer=OpenApiResponse(str, description="A header line, then one line for each event."),
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        self.query_as(Schema)
        return audit_log_file(
            request._request, self.actor, content_type="text/plain; charset=utf-8"
        )


class AuditCheckpointView(Endpoint):
    """The signed tree head."""

    renderer_classes = (PlainText, *Endpoint.renderer_classes)

    @operation(
        "Audit",
        "The latest checkpoint, a C2SP signed note",
        answer=OpenApiResponse(str, description="The note."),
    )
    def get(self, request: Request) -> HttpResponse:
        self.query_as(Schema)
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
        checkpoint = latest_checkpoint()
        if checkpoint is None:
            raise NotFound(
                "Nothing is sealed yet, so there is no checkpoint.",
                hint="The controller seals about ten times a second; is it running?",
            )
        return HttpResponse(checkpoint.note, content_type="text/plain; charset=utf-8")


class AuditStreamAnswer(serializers.Serializer[Any]):
    """One stream. `state` is waiting (it has not begun), streaming, behind or failing;
    `next_sequence` is null until it has begun. All earlier events were accepted, `reduced` of them
    as number and hash only. `lag_s` is the age of the oldest event that was not accepted."""

    name = serializers.CharField()
    address = serializers.CharField()
    format = serializers.CharField()
    personal_data = serializers.BooleanField()
    encrypted = serializers.BooleanField()
    state = serializers.CharField()
    next_sequence = serializers.IntegerField(allow_null=True)
    sent_at = serializers.DateTimeField(allow_null=True)
    failing_since = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField()
    reduced = serializers.IntegerField()
    lag_events = serializers.IntegerField()
    lag_s = serializers.FloatField()


@routes.list(
    "audit/streams",
    "List streams of the log to a SIEM, with their progress",
    answer=AuditStreamAnswer,
    order=(),
)
def streams(actor: Principal) -> list[StreamState]:
    return audit_streams_visible_to(actor)


def size_of(request: Request) -> int:
    """Return the number of events on a page.

    Raises:
        InvalidInput: it is not an integer from 1 to 100.
    """
    return CursorPagination().get_page_size(request)


def place_of(request: Request) -> dict[str, int]:
    """Return the start of the page as arguments of `audit_event_page`; empty for the newest.

    Raises:
        InvalidInput: the cursor is not one of this list.
    """
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return {}
    try:
        text = base64.b64decode(cursor[:64].encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        text = ""
    place = _PLACE.fullmatch(text)
    if place is None or len(cursor) > 64:
        raise InvalidInput(
            "The cursor is not valid.",
            hint="Use `next` and `previous` unchanged; start again without a cursor.",
            fields={"cursor": ["Not a cursor of this list."]},
        )
    return {_WAYS[place[1]]: int(place[2])}


def page_answer(
    request: Request, page: EventPage, rendered: Callable[[list[AuditEvent]], Any]
) -> Response:
    """Return the response for one page of events."""
    return Response(
        {
            "next": _link(request, "b", page.older),
            "previous": _link(request, "a", page.newer),
            "results": rendered(page.events),
        }
    )


def _link(request: Request, way: str, place: int | None) -> str | None:
    if place is None:
        return None
    cursor = base64.urlsafe_b64encode(f"{way}={place}".encode()).decode()
    return str(replace_query_param(request.build_absolute_uri(), "cursor", cursor))
