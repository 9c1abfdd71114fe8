"""A small HTTP server around one endpoint, for clients that do not take a mock transport."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from registry.catalog.endpoints import Answer, Endpoint, Plan, Rendered
from registry.catalog.requests import Body


@contextmanager
def served(endpoint: Endpoint, answer: Answer) -> Iterator[tuple[str, list[Plan]]]:
    """Read each request as the gateway does and answer it with `answer`; yields URL and plans."""
    plans: list[Plan] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kind, _, parameters = self.headers.get("content-type", "").partition(";")
            data = self.rfile.read(int(self.headers["content-length"]))
            name = self.path.rpartition("/")[2] if endpoint.named else ""
            plan = endpoint.read(
                Body(kind.strip().lower(), data, parameters.strip()), "req_1", name
            )
            plans.append(plan)
            made = plan.renderer.whole(answer)
            if not isinstance(made, Rendered):
                made = Rendered(json.dumps(made).encode(), "application/json")
            self.send_response(200)
            self.send_header("content-type", made.content_type)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", plans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
