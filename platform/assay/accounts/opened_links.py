"""The one-time link that a browser has opened, until it is used; the session keeps its ID."""

from __future__ import annotations

import time

from django.http import HttpRequest

from governance.people.models import LinkPurpose, OneTimeLink

OPENED = "assay_opened_link"
KEPT_S = 30 * 60


def link_remember(request: HttpRequest, link: OneTimeLink) -> None:
    """Keep the link in this session, under a new session key."""
    request.session.cycle_key()
    request.session[OPENED] = {
        "id": link.pk,
        "purpose": str(link.purpose),
        "person": link.person_id,
        "at": int(time.time()),
    }


def link_opened(
    request: HttpRequest, purpose: LinkPurpose, *, person_id: int | None = None
) -> int | None:
    """Return the opened link's ID; None when there is none of this purpose for this person."""
    kept = request.session.get(OPENED) or {}
    if kept.get("purpose") != purpose or time.time() - kept["at"] > KEPT_S:
        return None
    if person_id is not None and kept["person"] != person_id:
        return None
    return int(kept["id"])


def link_forget(request: HttpRequest) -> None:
    """Forget the link: it was used."""
    request.session.pop(OPENED, None)
