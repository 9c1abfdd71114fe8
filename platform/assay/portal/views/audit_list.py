"""The list of audit events: found by who, what and when, page by page; and kept filters of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from assay.portal.access import may
from assay.portal.http import ActionScreen, number_in
from assay.portal.templatetags.assay import sentence, words
from assay.portal.words import action_groups, described, subject_types
from governance.audit.search.filters import KINDS, EventFilter
from governance.audit.search.kept import (
    SHOWN_MAX,
    WHOLE_LOG,
    audit_filter_change,
    audit_filter_delete,
    audit_filter_save,
    audit_filters_visible_to,
    readable_part,
)
from governance.audit.search.models import AuditFilter
from governance.audit.search.pages import EventPage, audit_event_page
from governance.audit.search.parameters import OUTCOMES, PARAMETERS, given_by, parameters_of
from governance.audit.selectors import latest_checkpoint, sealing_lag_s, verify_live
from governance.errors import InvalidInput
from governance.people.models import Department, Person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.policy.services import authorize

LIST_SIZE = 50
PEOPLE_MAX = 100
TEXT_MAX = 201
_ACTION = '<option value="{}">{}</option>'
WITHIN = (("1h", "last hour"), ("24h", "last 24 hours"), ("7d", "last 7 days"), ("30d", "30 days"))
# What a condition is called on the page, where that is not its name.
TITLES = {"query": "search", "subject": "subject", "since": "from", "until": "to", "within": "when"}
# What an address may call a filter besides.
SHORT = {"q": "query"}


def typed_in(given: Mapping[str, str]) -> dict[str, str]:
    """The filters in an address or form, as typed; what is none of them is left out."""
    named = ((SHORT.get(name, name), value) for name, value in given.items())
    # One character over what is let through, so that what is cut is refused and not searched for.
    return {name: value.strip()[:TEXT_MAX] for name, value in named if name in PARAMETERS}


class AuditLog(ActionScreen):
    """The list, with filters."""

    template_name = "portal/audit/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        part = readable_part(self.actor) or WHOLE_LOG
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=part)
        typed, problem, page = typed_in(self.request.GET), None, EventPage([])
        parameters: dict[str, str] = {}
        try:
            parameters = parameters_of(typed)
            given = given_by(parameters)
            page = self.found(given)
        except InvalidInput as error:
            problem = error
        address = urlencode(parameters)
        return {
            "page": page,
            "events": [described(event) for event in page.events],
            "given": typed,
            "parameters": parameters,
            "problem": problem,
            "older": _address(parameters, before=page.older),
            "newer": _address(parameters, after=page.newer),
            "parameters_address": address,
            "newest": f"?{address}" if page.newer is not None else "",
            "export": urlencode(self.exported(parameters)),
            "actions": action_options(),
            "given_action": said_of(typed.get("action", "")),
            "shown": [(TITLES.get(k, words(k)), v) for k, v in parameters.items()],
            "kinds": KINDS,
            "outcomes": OUTCOMES,
            "subject_types": subject_types(),
            "spans": WITHIN,
            "departments": self.departments(part),
            "people": self.people(),
            "filters": self.filters(parameters),
            "checkpoint": latest_checkpoint(),
            "lag": sealing_lag_s(),
            "may_see_all": part.department is None,
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
            "report": None,
        }

    def found(self, given: EventFilter) -> EventPage:
        """The page that the address asks for; the newest when going back comes out there."""
        before = number_in(self.request.GET, "before")
        after = None if before is not None else number_in(self.request.GET, "after")
        page = audit_event_page(
            actor=self.actor, given=given, before=before, after=after, size=LIST_SIZE
        )
        if after is not None and page.newer is None:
            return audit_event_page(actor=self.actor, given=given, size=LIST_SIZE)
        return page

    def exported(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """The filters for the page that exports, which keeps no span that moves."""
        if "within" not in parameters:
            return dict(parameters)
        since = given_by(parameters).since
        kept = {name: value for name, value in parameters.items() if name != "within"}
        return {**kept, "since": "" if since is None else since.isoformat(timespec="seconds")}

    def departments(self, part: Resource) -> list[str]:
        """Departments that the filter may name."""
        if part.department is not None:
            return sorted(self.actor.departments)
        return list(Department.objects.order_by("slug").values_list("slug", flat=True))

    def people(self) -> SafeString:
        """Those whose names are offered, which are few of many: others are typed."""
        people = visible_to(
            self.actor, Action.PERSON_VIEW, Person.objects.all(), resource_type="person"
        )
        listed = people.order_by("name", "pk").values_list("email", "name")[:PEOPLE_MAX]
        return format_html_join("", '<option value="{}">{}</option>', listed)

    def filters(self, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Kept filters, with their addresses, and which of them is on."""
        return [
            {
                "kept": kept,
                "address": urlencode(kept.parameters),
                "mine": kept.person_id == self.actor.person_id,
                "on": kept.parameters == parameters,
            }
            for kept in audit_filters_visible_to(self.actor)[:SHOWN_MAX]
        ]


def said_of(action: str) -> str:
    """A chosen action in the words of its choice."""
    for noun, listed in action_groups():
        if action == f"{noun}:":
            return f"anything to do with {words(noun)}"
        if action in dict(listed):
            return dict(listed)[action]
    return action


@cache
def action_options() -> SafeString:
    """The choices of an action: hundreds, and always the same."""
    return format_html_join(
        "",
        '<optgroup label="{}"><option value="{}:">anything to do with {}</option>{}</optgroup>',
        (
            (sentence(words(noun)), noun, words(noun), format_html_join("", _ACTION, listed))
            for noun, listed in action_groups()
        ),
    )


def _address(parameters: Mapping[str, str], **place: int | None) -> str:
    if None in place.values():
        return ""
    return "?" + urlencode({**parameters, **place})


class AuditVerify(AuditLog):
    """Verifies the whole log now and shows the outcome."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=WHOLE_LOG)
        context = {**self.context(), "report": verify_live(), "error": None}
        return render(request, self.template_name, context)


class AuditFilterSave(AuditLog):
    """Keeps the filter that the list shows, under a name."""

    def act(self, **kwargs: Any) -> HttpResponse:
        kept = audit_filter_save(
            actor=self.actor,
            name=self.request.POST.get("name", "")[:TEXT_MAX],
            parameters={k: v for k, v in typed_in(self.request.POST).items() if v},
            shared="shared" in self.request.POST,
        )
        messages.success(self.request, f"The filter {kept.name} is saved.")
        return shown(kept)


class AuditFilterChange(AuditLog):
    """Renames a filter of one's own, shares it or no longer."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        kept = audit_filter_change(
            actor=self.actor,
            filter_id=id,
            name=self.request.POST.get("name", "")[:TEXT_MAX],
            shared="shared" in self.request.POST,
        )
        messages.success(self.request, f"The filter {kept.name} is changed.")
        return shown(kept)


class AuditFilterDelete(AuditLog):
    """Deletes a filter of one's own."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        audit_filter_delete(actor=self.actor, filter_id=id)
        return self.done("The filter is deleted.", "portal:audit")


def shown(kept: AuditFilter) -> HttpResponse:
    """The list through a kept filter."""
    return redirect(f"{reverse('portal:audit')}?{urlencode(kept.parameters)}")
