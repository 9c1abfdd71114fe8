"""Log records about requests, from code that runs outside them. Uses neither Django nor torch."""

from __future__ import annotations


def about(*request_ids: str) -> dict[str, str]:
    """Return the `extra` of a record about these requests, for code such as a thread that answers
    many at once (`governance.logs.RequestIdFilter`)."""
    return {"request_id": ",".join(dict.fromkeys(request_ids)) or "-"}
