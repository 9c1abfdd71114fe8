"""Bounds and formats of a key's fields, in addition to the policy's decision."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from governance.bounds import TITLE_MAX
from governance.errors import InvalidInput
from governance.keys.models import PURPOSE_MAX
from governance.keys.networks import network_fault
from governance.permissions import Action

# How long a department's key may live, the policy says; beyond this no policy is asked.
MAX_LIFETIME = timedelta(days=3653)
TOKEN_MAX_LIFETIME = timedelta(days=366)
MAX_OVERLAP = timedelta(days=30)
NETWORKS_MAX = 32
DEPLOYMENTS_MAX = 100
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,78}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """The requested properties of a credential. Texts are stripped, lists sorted and without
    duplicates.
    """

    name: str
    scopes: Sequence[str]
    expires_at: datetime
    purpose: str = ""
    allowed_deployments: Sequence[str] = ()
    networks: Sequence[str] = ()

    def tidy(self) -> Asked:
        return Asked(
            name=self.name.strip(),
            scopes=sorted(set(self.scopes)),
            expires_at=self.expires_at,
            purpose=self.purpose.strip(),
            allowed_deployments=sorted(set(self.allowed_deployments)),
            networks=sorted({network.strip() for network in self.networks}),
        )


def lifetime_days(expires_at: datetime) -> int:
    """Whole days from now until `expires_at`, rounded up, as the policy's rules count them."""
    if timezone.is_naive(expires_at):
        return 0  # Refused by its form.
    left = expires_at - timezone.now()
    return max(0, math.ceil(left / timedelta(days=1)))


def check(
    asked: Asked, *, longest: timedelta = MAX_LIFETIME, refused: str = "The key was not made"
) -> None:
    """Raises InvalidInput, with a sentence for each field that is wrong."""
    fields: dict[str, list[str]] = {}
    if not asked.name or len(asked.name) > TITLE_MAX or not asked.name.isprintable():
        fields["name"] = [f"A name has 1 to {TITLE_MAX} printable characters."]
    if len(asked.purpose) > PURPOSE_MAX or not asked.purpose.isprintable():
        fields["purpose"] = [f"A purpose has at most {PURPOSE_MAX} printable characters."]
    known = {action.value for action in Action}
    if unknown := sorted({str(scope)[:60] for scope in asked.scopes} - known):
        fields["scopes"] = [f"No such action: {', '.join(unknown)}."]
    if faults := _deployment_faults(asked.allowed_deployments):
        fields["allowed_deployments"] = faults
    if faults := _network_faults(asked.networks):
        fields["networks"] = faults
    if fault := _expiry_fault(asked.expires_at, longest):
        fields["expires_at"] = [fault]
    if fields:
        raise InvalidInput(f"{refused}: the request is not valid.", fields=fields)


def _deployment_faults(names: Sequence[str]) -> list[str]:
    if len(names) > DEPLOYMENTS_MAX:
        return [f"A key names {DEPLOYMENTS_MAX} deployments at most; leave it empty for all."]
    wrong = [name for name in names if _DEPLOYMENT.fullmatch(name) is None]
    return [f"{name[:60]!r} is no deployment's name." for name in wrong[:3]]


def _network_faults(networks: Sequence[str]) -> list[str]:
    if len(networks) > NETWORKS_MAX:
        return [f"A key names {NETWORKS_MAX} networks at most."]
    return [fault for fault in map(network_fault, networks) if fault][:3]


def _expiry_fault(expires_at: datetime, longest: timedelta) -> str:
    now = timezone.now()
    if timezone.is_naive(expires_at):
        return "The time needs its zone, such as 2027-01-31T00:00:00Z."
    if expires_at <= now:
        return "The time lies in the past."
    # A minute's grace: "in 366 days" was said a moment ago.
    if expires_at > now + longest + timedelta(minutes=1):
        return f"It lives {longest.days} days at most."
    return ""
