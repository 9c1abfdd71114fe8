"""The access log: one line for each request under `/v1`, of the portal and of the APIs."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def log_request(
    method: str, route: str, status: int, seconds: float, *, request_id: str = "", **fields: object
) -> None:
    """Log a request that has ended, with further fields that are not empty.

    `route` is a pattern without IDs, names and search terms, because these may be personal data.
    The line has the ID of the current request, or `request_id`.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    milliseconds = round(seconds * 1000)
    shown = {name: value for name, value in fields.items() if value not in ("", None)}
    more = "".join(f" {name}={value}" for name, value in shown.items())
    extra: dict[str, object] = {
        "fields": {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": milliseconds,
            **shown,
        }
    }
    if request_id:
        extra["request_id"] = request_id
    logger.info("%s %s %d in %d ms%s", method, route, status, milliseconds, more, extra=extra)
