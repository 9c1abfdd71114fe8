"""People, requests for roles, and departments."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.accounts.erasure import account_erase
from assay.portal.access import may
from assay.portal.forms.people import (
    DepartmentForm,
    EraseForm,
    JobsAtOnceForm,
    PersonForm,
    RetentionForm,
    RoleForm,
    StandingForm,
)
from assay.portal.http import ActionScreen, cleaned, page_of, posted
from assay.portal.lists import Field, ListScreen
from assay.portal.views.one_time_links import link_page
from governance.english import counted
from governance.errors import InvalidInput
from governance.keys.selectors import keys_visible_to
from governance.people.access_requests import access_request_decline, access_requests_open
from governance.people.links import password_link_create
from governance.people.models import (
    Department,
    Person,
    RoleAssignment,
    RoleRequest,
    RoleRequestState,
)
from governance.people.role_requests import (
    role_request_approve,
    role_request_get,
    role_request_reject,
    role_request_withdraw,
    role_requests_visible_to,
)
from governance.people.roles import role_grant, role_revoke
from governance.people.schemas import PeopleFilter
from governance.people.selectors import (
    PEOPLE_AT_LARGE,
    department_get,
    departments_visible_to,
    group_mappings_visible_to,
    people_matching,
    person_get,
    sees_everyone,
)
from governance.people.services import (
    department_create,
    department_limit_jobs,
    person_create,
    person_deactivate,
    person_reactivate,
)
from governance.permissions import Action
from governance.policy.services import authorize
from registry.responses.selectors import retention_days
from registry.responses.services import retention_set

REQUESTS_SHOWN = 50
KEYS_SHOWN = 10


class People(ListScreen, ActionScreen):
    """Everyone, with their roles; for those who see everyone."""

    template_name = "portal/people/list.html"
    title = "People"
    lead = "People with their roles, and the source of each role."
    columns = "Person | State | Roles | Since"

    def rows(self) -> QuerySet[Person]:
        authorize(actor=self.actor, action=Action.PERSON_VIEW, resource=PEOPLE_AT_LARGE)
        query = PeopleFilter.lenient(self.request.GET.dict())
        people = people_matching(self.actor, query)
        if query.q is None and self.request.GET.get("q", "").strip():
            # No name contains a control character.
            people = people.none()
        return people.prefetch_related("role_assignments__department")

    def context(self, **kwargs: Any) -> dict[str, Any]:
        departments = departments_visible_to(self.actor).values_list("slug", "name")
        adds = may(self.actor, Action.PERSON_CREATE, kind="person")
        return {
            **super().context(**kwargs),
            "toolbar": (
                Field("q", "Name or e-mail"),
                Field("state", "State", [("active", "Active"), ("inactive", "Inactive")]),
                Field("department", "Department", list(departments)),
            ),
            "form": PersonForm(posted(self.request, "people")) if adds else None,
            "access_requests": list(access_requests_open(self.actor)[:REQUESTS_SHOWN]),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        person = person_create(actor=self.actor, **cleaned(PersonForm(self.request.POST)))
        if "without_password" in self.request.POST:
            return self.done(
                f"{person.name} is added; grant a role next.", "portal:person", id=person.pk
            )
        link, address = password_link_create(actor=self.actor, person_id=person.pk)
        return link_page(self.request, link, address)


class AccessRequestDecline(People):
    """Decline a request for a first role."""

    def act(self, **kwargs: Any) -> HttpResponse:
        declined = access_request_decline(actor=self.actor, request_id=kwargs["id"])
        return self.done(f"The request of {declined.person.name} is declined.", "portal:people")


class PersonPage(ActionScreen):
    """One person: roles with their sources, groups, and access."""

    template_name = "portal/people/person.html"

    def form(self) -> RoleForm:
        # The buttons that remove a role send no form.
        data = self.request.POST if "role" in self.request.POST else None
        return RoleForm(data, departments=departments_visible_to(self.actor))

    def standing_form(self) -> StandingForm:
        return StandingForm(posted(self.request, "person_deactivate", "person_reactivate"))

    def erase_form(self, person: Person) -> EraseForm:
        return EraseForm(posted(self.request, "person_erase"), email=person.email)

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        everyone = sees_everyone(self.actor)
        own = person.pk == self.actor.person_id
        changeable = not own and person.erased_at is None
        return {
            "person": person,
            "roles": person.role_assignments.select_related(
                "department", "granted_by", "approved_by"
            ),
            "groups": person.directory_groups.all() if everyone else [],
            "everyone": everyone,
            "form": self.form() if self.may_grant(person) else None,
            "standing_form": self.standing_form() if changeable and self.may_deactivate() else None,
            "erase_form": self.erase_form(person)
            if changeable and not person.is_active and self.may_erase()
            else None,
            "may_see_reason": self.may_deactivate(),
            "may_see_sign_in": may(
                self.actor, Action.SESSION_VIEW, kind="session", attributes={"owner": person.pk}
            ),
        }

    def may_grant(self, person: Person) -> bool:
        return person.is_active and may(self.actor, Action.ROLE_GRANT, kind="person")

    def may_erase(self) -> bool:
        return may(self.actor, Action.PERSON_ERASE, kind="person")

    def may_deactivate(self) -> bool:
        return may(self.actor, Action.PERSON_DEACTIVATE, kind="person")


class RoleGrant(PersonPage):
    """Grant or remove a role."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        if "revoke" in self.request.POST:
            assignment = self.request.POST["revoke"]
            assignments = {str(pk) for pk in person.role_assignments.values_list("pk", flat=True)}
            if assignment in assignments:
                role_revoke(actor=self.actor, assignment_id=int(assignment))
                messages.success(self.request, "The role is removed.")
        else:
            outcome = role_grant(actor=self.actor, person=person, **cleaned(self.form()))
            if isinstance(outcome, RoleRequest):
                return self.done(
                    "Requested. A second administrator approves it.", "portal:role_requests"
                )
            messages.success(self.request, "The role is granted.")
        return redirect("portal:person", id=id)


class PersonDeactivate(PersonPage):
    """End a person's access at once."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        values = cleaned(self.standing_form())
        person_deactivate(actor=self.actor, person_id=id, **values)
        return self.done(
            f"{person.name} is deactivated. Sessions and tokens no longer work.",
            "portal:person",
            id=id,
        )


class PersonReactivate(PersonPage):
    """Restore a person's access."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        values = cleaned(self.standing_form())
        person_reactivate(actor=self.actor, person_id=id, **values)
        return self.done(f"{person.name} may sign in again.", "portal:person", id=id)


class PersonErase(PersonPage):
    """Erase a person permanently."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        values = cleaned(self.erase_form(person))
        erased = account_erase(actor=self.actor, person_id=id, reason=values["why"])
        return self.done(
            f"The person is erased, and is now shown as {erased.name}.", "portal:person", id=id
        )


class RoleRequests(ActionScreen):
    """All role requests, pending ones first."""

    template_name = "portal/people/role_requests.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.PERSON_VIEW, resource=PEOPLE_AT_LARGE)
        rows = role_requests_visible_to(self.actor)
        pending = rows.filter(state=RoleRequestState.PENDING, expires_at__gt=timezone.now())
        return {
            "pending": pending,
            "page": page_of(self.request, rows.exclude(pk__in=pending.values("pk"))),
            "grants": may(self.actor, Action.ROLE_GRANT, kind="person"),
            "me": self.actor.person_id,
        }


class RoleRequestAct(RoleRequests):
    """Approve, reject or withdraw a role request."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        role_request_get(actor=self.actor, request_id=id)
        verdict = self.request.POST.get("do", "")
        if verdict == "approve":
            role_request_approve(actor=self.actor, request_id=id)
            messages.success(self.request, "Approved. The role is granted.")
        elif verdict == "reject":
            reason = self.request.POST.get("reason", "")
            role_request_reject(actor=self.actor, request_id=id, reason=reason)
            messages.success(self.request, "Rejected.")
        elif verdict == "withdraw":
            role_request_withdraw(actor=self.actor, request_id=id)
            messages.success(self.request, "Withdrawn.")
        else:
            raise InvalidInput(
                "Choose to approve, reject or withdraw.", fields={"do": ["is needed"]}
            )
        return redirect("portal:role_requests")


class Departments(ListScreen, ActionScreen):
    """The departments that the person may see, and the form that creates one."""

    template_name = "portal/people/departments.html"
    title = "Departments"
    lead = "A department owns keys, datasets, fine-tuned models and budgets."
    columns = "Department | # Active people | # Live keys | Since"

    def rows(self) -> QuerySet[Department]:
        alive = Q(api_keys__revoked_at=None, api_keys__expires_at__gt=timezone.now())
        departments = departments_visible_to(self.actor).annotate(
            members=Count(
                "role_assignments__person",
                filter=Q(role_assignments__person__is_active=True),
                distinct=True,
            ),
            keys_n=Count("api_keys", filter=alive, distinct=True),
        )
        return departments.order_by("slug")

    def context(self, **kwargs: Any) -> dict[str, Any]:
        creates = may(self.actor, Action.DEPARTMENT_CREATE, kind="department")
        form = DepartmentForm(self.request.POST or None) if creates else None
        return {**super().context(**kwargs), "form": form}

    def act(self, **kwargs: Any) -> HttpResponse:
        department = department_create(
            actor=self.actor, **cleaned(DepartmentForm(self.request.POST))
        )
        return self.done(
            f"{department.name} is created.", "portal:department", slug=department.slug
        )


class DepartmentPage(ActionScreen):
    """One department: members with their roles, keys, groups that grant its roles, and retention of
    responses."""

    template_name = "portal/people/department.html"

    def context(self, *, slug: str, **kwargs: Any) -> dict[str, Any]:
        department = department_get(actor=self.actor, slug=slug)
        here = RoleAssignment.objects.filter(department=department)
        members = people_matching(self.actor, PeopleFilter(department=slug)).prefetch_related(
            Prefetch("role_assignments", queryset=here, to_attr="held_here")
        )
        keys = keys_visible_to(self.actor).filter(department=department, revoked_at=None)
        days = retention_days(department)
        retains = may(self.actor, Action.RESPONSE_RETAIN, kind="response", department=slug)
        return {
            "department": department,
            "response_days": days,
            "form": RetentionForm(posted(self.request, "department"), initial={"days": days})
            if retains
            else None,
            "jobs_form": JobsAtOnceForm(
                posted(self.request, "department_jobs"),
                initial={"jobs_at_once": department.jobs_at_once},
            )
            if may(self.actor, Action.QUOTA_SET, kind="quota", department=slug)
            else None,
            "jobs_at_once": department.jobs_at_once or settings.JOBS_AT_ONCE,
            "page": page_of(self.request, members),
            "keys": keys.filter(expires_at__gt=timezone.now())[:KEYS_SHOWN],
            "mappings": group_mappings_visible_to(self.actor).filter(department=department),
            "may_see_keys": may(self.actor, Action.KEY_VIEW, kind="key", department=slug),
            "may_log": may(
                self.actor, Action.REQUEST_LOG_CHANGE, kind="request_log", department=slug
            ),
            "may_see_usage": may(self.actor, Action.USAGE_VIEW, kind="usage", department=slug),
            "may_see_budgets": may(self.actor, Action.QUOTA_VIEW, kind="quota", department=slug),
        }

    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        department = department_get(actor=self.actor, slug=slug)
        values = cleaned(RetentionForm(self.request.POST))
        retention = retention_set(actor=self.actor, department=department, days=values["days"])
        if retention.days:
            unit = "day" if retention.days == 1 else "days"
            done = f"{department.name} keeps responses for {retention.days} {unit}."
        else:
            done = f"{department.name} stores no responses."
        return self.done(done, "portal:department", slug=slug)


class DepartmentJobs(DepartmentPage):
    """Limit the jobs of a department that run at once."""

    def act(self, *, slug: str, **kwargs: Any) -> HttpResponse:
        department = department_limit_jobs(
            actor=self.actor,
            department=department_get(actor=self.actor, slug=slug),
            **cleaned(JobsAtOnceForm(self.request.POST)),
        )
        if department.jobs_at_once is None:
            done = f"{department.name} runs as many jobs at once as the platform allows."
        else:
            done = (
                f"{department.name} runs at most {counted(department.jobs_at_once, 'job')} at once."
            )
        return self.done(done, "portal:department", slug=slug)
