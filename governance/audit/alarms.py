"""Alarms of the audit log: their checks, and how they are raised and cleared.

An alarm is raised once and cleared once, regardless of restarts, because its row persists. Both are
audit events in the transaction of the row. Other contexts add alarms with `alarms_add`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection, connections, transaction
from django.utils import timezone

from governance.audit.models import AuditAlarm, AuditCheckpoint, AuditKeeper
from governance.audit.outside.bodies import offload_failing
from governance.audit.outside.second_place import second_place
from governance.audit.outside.witnessing import witness_endpoints
from governance.audit.selectors import publish_lag_s, sealing_lag_s
from governance.audit.services import Subject, audit_record
from governance.audit.streaming.selectors import stream_states
from governance.database.locks import try_lock
from governance.database.sessions import blocked_sentence
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from governance.usage.forgeries import usage_forged

logger = logging.getLogger(__name__)

CHECK_S = 10.0
_CONTROLLER = service_principal("controller")
_MESSAGE_CHARACTERS = 1000
_RUNNING = "Is the controller running?"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition to watch. `check` returns a sentence on the fault, or an empty string."""

    name: str
    title: str
    check: Callable[[], str]
    critical: bool = False


def sealing_behind() -> str:
    """Return the fault if events have waited too long for their seal."""
    lag = sealing_lag_s()
    if lag <= settings.AUDIT_SEALING_ALARM_S:
        return ""
    blocked = blocked_sentence()
    return f"An event has waited {lag:.0f} s for its seal. {blocked or _RUNNING}"


def publishing_behind() -> str:
    """Return the fault if checkpoints have waited too long to be published."""
    lag = publish_lag_s()
    if lag <= settings.AUDIT_PUBLISH_ALARM_S:
        return ""
    place = second_place().name
    keeper = AuditKeeper.objects.filter(key=place).first()
    fault = keeper.fault.removeprefix(f"{place}: ") if keeper is not None else ""
    return f"A checkpoint has waited {lag:.0f} s to be published to {place}. {fault}".rstrip()


def publishing_contradicted() -> str:
    """Return the fault if the second place holds a different history."""
    keeper = AuditKeeper.objects.filter(key=second_place().name, contradicts=True).first()
    if keeper is None:
        return ""
    fault = keeper.fault.removeprefix(f"{keeper.key}: ")
    return f"The files at {keeper.key} were not changed: {fault}"


def witness_behind() -> str:
    """Return the fault if a witness has not cosigned for too long."""
    names = [str(endpoint.witness) for endpoint in witness_endpoints()]
    keepers = AuditKeeper.objects.in_bulk(names)
    before = timezone.now() - timedelta(seconds=settings.AUDIT_WITNESS_ALARM_S)
    late = []
    for name in names:
        keeper = keepers.get(name)
        size = 0 if keeper is None else keeper.size
        missed = AuditCheckpoint.objects.filter(tree_size__gt=size).last()
        if missed is not None and missed.created_at < before:
            fault = "not asked yet" if keeper is None else keeper.fault or "it will be asked again"
            late.append(f"{name} ({fault.rstrip('.')})")
    return f"Not cosigned for too long by: {', '.join(late)}." if late else ""


def witness_contradicted() -> str:
    """Return the fault if a witness rejects the history in the database."""
    names = [str(endpoint.witness) for endpoint in witness_endpoints()]
    keepers = AuditKeeper.objects.filter(key__in=names, contradicts=True)
    return " ".join(f"{keeper.key}: {keeper.fault}" for keeper in keepers)


def siem_behind() -> str:
    """Return the fault if sealed events reach a SIEM too late."""
    late = [
        f"{stream.name} is {stream.lag_events} events and {stream.lag_s:.0f} s behind. "
        f"{stream.last_error}"
        for stream in stream_states()
        if stream.lag_s > settings.SIEM_ALARM_S
    ]
    return " ".join(text.rstrip() for text in late)


ALARMS: tuple[Alarm, ...] = (
    Alarm("sealing_behind", "Sealing is behind", sealing_behind),
    Alarm("publishing_behind", "Publishing is behind", publishing_behind),
    Alarm(
        "publishing_contradicted",
        "The published log has a different history",
        publishing_contradicted,
        critical=True,
    ),
    Alarm("witness_behind", "A witness is behind", witness_behind),
    Alarm(
        "witness_contradicted",
        "A witness refuses the log’s history",
        witness_contradicted,
        critical=True,
    ),
    Alarm("siem_behind", "A SIEM is behind", siem_behind),
    Alarm("offload_failing", "Old events do not leave the database", offload_failing),
    Alarm("usage_forged", "Forged usage was dropped", usage_forged, critical=True),
)


def alarms_add(*alarms: Alarm) -> None:
    """Add alarms. Contexts above this one call it when their application starts."""
    global ALARMS
    names = {alarm.name for alarm in alarms}
    ALARMS = (*(alarm for alarm in ALARMS if alarm.name not in names), *alarms)


def alarms_check() -> None:
    """Run all checks once; raise alarms for new faults, and clear those without a fault."""
    faults = {alarm: _checked(alarm) for alarm in ALARMS}
    with transaction.atomic(durable=True):
        if not _take_lock():
            return
        raised = {row.name: row for row in AuditAlarm.objects.all()}
        for alarm, message in faults.items():
            if message is not None:
                _update(alarm, message[:_MESSAGE_CHARACTERS], raised.get(alarm.name))
        for name in raised.keys() - {alarm.name for alarm in ALARMS}:
            # Raised by another version of Assay, which had this alarm.
            _clear(raised[name])


def alarms_visible_to(actor: Principal) -> list[AuditAlarm]:
    """Return the current alarms, for readers of the whole log. Sealing is also checked here,
    because a stopped controller cannot raise an alarm.

    Raises:
        NotFound, NotPermitted: the actor may not.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    rows = list(AuditAlarm.objects.all())
    sealing = ALARMS[0]
    if all(row.name != sealing.name for row in rows) and (message := sealing.check()):
        rows.append(_row(sealing, message))
    return rows


def run(stop: threading.Event) -> None:
    """Check every few seconds until `stop` is set; wait while the database is unavailable."""
    try:
        while not stop.is_set():
            try:
                alarms_check()
            except Error as error:
                logger.error("Alarms are not checked: %s", error)
                connection.close()
            stop.wait(CHECK_S)
    finally:
        connections.close_all()


def _checked(alarm: Alarm) -> str | None:
    """Return the alarm's fault, or None if the check failed, which leaves the alarm unchanged."""
    try:
        return alarm.check()
    except Error:
        raise
    except Exception:
        logger.exception("The alarm %s cannot be checked", alarm.name)
        return None


def _take_lock() -> bool:
    with connection.cursor() as cursor:
        # A controller on a paused machine must not block another from raising alarms.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '30s'")
    return try_lock("alarms")


def _update(alarm: Alarm, message: str, row: AuditAlarm | None) -> None:
    if row is None:
        if message:
            _raise(alarm, message)
    elif not message:
        _clear(row)
    elif message != row.message:
        AuditAlarm.objects.filter(pk=row.pk).update(message=message)


def _raise(alarm: Alarm, message: str) -> None:
    row = _row(alarm, message)
    row.save(force_insert=True)
    level = logging.CRITICAL if alarm.critical else logging.WARNING
    logger.log(level, "Alarm raised: %s. %s", alarm.title, message)
    _record("audit:alarm_raise", row)


def _clear(row: AuditAlarm) -> None:
    logger.warning("Alarm cleared: %s.", row.title)
    _record("audit:alarm_clear", row)
    row.delete()


def _row(alarm: Alarm, message: str) -> AuditAlarm:
    return AuditAlarm(
        name=alarm.name,
        title=alarm.title,
        critical=alarm.critical,
        message=message[:_MESSAGE_CHARACTERS],
        raised_at=timezone.now(),
    )


def _record(action: str, row: AuditAlarm) -> None:
    with background(f"alarm-{row.name}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action=action,
            subject=Subject("alarm", row.name, row.title),
            reason=row.message if action == "audit:alarm_raise" else "",
            data={
                "critical": row.critical,
                "raised_at": row.raised_at.isoformat(timespec="seconds"),
            },
        )
