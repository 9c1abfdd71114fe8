"""Checks of `assay doctor`, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Check = tuple[str, Callable[[], str], str]


@dataclass(frozen=True)
class Finding:
    """One check's outcome; `fix` states the remedy when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class CheckFailed(Exception):
    """A check failed: the fault, and how to fix it."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run every check; one that fails does not stop the others."""
    findings = []
    for name, check, fix in checks:
        try:
            findings.append(Finding(name, True, check()))
        except CheckFailed as error:
            findings.append(Finding(name, False, error.detail, error.fix))
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            findings.append(Finding(name, False, first[:200], fix))
    return findings
