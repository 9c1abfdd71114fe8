"""The request log: the list, one request with its content, exports, and a department's settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from assay.downloads import requests_file
from assay.portal.access import departments_where, may
from assay.portal.forms.requests import (
    FILTERS,
    ContentReasonForm,
    EndUserForm,
    LoggedFeedbackForm,
    RequestExportForm,
    RequestLogForm,
    since_of,
)
from assay.portal.http import ActionScreen, Screen, cleaned, posted
from assay.portal.lists import Field
from assay.portal.waterfall import waterfall
from governance.errors import InvalidInput
from governance.people.models import Department
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.request_log.models import LogMode
from governance.request_log.schemas import (
    ContentReason,
    EndUser,
    RequestExport,
    RequestFilter,
    RequestLogSettings,
)
from governance.request_log.selectors import (
    failed_attempts,
    log_days,
    log_keys,
    logged_sizes,
    policy_of,
    request_get,
    request_resource,
    requests_page,
)
from governance.request_log.services import (
    request_content_read,
    request_log_erase,
    request_log_forget_user,
    request_log_key_rotate,
    request_log_set,
)
from governance.schemas import parsed
from governance.usage.models import UsageRecord
from governance.usage.units import Unit
from registry.feedback.logged import feedback_from_log
from registry.feedback.schemas import LoggedFeedback
from registry.feedback.selectors import feedback_visible_to
from registry.releases.logged_requests import (
    log_resource_of,
    release_request_content_read,
    release_request_get,
    release_requests_page,
)
from registry.releases.selectors import release_get
from registry.versions.hosted import is_hosted

_LOG = "request_log"
_READERS = ("request_content", "release_request_content")


class Requests(Screen):
    """Requests of the person's departments, the newest first. Invalid filters are ignored."""

    template_name = "portal/requests/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        parameters = self.request.GET
        query = RequestFilter.lenient(parameters.dict())
        if (since := since_of(parameters.get("within", ""))) is not None:
            query = query.model_copy(update={"since": since})
        try:
            page = requests_page(self.actor, query, before=parameters.get("before", ""))
        except InvalidInput:
            page = requests_page(self.actor, query)
        departments = list(departments_where(self.actor, Action.REQUEST_LOG_VIEW, kind=_LOG))
        slugs = [(each.slug, each.name) for each in departments]
        return {
            "page": page,
            "sizes": logged_sizes(page.rows),
            "continued": bool(parameters.get("before")),
            "currency": settings.CURRENCY,
            "departments": departments,
            "toolbar": (
                *([Field("department", "Department", slugs)] if len(slugs) > 1 else ()),
                *(Field(name, label, choices) for name, label, choices in FILTERS),
            ),
        }


class RequestScreen(ActionScreen):
    """One request: its facts and phases. Its content shows only after a reason is entered."""

    template_name = "portal/requests/request.html"

    def facts(
        self, record: UsageRecord, content: dict[str, Any] | None, resource: Resource
    ) -> dict[str, Any]:
        """Return what the page shows of a request that the person may see."""
        reads = may(
            self.actor, Action.REQUEST_LOG_READ_CONTENT, kind=_LOG, department=record.department,
            attributes=resource.attributes,
        )  # fmt: skip
        return {
            "record": record,
            "unit": Unit(record.unit),
            "currency": settings.CURRENCY,
            "phases": waterfall(
                record, failed_attempts(record), hosted=is_hosted(record.version_digest)
            ),
            "logged": logged_sizes([record]).get(record.request_id),
            "content": content,
            "form": ContentReasonForm(posted(self.request, *_READERS)) if reads else None,
        }

    def shown(self, content: dict[str, Any], **kwargs: Any) -> HttpResponse:
        """Return the page with content, which no cache keeps."""
        response = self.page(content=content, **kwargs)
        response["Cache-Control"] = "no-store"
        return response


class RequestPage(RequestScreen):
    """A request of the person's departments, also as a question and as a row of a dataset."""

    def context(
        self, *, request_id: str, content: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        record = request_get(actor=self.actor, request_id=request_id)
        return {
            **self.facts(record, content, request_resource(record)),
            "content_url": reverse("portal:request_content", args=[request_id]),
            "question": _question(content),
            "teach_form": LoggedFeedbackForm(
                posted(self.request, "request_feedback"),
                initial={"reason": self.request.POST.get("reason", "")},
            )
            if content and self._teaches(record.department)
            else None,
            "feedback": feedback_visible_to(self.actor)
            .filter(request_id=record.request_id)
            .first(),
        }

    def _teaches(self, slug: str) -> bool:
        """Return true if the person may send the content as feedback."""
        permits = policy_of(department_get(actor=self.actor, slug=slug)).datasets
        return permits and may(self.actor, Action.FEEDBACK_CREATE, kind="feedback", department=slug)


def _question(content: dict[str, Any] | None) -> str:
    """Return the text to try again in the playground: the last message, or the prompt."""
    inputs = (content or {}).get("prompt", {}).get("inputs", {})
    if isinstance(inputs.get("prompt"), str):
        return str(inputs["prompt"])
    messages = inputs.get("messages") or [{}]
    text = messages[-1].get("content", "")
    return text if isinstance(text, str) else ""


class RequestContent(RequestPage):
    """Read the content of a request, for a reason that the audit log records."""

    def act(self, *, request_id: str, **kwargs: Any) -> HttpResponse:
        values = parsed(ContentReason, cleaned(ContentReasonForm(self.request.POST)))
        _, content = request_content_read(
            actor=self.actor, request_id=request_id, reason=values.reason
        )
        return self.shown(content, request_id=request_id)


class RequestFeedback(RequestPage):
    """Send the content of a request as feedback, which another person reviews."""

    def act(self, *, request_id: str, **kwargs: Any) -> HttpResponse:
        values = cleaned(LoggedFeedbackForm(self.request.POST))
        feedback = feedback_from_log(
            actor=self.actor, request_id=request_id, **parsed(LoggedFeedback, values).model_dump()
        )
        return self.done(
            "Sent for review; accepted feedback becomes a row of a dataset.",
            "portal:feedback_one",
            id=feedback.pk,
        )


class ReleaseRequests(Screen):
    """Requests under a release, for its department and the readers whom its conditions permit."""

    template_name = "portal/requests/list.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        before = self.request.GET.get("before", "")
        try:
            page = release_requests_page(actor=self.actor, release_id=id, before=before)
        except InvalidInput:
            page = release_requests_page(actor=self.actor, release_id=id)
        return {
            "release": release_get(actor=self.actor, id=id),
            "page": page,
            "sizes": logged_sizes(page.rows),
            "continued": bool(before),
        }


class ReleaseRequest(RequestScreen):
    """A request under a release."""

    def context(
        self,
        *,
        id: int,  # noqa: A002
        request_id: str,
        content: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        record = release_request_get(actor=self.actor, release_id=id, request_id=request_id)
        release = release_get(actor=self.actor, id=id)
        return {
            **self.facts(record, content, log_resource_of(release, self.actor)),
            "release": release,
            "content_url": reverse("portal:release_request_content", args=[id, request_id]),
        }


class ReleaseRequestContent(ReleaseRequest):
    """Read the content of a request under a release."""

    def act(self, *, id: int, request_id: str, **kwargs: Any) -> HttpResponse:  # noqa: A002
        values = parsed(ContentReason, cleaned(ContentReasonForm(self.request.POST)))
        _, content = release_request_content_read(
            actor=self.actor, release_id=id, request_id=request_id, reason=values.reason
        )
        return self.shown(content, id=id, request_id=request_id)


class RequestsExport(ActionScreen):
    """Export requests of a department as JSON Lines."""

    template_name = "portal/form.html"

    def form(self) -> RequestExportForm:
        choices = departments_where(self.actor, Action.REQUEST_LOG_VIEW, kind=_LOG)
        slugs = [(department.slug, department.name) for department in choices]
        # The list's filters are in the address.
        initial = {name: self.request.GET.get(name, "") for name, _, _ in FILTERS}
        initial["department"] = self.request.GET.get("department", "")
        sent = posted(self.request, "requests_export")
        return RequestExportForm(sent, departments=slugs, initial=initial)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "title": "Export requests",
            "lead": "One line of JSON for each request that matches all filters, the newest first.",
            "back": ("portal:requests", "Requests"),
            "form": self.form(),
            "submit": "Export",
        }

    def act(self, **kwargs: Any) -> HttpResponseBase:
        values = cleaned(self.form())
        texts = {name: values.pop(name) for name, _, _ in FILTERS}
        filters = parsed(RequestFilter, {k: v for k, v in texts.items() if v and k != "within"})
        filters = filters.model_copy(update={"since": since_of(texts["within"])})
        export = parsed(RequestExport, {**values, "filters": filters})
        return requests_file(self.request, self.actor, export)


class DepartmentLog(ActionScreen):
    """Settings of a department's log, its amounts and keys, and forms that erase content."""

    template_name = "portal/requests/department.html"

    def department(self, slug: str) -> Department:
        return department_get(actor=self.actor, slug=slug)

    def context(self, *, slug: str, **kwargs: Any) -> dict[str, Any]:
        department = self.department(slug)
        policy = policy_of(department)
        changes, erases = (
            may(self.actor, action, kind=_LOG, department=slug)
            for action in (Action.REQUEST_LOG_CHANGE, Action.REQUEST_LOG_ERASE)
        )
        initial = {name: getattr(policy, name) for name in RequestLogSettings.model_fields}
        return {
            "department": department,
            "policy": policy,
            "logs_content": policy.mode == LogMode.FULL,
            "days": log_days(department),
            "keys": log_keys(department),
            "form": RequestLogForm(posted(self.request, "request_log"), initial=initial)
            if changes
            else None,
            "user_form": EndUserForm(posted(self.request, "request_log_forget"))
            if erases
            else None,
            "erase_form": ContentReasonForm(
                posted(self.request, "request_log_erase"), prefix="erase"
            )
            if erases
            else None,
        }

    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        department = self.department(slug)
        values = cleaned(RequestLogForm(self.request.POST))
        request_log_set(
            actor=self.actor, department=department, log=parsed(RequestLogSettings, values)
        )
        return self.done(
            f"The request log of {department.name} is set.", "portal:request_log", slug=slug
        )


class DepartmentLogKey(DepartmentLog):
    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        key = request_log_key_rotate(actor=self.actor, department=self.department(slug))
        return self.done(
            f"New content is encrypted under key {key.number}.", "portal:request_log", slug=slug
        )


class DepartmentLogForget(DepartmentLog):
    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        values = cleaned(EndUserForm(self.request.POST))
        deleted = request_log_forget_user(
            actor=self.actor, department=self.department(slug), forget=parsed(EndUser, values)
        )
        requests = "request" if deleted == 1 else "requests"
        return self.done(
            f"Deleted the content of {deleted} {requests}.", "portal:request_log", slug=slug
        )


class DepartmentLogErase(DepartmentLog):
    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        values = cleaned(ContentReasonForm(self.request.POST, prefix="erase"))
        reason = parsed(ContentReason, values).reason
        request_log_erase(actor=self.actor, department=self.department(slug), reason=reason)
        return self.done(
            "The keys are erased; nothing can read the earlier content.",
            "portal:request_log",
            slug=slug,
        )
