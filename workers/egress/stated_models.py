"""Report the models and fingerprints that a provider's answers state to the control plane."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from typing import Protocol

from governance.errors import DomainError
from registry.catalog.hosted import FINGERPRINT_MAX, STATED_MODEL_MAX
from registry.catalog.requests import printable

logger = logging.getLogger(__name__)
# Each name of a deployment is reported once in this time.
EVERY_S = 3600
# Names that are remembered, and those that wait for a report.
ENTRIES_MAX, WAITING_MAX = 2_000, 1_000
_Key = tuple[int, str, str]


class StatedControl(Protocol):
    """The part of `EngineControl` that records stated models."""

    def model_stated(
        self, *, worker: str, deployment_id: int, model: str, fingerprint: str
    ) -> None:
        """See `EngineControl`."""

    def drop_broken(self) -> None:
        """See `EngineControl`."""

    def close(self) -> None:
        """See `EngineControl`."""


class StatedModels:
    """Reports in a thread of its own, so that no answer waits for the control plane. One event loop
    calls `note`."""

    def __init__(self, control: StatedControl, *, worker: str) -> None:
        self._control = control
        self._worker = worker
        self._noted: OrderedDict[_Key, int] = OrderedDict()
        self._waiting: queue.Queue[_Key | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="assay-stated-models", daemon=True)

    def start(self) -> None:
        """Start to report."""
        self._thread.start()

    def note(self, deployment_id: int, model: str, fingerprint: str) -> None:
        """Report the names of an answer, unless they were reported in this hour."""
        key, hour = (deployment_id, model, fingerprint), int(time.time() // EVERY_S)
        if self._noted.get(key) == hour:
            return
        # Before the report, which removes the entry if it fails.
        self._noted[key] = hour
        try:
            self._waiting.put_nowait(key)
        except queue.Full:
            # The next answer with these names tries again.
            del self._noted[key]
        if len(self._noted) > ENTRIES_MAX:
            self._noted.popitem(last=False)

    def close(self) -> None:
        """Report what waits, and end."""
        if self._thread.ident is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (key := self._waiting.get()) is not None:
            deployment_id, model, fingerprint = key
            try:
                self._control.drop_broken()
                self._control.model_stated(
                    worker=self._worker,
                    deployment_id=deployment_id,
                    model=printable(model, STATED_MODEL_MAX),
                    fingerprint=printable(fingerprint, FINGERPRINT_MAX),
                )
            except DomainError as error:
                logger.warning("Deployment %d: %s", deployment_id, error.message)
            except Exception:
                # The next answer with these names reports them again.
                self._noted.pop(key, None)
                logger.exception("The model that a provider stated could not be reported")
        self._control.close()
