"""Checks of `assay doctor`, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Outcome of a check. `off`: it is not set up, so that there is nothing to work or to fail."""

    WORKS = "works"
    FAILS = "fails"
    OFF = "not set up"


class Check(NamedTuple):
    """One check; `fix` is the remedy where the fault does not say it, `readers` the processes that
    have its settings (empty for all)."""

    name: str
    run: Callable[[], str]
    fix: str
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One check's outcome; `fix` states the remedy, or how to set it up."""

    name: str
    state: State
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        return self.state != State.FAILS


class CheckFailed(Exception):
    """A check failed: the fault, and how to fix it."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


class NotSetUp(Exception):
    """The subject of the check is not set up: the effect of that, and how to set it up."""

    def __init__(self, detail: str, how: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.how = how


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run every check whose settings this process has; one that fails does not stop the others."""
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
