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

# Upper bound on the lifetime of a department's key; the policy may set a lower one.
MAX_LIFETIME = timedelta(days=3653)
TOKEN_MAX_LIFETIME = timedelta(days=366)
MAX_OVERLAP = timedelta(days=30)
NETWORKS_MAX = 32
DEPLOYMENTS_MAX = 100
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,78}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeyProperties:
    """Requested properties of a credential. `tidy` strips texts, and sorts lists and removes
    duplicates.
    """

    name: str
    scopes: Sequence[str]
    expires_at: datetime
    purpose: str = ""
    allowed_deployments: Sequence[str] = ()
    networks: Sequence[str] = ()

    def tidy(self) -> KeyProperties:
        return KeyProperties(
            name=self.name.strip(),
            scopes=sorted(set(self.scopes)),
            expires_at=self.expires_at,
            purpose=self.purpose.strip(),
            allowed_deployments=sorted(set(self.allowed_deployments)),
            networks=sorted({network.strip() for network in self.networks}),
        )


def lifetime_days(expires_at: datetime) -> int:
    """Return the days from now until `expires_at`, rounded up, as in the policy's rules."""
    if timezone.is_naive(expires_at):
        return 0  # `check` rejects it.
    left = expires_at - timezone.now()
    return max(0, math.ceil(left / timedelta(days=1)))


def check(
    properties: KeyProperties,
    *,
    longest: timedelta = MAX_LIFETIME,
    refused: str = "The key was not made",
) -> None:
    """Raise InvalidInput, with a sentence for each invalid field."""
    fields: dict[str, list[str]] = {}
    if not properties.name or len(properties.name) > TITLE_MAX or not properties.name.isprintable():
        fields["name"] = [f"A name has 1 to {TITLE_MAX} printable characters."]
    if len(properties.purpose) > PURPOSE_MAX or not properties.purpose.isprintable():
        fields["purpose"] = [f"A purpose has at most {PURPOSE_MAX} printable characters."]
    actions = {action.value for action in Action}
    if unknown := sorted({str(scope)[:60] for scope in properties.scopes} - actions):
        fields["scopes"] = [f"No such action: {', '.join(unknown)}."]
    if faults := _deployment_faults(properties.allowed_deployments):
        fields["allowed_deployments"] = faults
    if faults := _network_faults(properties.networks):
        fields["networks"] = faults
    if fault := _expiry_fault(properties.expires_at, longest):
        fields["expires_at"] = [fault]
    if fields:
        raise InvalidInput(f"{refused}: the request is not valid.", fields=fields)


def _deployment_faults(names: Sequence[str]) -> list[str]:
    if len(names) > DEPLOYMENTS_MAX:
        return [f"A key names {DEPLOYMENTS_MAX} deployments at most; leave it empty for all."]
    wrong = [name for name in names if _DEPLOYMENT.fullmatch(name) is None]
    return [f"{name[:60]!r} is not the name of a deployment." for name in wrong[:3]]


def _network_faults(networks: Sequence[str]) -> list[str]:
    if len(networks) > NETWORKS_MAX:
        return [f"A key names {NETWORKS_MAX} networks at most."]
    return [fault for fault in map(network_fault, networks) if fault][:3]


def _expiry_fault(expires_at: datetime, longest: timedelta) -> str:
    now = timezone.now()
    if timezone.is_naive(expires_at):
        return "The time needs a time zone, such as 2027-01-31T00:00:00Z."
    if expires_at <= now:
        return "The time lies in the past."
    # A minute's grace: "in 366 days" was computed a moment ago.
    if expires_at > now + longest + timedelta(minutes=1):
        return f"The maximum lifetime is {longest.days} days."
    return ""
