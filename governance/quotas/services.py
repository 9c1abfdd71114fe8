"""Setting limits and prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction

from governance.audit.services import Subject, audit_record
from governance.bounds import NAME_MAX
from governance.errors import InvalidInput
from governance.keys.models import ApiKey
from governance.notify import notify
from governance.people.models import Department
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize, authorize_binding
from governance.principals import Principal
from governance.quotas.kinds import KINDS, limit_words
from governance.quotas.models import Price, QuotaLimit
from governance.quotas.prices import Tariff
from governance.quotas.reconcile import Outcome, quotas_reconcile
from governance.rowsecurity import lifted
from governance.usage.units import PRICED_BY_UNIT

# The counters' script computes with doubles, which represent integers up to 2**53 exactly.
LIMIT_MAX = 10**15
GPU_SECONDS_MAX = 10**12
PRICE_MAX = 10**12


@dataclass(frozen=True, slots=True)
class _Subject:
    """Subject of a limit; exactly one field is set."""

    department: Department | None
    api_key: ApiKey | None
    deployment: str
    organization: bool

    @property
    def words(self) -> str:
        if self.api_key is not None:
            return self.api_key.name
        return str(self.department or self.deployment or "the organization")

    @property
    def owner(self) -> str | None:
        department = self.api_key.department if self.api_key else self.department
        return department.slug if department else None


def quota_set(
    *,
    actor: Principal,
    kind: str,
    limit: int | None,
    department: Department | None = None,
    api_key: ApiKey | None = None,
    deployment: str = "",
    organization: bool = False,
    shadow: bool = False,
) -> QuotaLimit | None:
    """Set a limit on a department, a key, a deployment or the organization; None removes it.

    0 allows nothing. A shadow limit counts and reports, but does not stop requests.

    Raises:
        InvalidInput: an unknown kind, a limit out of bounds, or not exactly one subject.
        NotFound, NotPermitted: the policy denies it, or the actor has no fresh second factor.
    """
    if api_key is not None and api_key.root is not None:
        # A rotated key and its successors share the limits of the first one.
        api_key = api_key.root
    subject = _Subject(department, api_key, deployment, organization)
    _check(kind, limit, subject)
    columns: dict[str, Any] = {
        "department": department,
        "api_key": api_key,
        "deployment": deployment,
    }
    name = f"{kind} of {subject.words}"
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.QUOTA_SET,
            resource=Resource("quota", name=name, department=subject.owner),
            doing=f"setting the quota {name}",
        )
        rows = QuotaLimit.objects.select_for_update().filter(kind=kind, **columns)
        before = rows.values("limit", "shadow").first()
        row: QuotaLimit | None = None
        if limit is None:
            rows.delete()
        else:
            row, _ = QuotaLimit.objects.update_or_create(
                kind=kind, **columns, defaults={"limit": limit, "shadow": shadow}
            )
        audit_record(
            actor=actor,
            action=Action.QUOTA_SET,
            subject=Subject("quota", str(row.pk) if row else "", name),
            department=subject.owner or "",
            data={
                "kind": kind,
                "before": before and before["limit"],
                "after": limit,
                "shadow": shadow,
                "shadow_before": bool(before and before["shadow"]),
                **proof_facts(actor.proof),
            },
            reason="" if limit is None else limit_words(kind, limit, settings.CURRENCY),
            decision=decision,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return row


def price_set(*, actor: Principal, deployment: str, tariff: Tariff | None) -> Price | None:
    """Set a deployment's price; "" is for all other deployments and for jobs. None removes it.

    Running requests and jobs keep the price at their start.

    Raises:
        InvalidInput: a price out of bounds, or of an unknown unit.
        NotPermitted: the policy denies it, or the actor has no fresh second factor.
    """
    parts = {} if tariff is None else _price_parts(tariff)
    _check_name(deployment)
    name = f"price of {deployment or 'everything else'}"
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.QUOTA_SET,
            resource=Resource("quota", name=name),
            doing=f"setting the {name}",
        )
        rows = Price.objects.select_for_update().filter(deployment=deployment)
        before = rows.values(*Tariff.__slots__).first()
        row: Price | None = None
        if tariff is None:
            rows.delete()
        else:
            row, _ = Price.objects.update_or_create(deployment=deployment, defaults=parts)
        audit_record(
            actor=actor,
            action="quota:price",
            subject=Subject("quota", str(row.pk) if row else "", name),
            data={
                "deployment": deployment,
                "before": before,
                "after": parts or None,
                **proof_facts(actor.proof),
            },
            decision=decision,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return row


def _price_parts(tariff: Tariff) -> dict[str, Any]:
    """Return the columns of a price, without units that cost nothing.

    Raises:
        InvalidInput: a price out of bounds, or of an unknown unit.
    """
    units = [unit.value for unit in PRICED_BY_UNIT]
    if unknown := [name for name in tariff.units if name not in units]:
        raise InvalidInput(
            f"Only {', '.join(units)} have a price per unit.",
            fields={f"units.{name[:40]}": ["is an unknown unit"] for name in unknown[:20]},
        )
    flat = {
        "prompt": tariff.prompt,
        "completion": tariff.completion,
        "device_second": tariff.device_second,
    }
    prices = flat | {f"units.{name}": price for name, price in tariff.units.items()}
    if wrong := [name for name, price in prices.items() if not 0 <= price <= PRICE_MAX]:
        raise InvalidInput(
            f"A price lies between 0 and {PRICE_MAX}.",
            fields={name: ["is out of bounds"] for name in wrong},
        )
    return {**flat, "units": {name: price for name, price in tariff.units.items() if price}}


def quota_reconcile(*, actor: Principal, repair: bool) -> Outcome:
    """Compare the counters with the ledger; with `repair`, correct those that differ.

    Raises:
        NotFound, NotPermitted: the actor may not see the organization's limits, or, to repair, may
            not set them.
        Unavailable: the store does not answer, or too many entries wait for the ledger.
    """
    action = Action.QUOTA_SET if repair else Action.QUOTA_VIEW
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=action, resource=Resource("quota", name="all counters")
        )
        # The organization's counters are sums over all departments, regardless of the actor.
        with lifted():
            outcome = quotas_reconcile(repair=repair)
        audit_record(
            actor=actor,
            action="quota:reconcile",
            subject=Subject("quota", "", "all counters"),
            data={
                "checked": outcome.checked,
                "differences": len(outcome.drifts),
                "repaired": repair,
                "was_ready": outcome.was_ready,
            },
            decision=decision,
        )
    return outcome


def _check(kind: str, limit: int | None, subject: _Subject) -> None:
    if kind not in KINDS:
        raise InvalidInput(
            f"There is no quota {kind[:40]}.",
            fields={"kind": [f"is one of {', '.join(KINDS)}"]},
        )
    most = GPU_SECONDS_MAX if KINDS[kind].unit == "device" else LIMIT_MAX
    if limit is not None and not 0 <= limit <= most:
        raise InvalidInput(
            f"A quota is 0 to {most:,}.", fields={"limit": [f"Must be 0 to {most:,}."]}
        )
    subjects = (subject.department, subject.api_key, subject.deployment, subject.organization)
    if sum(bool(one) for one in subjects) != 1:
        raise InvalidInput(
            "A quota is on a department, a key, a deployment or the organization; name "
            "exactly one.",
            fields={"department": ["name one subject"]},
        )
    _check_name(subject.deployment)
    if subject.api_key is not None and subject.api_key.department is None:
        raise InvalidInput(
            f"{subject.api_key.name} is a person's access token; quotas are on departments' keys.",
            fields={"key": ["is an access token"]},
        )


def _check_name(deployment: str) -> None:
    if len(deployment) > NAME_MAX or "|" in deployment or not deployment.isprintable():
        raise InvalidInput(
            f"A deployment's name has at most {NAME_MAX} printable characters.",
            fields={"deployment": ["is not a valid name"]},
        )
