"""Setting limits."""

from __future__ import annotations

from django.db import transaction

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput
from governance.keys.models import ApiKey
from governance.notify import notify
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize
from governance.principals import Principal
from governance.quotas.models import QuotaKind, QuotaLimit

LIMIT_MAX = 10**12


def quota_set(
    *,
    actor: Principal,
    kind: str,
    limit: int | None,
    department: Department | None = None,
    api_key: ApiKey | None = None,
) -> QuotaLimit | None:
    """Set one limit on a department or one of its keys; None takes it away. 0 allows nothing.

    Raises:
        InvalidInput: an unknown kind, a limit out of bounds, or not exactly one subject.
        NotFound, NotPermitted: the policy refuses.
    """
    _check(kind, limit, department, api_key)
    owner = api_key.department if api_key else department
    with transaction.atomic():
        name = f"{kind} of {api_key.name if api_key else owner}"
        slug = owner.slug if owner else None
        decision = authorize(
            actor=actor,
            action=Action.QUOTA_SET,
            resource=Resource("quota", name=name, department=slug),
        )
        rows = QuotaLimit.objects.select_for_update().filter(
            kind=kind, department=department, api_key=api_key
        )
        before = rows.values_list("limit", flat=True).first()
        row: QuotaLimit | None = None
        if limit is None:
            rows.delete()
        else:
            row, _ = QuotaLimit.objects.update_or_create(
                kind=kind, department=department, api_key=api_key, defaults={"limit": limit}
            )
        audit_record(
            actor=actor,
            action=Action.QUOTA_SET,
            subject=Subject("quota", str(row.pk) if row else "", name),
            department=slug or "",
            data={"kind": kind, "before": before, "after": limit},
            policy_version=decision.policy_version,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return row


def _check(
    kind: str, limit: int | None, department: Department | None, api_key: ApiKey | None
) -> None:
    if kind not in QuotaKind.values:
        raise InvalidInput(
            f"There is no quota {kind[:40]}.",
            fields={"kind": [f"is one of {', '.join(QuotaKind.values)}"]},
        )
    if limit is not None and not 0 <= limit <= LIMIT_MAX:
        raise InvalidInput(
            f"A limit lies between 0 and {LIMIT_MAX}.", fields={"limit": ["is out of bounds"]}
        )
    if (department is None) is (api_key is None):
        raise InvalidInput(
            "A limit is on a department or on one of its keys; name exactly one.",
            fields={"department": ["name a department or a key"]},
        )
    if api_key is not None and api_key.department is None:
        raise InvalidInput(
            f"{api_key.name} is a person's access token; limits are on departments' keys.",
            fields={"key": ["is an access token"]},
        )
