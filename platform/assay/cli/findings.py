"""Checks of `assay doctor` and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Outcome of a check. `off`: its subject is not set up, so it can neither work nor fail."""

    WORKS = "works"
    FAILS = "fails"
    OFF = "not set up"


class Check(NamedTuple):
    """A check: `fix` is the remedy for faults without one of their own, `readers` are the processes
    that have its settings (empty for all)."""

    name: str
    run: Callable[[], str]
    fix: str
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Result of one check; `fix` states the remedy, or how to set the subject up."""

    name: str
    state: State
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        return self.state != State.FAILS


class CheckFailed(Exception):
    """Failure of a check: the fault, and how to fix it."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


class NotSetUp(Exception):
    """Missing setup of a check's subject: its effect, and how to set it up."""

    def __init__(self, detail: str, how: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.how = how


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run every check whose settings this process has, even after one fails."""
    from django.conf import settings

    findings = []
    for name, check, fix, readers in checks:
        if readers and settings.PROCESS and settings.PROCESS not in readers:
            continue
        try:
            findings.append(Finding(name, State.WORKS, check()))
        except NotSetUp as error:
            findings.append(Finding(name, State.OFF, error.detail, error.how))
        except CheckFailed as error:
            findings.append(Finding(name, State.FAILS, error.detail, error.fix))
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            findings.append(Finding(name, State.FAILS, first[:200], fix))
    return findings
