"""Requests of departments: the ledger's records, logged content, and what a department logs."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.pagination import CursorPagination
from assay.api.renderers import JsonLines
from assay.api.representations.governance import UsageAnswer
from assay.api.routes import Routes
from assay.api.views.feedback import FeedbackAnswer
from assay.downloads import requests_file
from governance.errors import InvalidInput
from governance.people.models import Department
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.request_log.models import LogMode, RequestLogPolicy
from governance.request_log.schemas import (
    ContentReason,
    EndUser,
    RequestExport,
    RequestFilter,
    RequestLogSettings,
)
from governance.request_log.selectors import (
    RequestPage,
    log_days,
    log_keys,
    policy_of,
    request_get,
    requests_page,
)
from governance.request_log.services import (
    request_content_read,
    request_log_erase,
    request_log_forget_user,
    request_log_key_rotate,
    request_log_set,
)
from governance.usage.models import UsageRecord
from registry.feedback.logged import feedback_from_log
from registry.feedback.models import Feedback
from registry.feedback.schemas import LoggedFeedback
from registry.releases.logged_requests import release_request_content_read, release_requests_page


class RequestAnswer(UsageAnswer):
    """One request, as settled in the ledger."""


class RequestContentAnswer(serializers.Serializer[Any]):
    """A request with its prompt and answer. `cut` content was longer than the log keeps."""

    request = RequestAnswer()
    prompt = serializers.JSONField()
    answer = serializers.JSONField()
    cut = serializers.BooleanField()


class LogDayAnswer(serializers.Serializer[Any]):
    """Requests whose content was logged or dropped on a day (UTC)."""

    day = serializers.DateField()
    requests = serializers.IntegerField()
    bytes = serializers.IntegerField()
    dropped = serializers.IntegerField()


class LogKeyAnswer(serializers.Serializer[Any]):
    """A key of the department; the one with the highest number encrypts new content."""

    number = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    erased_at = serializers.DateTimeField(allow_null=True)


class RequestLogAnswer(serializers.Serializer[Any]):
    """Settings of a department's log, the amounts of its last days, and its keys."""

    department = serializers.CharField()
    mode = serializers.ChoiceField(choices=LogMode.choices)
    days = serializers.IntegerField()
    daily_mib = serializers.IntegerField()
    second_factor = serializers.BooleanField()
    datasets = serializers.BooleanField()
    last_days = LogDayAnswer(many=True)
    keys = LogKeyAnswer(many=True)


class ErasedAnswer(serializers.Serializer[Any]):
    """Number of erased keys, or of requests whose content was deleted."""

    erased = serializers.IntegerField()


routes = Routes("Requests", RequestAnswer)


class RequestsView(Endpoint):
    """Requests."""

    @operation(
        "Requests",
        "List requests, newest first",
        query=RequestFilter,
        answer=RequestAnswer,
        paged=True,
        name="requests_get",
        description=(
            "A page searches a bounded number of requests. If few of them match, it may have fewer "
            "than requested, or none, although `next` is not null; then follow `next`."
        ),
    )
    def get(self, request: Request) -> Response:
        query = self.query_as(RequestFilter)
        before, size = _place(request)
        return _page(self, request, requests_page(self.actor, query, before=before, size=size))


class ReleaseRequestsView(Endpoint):
    """Requests under a release."""

    @operation(
        "Requests",
        "List requests of a release's department under it, newest first",
        answer=RequestAnswer,
        paged=True,
        name="release_requests_get",
        description=(
            "For the department, and for reviewers for compliance if the release's conditions have "
            "`reviewers_read_content`. Pages are as those of `/requests`."
        ),
    )
    def get(self, request: Request, release_id: int) -> Response:
        before, size = _place(request)
        page = release_requests_page(
            actor=self.actor, release_id=release_id, before=before, size=size
        )
        return _page(self, request, page)


def _place(request: Request) -> tuple[str, int]:
    """Return the cursor of the requested page and its size."""
    cursor = request.query_params.get("cursor")
    if cursor == "":
        raise InvalidInput("The cursor is empty.", fields={"cursor": ["Is empty."]})
    return cursor or "", CursorPagination().get_page_size(request)


def _page(view: Endpoint, request: Request, page: RequestPage) -> Response:
    address = request.build_absolute_uri()
    following = replace_query_param(address, "cursor", page.older) if page.older else None
    rows = view.rendered(list(page.rows), RequestAnswer)
    return Response({"next": following, "previous": None, "results": rows})


@routes.get("requests/<str:request_id>", "Get a request", name="request_get")
def show(actor: Principal, request_id: str) -> UsageRecord:
    return request_get(actor=actor, request_id=request_id)


@routes.post(
    "requests/<str:request_id>/content",
    "Read the prompt and the answer of a request",
    answer=RequestContentAnswer,
    name="request_content_post",
)
def content(actor: Principal, request_id: str, body: ContentReason) -> dict[str, Any]:
    """The reason is recorded in the audit log. The department may require a fresh second factor."""
    record, read = request_content_read(actor=actor, request_id=request_id, reason=body.reason)
    return {"request": record, **read}


@routes.post(
    "releases/<id:release_id>/requests/<str:request_id>/content",
    "Read the prompt and the answer of a request under a release",
    answer=RequestContentAnswer,
    name="release_request_content_post",
)
def release_content(
    actor: Principal, release_id: int, request_id: str, body: ContentReason
) -> dict[str, Any]:
    """For reviewers for compliance, if the release's conditions have `reviewers_read_content`. The
    reason is recorded in the audit log. It takes a fresh second factor."""
    record, read = release_request_content_read(
        actor=actor, release_id=release_id, request_id=request_id, reason=body.reason
    )
    return {"request": record, **read}


@routes.post(
    "requests/<str:request_id>/feedback",
    "Send a logged request as feedback, for a dataset",
    answer=FeedbackAnswer,
    status=201,
    judged=True,
    name="request_feedback_post",
)
def teach(actor: Principal, request_id: str, body: LoggedFeedback) -> Feedback:
    """Another person reviews it before it becomes a row. The department must permit it."""
    return feedback_from_log(
        actor=actor, request_id=request_id, reason=body.reason, correction=body.correction
    )


class RequestsExportView(Endpoint):
    """Requests of a department, as JSON Lines."""

    renderer_classes = (JsonLines, *Endpoint.renderer_classes)

    @operation(
        "Requests",
        "Export requests as JSON Lines",
        body=RequestExport,
        answer=OpenApiResponse(str, description="One line for each request."),
        name="requests_export_post",
        description="Newest first; the export is an audit event with its reason.",
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        return requests_file(request._request, self.actor, self.body_as(RequestExport))


@routes.get(
    "departments/<slug:slug>/request-log",
    "Get what a department logs",
    answer=RequestLogAnswer,
    name="request_log_get",
)
def show_log(actor: Principal, slug: str) -> dict[str, Any]:
    department = department_get(actor=actor, slug=slug)
    return _log(department, policy_of(department))


@routes.post(
    "departments/<slug:slug>/request-log",
    "Set what a department logs",
    answer=RequestLogAnswer,
    name="request_log_post",
)
def set_log(actor: Principal, slug: str, body: RequestLogSettings) -> dict[str, Any]:
    department = department_get(actor=actor, slug=slug)
    return _log(department, request_log_set(actor=actor, department=department, log=body))


@routes.post(
    "departments/<slug:slug>/request-log/keys",
    "Rotate the key of a department's request log",
    answer=LogKeyAnswer,
    status=201,
    name="request_log_keys_post",
)
def rotate(actor: Principal, slug: str) -> Any:
    return request_log_key_rotate(actor=actor, department=department_get(actor=actor, slug=slug))


@routes.post(
    "departments/<slug:slug>/request-log/erase",
    "Erase the keys of a department's request log, so that its content is unreadable",
    answer=ErasedAnswer,
    name="request_log_erase_post",
)
def erase(actor: Principal, slug: str, body: ContentReason) -> dict[str, int]:
    department = department_get(actor=actor, slug=slug)
    erased = request_log_erase(actor=actor, department=department, reason=body.reason)
    return {"erased": erased}


@routes.post(
    "departments/<slug:slug>/request-log/forget",
    "Delete the logged content of an end user",
    answer=ErasedAnswer,
    judged=True,
    name="request_log_forget_post",
)
def forget(actor: Principal, slug: str, body: EndUser) -> dict[str, int]:
    department = department_get(actor=actor, slug=slug)
    return {"erased": request_log_forget_user(actor=actor, department=department, forget=body)}


def _log(department: Department, policy: RequestLogPolicy) -> dict[str, Any]:
    return {
        "department": department.slug,
        **{name: getattr(policy, name) for name in RequestLogSettings.model_fields},
        "last_days": log_days(department),
        "keys": log_keys(department),
    }
