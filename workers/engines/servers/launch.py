"""Start a server confined to its files, without network and without privileges, and end it with
its parent.

Run as `python -I -m workers.engines.servers.launch PATHS COMMAND…`, where PATHS are those of
`landlock.ruleset` as JSON, or `null` for a server that is not confined. It prints one line of JSON,
`{"pid": …, "isolated": …}`, then waits for the server. The end of its standard input, which its
parent holds open, kills the server. Loads the standard library and `registry.sandbox` alone.

Where the kernel allows no network and `/dev/shm` of its own, `isolated` is false: the server has
the worker's.
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
    for taken in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(taken, signal.SIG_DFL)
    end_with_parent()
    drop_capabilities()
    if rules is not None:
        landlock.confine(rules)
    deny_limits_of_others()


def main(paths: str, command: list[str]) -> int:
    """Run the command until it ends, or standard input does; returns its exit status.

    Raises:
        OSError: the kernel does not confine it.
    """
    forgo_privileges()
    # A signal to all processes of a worker would leave behind what the server has started.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    isolated = isolate()
    allowed = json.loads(paths)
    # Its paths are those of the new mounts.
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
    kill()  # Processes that it started may have outlived it.
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
