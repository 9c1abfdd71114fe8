"""OpenTelemetry traces of inference requests: from the gateway through the queue and the engine;
of attempts of jobs, from the claim to the delivery; and of batches.

Traces are off unless the standard `OTEL_*` variables name a receiver; while off, a request costs
one comparison. Attributes are names, counts and durations: never a prompt, an answer or an error
message, which may quote one. Names for generative AI follow OpenTelemetry's conventions, which are
still in development, so all of them are in this module. Uses neither Django nor torch.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from workers.wire import Done, Failed, InferenceRequest, deployment_queue

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
# Names of numeric request options, and their attributes.
REQUEST_OPTIONS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "choices": "gen_ai.request.choice.count",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}
ERROR_TYPE = "error.type"
DIGEST = "assay.version.digest"
DEVICE_MS = "assay.device_ms"
JOB_ID = "assay.job.id"
JOB_KIND = "assay.job.kind"
JOB_ATTEMPT = "assay.job.attempt"
# `delivered`, `failed`, `paused` or `canceled`.
JOB_OUTCOME = "assay.job.outcome"
BATCH_ID = "assay.batch.id"
BATCH_ENDPOINT = "assay.batch.endpoint"
# Other tasks use their own name.
_OPERATIONS = {"text-generation": "chat", "text-completion": "text_completion"}
_NANOSECONDS = 1_000_000_000


class Step(StrEnum):
    """Names of spans: steps of a job's attempt, and a batch with its steps."""

    CLAIM = "claim"
    PREPARE = "prepare"
    RUN = "run"
    DELIVER = "deliver"
    BATCH = "batch"
    VALIDATE = "validate"
    LINES = "lines"
    COMPLETE = "complete"


_tracer: Tracer | None = None
_provider: Any = None


def start(service: str, *, exporter: SpanExporter | None = None) -> None:
    """Send traces as `service` from now on, if the environment names a receiver.

    `exporter` replaces the receiver. OTEL_SERVICE_NAME overrides `service`.
    """
    global _tracer, _provider
    if _provider is not None or (exporter is None and not traces_requested(os.environ)):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    has_name = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if has_name else {"service.name": service})
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    _tracer = _provider.get_tracer("assay")
    logger.info("Traces are sent as %s", resource.attributes["service.name"])


def stop() -> None:
    """Send pending traces, and stop."""
    global _tracer, _provider
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()


def traces_requested(environment: Mapping[str, str]) -> bool:
    """Return whether the standard variables request traces over OTLP and name the receiver."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if (environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp") != "otlp":
        return False
    variables = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(name) for name in variables)


def tracer() -> Tracer | None:
    """Return the tracer; None while traces are off."""
    return _tracer


def operation_of(task: str) -> str:
    """Return the name of a task's operation in the conventions, such as `chat`."""
    return _OPERATIONS.get(task, task)


def context_of(traceparent: str, tracestate: str = "") -> Context:
    """Return the context of a W3C `traceparent`; an empty one if it is malformed."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent, "tracestate": tracestate}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def traceparent_of(span: Span) -> str:
    """Return the W3C `traceparent` that makes other spans children of this one; empty if this span
    is not sampled."""
    if not span.is_recording():
        return ""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def fail(span: Span, code: str) -> None:
    """Mark a span as failed, with the code of the error but not its message."""
    from opentelemetry.trace import StatusCode

    span.set_attribute(ERROR_TYPE, code)
    span.set_status(StatusCode.ERROR)


class WorkTrace:
    """The two spans of one request in an engine worker: the wait in the queue, and the engine."""

    def __init__(self, made_by: Tracer, request: InferenceRequest) -> None:
        from opentelemetry.trace import SpanKind

        queue = deployment_queue(request.deployment_id)
        self._tracer = made_by
        self._request = request
        self._context = context_of(request.traceparent)
        self._engine: Span | None = None
        self._queue: Span = made_by.start_span(
            f"receive {queue}",
            self._context,
            SpanKind.CONSUMER,
            {
                "messaging.system": "redis",
                "messaging.operation.type": "receive",
                "messaging.destination.name": queue,
            },
            start_time=round(request.enqueued_at * _NANOSECONDS) or None,
        )

    def started(self, task: str) -> None:
        """End the span of the queue, and begin that of the engine."""
        now, request, operation = time.time_ns(), self._request, operation_of(task)
        self._queue.end(now)
        self._engine = self._tracer.start_span(
            f"{operation} {request.deployment}",
            self._context,
            attributes={
                OPERATION: operation,
                PROVIDER: "assay",
                REQUEST_MODEL: request.deployment,
                RESPONSE_ID: request.request_id,
                DIGEST: request.digest,
                **_numbers(request.options),
            },
            start_time=now,
        )

    def end(self, last: Done | Failed) -> None:
        """End the open span with the data of the last event."""
        span = self._queue if self._engine is None else self._engine
        if isinstance(last, Failed):
            fail(span, last.code)
        else:
            span.set_attribute(FINISH_REASONS, [last.finish_reason])
        span.set_attribute(INPUT_TOKENS, last.prompt_tokens)
        span.set_attribute(OUTPUT_TOKENS, last.completion_tokens)
        span.set_attribute(DEVICE_MS, last.device_ms)
        span.end()


def begin_work(request: InferenceRequest) -> WorkTrace | None:
    """Return a request's trace in this worker; None if traces are off here or in the gateway."""
    if _tracer is None or not request.traceparent:
        return None
    return WorkTrace(_tracer, request)


@contextmanager
def step(
    name: str, attributes: Mapping[str, str | int] | None = None, *, start_ns: int | None = None
) -> Iterator[Span | None]:
    """Trace the block as a span within the surrounding one of this thread or task; yield None while
    traces are off.

    An exception marks the span as failed, with its code or type but not its message.
    """
    if _tracer is None:
        yield None
        return
    with _tracer.start_as_current_span(
        name,
        attributes=attributes,
        start_time=start_ns,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            fail(span, str(getattr(error, "code", "") or type(error).__name__))
            raise


@contextmanager
def job_attempt(
    *, job_id: UUID, kind: str, attempt: int, claim_began_ns: int
) -> Iterator[Span | None]:
    """Trace an attempt that was just claimed, with a span of the claim; the block has its steps.

    `claim_began_ns` is the Unix time when the claim was requested.
    """
    attributes: dict[str, str | int] = {
        JOB_ID: str(job_id), JOB_KIND: kind, JOB_ATTEMPT: attempt,
    }  # fmt: skip
    with step(f"job {kind}", attributes, start_ns=claim_began_ns) as span:
        if span is not None:
            with step(Step.CLAIM, start_ns=claim_began_ns):
                pass
        yield span


def _numbers(options: Mapping[str, Any]) -> dict[str, int | float]:
    return {
        attribute: value
        for name, attribute in REQUEST_OPTIONS.items()
        if isinstance(value := options.get(name), int | float) and not isinstance(value, bool)
    }
