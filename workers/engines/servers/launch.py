"""Start a server confined to its files, without network and without privileges, and end it with
its parent.

Run as `python -I -m workers.engines.servers.launch PATHS COMMAND…`, where PATHS are the argument of
`landlock.ruleset` as JSON, or `null` for a server that is not confined. It prints one line of JSON,
`{"pid": …, "isolated": …}`, then waits for the server. Its parent holds its standard input open;
the end of that input kills the server. Loads only the standard library and `registry.sandbox`.

If the kernel does not allow a separate network and `/dev/shm`, `isolated` is false and the server
shares the worker's.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading

from registry.sandbox import landlock
from registry.sandbox.isolation import (
    drop_capabilities,
    end_with_parent,
    forgo_privileges,
    isolate,
)
from registry.sandbox.system_calls import deny_limits_of_others


def _in_child(rules: int | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    drop_capabilities()
    if rules is not None:
        landlock.confine(rules)
    deny_limits_of_others()


def main(paths: str, command: list[str]) -> int:
    """Run the command until it or standard input ends; returns its exit status.

    Raises:
        OSError: the kernel does not confine the server.
    """
    forgo_privileges()
    # A signal to all processes of a worker would end this one before it kills the server's.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    isolated = isolate()
    allowed = json.loads(paths)
    # Open the paths after `isolate`, so that they are those of the new mounts.
    rules = None if allowed is None else landlock.ruleset(allowed)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=lambda: _in_child(rules),
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        kill()

    os.write(1, json.dumps({"pid": server.pid, "isolated": isolated}).encode() + b"\n")
    os.close(1)
    threading.Thread(target=watch, daemon=True).start()
    status = server.wait()
    kill()  # Child processes may have outlived the server.
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
