"""The state of single sign-on for administrators: last sign-ins, refusals, groups. No secrets."""

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
# Refused sign-ins that are looked through for those of single sign-on.
LOOKED_THROUGH = 200
CODE = "single_sign_on_refused"


@dataclass(frozen=True, slots=True)
class Group:
    """A mapped group: the role it gives, and how many people hold it through the group now."""

    mapping: GroupMapping
    people: int


@dataclass(frozen=True, slots=True)
class SignOnState:
    """`linked` people have signed in with the provider; `recent` are the latest of them."""

    linked: int
    recent: list[SocialAccount]
    refused: list[AuditEvent]
    groups: list[Group]


def sign_on_status() -> SignOnState:
    """Return what single sign-on did lately; for pages of those who see everyone."""
    accounts = SocialAccount.objects.select_related("user")
    held = (
        RoleAssignment.objects.exclude(source=RoleSource.MANUAL)
        .annotate(name=Upper("group"))
        .order_by()
        .values("name", "role", "department", "specialty")
        .annotate(people=Count("person", distinct=True))
    )
    by_role: dict[tuple[str, str, int | None, str], int] = {
        (row["name"], row["role"], row["department"], row["specialty"]): row["people"]
        for row in held
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
    found = [event for event in events[:LOOKED_THROUGH] if _code(event) == CODE]
    return opened(found[:SHOWN])


def _code(event: AuditEvent) -> str:
    try:
        data = sealed_body(event).get("data") or {}
    except ValueError:
        return ""
    return str(data.get("code", ""))
