"""Other rules in force than the default policy's, for tests."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.people.models import Person
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.services import policy_digest


def install_rules(rules: list[dict[str, Any]]) -> PolicyVersion:
    """Make `rules` the policy in force, as if one person had written them and another approved."""
    author, approver = (
        Person.objects.get_or_create(email=f"{name}@policy.example.org", defaults={"name": name})[0]
        for name in ("author", "approver")
    )
    PolicyVersion.objects.filter(state=PolicyState.ACTIVE).update(state=PolicyState.SUPERSEDED)
    newest = PolicyVersion.objects.first()
    now = timezone.now()
    return PolicyVersion.objects.create(
        number=newest.number + 1 if newest else 2,
        state=PolicyState.ACTIVE,
        rules=rules,
        digest=policy_digest(rules),
        authors=[author.pk],
        proposed_by=author,
        proposed_at=now,
        decided_by=approver,
        decided_at=now,
    )
