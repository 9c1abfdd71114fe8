"""Change the retention of a table."""

from __future__ import annotations

from django.db import transaction

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize_binding
from governance.principals import Principal
from governance.retention.models import LEAST_MONTHS, MOST_MONTHS, Growing, RetentionRule
from governance.retention.selectors import kept_months

_ACTIONS = {Growing.USAGE: Action.USAGE_RETAIN, Growing.JOB_EVENTS: Action.JOB_RETAIN}


@transaction.atomic
def table_retention_set(*, actor: Principal, name: Growing, months: int | None) -> RetentionRule:
    """Keep a table for this number of whole months; None keeps it forever.

    Older months are exported and dropped within an hour. A longer retention does not bring dropped
    months back.

    Raises:
        InvalidInput: `months` is not between 4 and 120.
        NotPermitted, ProofRequired: the policy denies it, or requires a fresh second factor.
    """
    action = _ACTIONS[name]
    decision = authorize_binding(
        actor=actor,
        action=action,
        resource=Resource(action.value.partition(":")[0]),
        doing=f"setting how long {name.label} are kept",
    )
    if months is not None and not LEAST_MONTHS <= months <= MOST_MONTHS:
        raise InvalidInput(
            f"A table is kept for {LEAST_MONTHS} to {MOST_MONTHS} months, or forever.",
            fields={"months": [f"From {LEAST_MONTHS} to {MOST_MONTHS}."]},
        )
    before = kept_months(name)
    rule, _ = RetentionRule.objects.update_or_create(name=name, defaults={"months": months})
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("retention", name.value, name.label),
        data={"months": months, "before": before},
        decision=decision,
    )
    return rule
