"""Requests and events as they travel between an engine worker and the process of its engines."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

from pydantic import BaseModel

from registry.catalog.inputs import Inputs, Options
from workers.engine_process.frames import Message
from workers.engines.architectures import UnsupportedModel
from workers.engines.names import load_name
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.runner import MediaOutput
from workers.references import contains, swapped
from workers.wire import Done, Event, event_from_json, event_to_json


class EngineFailed(Exception):
    """The engine could not do it; the message begins with the kind of the error."""


# Errors that keep their type on the way back.
_KEPT = {each.__name__: each for each in (UnsupportedModel, ValueError, MemoryError, OSError)}


def request_to_message(request: EngineRequest) -> Message:
    """Return a request; the bytes of its files in place of its streams."""
    return {
        "request_id": request.request_id,
        "inputs": _part_to_message(request.inputs),
        "options": _part_to_message(request.options),
        "adapter": request.adapter,
        "scope": request.scope,
        "sketch": request.sketch,
    }


def request_from_message(message: Message) -> EngineRequest:
    """Return the request. Raises ValueError and what `import_module` raises."""
    return EngineRequest(
        request_id=message["request_id"],
        inputs=_part_from_message(message["inputs"], Inputs),
        options=_part_from_message(message["options"], Options),
        adapter=message["adapter"],
        scope=message["scope"],
        sketch=message["sketch"],
    )


def event_to_message(event: Event) -> Message:
    """Return an event; dictionaries with bytes in place of the files that a runner made."""
    if isinstance(event, Done) and has_files(event):
        event = replace(event, results=swapped(event.results, _is_file, _file_to_message))
    return event_to_json(event)


def event_from_message(message: Message) -> Event:
    """Return the event, checked. Raises KeyError, TypeError, ValueError or AttributeError."""
    event = event_from_json(message)
    if isinstance(event, Done) and contains(event.results, _has_bytes):
        return replace(event, results=swapped(event.results, _has_bytes, _file_from_message))
    return event


def has_files(event: Event) -> bool:
    """Return whether an event holds files that a runner made."""
    return isinstance(event, Done) and contains(event.results, _is_file)


def error_to_message(error: BaseException) -> Message:
    """Return what a caller can tell about an error by its type."""
    if isinstance(error, RequestRefused):
        return {"refused": str(error), "code": error.code, "status": error.status}
    for kind in type(error).__mro__:
        if _KEPT.get(kind.__name__) is kind:
            said = str(error)
            return {"kind": kind.__name__, "said": said[:2000]}
    return {"kind": "", "said": f"{type(error).__name__}: {error}"[:2000]}


def error_from_message(message: Message) -> Exception:
    """Return the error to raise here."""
    if "refused" in message:
        said, code, status = message["refused"], message["code"], message["status"]
        return RequestRefused(str(said), code=str(code), status=int(status))
    return _KEPT.get(message["kind"], EngineFailed)(str(message["said"]))


def _part_to_message(part: BaseModel) -> list[Any]:
    kind = type(part)
    return [f"{kind.__module__}:{kind.__qualname__}", _plain(part)]


def _plain(value: Any) -> Any:
    """Return what was set of a schema, as JSON and bytes; pydantic would take a stream apart."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return [_plain(part) for part in value]
    if hasattr(value, "read"):
        return value.read()
    return value


def _part_from_message(message: list[Any], base: type[BaseModel]) -> Any:
    name, body = message
    kind = _class(name)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(f"{name} is not a schema")
    return kind.model_validate(swapped(body, _is_bytes, BytesIO))


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
