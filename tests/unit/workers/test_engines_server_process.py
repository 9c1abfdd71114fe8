"""The end of a server with everything that it started."""

from __future__ import annotations

import os
import signal
import sys
import threading

from tests.waiting import PATIENCE_S, wait_until
from workers.engines.servers.process import ServerLimits, ServerProcess, memory_of

# Starts a process that would outlive it, and answers every request.
_SERVER = """
import http.server, socketserver, subprocess, sys
subprocess.Popen(["/bin/sleep", "600"])
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def address_string(self):
        return ""
socketserver.UnixStreamServer(sys.argv[1], Answers).serve_forever()
"""


def test_a_server_whose_launcher_was_killed_leaves_no_process_behind() -> None:
    ended = threading.Event()
    server = ServerProcess(
        lambda path: [sys.executable, "-I", "-c", _SERVER, str(path)],
        paths={"run": [sys.prefix, sys.base_prefix]},
        limits=ServerLimits(),
        on_end=ended.set,
    )
    assert memory_of(server.pid) > 0
    os.kill(server._process.pid, signal.SIGKILL)
    assert ended.wait(PATIENCE_S)
    wait_until(lambda: memory_of(server.pid) == 0)
    assert server.fault.startswith("The server ended with status")
    server.close()
