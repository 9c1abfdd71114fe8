"""Encoding of records for a destination, within its size limit."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from governance.audit.streaming.cef import cef
from governance.audit.streaming.destinations import Destination
from governance.audit.streaming.ocsf import milliseconds, ocsf
from governance.audit.streaming.records import UNREADABLE, Record
from governance.audit.streaming.syslog import syslog_message

logger = logging.getLogger(__name__)

# Receivers of syslog must accept 2,048 octets, and usually accept 8,192; collectors far more.
SYSLOG_MESSAGE_MAX = 8192
HTTPS_LINE_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A record and its encoded bytes."""

    record: Record
    data: bytes


class Renderer:
    """Encoder for one destination. `log` and `host` identify the source of events."""

    def __init__(self, destination: Destination, *, log: str, host: str) -> None:
        self._to = destination
        self._log = log
        self._host = host
        self._limit = HTTPS_LINE_MAX if destination.over_http else SYSLOG_MESSAGE_MAX

    def line(self, record: Record) -> Line:
        """Encode a record; shortened if it is too long, or as a replacement with its number and
        hash if it cannot be encoded.
        """
        try:
            for candidate in (record, record.shorter()):
                data = self._data(candidate)
                if len(data) <= self._limit:
                    return Line(candidate, data)
            reason = "The event is longer than a message may be."
        except Exception as error:
            # An event must not block those after it, whatever its content.
            logger.error("Audit event %d cannot be encoded: %r", record.sequence, error)
            reason = "The event's bytes are not those of an event."
        replacement = record.stand_in(UNREADABLE, reason)
        return Line(replacement, self._data(replacement))

    def _data(self, record: Record) -> bytes:
        event: dict[str, Any] | str
        if self._to.format == "ocsf":
            event = ocsf(record, log=self._log)
        else:
            event = cef(record, log=self._log)
        if self._to.over_http and self._to.auth == "splunk":
            return _json(
                {
                    "time": milliseconds(record.body["occurred_at"]) / 1000,
                    "host": self._host,
                    "source": "assay",
                    "sourcetype": f"assay:{self._to.format}",
                    "event": event,
                }
            )
        text = event.encode("utf-8", "replace") if isinstance(event, str) else _json(event)
        return text if self._to.over_http else syslog_message(record, text, host=self._host)


def _json(value: dict[str, Any]) -> bytes:
    """Return JSON as one line of ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
