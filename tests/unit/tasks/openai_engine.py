"""The official client before a real engine: endpoint, wire and renderer as in the gateway."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai

from governance.errors import DomainError
from registry.catalog.declaration import Task
from registry.catalog.endpoints import Answer, Choice, Piece, Plan, dumps
from registry.catalog.requests import Body
from tests.waiting import PATIENCE_S
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.wire import Delta, Done, Event, Failed, decode_events, encode_events


def client_of(engine: Any, task: Task, *, strict: bool = True, loaded: str = "") -> openai.OpenAI:
    """Return the official client, whose requests the engine answers. `loaded` is an adapter."""
    numbers = iter(range(1_000_000))

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        endpoint = next(each for each in task.endpoints if each.path == path)
        request_id = f"req_{next(numbers):032x}"
        try:
            plan = endpoint.plan(Body("application/json", request.content), request_id, "")
            events = _events(engine, task, plan, request_id, loaded)
            first = next(events)
        except DomainError as error:
            param = getattr(error, "param", None)
            return _refused(400, error.message, str(error.code), param)
        except RequestRefused as error:
            return _refused(error.status, str(error), error.code)
        if isinstance(first, Failed):
            return _refused(first.status, first.message, first.code)
        if plan.stream:
            body = "".join(_streamed(plan, first, events))
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, text=body, headers=headers)
        return httpx.Response(200, text=dumps(_whole(plan, first, events)))

    return openai.OpenAI(
        api_key="key",
        base_url="http://engine/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
        _strict_response_validation=strict,
    )


def _refused(status: int, message: str, code: str, param: str | None = None) -> httpx.Response:
    error = {"message": message, "code": code, "param": param, "type": "invalid_request_error"}
    return httpx.Response(status, json={"error": error})


def _events(engine: Any, task: Task, plan: Plan, request_id: str, loaded: str) -> Iterator[Event]:
    from workers.celery_tasks.answering import parse_request

    inputs, options = parse_request(task, plan.inputs.to_wire(), plan.options.to_wire())
    arrived: queue.Queue[Event] = queue.Queue()
    put: Callable[[Event], None] = arrived.put
    engine.submit(EngineRequest(request_id, inputs, options, loaded or None), put)
    while True:
        [event] = decode_events(encode_events([arrived.get(timeout=PATIENCE_S)]))
        yield event
        if not isinstance(event, Delta):
            return


def _piece(delta: Delta) -> Piece:
    return Piece(delta.text, delta.index, delta.call, delta.scores, delta.finish)


def _whole(plan: Plan, first: Event, events: Iterator[Event]) -> Any:
    choices: dict[int, Choice] = {}
    event = first
    while isinstance(event, Delta):
        choices.setdefault(event.index, Choice(event.index)).add(_piece(event))
        event = next(events)
    assert isinstance(event, Done), event
    for choice in choices.values():
        choice.finish_reason = choice.finish_reason or event.finish_reason
    made = [choices[index] for index in sorted(choices)] or [
        Choice(finish_reason=event.finish_reason)
    ]
    return plan.renderer.whole(
        Answer(
            event.finish_reason,
            event.prompt_tokens,
            event.completion_tokens,
            made,
            stop=event.stop,
        )
    )


def _streamed(plan: Plan, first: Event, events: Iterator[Event]) -> Iterator[str]:
    renderer: Any = plan.renderer
    yield renderer.opening()
    event = first
    while isinstance(event, Delta):
        if event.text or event.call or event.scores or event.finish:
            yield renderer.delta(_piece(event))
        event = next(events)
    assert isinstance(event, Done), event
    yield renderer.closing(
        Answer(event.finish_reason, event.prompt_tokens, event.completion_tokens)
    )
