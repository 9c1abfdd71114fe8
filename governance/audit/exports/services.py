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
from governance.audit.search.parameters import given_by, parameters_of
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
KEPT_FOR = timedelta(hours=24)
UNDER_WAY_MAX = 3
KEPT_BYTES_MAX = 8 * 1024**3
# Filters that may hold a person's name, which no event holds in clear.
TYPED = frozenset({"query", "who", "subject"})
_MOMENTS = frozenset({"since", "until"})


def exports_folder() -> Path:
    """Return the folder of the files: web and controller must see the same one."""
    return Path(settings.DATA_DIR) / "audit-exports"


def export_file(export: AuditExport) -> Path:
    """The file of a finished export. Its name carries the fence, so that two never share one."""
    suffix = "zip" if export.format == ExportFormat.CSV else "jsonl"
    return exports_folder() / f"{export.pk}-{export.fence}.{suffix}"


def export_name(export: AuditExport) -> str:
    """As what the file is taken along."""
    return f"assay-audit-export-{export.pk}{export_file(export).suffix}"


def audit_log_export(*, actor: Principal) -> None:
    """Permit an export of the whole log, and record it.

    Raises:
        NotFound, NotPermitted: the policy refuses.
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


def audit_export_ask(
    *,
    actor: Principal,
    filters: Mapping[str, Any],
    format: ExportFormat | str = ExportFormat.JSONL,  # noqa: A002 (the API's word)
) -> AuditExport:
    """Queue an export of what `filters` select, as `filters_of` takes them.

    Raises:
        NotFound, NotPermitted: the policy refuses; or the actor is no person.
        InvalidInput: a filter or format that there is not.
        WrongState: too many of the person's exports are under way, or those kept are too large.
    """
    with transaction.atomic():
        decision = may_export(actor, filters)
        given = filters_of(filters)
        if format not in ExportFormat.values:
            raise InvalidInput(f"There is no export format {str(format)[:20]!r}; use jsonl or csv.")
        if actor.person_id is None:
            raise NotPermitted(
                f"{actor.name} is not a person; an export is made for a person who answers for it.",
                hint="Sign in, or use a personal access token.",
                attempt=Attempt(
                    actor=actor,
                    action=Action.AUDIT_EXPORT,
                    subject=Subject("audit", "log", "audit log"),
                    decision=decision,
                ),
            )
        # One at a time of each person's, so that the bounds hold.
        Person.objects.select_for_update(no_key=True).get(pk=actor.person_id)
        _check_room(actor.person_id)
        export = AuditExport.objects.create(
            person_id=actor.person_id,
            address=request_context.get().client_address[:64],
            filters=given,
            format=format,
        )
        said = {name: value for name, value in given.items() if name not in TYPED}
        audit_record(
            actor=actor,
            action="audit:select",
            subject=export_subject(export),
            department=str(given.get("department") or ""),
            data={
                "filter": said,
                "filters_not_shown": sorted(given.keys() & TYPED),
                "format": str(format),
            },
            decision=decision,
        )
    return export


def _check_room(person_id: int) -> None:
    """Files lie on the disk that everything else lies on too.

    Raises:
        WrongState: too many of the person's exports are under way, or those kept are too large.
    """
    own = AuditExport.objects.filter(person_id=person_id)
    under_way = own.filter(state__in=(ExportState.QUEUED, ExportState.RUNNING))
    if under_way.count() >= UNDER_WAY_MAX:
        raise WrongState(
            f"{UNDER_WAY_MAX} of your exports are in progress; a new one was not started.",
            hint="Wait until one is done, or cancel one.",
            retry_after=30,
        )
    kept = own.filter(state=ExportState.DONE).aggregate(bytes=Sum("size"))["bytes"] or 0
    if kept >= KEPT_BYTES_MAX:
        raise WrongState(
            f"Your exports of the last day hold more than {KEPT_BYTES_MAX // 1024**3} GiB; no "
            "other one was begun.",
            hint="Each is deleted 24 hours after it was made.",
        )


def may_export(actor: Principal, filters: Mapping[str, Any]) -> Authorization:
    """Let an export through that needs both to see events and to take them along.

    Raises:
        NotFound, NotPermitted: the policy refuses.
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
    """The events that the actor may see and export, of those that stored `filters` select."""
    events = audit_events_visible_to(actor, **_read(filters))
    return visible_to(actor, Action.AUDIT_EXPORT, events, resource_type="audit")


def audit_exports_of(actor: Principal) -> QuerySet[AuditExport]:
    """The actor's own exports, newest first; no role shows another person's exports. Empty for a
    token that may not export."""
    if actor.person_id is None or not scope_allows(actor.scopes, Action.AUDIT_EXPORT):
        return AuditExport.objects.none()
    return AuditExport.objects.filter(person_id=actor.person_id).order_by("-id")


def audit_export_get(*, actor: Principal, export_id: int) -> AuditExport:
    """Raises NotFound when there is none, or it is another person's."""
    export = audit_exports_of(actor).filter(pk=export_id).first()
    if export is None:
        raise NotFound(f"There is no export {export_id} of yours.")
    return export


def audit_export_cancel(*, actor: Principal, export_id: int) -> AuditExport:
    """End an export that is not done yet; whoever makes it notices at the next page.

    Raises:
        NotFound: as `audit_export_get`.
        WrongState: it is over already.
    """
    with transaction.atomic():
        audit_export_get(actor=actor, export_id=export_id)
        export = export_lock(export_id)
        export_move(export, ExportState.CANCELED, finished_at=timezone.now())
        audit_record(actor=actor, action="audit:cancel_export", subject=export_subject(export))
    return export


def audit_export_open(*, actor: Principal, export_id: int) -> tuple[AuditExport, BinaryIO]:
    """A finished export's file, for whoever still may export; that it was taken is recorded.

    Raises:
        NotFound, NotPermitted: as `audit_export_get`; or the policy refuses by now.
        WrongState: it is not done, or its file is gone.
        Unavailable: the file cannot be read.
    """
    with transaction.atomic():
        export = audit_export_get(actor=actor, export_id=export_id)
        decision = may_export(actor, export.filters)
        past = export.expires_at is not None and export.expires_at <= timezone.now()
        if export.state != ExportState.DONE or past:
            state = "expired" if past else export.get_state_display()
            raise WrongState(
                f"Export {export.pk} is {state}; there is no file to download.",
                hint="It is made in the background; see its progress."
                if export.is_live
                else "Ask for it again.",
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
    """Take a locked export to another state.

    Raises:
        WrongState: it cannot go there from where it is.
    """
    for name, value in changes.items():
        setattr(export, name, value)
    EXPORT_STATES.save_state(export, to, changes)


def export_subject(export: AuditExport) -> Subject:
    """The export as the log knows it. What is said of it is kept under the key of who asked."""
    return Subject("audit_export", str(export.pk), f"export {export.pk}", person=export.person_id)


def _opened(export: AuditExport) -> BinaryIO:
    try:
        return export_file(export).open("rb")
    except FileNotFoundError:
        raise WrongState(
            f"The file of export {export.pk} is gone; it cannot be downloaded.",
            hint="Request it again. Web and controller must share ASSAY_DATA_DIR.",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"The file of export {export.pk} cannot be read: {error.strerror}.", retry_after=30
        ) from error


def words_for(error: OSError) -> str:
    """Return the reason that a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "The disk of ASSAY_DATA_DIR is full; nothing of the export is kept. "
            "Ask again once an operator has made room."
        )
    return f"The file could not be written ({error.strerror or type(error).__name__})."


def filters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as an export keeps them: those of `audit_events_visible_to`, as JSON.

    Args:
        given: Values, or text as it stands in addresses; a span of time ends now.

    Raises:
        InvalidInput: one that there is not, or that says nothing that can be.
    """
    texts = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in given.items()
        if value is not None
    }
    found = given_by(parameters_of(texts))
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }


def _read(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `filters_of`."""
    return {
        name: parse_datetime(value) if name in _MOMENTS else value
        for name, value in filters.items()
    }
