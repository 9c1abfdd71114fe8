"""Confine this process to its files, then run a module in it, which reads what someone sent.

Run as `python -I -m registry.sandbox.enter ALLOWED MODULE`. ALLOWED, in JSON, has the `paths` of
`landlock.ruleset`, `null` where the kernel has no Landlock; how many levels of priority the process
gives up (`nice`); and whether it `forks`.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
from collections.abc import Mapping, Sequence

from registry.sandbox import landlock
from registry.sandbox.isolation import die_first, drop_capabilities, hide_process, isolate
from registry.sandbox.system_calls import (
    deny_limits_of_others,
    deny_new_processes,
    deny_other_processes,
)


def confine_reader(paths: Mapping[str, Sequence[str]] | None) -> None:
    """Leave this process its files alone: no network, no program, no other process.

    Raises:
        OSError: the kernel refuses what its version offers.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    isolate()
    drop_capabilities()
    if paths is not None:
        landlock.confine(landlock.ruleset(paths, tcp=False, reader=True))
    deny_other_processes()
    hide_process()


def confine_code(paths: Mapping[str, Sequence[str]] | None, *, tcp: bool = False) -> bool:
    """Leave this process, which runs code or models of others, its files, and no network but its
    own. It may start programs. Returns whether it has a network of its own.

    Raises:
        OSError: the kernel refuses what its version offers, or a thread would stay unconfined.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError("The process has threads already, which Landlock would not confine.")
    alone = isolate()
    drop_capabilities()
    if paths is not None:
        landlock.confine(landlock.ruleset(paths, tcp=tcp))
    deny_limits_of_others()
    return alone


def main() -> None:
    """Confine this process and run the module."""
    given, module = sys.argv[1:]
    allowed = json.loads(given)
    os.nice(allowed["nice"])
    die_first()
    confine_reader(allowed["paths"])
    if not allowed["forks"]:
        deny_new_processes()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
