"""The process that tries a declaration: `python -m registry.catalog.checks.process`.

It gets entry points on its standard input, imports what they name, and writes the faults as one
line of JSON to its standard output.
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
    """Write the faults that `work` finds: the main part of a module that `trial` runs. Ends the
    process, whatever threads the plug-in has left."""
    request = json.load(sys.stdin)
    confine_code(request["paths"])
    discovery.only_own = True
    # Whatever the plug-in prints is not the answer.
    pipe = os.dup(1)
    os.dup2(2, 1)
    if (memory := request["memory"]) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code_enter(request["packages"])
    found = work([EntryPoint(name, value, "") for name, value in request["points"]])
    text = json.dumps([(each.where, each.what, each.fix) for each in found])
    with open(pipe, "wb") as file:
        file.write(text.encode() + b"\n")
    os._exit(0)


def imported(point: EntryPoint) -> tuple[Any, list[Fault]]:
    """Return the declaration, and the faults of its import: what it raised or changed."""
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
    found = [
        Fault("import", f"Importing it changes {what}.", fix)
        for what, value in _surroundings().items()
        if value != before[what]
    ]
    if loaded := [each for each in _FORBIDDEN if each in sys.modules]:
        found.append(
            Fault(
                "import",
                f"It loads {', '.join(loaded)}, for which the web process has no room.",
                "Import it in the modules of runner, recipe and score, which have dotted names.",
            )
        )
    if getattr(task, "name", point.name) != point.name:
        said = f"It declares {check.shown(task.name)}; its entry point is {point.name!r}."
        found.append(Fault("name", said, "Use the same name in both."))
    return task, found


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
    """Return the declarations of entry points, and the faults of their imports and of them."""
    tasks, faults = [], []
    for point in points:
        task, told = imported(point)
        tasks.append(task)
        faults += told or declaration_faults(task)
    return tasks, faults


if __name__ == "__main__":
    answer_of(lambda points: declared(points)[1])
