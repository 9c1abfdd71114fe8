"""State of the outside keepers of checkpoints: the second place and the witnesses."""

from __future__ import annotations

from django.utils import timezone

from governance.audit.models import AuditKeeper

_FAULT_CHARACTERS = 500


def reached(key: str, kind: AuditKeeper.Kind, size: int) -> None:
    """Record that the keeper answered and has a tree of `size` events of this history."""
    now = timezone.now()
    AuditKeeper.objects.update_or_create(
        key=key,
        defaults={
            "kind": kind,
            "size": size,
            "fault": "",
            "contradicts": False,
            "tried_at": now,
            "reached_at": now,
        },
    )


def failed(key: str, kind: AuditKeeper.Kind, fault: str) -> None:
    """Record a missing or wrong answer; a recorded contradiction remains until a correct one."""
    defaults = {"kind": kind, "tried_at": timezone.now(), "fault": _fit(fault)}
    AuditKeeper.objects.update_or_create(key=key, defaults=defaults)


def contradicted(key: str, kind: AuditKeeper.Kind, fault: str) -> None:
    """Record that the keeper holds a different history than the database."""
    defaults = {"kind": kind, "tried_at": timezone.now(), "fault": _fit(fault)}
    AuditKeeper.objects.update_or_create(key=key, defaults={**defaults, "contradicts": True})


def _fit(text: str) -> str:
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return clean if len(clean) <= _FAULT_CHARACTERS else f"{clean[: _FAULT_CHARACTERS - 1]}…"
