"""A worker's events as the parts of an answer."""

from __future__ import annotations

from registry.catalog.endpoints import Answer, Choice, Piece
from workers.wire import Delta, Done, Failed


def piece(delta: Delta) -> Piece:
    """Return what a renderer takes of it."""
    return Piece(delta.text, delta.index, delta.call, delta.scores, delta.finish)


def used(failed: Failed) -> Done | None:
    """Return the counts to charge for a failure; None where it states none."""
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
    """Return how many inputs were cut, and what they lost together, where any was."""
    if not answer.cut_inputs:
        return []
    return [
        (b"x-assay-truncated-inputs", str(answer.cut_inputs).encode()),
        (b"x-assay-truncated-tokens", str(answer.cut_tokens).encode()),
    ]


def answer_of(done: Done, choices: dict[int, Choice] | None = None) -> Answer:
    """Return the answer; choices without an end of their own have the request's."""
    made = choices or {0: Choice()}
    for choice in made.values():
        choice.finish_reason = choice.finish_reason or done.finish_reason
    return Answer(
        finish_reason=done.finish_reason,
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        choices=[made[index] for index in sorted(made)],
        results=done.results or [],
        units=done.units,
        stop=done.stop,
        cut_inputs=done.cut_inputs,
        cut_tokens=done.cut_tokens,
    )
