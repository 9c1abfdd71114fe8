"""Input about policies."""

from __future__ import annotations

from governance.policy.models import PolicyState
from governance.schemas import Filter


class PolicyQuery(Filter):
    """Filters of the list."""

    state: PolicyState | None = None
