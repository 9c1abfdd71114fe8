"""Collector of usage: from the gateway's stream into the ledger and audit log, exactly once.

The stream delivers at least once. `BilledRequest.request_id` and `AuditEvent.delivery` are unique,
both are written in one transaction, and an entry leaves the stream only after the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.errors import DomainError, WrongState
from governance.keys.models import ApiKey
from governance.keys.selectors import keys_used
from governance.people.models import Person
from governance.principals import ANONYMOUS, Principal, PrincipalKind, RequestContext, serving
from governance.quotas.models import BudgetHold, HoldState
from governance.retention.models import Growing
from governance.retention.months import month_of
from governance.retention.selectors import dropped_months
from governance.usage.forgeries import forgeries_record
from governance.usage.ledger import ledger_lock
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_GROUP, USAGE_STREAM, UsageEntry
from governance.usage.sealing import ForgedEntry, unseal
from governance.usage.shadows import shadow_totals_add
from governance.usage.units import Unit

logger = logging.getLogger(__name__)

DEAD_STREAM = "assay:usage:dead"
DEAD_MAXLEN = 10_000
# Maximum number of entries in one transaction.
BATCH = 500
# Younger months are never dropped.
_RECENT_DAYS = 31
# A consumer with an entry pending for this long is assumed dead.
CLAIM_IDLE_MS = 30_000
_SETTLE_MAX_MS = 86_400_000
# The deployment does not exist, or the key may not see it. The event has no department in both
# cases, so that a lead who reads the department's part of the log learns no more than the key did.
HIDDEN = "model_not_found"
# Errors that one bad entry can cause; others, such as an unavailable database, are not its fault.
POISON = (DataError, IntegrityError, DomainError, TypeError, ValueError, OverflowError, OSError)


@dataclass(frozen=True, slots=True)
class _Delivered:
    """An undecoded entry from the stream."""

    id: bytes
    body: bytes


def collect_once(
    client: redis.Redis,
    *,
    consumer: str,
    batch: int = BATCH,
    block_ms: int = 500,
    claim_idle_ms: int = CLAIM_IDLE_MS,
) -> int:
    """Process up to `batch` entries of the stream; return their number.

    Entries that a dead consumer left pending come first; otherwise it waits `block_ms` for new
    ones. Invalid entries go to `DEAD_STREAM` with the reason and do not block others. So do forged
    ones, which are also recorded as an audit event, which raises an alarm.

    Raises:
        redis.RedisError, django.db.Error: a store is unavailable; nothing is lost, try again.
    """
    try:
        delivered = _read(client, consumer, batch, block_ms, claim_idle_ms)
    except redis.ResponseError as error:
        if "NOGROUP" not in str(error):
            raise
        _create_group(client)
        delivered = _read(client, consumer, batch, block_ms, claim_idle_ms)
    if not delivered:
        return 0
    sealed, forged = _checked(delivered)
    if forged:
        forgeries_record(len(forged))
    dead = [(entry, "ForgedEntry") for entry in forged] + _store(sealed)
    with client.pipeline(transaction=True) as pipeline:
        for entry, reason in dead:
            fields: dict[Any, Any] = {"entry": entry.body, "id": entry.id, "error": reason}
            pipeline.xadd(DEAD_STREAM, fields, maxlen=DEAD_MAXLEN, approximate=True)
        ids = [entry.id for entry in delivered]
        pipeline.xack(USAGE_STREAM, USAGE_GROUP, *ids)
        pipeline.xdel(USAGE_STREAM, *ids)
        pipeline.execute()
    return len(delivered)


def _create_group(client: redis.Redis) -> None:
    try:
        client.xgroup_create(USAGE_STREAM, USAGE_GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _read(
    client: redis.Redis, consumer: str, batch: int, block_ms: int, claim_idle_ms: int
) -> list[_Delivered]:
    claimed: Any = client.xautoclaim(
        USAGE_STREAM, USAGE_GROUP, consumer, min_idle_time=claim_idle_ms, count=batch
    )
    if claimed[1]:
        return _delivered(claimed[1])
    answer: Any = client.xreadgroup(
        USAGE_GROUP, consumer, {USAGE_STREAM: ">"}, count=batch, block=block_ms
    )
    if not answer:
        return []
    # One stream was requested: RESP2 answers [[name, entries]], RESP3 {name: [entries]}.
    pages = [answer[0][1]] if isinstance(answer, list) else next(iter(answer.values()))
    return _delivered([pair for page in pages for pair in page])


def _delivered(pairs: Sequence[Any]) -> list[_Delivered]:
    entries = []
    for entry_id, fields in pairs:
        values = {_bytes(name): _bytes(value) for name, value in (fields or {}).items()}
        entries.append(_Delivered(_bytes(entry_id), values.get(b"entry", b"")))
    return entries


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _checked(delivered: Sequence[_Delivered]) -> tuple[list[_Delivered], list[_Delivered]]:
    """Return the entries with a valid MAC, and the forged ones."""
    sealed: list[_Delivered] = []
    forged: list[_Delivered] = []
    for entry in delivered:
        try:
            unseal(entry.body)
        except ForgedEntry:
            forged.append(entry)
        else:
            sealed.append(entry)
    return sealed, forged


def _store(delivered: Sequence[_Delivered]) -> list[tuple[_Delivered, str]]:
    """Write a batch, or its entries one by one if it fails; return invalid entries with reasons."""
    try:
        entries = [UsageEntry.decode(entry.body) for entry in delivered]
        _write(entries, [_settle_ms(*pair) for pair in zip(entries, delivered, strict=True)])
    except POISON as error:
        if len(delivered) > 1:
            return [dead for entry in delivered for dead in _store([entry])]
        reason = f"{type(error).__name__}: {error}"[:1000]
        logger.error(
            "Usage entry %s is invalid and was moved to %s: %s",
            delivered[0].id.decode(),
            DEAD_STREAM,
            reason,
        )
        return [(delivered[0], reason)]
    return []


def _settle_ms(entry: UsageEntry, delivered: _Delivered) -> int | None:
    """Return the time between the end of the answer and its settlement, which the entry's ID on the
    stream states, by the same clock as `began_ms`. None if it is unknown."""
    if not entry.began_ms:
        return None
    settled = int(delivered.id.partition(b"-")[0])
    return min(max(0, settled - entry.began_ms - entry.total_ms), _SETTLE_MAX_MS)


def _write(entries: Sequence[UsageEntry], settle_ms: Sequence[int | None]) -> None:
    _check_months(entries)
    actors = _actors(entries)
    records = [
        _record(entry, settle)
        for entry, settle in zip(entries, settle_ms, strict=True)
        if entry.ran
    ]
    with transaction.atomic():
        ledger_lock(shared=True)
        shadow_totals_add(entries)
        UsageRecord.objects.bulk_create(records, ignore_conflicts=True)
        if jobs := [entry.request_id for entry in entries if entry.is_job]:
            BudgetHold.objects.filter(reference__in=jobs).update(state=HoldState.SETTLED)
        audit_record_many(
            _audit_entry(entry, actors[entry.request_id]) for entry in entries if not entry.is_job
        )
        keys_used(_last_uses(entries))
    if logger.isEnabledFor(logging.DEBUG):
        for entry in entries:
            with serving(entry.request_id):
                logger.debug("Usage was recorded: %s", entry.outcome)


def _check_months(entries: Sequence[UsageEntry]) -> None:
    """Raise WrongState if an entry belongs to a month that was dropped: whether its request was
    billed is not known any more."""
    recent = timezone.now() - timedelta(days=_RECENT_DAYS)
    late = {month_of(_time(entry)) for entry in entries if entry.ran and _time(entry) < recent}
    if late and (gone := dropped_months(Growing.USAGE, late)):
        raise WrongState(
            f"The ledger of {min(gone):%Y-%m} was exported and dropped; nothing can be added to it."
        )


def _last_uses(entries: Sequence[UsageEntry]) -> dict[str, datetime]:
    """Return the time of each key's last use, by public ID; refused requests do not count."""
    latest: dict[str, datetime] = {}
    for entry in entries:
        if entry.ran and entry.key_public_id:
            moment = _time(entry)
            latest[entry.key_public_id] = max(moment, latest.get(entry.key_public_id, moment))
    return latest


def _actors(entries: Sequence[UsageEntry]) -> dict[str, Principal]:
    """Return the callers by request ID: the person in the playground, the person of an access
    token, or the key; an unknown key has only its public ID."""
    public_ids = {entry.key_public_id for entry in entries if entry.key_public_id}
    keys = {
        key.public_id: key
        for key in ApiKey.objects.filter(public_id__in=public_ids).select_related("person")
    }
    people = Person.objects.in_bulk({e.person for e in entries if e.person is not None})
    return {entry.request_id: _actor(entry, keys, people) for entry in entries}


def _actor(
    entry: UsageEntry, keys: Mapping[str, ApiKey], people: Mapping[int, Person]
) -> Principal:
    if entry.person is not None:
        return _person(entry.person, people.get(entry.person))
    if not entry.key_public_id:
        return ANONYMOUS
    key = keys.get(entry.key_public_id)
    if key is None:
        return Principal(kind=PrincipalKind.KEY, id=entry.key_public_id, name=entry.key_name)
    if key.person is not None:
        return replace(_person(key.person.pk, key.person), key_id=key.pk)
    return Principal(kind=PrincipalKind.KEY, id=str(key.pk), name=key.name, key_id=key.pk)


def _person(person_id: int, person: Person | None) -> Principal:
    name = "" if person is None else person.name
    return Principal(kind=PrincipalKind.PERSON, id=str(person_id), name=name)


def _record(entry: UsageEntry, settle_ms: int | None) -> UsageRecord:
    return UsageRecord(
        request_id=entry.request_id,
        occurred_at=_time(entry),
        department=entry.department,
        key_public_id=entry.key_public_id,
        deployment=entry.deployment,
        release=entry.release,
        version_digest=entry.version_digest,
        endpoint=entry.endpoint,
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        load_ms=entry.load_ms,
        queue_ms=entry.queue_ms,
        first_token_ms=entry.first_token_ms,
        admit_ms=entry.admit_ms,
        retry_ms=entry.retry_ms,
        connect_ms=entry.connect_ms,
        settle_ms=settle_ms,
        total_ms=entry.total_ms,
        device_ms=entry.device_ms,
        cost_micro=entry.cost_micro,
        unit=entry.unit,
        metered=0 if entry.unit == Unit.TOKENS else entry.units,
        outcome=entry.outcome,
        streamed=entry.streamed,
        policy_version=entry.policy_version,
        rules=entry.rules,
        sources=entry.sources,
    )


def _audit_entry(entry: UsageEntry, actor: Principal) -> AuditEntry:
    return AuditEntry(
        actor=actor,
        action=entry.action,
        subject=_subject(entry),
        outcome="allowed" if entry.ran or entry.outcome == "ok" else "denied",
        reason=entry.reason,
        department="" if entry.outcome == HIDDEN else entry.department,
        data={
            "outcome": entry.outcome,
            "endpoint": entry.endpoint,
            "key": entry.key_public_id,
            **({"token": entry.token} if entry.token else {}),
            "release": entry.release,
            "version_digest": entry.version_digest,
            "prompt_tokens": entry.prompt_tokens,
            "completion_tokens": entry.completion_tokens,
            "unit": entry.unit,
            "units": entry.units,
            "total_ms": entry.total_ms,
            "device_ms": entry.device_ms,
            "cost_micro": entry.cost_micro,
            **({"part_of": entry.part_of} if entry.part_of else {}),
            **({"route": entry.route} if entry.route else {}),
            **(
                {"knowledge_base": entry.knowledge_base, "documents": entry.sources}
                if entry.knowledge_base
                else {}
            ),
            **({"limit": entry.limit} if entry.limit else {}),
            **({"shadowed": entry.shadowed} if entry.shadowed else {}),
            "rules": entry.rules,
            **({"decision": entry.decision} if entry.decision else {}),
        },
        policy_version=entry.policy_version,
        occurred_at=_time(entry),
        context=RequestContext(entry.request_id, entry.client_address),
        delivery=entry.request_id,
    )


def _subject(entry: UsageEntry) -> Subject:
    """Return the requested knowledge base or deployment; if neither is known, the endpoint."""
    if entry.action.startswith("knowledge:") and entry.knowledge_base:
        return Subject("knowledge", entry.knowledge_base, entry.knowledge_base)
    if entry.deployment:
        return Subject("deployment", entry.deployment, entry.deployment)
    return Subject("endpoint", entry.endpoint, entry.endpoint)


def _time(entry: UsageEntry) -> datetime:
    return datetime.fromtimestamp(entry.occurred_at, tz=UTC)
