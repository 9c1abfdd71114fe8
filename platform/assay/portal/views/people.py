"""People and departments: lists, adding, granting roles."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.forms import DepartmentForm, PersonForm, RoleForm
from assay.portal.http import ActionScreen, cleaned, page_of
from governance.people.selectors import departments_visible_to, people_visible_to, person_get
from governance.people.services import department_create, person_create, role_grant, role_revoke
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize


class People(ActionScreen):
    """Everyone, with their roles; for those who add people."""

    template_name = "portal/people/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(
            actor=self.actor,
            action=Action.PERSON_CREATE,
            resource=Resource(type="person", name="people"),
        )
        people = people_visible_to(self.actor).prefetch_related("role_assignments__department")
        departments = departments_visible_to(self.actor).annotate(
            members=Count("role_assignments__person", distinct=True),
            keys_n=Count("api_keys", distinct=True),
        )
        return {
            "page": page_of(self.request, people),
            "departments": departments,
            "person_form": PersonForm(self.data("person"), prefix="person"),
            "department_form": DepartmentForm(self.data("department"), prefix="department"),
        }

    def data(self, which: str) -> Any:
        """What was posted, if it was this form."""
        return self.request.POST if f"{which}-name" in self.request.POST else None

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(PersonForm(self.request.POST, prefix="person"))
        values["password"] = values["password"] or None
        person = person_create(actor=self.actor, **values)
        messages.success(self.request, f"{person.name} is added; grant a role next.")
        return redirect("portal:person", id=person.pk)


class DepartmentNew(People):
    """Founds a department."""

    def act(self, **kwargs: Any) -> HttpResponse:
        form = DepartmentForm(self.request.POST, prefix="department")
        department = department_create(actor=self.actor, **cleaned(form))
        messages.success(self.request, f"{department.name} is founded.")
        return redirect("portal:people")


class PersonPage(ActionScreen):
    """One person and the roles they hold."""

    template_name = "portal/people/person.html"

    def form(self) -> RoleForm:
        posted = self.request.POST if "role" in self.request.POST else None
        return RoleForm(posted, departments=departments_visible_to(self.actor))

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        return {
            "person": person,
            "roles": person.role_assignments.select_related("department", "granted_by"),
            "form": self.form() if may(self.actor, Action.ROLE_GRANT, kind="person") else None,
        }


class RoleGrant(PersonPage):
    """Grants a role, or takes one away."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        if "revoke" in self.request.POST:
            wanted = self.request.POST["revoke"]
            held = {str(pk) for pk in person.role_assignments.values_list("pk", flat=True)}
            if wanted in held:
                role_revoke(actor=self.actor, assignment_id=int(wanted))
                messages.success(self.request, "The role is taken away.")
        else:
            role_grant(actor=self.actor, person=person, **cleaned(self.form()))
            messages.success(self.request, "The role is granted.")
        return redirect("portal:person", id=id)
