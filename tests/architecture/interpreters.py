"""Programs in interpreters of their own, forked from one that has imported nothing of ours.

Importing Django and psycopg takes nine tenths of what such a program needs.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
_FORKING = """
import json, os, sys, traceback
import asyncio, django.db, psycopg
for line in sys.stdin:
    program, environment, *outputs = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number, path in enumerate(outputs, 1):
                os.dup2(os.open(path, os.O_WRONLY), number)
            os.environ.clear()
            os.environ.update(environment)
            exec(program, {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _forking() -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", _FORKING],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": PATHS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(started.kill)
    return started


def run_program(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `program` with only this environment, which is given once libraries are imported."""
    forking = _forking()
    assert forking.stdin is not None
    assert forking.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as error:
        whole = {"PATH": os.environ["PATH"], "PYTHONPATH": PATHS, **environment}
        forking.stdin.write(json.dumps([program, whole, out.name, error.name]) + "\n")
        forking.stdin.flush()
        status = int(forking.stdout.readline())
        return subprocess.CompletedProcess([program], status, out.read(), error.read())
