"""Checks of a delivery in a separate process with bounds on time, memory and output.

The web process and the worker never parse a delivery, so that a malicious file harms only that
process (`registry/sandbox/readers.py`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from registry.intake.checks import Finding, Limits, check_delivery
from registry.manifests import HOSTED_FILE
from registry.sandbox.places import FairPlaces
from registry.sandbox.readers import AT_ONCE, Broken, Reach, machine_failed, output_of

SECONDS = 120
# Parsing the largest accepted JSON file takes about 1 GiB.
MEMORY_BYTES = 2 * 1024**3
# Each file has a finding with its name and a sentence.
MAX_FINDINGS_BYTES = 8 * 1024**2
# Modules of the process, which run `main` below: for descriptions of hosted models, and for others.
HOSTED_MODULE, MODULE = "registry.intake.bounded_hosted", "registry.intake.bounded"
_places = FairPlaces(
    AT_ONCE, wait_s=3 * SECONDS, refusal="Too many deliveries are being checked at this moment."
)


def check_bounded(folder: Path, limits: Limits, *, owner: str = "") -> list[Finding]:
    """Run `check_delivery` within the limits of this module; exceeding one is a failed finding.

    Raises:
        QuotaExceeded: too many deliveries of `owner` are being checked.
        Unavailable: too many deliveries are being checked, or the machine failed, independently
            of the delivery.
    """
    bounds = {"folder": str(folder), **asdict(limits), "memory": MEMORY_BYTES}
    with _places.place(owner):
        try:
            return _findings(
                output_of(
                    HOSTED_MODULE if (folder / HOSTED_FILE).is_file() else MODULE,
                    bounds,
                    reach=Reach(read=[folder]),
                    seconds=SECONDS,
                    max_bytes=MAX_FINDINGS_BYTES,
                )
            )
        except subprocess.TimeoutExpired:
            return [_exceeded(f"The checks took longer than {SECONDS} seconds")]
        except Broken as broken:
            if broken.machine:
                raise machine_failed() from broken
            gibibytes = MEMORY_BYTES / 1024**3
            return [_exceeded(f"The checks broke, or needed more than {gibibytes:g} GiB of memory")]


def _findings(written: Any) -> list[Finding]:
    """Return the findings that `main` wrote. Raises Broken for any other output."""
    if not written or not isinstance(written, list):
        raise Broken("it wrote no findings")
    findings = []
    for each in written:
        match each:
            case {"check": str(check), "passed": bool(passed), "detail": str(detail)}:
                findings.append(Finding(check, passed, detail))
            case _:
                raise Broken("it wrote another value than findings")
    return findings


def _exceeded(what: str) -> Finding:
    return Finding("limits", False, f"{what}; such a delivery is not accepted.")


def main() -> None:
    """Check the delivery named on standard input, and write the findings to standard output."""
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
    # SIGXCPU comes before SIGKILL, to tell this limit from a kill by the system.
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    limits = Limits(order["max_bytes"], order["max_files"], order["adapter"])
    findings = check_delivery(Path(order["folder"]), limits)
    json.dump([finding.to_json() for finding in findings], sys.stdout)


if __name__ == "__main__":
    main()
