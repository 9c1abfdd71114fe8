"""Confine this process to its files, then run a module in it that reads untrusted input.

Run as `python -I -m registry.sandbox.enter ALLOWED MODULE`. ALLOWED, in JSON, has the `paths` of
`landlock.ruleset`, `null` for a kernel without Landlock; the increase of the `nice` value; and
whether the process `forks`.
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
    """Confine this process to its files, without network, programs or other processes.

    Raises:
        OSError: the kernel fails to apply a feature of its version.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    isolate()
    drop_capabilities()
    if paths is not None:
        landlock.confine(landlock.ruleset(paths, tcp=False, reader=True))
    deny_other_processes()
    hide_process()


def confine_code(paths: Mapping[str, Sequence[str]] | None, *, tcp: bool = False) -> bool:
    """Confine this process, which runs foreign code or models, to its files and its own network. It
    may start programs. Returns whether it has its own network.

    Raises:
        OSError: the kernel fails to apply a feature of its version, or a thread would stay
            unconfined.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError("The process already has threads, which Landlock would not confine.")
    alone = isolate()
    drop_capabilities()
    if paths is not None:
        landlock.confine(landlock.ruleset(paths, tcp=tcp))
    deny_limits_of_others()
    return alone


def main() -> None:
    """Confine this process, then run the module."""
    arguments, module = sys.argv[1:]
    allowed = json.loads(arguments)
    os.nice(allowed["nice"])
    die_first()
    confine_reader(allowed["paths"])
    if not allowed["forks"]:
        deny_new_processes()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
