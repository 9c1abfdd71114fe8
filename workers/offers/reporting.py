"""A thread of a worker process that tests its tasks and reports those that it offers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from registry.catalog import task_catalog
from registry.catalog.checks.faults import Fault, raised
from registry.catalog.discovery import Entry, by_package, tried_together
from workers.offers.self_test import self_test
from workers.offers.values import Offers, TaskOffer

logger = logging.getLogger(__name__)
REPORT_S = 20.0
RETRY_S = 2.0
# Longest wait for the first report; a package that hangs delays it by the time of its trial.
FIRST_S = 60.0
# A failed self-test is repeated after this time, since something may have been installed.
RETEST_S = 900.0
TESTING = "Its self-test has not ended yet."
_TESTS_AT_ONCE = 2
_END_S = 5.0


class OfferReports:
    """Reports Assay's own tasks at once, and each other task once its self-test has passed.

    Nothing waits for a self-test, so a package that hangs does not delay other tasks.
    """

    def __init__(
        self,
        report: Callable[[Offers], None],
        close: Callable[[], None] = lambda: None,
        *,
        others: bool = True,
    ) -> None:
        """`report` sends offers to the control plane; `close` closes the thread's connections.
        With `others=False`, tasks of other packages are neither tested nor offered."""
        self._others = others
        self._report = report
        self._close = close
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._first = threading.Event()
        self._lock = threading.Lock()
        self._offers: dict[str, TaskOffer] = {}
        # Tasks that failed their self-test, with the time of the next one.
        self._failed: dict[str, tuple[float, Entry]] = {}
        self._tests = ThreadPoolExecutor(_TESTS_AT_ONCE, "task-tests")
        self._thread = threading.Thread(target=self._run, name="assay-offers", daemon=True)

    def start(self) -> None:
        """Start the thread that discovers, tests and reports tasks."""
        self._thread.start()

    def begun(self) -> bool:
        """Wait up to `FIRST_S` for the answer to the first report; return whether it came.

        Return True if this process makes no reports, because it is not a worker.
        """
        return self._thread.ident is None or self._first.wait(FIRST_S)

    def close(self) -> None:
        """Stop reporting."""
        self._stop.set()
        self._changed.set()
        self._tests.shutdown(wait=False, cancel_futures=True)
        if self._thread.ident:
            self._thread.join(_END_S)

    def _test(self, entries: Sequence[Entry]) -> None:
        for entry, faults in tried_together(entries, _lacking):
            lacks = " ".join(map(str, faults))
            if lacks:
                logger.error(
                    "Task %s of %s is not offered here. %s", entry.name, entry.place, lacks
                )
            else:
                logger.info("Task %s of %s passed its self-test", entry.name, entry.place)
            with self._lock:
                self._offers[entry.name] = TaskOffer(entry.package, lacks)
                if lacks:
                    self._failed[entry.name] = (time.monotonic() + RETEST_S, entry)
            self._changed.set()

    def _run(self) -> None:
        self._offers, entries = offers_now()
        if not self._others:
            entries = []
        for package in by_package(entries):
            self._tests.submit(self._test, package)
        while not self._stop.is_set():
            self._changed.clear()
            with self._lock:
                offers = dict(self._offers)
                due = [name for name, (at, _) in self._failed.items() if time.monotonic() > at]
                for name in due:
                    self._tests.submit(self._test, [self._failed.pop(name)[1]])
            try:
                self._report(offers)
                self._first.set()
            except Exception as error:
                logger.warning("The tasks of this worker were not reported: %s", error)
                self._changed.wait(RETRY_S)
            else:
                self._changed.wait(REPORT_S)
        self._close()


def _lacking(entries: Sequence[Entry]) -> list[Fault]:
    try:
        return self_test(entries)
    except Exception as error:
        return [Fault("self-test", f"It could not run: {raised(error)}.", "Reinstall the package.")]


def offers_now() -> tuple[dict[str, TaskOffer], list[Entry]]:
    """Return the offers before any self-test, and the entry points to be tested."""
    discovery = task_catalog()
    offers = {
        each.entry.name: TaskOffer(each.entry.package, each.reason)
        for each in discovery.refused
        if each.entry.name not in discovery.tasks
    }
    for name, entry in discovery.entries.items():
        offers[name] = TaskOffer(entry.package, "" if entry.is_own else TESTING)
    return offers, [entry for entry in discovery.entries.values() if not entry.is_own]
