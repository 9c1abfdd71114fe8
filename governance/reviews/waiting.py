"""The time that a new or newly empowered account waits before it votes, as its policy states.

An attacker who makes a reviewer, or takes one's account over, cannot vote before others have had
time to notice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from governance.people.models import Role, RoleAssignment
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.policies.document import document_parsed


def votes_from(actor: Principal, review: Review, speciality: str = "") -> datetime | None:
    """When the actor's waiting time in this review ends; None when it is over, or there is none.

    With `speciality`, of a vote for it: a deputy, who does not hold it, votes by the reviewer role
    that they have held longest.
    """
    policy = review.review_policy
    hours = document_parsed(policy.text).vote_after_hours if policy is not None else 0
    if not hours or actor.person_id is None:
        return None
    held = RoleAssignment.objects.filter(person_id=actor.person_id, role=Role.REVIEWER)
    rows = list(
        held.values_list("speciality", "created_at", "person__created_at", "person__empowered_at")
    )
    named = [row for row in rows if row[0] == speciality] or rows
    if not named:
        return None
    _, granted, created, empowered = min(named, key=lambda row: row[1])
    since = max(granted, created, empowered or created)
    ends = since + timedelta(hours=hours)
    return ends if ends > timezone.now() else None
