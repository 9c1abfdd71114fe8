"""Process that checks declarations: `python -m registry.catalog.checks.process`.

It reads entry points from standard input, imports them, and writes their faults as one line of JSON
to standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from registry.catalog import discovery
from registry.catalog.checks import faults as check
from registry.catalog.checks.declaration import declaration_faults
from registry.catalog.checks.faults import Fault
from registry.catalog.code import code_enter
from registry.catalog.declaration import INTERFACE
from registry.sandbox.enter import confine_code

_FORBIDDEN = ("diffusers", "django", "jax", "tensorflow", "torch", "transformers")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM)


def answer_of(work: Callable[[Sequence[EntryPoint]], list[Fault]]) -> None:
    """Write the faults that `work` finds, then end the process, even if the plug-in left threads
    running. The main function of each module that `trial` runs."""
    request = json.load(sys.stdin)
    confine_code(request["paths"])
    discovery.only_own = True
    # The plug-in's own output goes to standard error, apart from the answer.
    pipe = os.dup(1)
    os.dup2(2, 1)
    if (memory := request["memory"]) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code_enter(request["packages"])
    faults = work([EntryPoint(name, value, "") for name, value in request["points"]])
    text = json.dumps([(each.where, each.what, each.fix) for each in faults])
    with open(pipe, "wb") as file:
        file.write(text.encode() + b"\n")
    os._exit(0)


def imported(point: EntryPoint) -> tuple[Any, list[Fault]]:
    """Return the declaration, and the faults of its import: an exception, or global changes."""
    fix = "Let the module only define things."
    before = _surroundings()
    try:
        with discovery.importing():
            task = point.load()
    except BaseException as error:
        text = check.raised(error)
        if isinstance(error, ModuleNotFoundError):
            fix = "Name what provides it in the requirements of the package, and install it."
        elif "assay.plugins" in text:
            fix = f"Install a release of the package for interface {INTERFACE} of assay.plugins."
        return None, [Fault("import", f"{point.value} raised {text}.", fix)]
    faults = [
        Fault("import", f"Importing it changes {what}.", fix)
        for what, value in _surroundings().items()
        if value != before[what]
    ]
    if loaded := [each for each in _FORBIDDEN if each in sys.modules]:
        faults.append(
            Fault(
                "import",
                f"It loads {', '.join(loaded)}, which is too large for the web process.",
                "Import it only in the modules of the runner, recipes and score (dotted names).",
            )
        )
    if getattr(task, "name", point.name) != point.name:
        mismatch = f"It declares {check.quoted(task.name)}; its entry point is {point.name!r}."
        faults.append(Fault("name", mismatch, "Use the same name in both."))
    return task, faults


def _surroundings() -> dict[str, Any]:
    return {
        "the working directory": os.getcwd(),
        "the environment": dict(os.environ),
        "the number of threads": threading.active_count(),
        "the number of processes": _has_children(),
        "the way signals are handled": [signal.getsignal(each) for each in _SIGNALS],
        "standard output or error": (sys.stdout, sys.stderr),
    }


def _has_children() -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def declared(points: Sequence[EntryPoint]) -> tuple[list[Any], list[Fault]]:
    """Return the declarations of entry points, and all faults of imports and declarations."""
    tasks, faults = [], []
    for point in points:
        task, import_faults = imported(point)
        tasks.append(task)
        faults += import_faults or declaration_faults(task)
    return tasks, faults


if __name__ == "__main__":
    answer_of(lambda points: declared(points)[1])
