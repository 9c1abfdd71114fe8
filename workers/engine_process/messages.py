"""Convert requests, events and errors to messages between a worker and its engines."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

from pydantic import BaseModel

from registry.catalog.inputs import Inputs, Options
from workers.engine_process.frames import Message, plain
from workers.engines.architectures import UnsupportedModel
from workers.engines.names import load_name
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.runner import MediaOutput
from workers.references import contains, replace_parts
from workers.wire import Done, EngineLoad, Event, event_from_json, event_to_json


class EngineFailed(Exception):
    """An operation of the engine failed; the message begins with the error's class."""


# Errors that keep their type when they are sent to the worker.
_KEPT = {each.__name__: each for each in (UnsupportedModel, ValueError, MemoryError, OSError)}


def request_to_message(request: EngineRequest) -> Message:
    """Return a request as a message, with bytes in place of its streams."""
    return {
        "request_id": request.request_id,
        "inputs": _part_to_message(request.inputs),
        "options": _part_to_message(request.options),
        "adapter": request.adapter,
        "scope": request.scope,
        "sketch": request.sketch,
    }


def request_from_message(message: Message) -> EngineRequest:
    """Return the request in a message. Raises ValueError and the errors of `import_module`."""
    return EngineRequest(
        request_id=message["request_id"],
        inputs=_part_from_message(message["inputs"], Inputs),
        options=_part_from_message(message["options"], Options),
        adapter=message["adapter"],
        scope=message["scope"],
        sketch=message["sketch"],
    )


def event_to_message(event: Event) -> Message:
    """Return an event as a message, with dictionaries of bytes in place of a runner's files."""
    if isinstance(event, Done) and has_files(event):
        event = replace(event, results=replace_parts(event.results, _is_file, _file_to_message))
    return event_to_json(event)


def event_from_message(message: Message) -> Event:
    """Return the checked event. Raises KeyError, TypeError, ValueError or AttributeError."""
    event = event_from_json(message)
    if isinstance(event, Done) and contains(event.results, _has_bytes):
        return replace(event, results=replace_parts(event.results, _has_bytes, _file_from_message))
    return event


def loads_from_message(message: Message) -> dict[int, EngineLoad]:
    """Return the load of each engine in a report. Raises KeyError, TypeError or ValueError."""
    loads = {}
    for number, each in message.get("loads", {}).items():
        counts = {name: max(0, int(each[name])) for name in ("running", "waiting", "steps", "rows")}
        cache = each["cache"]
        used = None if cache is None else min(1.0, max(0.0, float(cache)))
        loads[int(number)] = EngineLoad(**counts, cache=used)
    return loads


def has_files(event: Event) -> bool:
    """Return whether an event contains files that a runner made."""
    return isinstance(event, Done) and contains(event.results, _is_file)


def error_to_message(error: BaseException) -> Message:
    """Return an error as a message that preserves its kind and text."""
    if isinstance(error, RequestRefused):
        return {"refused": str(error), "code": error.code, "status": error.status}
    for kind in type(error).__mro__:
        if _KEPT.get(kind.__name__) is kind:
            text = str(error)
            return {"kind": kind.__name__, "said": text[:2000]}
    return {"kind": "", "said": f"{type(error).__name__}: {error}"[:2000]}


def error_from_message(message: Message) -> Exception:
    """Return the error in a message, for the caller to raise."""
    if "refused" in message:
        text, code, status = message["refused"], message["code"], message["status"]
        return RequestRefused(str(text), code=str(code), status=int(status))
    return _KEPT.get(message["kind"], EngineFailed)(str(message["said"]))


def _part_to_message(part: BaseModel) -> list[Any]:
    kind = type(part)
    return [f"{kind.__module__}:{kind.__qualname__}", plain(part)]


def _part_from_message(message: list[Any], base: type[BaseModel]) -> Any:
    name, body = message
    kind = _class(name)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(f"{name} is not a schema")
    return kind.model_validate(replace_parts(body, _is_bytes, BytesIO))


@cache
def _class(name: str) -> Any:
    return load_name(name)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes)


def _is_file(value: Any) -> bool:
    return isinstance(value, MediaOutput)


def _file_to_message(file: MediaOutput) -> Message:
    return {"data": file.data, "content_type": file.content_type, "details": dict(file.details)}


def _has_bytes(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("data"), bytes)


def _file_from_message(value: Message) -> MediaOutput:
    return MediaOutput(value["data"], str(value["content_type"]), dict(value["details"]))
