"""The gateway's span of one request (`workers.tracing`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.gateway.access.call import Call
from assay.gateway.http.asgi import Scope, Send, header
from workers import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

# Outcomes that are not failures: a complete answer, and a client that hung up.
_GOOD = {"ok", "canceled"}


class RequestTrace:
    """One request, from its first byte to the end of its answer."""

    def __init__(self, tracer: Tracer, scope: Scope, route: str) -> None:
        """Begin the span, as part of the client's trace if it sent a `traceparent`."""
        from opentelemetry.trace import SpanKind

        parent, state = (
            (header(scope, name) or b"").decode("latin-1")[:512]
            for name in (b"traceparent", b"tracestate")
        )
        self._span: Span = tracer.start_span(
            f"{scope['method']} {route}",
            tracing.context_of(parent, state),
            SpanKind.SERVER,
            {"http.request.method": scope["method"], "http.route": route},
        )

    @property
    def traceparent(self) -> str:
        """Header that makes the worker's spans children of this one."""
        return tracing.traceparent_of(self._span)

    def watching(self, send: Send) -> Send:
        """Return a `send` that records the status of the answer."""

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._span.set_attribute("http.response.status_code", message["status"])
            await send(message)

        return watched

    def end(self, call: Call) -> None:
        """Describe the ended request, and end its span."""
        span, deployment, entry = self._span, call.deployment, call.settled
        span.set_attribute(tracing.RESPONSE_ID, call.request_id)
        if deployment is not None:
            span.set_attributes(
                {
                    tracing.OPERATION: tracing.operation_of(deployment.task),
                    tracing.PROVIDER: "assay",
                    tracing.REQUEST_MODEL: deployment.name,
                    tracing.DIGEST: deployment.digest,
                    "assay.release": deployment.release,
                }
            )
        if call.key is not None:
            span.set_attribute("assay.department", call.key.department or "")
        if entry is not None:
            span.set_attributes(
                {
                    tracing.INPUT_TOKENS: entry.prompt_tokens,
                    tracing.OUTPUT_TOKENS: entry.completion_tokens,
                    tracing.DEVICE_MS: entry.device_ms,
                    "assay.queue_ms": entry.queue_ms,
                }
            )
        if call.outcome not in _GOOD:
            tracing.fail(span, call.outcome)
        span.end()


def begin_request(scope: Scope, route: str) -> RequestTrace | None:
    """Return the trace of a request; None while traces are off."""
    tracer = tracing.tracer()
    return None if tracer is None else RequestTrace(tracer, scope, route)
