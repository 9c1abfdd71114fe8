"""One request through real processes: its spans at an OTLP receiver, its ID in every log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from redis import Redis

from tests.live.celery_worker import controller, worker
from tests.live.test_serving_faults import ENGINE, key
from tests.live.web_process import web
from tests.unit.assay.metrics_support import OPENMETRICS, Scrape, settled
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create
from workers.wire import deployment_queue

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
SECRET = "zebra"


class Receiver:
    """Takes traces over HTTP, as a collector of OpenTelemetry does."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.bodies: list[bytes] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(named["service.name"], span) for span in scope.spans]

    def named(self, start: str) -> Any:
        """The one span of the caller's trace whose name starts so, with its attributes."""
        (found,) = [
            span
            for _, span in self.spans
            if span.name.startswith(start) and span.trace_id.hex() == TRACE_ID
        ]
        return found

    def has(self, start: str) -> bool:
        """Return true if the name of a span starts with `start`."""
        return any(span.name.startswith(start) for _, span in list(self.spans))

    def statuses(self) -> set[Any]:
        """Return the statuses of the answers that spans of servers have."""
        return {attributes(span).get("http.response.status_code") for _, span in list(self.spans)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


def records(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, each of which is one JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def _check_metrics(url: str) -> None:
    """Check that the request is in the metrics, with its trace, and that engine worker and
    controller have reported."""
    reported = {"assay_engine_batch_size", "assay_queue_oldest_age_seconds"}
    wait_until(lambda: reported <= Scrape(url).labels.keys())
    settled(url, 2)
    scrape = Scrape(url, accept=OPENMETRICS)
    served = {"deployment": "docs", "endpoint": "/v1/completions"}
    # The engine is an echo, without a prefill and a cache.
    name = "assay_gateway_request_queue_time_seconds"
    assert scrape.value(f"{name}_count", **served) == 1
    exemplars = [one.exemplar for one in scrape.families[name].samples if one.exemplar]
    assert [each.labels for each in exemplars] == [{"trace_id": TRACE_ID}]
    for name in ("requests_running", "requests_waiting"):
        assert scrape.value(f"assay_engine_{name}", deployment="docs") == 0
    assert scrape.value("assay_gateway_tokens_total", deployment="docs", kind="completion") == 2


def test_a_request_is_traced_without_its_prompt_and_found_in_every_log_by_its_id(
    redis: Redis, tmp_path: Path, settings: Any
) -> None:
    settings.SERVING_LEASE_S = 3600
    made = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
    token = key()
    with receiving() as receiver, ExitStack() as stack:
        given = {
            "ASSAY_SERVING_LEASE_S": "3600",
            "ASSAY_LOG_FORMAT": "json",
            "ASSAY_LOG_LEVEL": "DEBUG",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        stack.enter_context(controller(tmp_path / "controller.log", **given))
        stack.enter_context(worker(tmp_path / "engine.log", *ENGINE, **given))
        url, _ = stack.enter_context(web(tmp_path, **given))
        wait_until(lambda: Deployment.objects.get(pk=made.pk).state == DeploymentState.SERVING)
        headers = {"authorization": f"Bearer {token}", "traceparent": CALLER}
        body = {"model": "docs", "prompt": f"one {SECRET}", "max_tokens": 8, "temperature": 0.5}

        def ask() -> httpx.Response:
            return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)

        answer = ask()
        assert answer.status_code == 200, answer.text
        request_id = answer.headers["x-request-id"]
        unknown = {**body, "model": "unknown"}
        refused = httpx.post(f"{url}/v1/completions", json=unknown, headers=headers, timeout=60)
        assert refused.status_code == 404
        portal = httpx.get(f"{url}/api/v1/models", headers={"x-request-id": "grep-me"})
        assert portal.headers["x-request-id"] == "grep-me"
        expected = ("receive ", "chat docs")
        wait_until(lambda: receiver.statuses() >= {200, 404} and all(map(receiver.has, expected)))
        _check_metrics(url)
        logs = {name: tmp_path / name for name in ("log", "engine.log", "controller.log")}
        for log in logs.values():
            wait_until(lambda log=log: request_id in log.read_text())  # type: ignore[misc]

    served = [span for _, span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]
    good = next(s for s in served if attributes(s).get("gen_ai.response.id") == request_id)
    assert good.parent_span_id.hex() == CALLER.split("-")[2]
    assert attributes(good)["http.response.status_code"] == 200
    queue = receiver.named(f"receive {deployment_queue(made.pk)}")
    engine = receiver.named("chat docs")
    assert queue.parent_span_id == engine.parent_span_id == good.span_id
    assert good.start_time_unix_nano <= queue.start_time_unix_nano
    assert queue.end_time_unix_nano == engine.start_time_unix_nano
    assert {service for service, _ in receiver.spans} == {"assay-web", "assay-engine"}
    found = attributes(engine)
    for name, value in {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "assay",
        "gen_ai.request.model": "docs",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.id": request_id,
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
    }.items():
        assert found[name] == value, name
    bad = next(s for s in served if attributes(s).get("http.response.status_code") == 404)
    assert attributes(bad)["error.type"] == "model_not_found"
    assert not any(SECRET.encode() in body for body in receiver.bodies)

    processes = {"log": "web", "engine.log": "worker", "controller.log": "controller"}
    for name, process in processes.items():
        mine = [record for record in records(logs[name]) if record["request_id"] == request_id]
        assert {record["process"] for record in mine} == {process}
    assert any(record["request_id"] == "grep-me" for record in records(logs["log"]))
    for log in logs.values():
        assert SECRET not in log.read_text()
