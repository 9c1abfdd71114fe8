"""Change what departments log, rotate and erase keys, delete content, and read it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, NotFound
from governance.people.models import Department, Person
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.request_log.content import unpacked
from governance.request_log.keys import (
    key_add,
    key_of,
    keys_of,
    keys_rewrap,
    require_wrapping_key,
)
from governance.request_log.models import (
    DAYS_MAX,
    LOG_TABLE,
    ForgottenUser,
    LoggedRequest,
    LogMode,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.request_log.schemas import EndUser, RequestLogSettings
from governance.request_log.selectors import (
    log_resource,
    logged_of,
    policy_of,
    request_get,
    request_resource,
)
from governance.request_log.writing import UNWRITTEN_FOR, log_name
from governance.usage.models import UsageRecord

# Rows that are deleted in one transaction, and transactions of one round for each department.
_EXPIRED_AT_ONCE, _ROUNDS = 2_000, 50
_EMPTY_MONTHS = """
SELECT to_date(right(c.relname, 6), 'YYYYMM')
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = %s::regclass AND c.relname ~ '_[0-9]{6}$'
   AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' < now() - interval '1 day'
"""


@transaction.atomic
def request_log_set(
    *, actor: Principal, department: Department, log: RequestLogSettings
) -> RequestLogPolicy:
    """Set what a department logs. `days` also applies to content that is already logged.

    Raises:
        NotPermitted, ProofRequired: the policy denies it, or requires a fresh second factor.
        WrongState: content cannot be encrypted, because `ASSAY_REQUEST_LOG_KEY` is not set.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.REQUEST_LOG_CHANGE,
        resource=log_resource(department),
        doing=f"changing what {department.slug} logs of its requests",
    )
    lock(log_name(department.pk))
    values = log.model_dump(mode="json")
    before = {name: getattr(policy_of(department), name) for name in values}
    if log.mode is LogMode.FULL:
        require_wrapping_key()
        _require_key(department)
    row, _ = RequestLogPolicy.objects.update_or_create(department=department, defaults=values)
    _record(actor, Action.REQUEST_LOG_CHANGE, department, {**values, "before": before}, decision)
    return row


def _require_key(department: Department) -> None:
    """Create a key unless the department has one."""
    if not RequestLogKey.objects.filter(department=department, erased_at__isnull=True).exists():
        key_add(department)


def _record(
    actor: Principal,
    action: Action,
    department: Department,
    data: dict[str, Any],
    decision: Authorization,
    reason: str = "",
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("department", department.slug, department.name),
        department=department.slug,
        reason=reason,
        data=data,
        decision=decision,
    )


@transaction.atomic
def request_log_key_rotate(*, actor: Principal, department: Department) -> RequestLogKey:
    """Encrypt new content under a new key, and all keys of the department under the newest
    `ASSAY_REQUEST_LOG_KEY`. Earlier content stays readable until it expires.

    Raises:
        NotPermitted, ProofRequired: the policy denies it, or requires a fresh second factor.
        WrongState: `ASSAY_REQUEST_LOG_KEY` is not set, or lacks a version that is in use.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.REQUEST_LOG_CHANGE,
        resource=log_resource(department),
        doing=f"rotating the request log's key of {department.slug}",
    )
    lock(log_name(department.pk))
    require_wrapping_key()
    rewrapped = keys_rewrap(department)
    key = key_add(department)
    data = {"key": key.number, "rewrapped": rewrapped}
    _record(actor, Action.REQUEST_LOG_CHANGE, department, data, decision)
    return key


@transaction.atomic
def request_log_erase(*, actor: Principal, department: Department, reason: str) -> int:
    """Erase the department's keys, so that nothing can read the content logged until now; return
    the number of erased keys. It cannot be undone.

    Raises:
        NotPermitted, ProofRequired: the policy denies it, or requires a fresh second factor.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.REQUEST_LOG_ERASE,
        resource=log_resource(department),
        doing=f"erasing the logged content of {department.slug}",
    )
    lock(log_name(department.pk))
    keys = RequestLogKey.objects.filter(department=department, erased_at__isnull=True)
    erased = keys.update(wrapped=None, erased_at=timezone.now())
    ForgottenUser.objects.filter(department=department).delete()
    if settings.REQUEST_LOG_KEYS and policy_of(department).mode == LogMode.FULL:
        key_add(department)
    _record(actor, Action.REQUEST_LOG_ERASE, department, {"keys": erased}, decision, reason)
    return erased


@transaction.atomic
def request_log_forget_user(*, actor: Principal, department: Department, forget: EndUser) -> int:
    """Delete the logged content of an end user's requests; return their number.

    Web processes do not write content of earlier requests of this user that they still hold.

    Raises:
        InvalidInput: the reason, which stays in the audit log, contains the ID.
        NotPermitted, ProofRequired: the policy denies it, or requires a fresh second factor.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.REQUEST_LOG_ERASE,
        resource=log_resource(department),
        doing=f"erasing an end user's requests in {department.slug}",
    )
    if forget.user.casefold() in forget.reason.casefold():
        raise InvalidInput(
            "The reason contains the user's ID, which the audit log would keep.",
            hint="Enter a reason without the ID, such as “Requested on 3 May.”",
            fields={"reason": ["must not contain the ID"]},
        )
    lock(log_name(department.pk))
    tags = [key.tag(forget.user) for key in keys_of([department.pk])]
    rows = LoggedRequest.objects.filter(department=department, user_tag__in=tags)
    deleted, _ = rows.delete()
    for tag in tags:
        ForgottenUser.objects.update_or_create(department=department, user_tag=tag)
    _record(
        actor, Action.REQUEST_LOG_ERASE, department, {"requests": deleted}, decision, forget.reason
    )
    return deleted


def request_logs_forget_person(person: Person) -> dict[str, int]:
    """Delete the logged content of a person's requests in the playground; return the count."""
    deleted, _ = LoggedRequest.objects.filter(person=person).delete()
    return {"logged_requests": deleted}


@transaction.atomic
def request_content_read(
    *, actor: Principal, request_id: str, reason: str
) -> tuple[UsageRecord, dict[str, Any]]:
    """Return a request with its content. The reading is an audit event of the same transaction.

    Raises:
        NotFound: the request does not exist, `actor` may not see it, or it has no logged content.
        NotPermitted, ProofRequired: the policy denies it, or the department requires a fresh second
            factor.
        ContentUnreadable: its key was erased, or it cannot be decrypted.
    """
    record = request_get(actor=actor, request_id=request_id)
    department = Department.objects.get(slug=record.department)
    decision = content_authorize(actor, request_resource(record), department)
    return record, content_reveal(actor, record, reason, decision)


def content_reveal(
    actor: Principal, record: UsageRecord, reason: str, decision: Authorization, **facts: Any
) -> dict[str, Any]:
    """Return the content of a request that `decision` permits to read. The reading is an audit
    event with these `facts`, in the caller's transaction.

    Raises:
        NotFound: it has no logged content.
        ContentUnreadable: its key was erased, or it cannot be decrypted.
    """
    logged = logged_of(record)
    if logged is None:
        raise NotFound(
            f"No content of request {record.request_id} is logged.",
            code="content_not_logged",
            hint="Its department did not log content then, or the content has expired or was "
            "erased.",
        )
    content = unpacked(key_of(logged.key).opened(logged.request_id, bytes(logged.content)))
    audit_record(
        actor=actor,
        action=Action.REQUEST_LOG_READ_CONTENT,
        subject=Subject("request", record.request_id, f"request {record.request_id}"),
        department=record.department,
        reason=reason,
        data={
            "deployment": record.deployment,
            "bytes": logged.size,
            **facts,
            **proof_facts(actor.proof),
        },
        decision=decision,
    )
    return {**content, "cut": logged.cut}


def content_authorize(
    actor: Principal, resource: Resource, department: Department
) -> Authorization:
    """Return the decision that permits reading content, with a fresh second factor if the
    department requires one. Raises as `authorize_binding`."""
    action = Action.REQUEST_LOG_READ_CONTENT
    if policy_of(department).second_factor:
        return authorize_binding(
            actor=actor, action=action, resource=resource, doing="reading content of requests"
        )
    return authorize(actor=actor, action=action, resource=resource)


def request_logs_expire_due() -> int:
    """Delete expired content and empty months; return the number of deleted rows."""
    now, deleted = timezone.now(), 0
    for policy in RequestLogPolicy.objects.all():
        due = LoggedRequest.objects.filter(
            department=policy.department_id, occurred_at__lt=now - timedelta(days=policy.days)
        )
        for _ in range(_ROUNDS):
            numbers = list(due.order_by().values_list("pk", flat=True)[:_EXPIRED_AT_ONCE])
            count, _ = due.filter(pk__in=numbers).delete() if numbers else (0, {})
            deleted += count
            if len(numbers) < _EXPIRED_AT_ONCE:
                break
    ForgottenUser.objects.filter(at__lt=now - UNWRITTEN_FOR).delete()
    RequestLogDay.objects.filter(day__lt=now.date() - timedelta(days=DAYS_MAX)).delete()
    _drop_empty_months()
    return deleted


def _drop_empty_months() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY_MONTHS, [LOG_TABLE])
        for (month,) in cursor.fetchall():
            try:
                with transaction.atomic():
                    cursor.execute("SELECT assay_log_month_drop(%s)", [month])
            except DatabaseError:
                # The table was in use for 2 s; the next round tries again.
                return
