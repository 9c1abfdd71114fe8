"""State of single sign-on for administrators: last sign-ins, refusals, groups; without secrets."""

from __future__ import annotations

from dataclasses import dataclass

from allauth.socialaccount.models import SocialAccount
from django.db.models import Count
from django.db.models.functions import Upper

from governance.audit.models import AuditEvent
from governance.audit.personal import opened, sealed_body
from governance.people.models import GroupMapping, RoleAssignment, RoleSource
from governance.people.signing_in import SIGN_IN

SHOWN = 10
# Number of latest refused sign-ins that are searched for those by single sign-on.
LOOKED_THROUGH = 200
CODE = "single_sign_on_refused"


@dataclass(frozen=True, slots=True)
class Group:
    """A mapped group with its role, and the number of people who have that role through it."""

    mapping: GroupMapping
    people: int


@dataclass(frozen=True, slots=True)
class SignOnState:
    """`linked` is the number of people who have signed in with the provider; `recent` are the
    latest."""

    linked: int
    recent: list[SocialAccount]
    refused: list[AuditEvent]
    groups: list[Group]


def sign_on_status() -> SignOnState:
    """Return the recent activity of single sign-on, for viewers who may see all people."""
    accounts = SocialAccount.objects.select_related("user")
    assignments = (
        RoleAssignment.objects.exclude(source=RoleSource.MANUAL)
        .annotate(name=Upper("group"))
        .order_by()
        .values("name", "role", "department", "specialty")
        .annotate(people=Count("person", distinct=True))
    )
    by_role: dict[tuple[str, str, int | None, str], int] = {
        (row["name"], row["role"], row["department"], row["specialty"]): row["people"]
        for row in assignments
    }
    mappings = GroupMapping.objects.select_related("department")
    groups = [
        Group(each, by_role.get((each.group.upper(), *_role(each)), 0)) for each in mappings[:200]
    ]
    return SignOnState(
        linked=accounts.count(),
        recent=list(accounts.order_by("-last_login")[:SHOWN]),
        refused=_refused(),
        groups=groups,
    )


def _role(mapping: GroupMapping) -> tuple[str, int | None, str]:
    return mapping.role, mapping.department_id, mapping.specialty


def _refused() -> list[AuditEvent]:
    events = AuditEvent.objects.filter(action=SIGN_IN, outcome="denied").order_by("-pk")
    refusals = [event for event in events[:LOOKED_THROUGH] if _code(event) == CODE]
    return opened(refusals[:SHOWN])


def _code(event: AuditEvent) -> str:
    try:
        data = sealed_body(event).get("data") or {}
    except ValueError:
        return ""
    return str(data.get("code", ""))
