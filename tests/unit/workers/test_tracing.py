"""Traces are off unless the standard variables ask for them, and name what is known only."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
from opentelemetry.trace import StatusCode

from workers import tracing
from workers.wire import Done, Failed, InferenceRequest

ROOT = Path(__file__).resolve().parents[3]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def request(**fields: object) -> InferenceRequest:
    known = {"traceparent": PARENT, "enqueued_at": 1.0, "options": {}, **fields}
    return InferenceRequest("req_1", 7, "writer", "d" * 64, "stream", {}, **known)  # type: ignore[arg-type]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    tracing.start("test", exporter=exporter)
    yield exporter
    tracing.stop()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "web"}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": ""}, True),
    ],
)
def test_the_standard_variables_switch_traces_on(environment: dict[str, str], wanted: bool) -> None:
    assert tracing.traces_requested(environment) is wanted


def test_without_a_receiver_nothing_is_traced_and_no_exporter_is_loaded() -> None:
    tracing.start("test")
    assert tracing.tracer() is None
    assert tracing.begin_work(request()) is None
    code = (
        "import sys; from workers import tracing; tracing.start('web');"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_names_are_those_of_the_conventions() -> None:
    known = {
        value
        for module in (gen_ai_attributes, error_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    ours = {
        value
        for name, value in vars(tracing).items()
        if name.isupper() and isinstance(value, str) and not value.startswith("assay.")
    }
    assert {*ours, *tracing.REQUEST_OPTIONS.values()} <= known


def test_an_attempt_of_a_job_has_a_span_for_each_step_and_no_message(
    spans: InMemorySpanExporter,
) -> None:
    job = uuid.uuid4()

    def broken() -> None:
        with tracing.job_attempt(job_id=job, kind="fine_tune", attempt=2, claim_began_ns=5):
            with tracing.step("run"):
                pass
            with tracing.step("deliver", {tracing.JOB_OUTCOME: "failed"}):
                raise RuntimeError("zebra")

    with pytest.raises(RuntimeError):
        broken()
    tracing.stop()
    claim, run, deliver, attempt = spans.get_finished_spans()
    assert [each.name for each in (claim, run, deliver)] == ["claim", "run", "deliver"]
    assert {each.parent.span_id for each in (claim, run, deliver)} == {attempt.context.span_id}
    assert (attempt.name, attempt.start_time, claim.start_time) == ("job fine_tune", 5, 5)
    assert dict(attempt.attributes) == {
        tracing.JOB_ID: str(job), tracing.JOB_KIND: "fine_tune", tracing.JOB_ATTEMPT: 2,
        tracing.ERROR_TYPE: "RuntimeError",
    }  # fmt: skip
    assert deliver.attributes[tracing.JOB_OUTCOME] == "failed"
    assert "zebra" not in "".join(each.to_json() for each in spans.get_finished_spans())


def test_a_request_whose_gateway_sent_no_trace_gets_none(spans: InMemorySpanExporter) -> None:
    assert tracing.begin_work(request(traceparent="")) is None


def test_a_failed_request_names_its_code_and_not_its_message(spans: InMemorySpanExporter) -> None:
    work = tracing.begin_work(request(options={"max_tokens": 3, "echo": True, "stop": ["secret"]}))
    assert work is not None
    work.started("embeddings")
    work.end(Failed("engine_error", "secret", 500, prompt_tokens=4))
    tracing._provider.force_flush()
    queue, engine = spans.get_finished_spans()
    assert (queue.name, engine.name) == ("receive deployment.7", "embeddings writer")
    assert queue.start_time == 1_000_000_000
    assert engine.status.status_code is StatusCode.ERROR
    assert engine.attributes is not None
    assert engine.attributes["error.type"] == "engine_error"
    assert engine.attributes["gen_ai.request.max_tokens"] == 3
    assert "secret" not in engine.to_json()


def test_a_request_that_is_refused_before_its_engine_ends_its_wait(
    spans: InMemorySpanExporter,
) -> None:
    work = tracing.begin_work(request())
    assert work is not None
    work.end(Done("canceled", 0, 0))
    tracing._provider.force_flush()
    (queue,) = spans.get_finished_spans()
    assert queue.name == "receive deployment.7"


def test_a_malformed_traceparent_begins_a_trace_of_its_own(spans: InMemorySpanExporter) -> None:
    tracer = tracing.tracer()
    assert tracer is not None
    for text in ("", "no", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\u00ff" * 55):
        span = tracer.start_span("one", tracing.context_of(text))
        assert span.parent is None  # type: ignore[attr-defined]
        assert tracing.traceparent_of(span).startswith("00-")
        span.end()
