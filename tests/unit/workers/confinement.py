"""A program under the confinement of an engine's server: which accesses succeed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from workers.engines.servers.process import LAUNCH

PROBE = """
import json, os, signal, socket, sys
tried = json.loads(sys.argv[1])
def connect(address):
    with socket.socket(socket.AF_UNIX) as each:
        each.connect(address.replace("@", chr(0)))
ways = {
    "read": lambda path: open(path, "rb").read(1),
    "write": lambda path: open(path, "ab").close(),
    "truncate": lambda path: os.truncate(path, 0),
    "list": os.listdir,
    "remove": os.remove,
    "connect": connect,
    "tcp": lambda port: socket.create_connection(("127.0.0.1", int(port)), 5).close(),
    "signal": lambda pid: os.kill(int(pid), 0),
    "run": lambda path: os.execv(path, [path]) if os.fork() == 0 else os.wait(),
}
found = []
for way, target in tried:
    try:
        ways[way](target)
        found.append("done")
    except OSError as error:
        found.append(error.strerror)
print("PROBE" + json.dumps(found))
"""


def accesses(
    paths: Mapping[str, Sequence[str]] | None, tried: Sequence[tuple[str, Any]]
) -> list[str]:
    """Return "done" or the system's error for each access, tried from a confined program."""
    assert paths is not None, "the server is not confined"
    own = {**paths, "run": [*paths.get("run", ()), sys.prefix, sys.base_prefix]}
    command = [sys.executable, "-I", "-c", PROBE, json.dumps([[w, str(t)] for w, t in tried])]
    process = subprocess.Popen(
        [sys.executable, *LAUNCH, json.dumps(own), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = process.stderr.read()
    process.wait(30)
    assert "PROBE" in told, told
    found: list[str] = json.loads(told.rpartition("PROBE")[2])
    return found
