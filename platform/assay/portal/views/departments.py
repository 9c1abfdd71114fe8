"""Departments: the list, founding one, and each one's members, keys and groups."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count, Prefetch, Q
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.portal.access import may
from assay.portal.forms import DepartmentForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.keys.selectors import keys_visible_to
from governance.people.models import RoleAssignment
from governance.people.selectors import (
    department_get,
    departments_visible_to,
    group_mappings_visible_to,
    people_found,
)
from governance.people.services import department_create
from governance.permissions import Action

KEYS_SHOWN = 10


class Departments(ActionScreen):
    """The departments that the person may see, and the form that founds one."""

    template_name = "portal/people/departments.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        alive = Q(api_keys__revoked_at=None, api_keys__expires_at__gt=timezone.now())
        departments = departments_visible_to(self.actor).annotate(
            members=Count(
                "role_assignments__person",
                filter=Q(role_assignments__person__is_active=True),
                distinct=True,
            ),
            keys_n=Count("api_keys", filter=alive, distinct=True),
        )
        founds = may(self.actor, Action.DEPARTMENT_CREATE, kind="department")
        return {
            "page": page_of(self.request, departments.order_by("slug")),
            "form": DepartmentForm(self.request.POST or None) if founds else None,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        department = department_create(
            actor=self.actor, **cleaned(DepartmentForm(self.request.POST))
        )
        messages.success(self.request, f"{department.name} is created.")
        return redirect("portal:department", slug=department.slug)


class DepartmentPage(Screen):
    """One department: who is in it and as what, its keys, the groups that lead into it."""

    template_name = "portal/people/department.html"

    def context(self, *, slug: str, **kwargs: Any) -> dict[str, Any]:
        department = department_get(actor=self.actor, slug=slug)
        here = RoleAssignment.objects.filter(department=department)
        members = people_found(self.actor, department=slug).prefetch_related(
            Prefetch("role_assignments", queryset=here, to_attr="held_here")
        )
        keys = keys_visible_to(self.actor).filter(department=department, revoked_at=None)
        return {
            "department": department,
            "page": page_of(self.request, members),
            "keys": keys.filter(expires_at__gt=timezone.now())[:KEYS_SHOWN],
            "mappings": group_mappings_visible_to(self.actor).filter(department=department),
            "may_see_keys": may(self.actor, Action.KEY_VIEW, kind="key", department=slug),
            "may_see_usage": may(self.actor, Action.USAGE_VIEW, kind="usage", department=slug),
            "may_see_budgets": may(self.actor, Action.QUOTA_VIEW, kind="quota", department=slug),
        }
