"""Log records as JSON lines or text, each with the ID of its request."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from governance.principals import request_context


def log_warnings_and_crashes() -> None:
    """Log Python's warnings, and exceptions that end a process or a thread, which would otherwise
    be plain text between the JSON lines."""
    logger = logging.getLogger(__name__)
    logging.captureWarnings(True)

    def ended(kind: Any, error: Any, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logger.critical("The process ends", exc_info=(kind, error, trace))

    def thread_ended(crash: threading.ExceptHookArgs) -> None:
        name = "unknown" if crash.thread is None else crash.thread.name
        if crash.exc_value is not None and not isinstance(crash.exc_value, SystemExit):
            error = (crash.exc_type, crash.exc_value, crash.exc_traceback)
            logger.critical("The thread %s has ended", name, exc_info=error)

    sys.excepthook = ended
    threading.excepthook = thread_ended


class RequestIdFilter(logging.Filter):
    """Add the current request's ID to every record as `request_id`; `-` outside a request.

    Records of background work have the name of that work instead, such as `job-…`. A `request_id`
    in the `extra` of a record stays unchanged.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request_id`, and keep the record."""
        if not hasattr(record, "request_id"):
            record.request_id = request_context.get().request_id or "-"
        return True


class JsonFormatter(logging.Formatter):
    """Write a record as one JSON object on one line.

    Its fields are `time` (UTC), `level`, `logger`, `process`, `request_id` and `message`, those of
    the access log, and `exception` if the record has one.
    """

    def __init__(self, process: str) -> None:
        """Write records of this kind of process, such as `web`."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a line break."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # ASCII: a lone surrogate sent by a caller is not valid UTF-8 and would lose the record.
        return json.dumps(fields)
