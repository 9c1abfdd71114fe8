"""Exports of selected events by the person who requests them: request, view, cancel, download."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from governance.audit.exports.models import (
    ALLOWED_TRANSITIONS,
    AuditExport,
    ExportFormat,
    ExportState,
)
from governance.audit.models import AuditEvent
from governance.audit.search.parameters import event_filter_of, parameters_of
from governance.audit.selectors import audit_events_visible_to
from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, Unavailable, WrongState
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource, scope_allows
from governance.policy.selectors import visible_to
from governance.policy.services import authorize
from governance.principals import Principal, request_context
from governance.state_machine import StateMachine

EXPORT_STATES = StateMachine(
    model=AuditExport, noun="export", table=ALLOWED_TRANSITIONS, hint="request a new export"
)
export_lock = EXPORT_STATES.locked
RETENTION = timedelta(hours=24)
UNDER_WAY_MAX = 3
RETAINED_BYTES_MAX = 8 * 1024**3
# Filters that may contain a person's name, so their values are not recorded in clear.
TYPED = frozenset({"query", "who", "subject"})
_MOMENTS = frozenset({"since", "until"})


def exports_folder() -> Path:
    """Return the folder of the files, which web and controller share."""
    return Path(settings.DATA_DIR) / "audit-exports"


def export_file(export: AuditExport) -> Path:
    """Return the path of an export's file; the name has the fence, so attempts never share one."""
    suffix = "zip" if export.format == ExportFormat.CSV else "jsonl"
    return exports_folder() / f"{export.pk}-{export.fence}.{suffix}"


def export_name(export: AuditExport) -> str:
    """Return the file name of the download."""
    return f"assay-audit-export-{export.pk}{export_file(export).suffix}"


def audit_log_export(*, actor: Principal) -> None:
    """Authorize an export of the whole log, and record it.

    Raises:
        NotFound, NotPermitted: the policy denies it.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=Action.AUDIT_EXPORT, resource=Resource(type="audit")
        )
        audit_record(
            actor=actor,
            action=Action.AUDIT_EXPORT,
            subject=Subject(type="audit", id="log", name="audit log"),
            decision=decision,
        )


def audit_export_request(
    *,
    actor: Principal,
    filters: Mapping[str, Any],
    format: ExportFormat | str = ExportFormat.JSONL,  # noqa: A002 (the API's word)
) -> AuditExport:
    """Queue an export of the events that `filters` (see `filters_of`) select.

    Raises:
        NotFound, NotPermitted: the policy denies it, or the actor is not a person.
        InvalidInput: unknown filter or format.
        WrongState: the person has too many exports in progress, or too many bytes of finished ones.
    """
    with transaction.atomic():
        decision = may_export(actor, filters)
        criteria = filters_of(filters)
        if format not in ExportFormat.values:
            raise InvalidInput(f"There is no export format {str(format)[:20]!r}; use jsonl or csv.")
        if actor.person_id is None:
            raise NotPermitted(
                f"{actor.name} is not a person; only people can request exports.",
                hint="Sign in, or use a personal access token.",
                attempt=Attempt(
                    actor=actor,
                    action=Action.AUDIT_EXPORT,
                    subject=Subject("audit", "log", "audit log"),
                    decision=decision,
                ),
            )
        # Serializes each person's requests, so that the limits hold.
        Person.objects.select_for_update(no_key=True).get(pk=actor.person_id)
        _check_room(actor.person_id)
        export = AuditExport.objects.create(
            person_id=actor.person_id,
            address=request_context.get().client_address[:64],
            filters=criteria,
            format=format,
        )
        recorded = {name: value for name, value in criteria.items() if name not in TYPED}
        audit_record(
            actor=actor,
            action="audit:select",
            subject=export_subject(export),
            department=str(criteria.get("department") or ""),
            data={
                "filter": recorded,
                "filters_not_shown": sorted(criteria.keys() & TYPED),
                "format": str(format),
            },
            decision=decision,
        )
    return export


def _check_room(person_id: int) -> None:
    """Limit a person's exports, because their files share the disk with all other data.

    Raises:
        WrongState: the person has too many exports in progress, or too many bytes of finished ones.
    """
    own = AuditExport.objects.filter(person_id=person_id)
    under_way = own.filter(state__in=(ExportState.QUEUED, ExportState.RUNNING))
    if under_way.count() >= UNDER_WAY_MAX:
        raise WrongState(
            f"{UNDER_WAY_MAX} of your exports are in progress; a new one was not started.",
            hint="Wait until one is done, or cancel one.",
            retry_after=30,
        )
    size = own.filter(state=ExportState.DONE).aggregate(bytes=Sum("size"))["bytes"] or 0
    if size >= RETAINED_BYTES_MAX:
        raise WrongState(
            f"Your exports of the last day have more than {RETAINED_BYTES_MAX // 1024**3} GiB; a "
            "new one was not started.",
            hint="Each file is deleted 24 hours after it was created.",
        )


def may_export(actor: Principal, filters: Mapping[str, Any]) -> Authorization:
    """Authorize an export, which needs permission to view events and to export them.

    Raises:
        NotFound, NotPermitted: the policy denies it.
    """
    department = filters.get("department")
    resource = Resource(
        type="audit",
        name="the audit log",
        department=department if isinstance(department, str) and department else None,
    )
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=resource)
    return authorize(actor=actor, action=Action.AUDIT_EXPORT, resource=resource)


def exportable_events(actor: Principal, filters: Mapping[str, Any]) -> QuerySet[AuditEvent]:
    """Return the events that stored `filters` select and the actor may see and export."""
    events = audit_events_visible_to(actor, **_read(filters))
    return visible_to(actor, Action.AUDIT_EXPORT, events, resource_type="audit")


def audit_exports_of(actor: Principal) -> QuerySet[AuditExport]:
    """Return the actor's own exports, newest first; roles never give access to other people's.
    Empty for a token that may not export."""
    if actor.person_id is None or not scope_allows(actor.scopes, Action.AUDIT_EXPORT):
        return AuditExport.objects.none()
    return AuditExport.objects.filter(person_id=actor.person_id).order_by("-id")


def audit_export_get(*, actor: Principal, export_id: int) -> AuditExport:
    """Return one of the actor's exports. Raise NotFound if they have none with this ID."""
    export = audit_exports_of(actor).filter(pk=export_id).first()
    if export is None:
        raise NotFound(f"You have no export {export_id}.")
    return export


def audit_export_cancel(*, actor: Principal, export_id: int) -> AuditExport:
    """Cancel an export that is not done yet; the process that creates it stops at the next page.

    Raises:
        NotFound: as `audit_export_get`.
        WrongState: it has already ended.
    """
    with transaction.atomic():
        audit_export_get(actor=actor, export_id=export_id)
        export = export_lock(export_id)
        export_move(export, ExportState.CANCELED, finished_at=timezone.now())
        audit_record(actor=actor, action="audit:cancel_export", subject=export_subject(export))
    return export


def audit_export_open(*, actor: Principal, export_id: int) -> tuple[AuditExport, BinaryIO]:
    """Open a finished export's file if the actor may still export; record the download.

    Raises:
        NotFound, NotPermitted: as `audit_export_get`, or the policy now denies it.
        WrongState: it is not done, or its file is missing.
        Unavailable: the file cannot be read.
    """
    with transaction.atomic():
        export = audit_export_get(actor=actor, export_id=export_id)
        decision = may_export(actor, export.filters)
        expired = export.expires_at is not None and export.expires_at <= timezone.now()
        if export.state != ExportState.DONE or expired:
            state = "expired" if expired else export.get_state_display()
            raise WrongState(
                f"Export {export.pk} is {state}; there is no file to download.",
                hint="It is being created in the background; see its progress."
                if export.is_live
                else "Request it again.",
            )
        file = _opened(export)
        audit_record(
            actor=actor,
            action="audit:download",
            subject=export_subject(export),
            data={"sha256": export.sha256, "size": export.size, "rows": export.rows},
            decision=decision,
        )
    return export, file


def export_move(export: AuditExport, to: ExportState, **changes: Any) -> None:
    """Set `changes` and the state of a locked export, and save it.

    Raises:
        WrongState: its state does not allow the transition.
    """
    for name, value in changes.items():
        setattr(export, name, value)
    EXPORT_STATES.save_state(export, to, changes)


def export_subject(export: AuditExport) -> Subject:
    """Return the export as an audit subject; its details are encrypted with the requester's key."""
    return Subject("audit_export", str(export.pk), f"export {export.pk}", person=export.person_id)


def _opened(export: AuditExport) -> BinaryIO:
    try:
        return export_file(export).open("rb")
    except FileNotFoundError:
        raise WrongState(
            f"The file of export {export.pk} is missing; it cannot be downloaded.",
            hint="Request it again. Web and controller must share ASSAY_DATA_DIR.",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"The file of export {export.pk} cannot be read: {error.strerror}.", retry_after=30
        ) from error


def words_for(error: OSError) -> str:
    """Return a sentence on the reason why a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "The disk of ASSAY_DATA_DIR is full; the export was deleted. "
            "Request it again after an operator has freed space."
        )
    return f"The file could not be written ({error.strerror or type(error).__name__})."


def filters_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters as an export stores them: arguments of `audit_events_visible_to`, as JSON.

    Args:
        values: Values, or text as in URLs; a time span ends now.

    Raises:
        InvalidInput: unknown filter, or invalid value.
    """
    texts = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in values.items()
        if value is not None
    }
    criteria = event_filter_of(parameters_of(texts))
    columns = {field.name: getattr(criteria, field.name) for field in fields(criteria)}
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in columns.items()
        if value is not None
    }


def _read(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored filters as keyword arguments; reverses `filters_of`."""
    return {
        name: parse_datetime(value) if name in _MOMENTS else value
        for name, value in filters.items()
    }
