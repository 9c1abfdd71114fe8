"""Convert a worker's events to parts of an answer."""

from __future__ import annotations

from assay.gateway.http.asgi import ClientGone, Headers
from assay.gateway.http.errors import EngineFailed, ReplyForged
from assay.gateway.run.reply_streams import Arrival, Cut, Tampered
from registry.catalog.endpoints import Answer, Choice, Piece
from workers.wire import Delta, Done, Failed

STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def piece(delta: Delta) -> Piece:
    """Return the part of the event that renderers use."""
    return Piece(delta.text, delta.index, delta.call, delta.scores, delta.finish)


def used(failed: Failed) -> Done | None:
    """Return the counts to charge for a failure; None if it has none."""
    if not failed.units:
        return None
    return Done(
        "failed",
        failed.prompt_tokens,
        failed.completion_tokens,
        device_ms=failed.device_ms,
        units=failed.units,
    )


def cut_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return headers with the number of truncated inputs and of tokens cut off, if any."""
    if not answer.cut_inputs:
        return []
    return [
        (b"x-assay-truncated-inputs", str(answer.cut_inputs).encode()),
        (b"x-assay-truncated-tokens", str(answer.cut_tokens).encode()),
    ]


def answer_of(done: Done, choices: dict[int, Choice] | None = None) -> Answer:
    """Return the answer; choices without their own finish reason get the request's."""
    by_index = choices or {0: Choice()}
    for choice in by_index.values():
        choice.finish_reason = choice.finish_reason or done.finish_reason
    return Answer(
        finish_reason=done.finish_reason,
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        choices=[by_index[index] for index in sorted(by_index)],
        results=done.results or [],
        units=done.units,
        stop=done.stop,
        cut_inputs=done.cut_inputs,
        cut_tokens=done.cut_tokens,
    )


def part_of_answer(event: Arrival, deployment: str) -> Delta | Done:
    """Return the event if it continues or ends the answer.

    Raises:
        ClientGone: the client hung up.
        EngineFailed, ReplyForged: there is no answer.
        DomainError: what admitted the request no longer holds, or a time limit has passed.
    """
    if isinstance(event, Done) and event.finish_reason == "canceled":
        raise EngineFailed(
            f"Deployment {deployment} was stopped while it answered.",
            code="engine_stopped",
            status=503,
        )
    if isinstance(event, (Delta, Done)):
        return event
    if isinstance(event, Failed):
        raise EngineFailed(
            event.message,
            code=event.code,
            status=event.status,
            used=used(event),
            retry_after=event.retry_after_s or None,
        )
    if isinstance(event, Cut):
        raise event.error
    if isinstance(event, Tampered):
        raise ReplyForged(
            f"A reply to this request did not come from a worker that holds deployment "
            f"{deployment}, so the answer is not delivered.",
            hint="Tell your operators; the audit log has it under the request's ID.",
        )
    raise ClientGone


def last_word(event: Arrival, completion_tokens: int) -> Done | None:
    """Return the counts of a canceled request; None if the event does not end it."""
    if isinstance(event, Done):
        return event
    if isinstance(event, Failed):
        return used(event) or Done("canceled", 0, completion_tokens)
    return Done("canceled", 0, completion_tokens) if isinstance(event, Tampered) else None
