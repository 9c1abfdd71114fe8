"""Records as the bytes that a destination takes, within what it takes."""

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

# Receivers of syslog must take 2,048 octets, and usually take 8,192; collectors far more.
SYSLOG_MESSAGE_MAX = 8192
HTTPS_LINE_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A record in the form that is sent."""

    record: Record
    data: bytes


class Renderer:
    """Renders for one destination. `log` and `host` say where events come from."""

    def __init__(self, destination: Destination, *, log: str, host: str) -> None:
        self._to = destination
        self._log = log
        self._host = host
        self._limit = HTTPS_LINE_MAX if destination.over_http else SYSLOG_MESSAGE_MAX

    def line(self, record: Record) -> Line:
        """The record in full; shortened where it is too long; one that cannot be written stands
        for itself with its number and hash.
        """
        try:
            for shape in (record, record.shorter()):
                data = self._data(shape)
                if len(data) <= self._limit:
                    return Line(shape, data)
            why = "The event is longer than a message may be."
        except Exception as error:
            # Whatever is in it, one event must not hold up those after it.
            logger.error("Audit event %d has no usual form: %r", record.sequence, error)
            why = "The event's bytes are not those of an event."
        shape = record.stand_in(UNREADABLE, why)
        return Line(shape, self._data(shape))

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
    """One line of ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
