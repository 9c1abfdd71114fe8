"""Python processes forked from one that has imported the large packages of others.

Importing Django, Celery and what they need takes seconds of processor time, and tests start some
hundred processes. Here one process, for each pytest process, imports them once; a fork of it then
becomes the process that a test asks for, in its own environment. Assay's own modules, which read
that environment, are imported in the fork. Elsewhere than on Linux, processes start as usual.

As in an installation, the optional distribution `assay-tasks-extra` is absent: each worker would
try its tasks at its start, for 6 s of processor time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import site
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import Distribution, MetadataPathFinder, entry_points
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[2]
# Modules of others that do without Django's settings. torch is not one of them: the engines of a
# worker load it in a process of their own, which is started as usual.
MODULES = (
    *("celery.bin.celery", "celery.apps.worker", "celery.worker.consumer", "kombu.transport.redis"),
    *("django.contrib.staticfiles.handlers", "django.core.management.commands.check"),
    *("django.core.mail", "django.db.backends.postgresql.base", "django.forms", "markdown"),
    *("fido2.webauthn", "httpx", "jinja2", "markdown_it", "numpy", "nh3", "PIL.Image"),
    # Not prometheus_client, which looks for the folder of counts when it is imported.
    *("opentelemetry.sdk.trace", "orjson", "psutil", "psycopg_pool"),
    *("pydantic.deprecated.class_validators", "redis.asyncio", "rich.console", "scim2_models"),
    *("typer", "uvicorn", "uvloop", "httptools", "whitenoise.middleware", "yaml"),
)
_starting = threading.Lock()


class Forked:
    """A process that was forked, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.returncode: int | None = None
        self.pid = int(self._line())

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            piece = self._channel.recv(1)
            if not piece:
                raise ChildProcessError("The process that forks has ended.")
            line += piece
        return line

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        if self.returncode is None:
            if not select.select([self._channel], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._line())
            self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Do nothing when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | Forked


def start(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: BinaryIO
) -> Process:
    """Start Python with these arguments in a session of its own, its output in a file."""
    if sys.platform != "linux":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Tests start processes from several threads.
    with _starting:
        parent = _parent()
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(parent, [b"."], [theirs.fileno(), output.fileno()])
    wanted = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
    ours.sendall(json.dumps(wanted).encode())
    ours.shutdown(socket.SHUT_WR)
    return Forked(ours)


@cache
def _parent() -> socket.socket:
    """Start the process that forks; return its end of the line. It ends with this process."""
    ours, theirs = socket.socketpair()
    # A module that reads Django's settings when it is imported fails there, and belongs in forks.
    kept = os.environ.keys() - {"DJANGO_SETTINGS_MODULE", "PYTHONPATH"}
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={name: os.environ[name] for name in kept},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours


def _forked(control: socket.socket) -> dict[str, Any]:
    """Fork at each message; return, in the fork, what it shall become."""
    # Those that watch processes are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            return _watched(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watched(channel: int, output: int) -> dict[str, Any]:
    """Fork once more, since the parent of the process has to tell how it ends."""
    line = socket.socket(fileno=channel)
    wanted = json.loads(b"".join(iter(lambda: line.recv(1 << 16), b"")))
    pid = os.fork()
    if pid == 0:
        line.close()
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return dict(wanted)
    os.close(output)
    line.sendall(b"%d\n" % pid)
    _wait(pid, line)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # The process that started it may have ended.
    with contextlib.suppress(OSError):
        line.sendall(b"%d\n" % status)
    os._exit(0)


def _wait(pid: int, line: socket.socket) -> None:
    """Return when the process has ended. It is killed, with its group, when who started it ends."""
    both = select.poll()
    both.register(line, 0)  # Only its end is reported, as POLLHUP.
    both.register(os.pidfd_open(pid), select.POLLIN)
    if any(number == line.fileno() for number, _ in both.poll()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _settle(wanted: dict[str, Any]) -> list[str]:
    """Take on the folder, the environment and its paths; return the arguments."""
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    # The first entry was this file's folder.
    sys.path[:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    importlib.invalidate_caches()
    # As at the start of an interpreter with these paths.
    sys.modules.pop("sitecustomize", None)
    site.execsitecustomize()
    _hide("assay_tasks_extra")
    return list(wanted["arguments"])


def _hide(name: str) -> None:
    """Make a distribution, by its normalized name, absent for this process."""
    search = MetadataPathFinder.find_distributions

    def find(*context: Any) -> Iterator[Distribution]:
        return (each for each in search(*context) if each._normalized_name != name)

    MetadataPathFinder.find_distributions = find  # type: ignore[assignment,method-assign]


def _run(arguments: list[str]) -> None:
    """Run what follows `python` on a command line: `-m module`, `-c code` or a script."""
    first, *rest = arguments
    if first == "-m":
        sys.path.insert(0, os.getcwd())
        name, *rest = rest
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, *rest = rest
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)  # noqa: S102
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    # The code of this checkout, wherever the installed package points.
    sys.path[1:1] = [str(ROOT), str(ROOT / "platform")]
    for module in MODULES:
        importlib.import_module(module)
    # They know neither Django nor the environment. Those of other packages are imported from
    # private copies, by each process for itself.
    for task in entry_points(group="assay.tasks"):
        if task.dist is not None and task.dist.name == "assay":
            task.load()
    gc.collect()
    gc.freeze()
    _run(_settle(_forked(socket.socket(fileno=int(sys.argv[1])))))
