"""The list of audit events by person, action and time, in pages; and its saved filters."""

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
from governance.audit.search.models import AuditFilter
from governance.audit.search.pages import EventPage, audit_event_page
from governance.audit.search.parameters import OUTCOMES, PARAMETERS, event_filter_of, parameters_of
from governance.audit.search.saved_filters import (
    SHOWN_MAX,
    WHOLE_LOG,
    audit_filter_change,
    audit_filter_delete,
    audit_filter_save,
    audit_filters_visible_to,
    readable_part,
)
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
# Names of conditions on the page, where they differ.
TITLES = {"query": "search", "subject": "subject", "since": "from", "until": "to", "within": "when"}
# Short names of filters in an address.
SHORT = {"q": "query"}


def typed_in(values: Mapping[str, str]) -> dict[str, str]:
    """Return the filters in an address or a form as typed, without other parameters."""
    named = ((SHORT.get(name, name), value) for name, value in values.items())
    # One character over the limit, so that a text that is too long is refused, not shortened.
    return {name: value.strip()[:TEXT_MAX] for name, value in named if name in PARAMETERS}


class AuditLog(ActionScreen):
    """The list of events, with filters."""

    template_name = "portal/audit/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        part = readable_part(self.actor) or WHOLE_LOG
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=part)
        typed, problem, page = typed_in(self.request.GET), None, EventPage([])
        parameters: dict[str, str] = {}
        try:
            parameters = parameters_of(typed)
            query = event_filter_of(parameters)
            page = self.matching(query)
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
            "given_action": action_phrase(typed.get("action", "")),
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

    def matching(self, query: EventFilter) -> EventPage:
        """Return the page of the address; the newest page once `after` reaches it."""
        before = number_in(self.request.GET, "before")
        after = None if before is not None else number_in(self.request.GET, "after")
        page = audit_event_page(
            actor=self.actor, event_filter=query, before=before, after=after, size=LIST_SIZE
        )
        if after is not None and page.newer is None:
            return audit_event_page(actor=self.actor, event_filter=query, size=LIST_SIZE)
        return page

    def exported(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return the filters for an export, with a relative time span as a fixed start."""
        if "within" not in parameters:
            return dict(parameters)
        since = event_filter_of(parameters).since
        others = {name: value for name, value in parameters.items() if name != "within"}
        return {**others, "since": "" if since is None else since.isoformat(timespec="seconds")}

    def departments(self, part: Resource) -> list[str]:
        """Return the departments that the filter may name."""
        if part.department is not None:
            return sorted(self.actor.departments)
        return list(Department.objects.order_by("slug").values_list("slug", flat=True))

    def people(self) -> SafeString:
        """Return options for at most `PEOPLE_MAX` people; other names can be typed."""
        people = visible_to(
            self.actor, Action.PERSON_VIEW, Person.objects.all(), resource_type="person"
        )
        listed = people.order_by("name", "pk").values_list("email", "name")[:PEOPLE_MAX]
        return format_html_join("", '<option value="{}">{}</option>', listed)

    def filters(self, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the saved filters with their addresses, and which of them is on."""
        return [
            {
                "kept": saved,
                "address": urlencode(saved.parameters),
                "mine": saved.person_id == self.actor.person_id,
                "on": saved.parameters == parameters,
            }
            for saved in audit_filters_visible_to(self.actor)[:SHOWN_MAX]
        ]


def action_phrase(action: str) -> str:
    """Return the words for a chosen action."""
    for noun, listed in action_groups():
        if action == f"{noun}:":
            return f"anything to do with {words(noun)}"
        if action in dict(listed):
            return dict(listed)[action]
    return action


@cache
def action_options() -> SafeString:
    """Return the options for actions. Cached: they are hundreds, and always the same."""
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
    """Verify the whole log now and show the result."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=WHOLE_LOG)
        context = {**self.context(), "report": verify_live(), "error": None}
        return render(request, self.template_name, context)


class AuditFilterSave(AuditLog):
    """Save the filter of the list under a name."""

    def act(self, **kwargs: Any) -> HttpResponse:
        saved = audit_filter_save(
            actor=self.actor,
            name=self.request.POST.get("name", "")[:TEXT_MAX],
            parameters={k: v for k, v in typed_in(self.request.POST).items() if v},
            shared="shared" in self.request.POST,
        )
        messages.success(self.request, f"The filter {saved.name} is saved.")
        return redirect_to_filter(saved)


class AuditFilterChange(AuditLog):
    """Rename, share or unshare one of the person's own filters."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        saved = audit_filter_change(
            actor=self.actor,
            filter_id=id,
            name=self.request.POST.get("name", "")[:TEXT_MAX],
            shared="shared" in self.request.POST,
        )
        messages.success(self.request, f"The filter {saved.name} is changed.")
        return redirect_to_filter(saved)


class AuditFilterDelete(AuditLog):
    """Delete one of the person's own filters."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        audit_filter_delete(actor=self.actor, filter_id=id)
        return self.done("The filter is deleted.", "portal:audit")


def redirect_to_filter(saved: AuditFilter) -> HttpResponse:
    """Redirect to the list with a saved filter."""
    return redirect(f"{reverse('portal:audit')}?{urlencode(saved.parameters)}")
