"""Checks of `assay doctor`, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Check = tuple[str, Callable[[], str], str]


@dataclass(frozen=True)
class Finding:
    """One check's outcome; `mend` says what helps when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


class NotWell(Exception):
    """A check failed: what is wrong, and what mends it."""

    def __init__(self, detail: str, mend: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.mend = mend


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run every check; none keeps the next from running."""
    findings = []
    for name, check, mend in checks:
        try:
            findings.append(Finding(name, True, check()))
        except NotWell as error:
            findings.append(Finding(name, False, error.detail, error.mend))
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            findings.append(Finding(name, False, first[:200], mend))
    return findings
