"""No field of a request is taken without effect: each changes what is computed or answered, alone
and beside each other field, or the request is refused, or the table says why it changes nothing."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from registry.catalog import TASKS
from registry.catalog.endpoints import Endpoint, Plan
from registry.catalog.grounding import Passage
from registry.catalog.inputs import MediaInput
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.request_bodies import BODIES, BOUNDARY

Path = tuple[str | int, ...]
ENDPOINTS = {
    (task.name, endpoint.path): endpoint
    for task in TASKS.values()
    for endpoint in task.endpoints
    if endpoint.request is not None
}
CALLER = "The caller's name for its user, which changes no answer."
HINT = "A hint where a prompt can be cached, which clients send by themselves."
LABEL = "A label of the schema. Clients take it from the name and docstring of their classes."
ONE_TIER = "Both words ask for the one tier that there is."
SENT_BACK = "A word of the server's own, that comes back with an answer of it."
# Fields, by the name of their schema or of themselves, that change nothing.
STATED = {
    "user": CALLER,
    "safety_identifier": CALLER,
    "prompt_cache_key": CALLER,
    "Metadata.user_id": CALLER,
    "cache_control": HINT,
    "CacheControl.ttl": HINT,
    "JsonSchemaFormat.name": LABEL,
    "JsonSchemaFormat.description": LABEL,
    "JsonSchemaFormat.strict": "A schema is enforced always.",
    "TextFormat.name": LABEL,
    "TextFormat.description": LABEL,
    "TextFormat.strict": "A schema is enforced always.",
    "TranscriptionRequest.stream": "Both words are false.",
    "TranscriptionRequest.timestamp_granularities": "Segments are what there is.",
    "MessagesRequest.metadata": CALLER,
    "VisionMessagesRequest.metadata": CALLER,
    "VisionMessagesRequest.service_tier": ONE_TIER,
    "InputMessage.id": SENT_BACK,
    "InputMessage.status": SENT_BACK,
    "InputMessage.type": SENT_BACK,
    "FunctionCall.id": SENT_BACK,
    "FunctionCall.status": SENT_BACK,
    "FunctionCallOutput.id": SENT_BACK,
    "FunctionCallOutput.status": SENT_BACK,
    "SpeechRequest.stream_format": "Recordings come back whole; the word for events is refused.",
    "VisualQuestionRequest.image": "It must be the one that the client sends as inputs, too.",
    "PromptReference.id": "It must be the model, whose prompt is its own.",
    "ResponsesRequest.service_tier": ONE_TIER,
    "InputPart.type": "It must be the kind of what the part holds.",
    "TextGenerationRequest.parameters": "An empty one is none.",
    "GenerationParameters.do_sample": "Older clients send false always; TGI then draws all the "
    "same where there is a temperature.",
    "ImagesRequest.response_format": "Images come back in the answer; other words are refused.",
    "MessagesRequest.service_tier": ONE_TIER,
}

# Schemas that several tasks share have fields that one of them always refuses.
REFUSED = {("image-feature-extraction", "/v1/embeddings"): {"InputPart.text"}}


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the schemas in an annotation, those inside of them included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_of(field.annotation)
    for inner in typing.get_args(annotation):
        yield from models_of(inner)


def empty(bounds: typing.Iterable[Any]) -> bool:
    """Return whether bounds leave nothing but an empty list."""
    each = [bound for given in bounds for bound in getattr(given, "metadata", [given])]
    return any(getattr(bound, "max_length", None) == 0 for bound in each)


def says_what_is_done(annotation: Any) -> bool:
    """Return whether a field takes one value alone, or none."""
    if typing.get_origin(annotation) is typing.Annotated:
        return empty(annotation.__metadata__) or says_what_is_done(annotation.__origin__)
    if typing.get_origin(annotation) is Literal:
        return len(typing.get_args(annotation)) == 1
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return all(says_what_is_done(each) for each in typing.get_args(annotation))
    if typing.get_origin(annotation) is list:
        return says_what_is_done(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return not list(fields_of(annotation))
    return annotation in (None, type(None))


def fields_of(schema: type[BaseModel]) -> Iterator[str]:
    """Return the fields of a schema that can be given a value of one's own."""
    for name, field in schema.model_fields.items():
        if not empty(field.metadata) and not says_what_is_done(field.annotation):
            yield f"{schema.__name__}.{name}"


def given_fields(value: Any, path: Path = ()) -> Iterator[tuple[str, str, Path]]:
    """Return the schema, the name and the path of each field that a request was given."""
    if isinstance(value, BaseModel):
        kind = type(value)
        for name in value.model_fields_set:
            place = (*path, kind.model_fields[name].alias or name)
            yield kind.__name__, name, place
            yield from given_fields(getattr(value, name), place)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from given_fields(each, (*path, number))


def stated(kind: str, name: str) -> bool:
    """Return whether the table says why a field changes nothing."""
    return name in STATED or f"{kind}.{name}" in STATED


def shown(value: Any) -> Any:
    """Return what a plan holds, without its functions and its time."""
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, MediaInput):
        return value.data
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value) if each.name != "created"]
        return {name: shown(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(each) for each in value]
    assert value is None or callable(value) or isinstance(value, str | bytes | bool | int | float)
    return None if callable(value) else value


PASSAGE = Passage(1, "Rules", "rules.txt", 1, 1, 1, "0" * 64, "", 0, 4, "Rule", 0.5, "/passage")


def effect(endpoint: Endpoint, body: Any) -> Any:
    """Return all that follows from a body, or the refusal's text."""
    kind = endpoint.content_types[-1]
    data = json.dumps(body).encode()
    if kind == "multipart/form-data":
        data = form(body)
    try:
        plan: Plan = endpoint.plan(
            Body(kind, data, f"boundary={BOUNDARY}" if "multipart" in kind else ""), "req_1", "name"
        )
    except RequestInvalid as error:
        return RequestInvalid, str(error)
    found = [shown(plan)]
    if plan.grounding is not None:
        found.append(shown(plan.grounding.plan_with([PASSAGE] * plan.grounding.most, False)))
    if plan.conversation is not None:
        found.append(shown(plan.conversation.plan_with([], True)))
    return found


def refused(found: Any) -> bool:
    """Return whether a body was refused."""
    return isinstance(found, tuple)


def form(fields: dict[str, Any]) -> bytes:
    """Return a form with a recording."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
    return "".join([*parts, f"--{BOUNDARY}\r\n{file}--{BOUNDARY}--\r\n"]).encode()


def without(body: Any, path: Path) -> Any:
    """Return a body without a field."""
    if len(path) == 1:
        return {name: value for name, value in body.items() if name != path[0]}
    if isinstance(body, list):
        number = typing.cast(int, path[0])
        return [*body[:number], without(body[number], path[1:]), *body[number + 1 :]]
    return {**body, path[0]: without(body[path[0]], path[1:])}


def request_of(endpoint: Endpoint, body: Any) -> BaseModel:
    """Return a body as its schema reads it."""
    assert endpoint.request is not None
    if endpoint.content_types[-1] == "multipart/form-data":
        return endpoint.request.model_validate(
            {name: [value] if "granul" in name else value for name, value in body.items()}
        )
    return endpoint.request.model_validate_json(json.dumps(body))


CASES = [(key, body) for key, bodies in BODIES.items() for body in bodies]
KINDS = {kind for endpoint in ENDPOINTS.values() for kind in models_of(endpoint.request)}
FREE = {each for kind in KINDS for each in fields_of(kind)}


def idle_fields(endpoint: Endpoint, body: Any) -> list[Path]:
    """Return the paths of the fields without which a body is read as with them."""
    usual = effect(endpoint, body)
    if refused(usual):
        return []
    return [
        path
        for kind, name, path in given_fields(request_of(endpoint, body))
        if f"{kind}.{name}" in FREE
        and not stated(kind, name)
        and effect(endpoint, without(body, path)) == usual
    ]


def test_the_bodies_give_every_field_that_an_endpoint_takes() -> None:
    assert BODIES.keys() == ENDPOINTS.keys()
    missing = {}
    for key, endpoint in ENDPOINTS.items():
        taken = {each for kind in models_of(endpoint.request) for each in fields_of(kind)}
        requests = [request_of(endpoint, body) for body in BODIES[key]]
        given = {f"{kind}.{name}" for each in requests for kind, name, _ in given_fields(each)}
        missing[key] = sorted(taken - given - REFUSED.get(key, set()))
    assert not {key: fields for key, fields in missing.items() if fields}


@pytest.mark.parametrize(("key", "body"), CASES, ids=[key[1] for key, _ in CASES])
def test_each_field_of_a_body_has_an_effect(key: tuple[str, str], body: Any) -> None:
    usual = effect(ENDPOINTS[key], body)
    assert not refused(usual), usual
    assert not idle_fields(ENDPOINTS[key], body)


@pytest.mark.parametrize("key", ENDPOINTS, ids=[path for _, path in ENDPOINTS])
def test_the_plan_names_the_user_of_the_body(key: tuple[str, str]) -> None:
    for body in BODIES[key]:
        if "user" in body:
            anonymous = {name: body[name] for name in body if name != "safety_identifier"}
            effects = [effect(ENDPOINTS[key], {**anonymous, "user": user}) for user in ("a", "b")]
            assert effects[0] != effects[1]


@pytest.mark.parametrize("key", ENDPOINTS, ids=[path for _, path in ENDPOINTS])
def test_no_field_makes_another_one_idle(key: tuple[str, str]) -> None:
    """Each body is given each field of the others: all fields act, or it is refused."""
    endpoint, bodies = ENDPOINTS[key], BODIES[key]
    assert endpoint.request is not None
    others = [given for body in bodies for given in top_fields(body)]
    idle = set()
    for body in [necessary(endpoint.request, bodies[0]), *bodies]:
        for path, value in others:
            more = joined(body, path, value)
            idle |= {(each, path) for each in idle_fields(endpoint, more)}
    assert not idle


def top_fields(body: Any) -> Iterator[tuple[Path, Any]]:
    """Return the fields of a body, and those of its parameters, with their values."""
    for name, value in body.items():
        if name == "parameters":
            yield from (((name, key), each) for key, each in value.items())
        else:
            yield (name,), value


def joined(body: Any, path: Path, value: Any) -> Any:
    """Return a body with one more field, or with another value."""
    if len(path) == 1:
        return {**body, path[0]: value}
    return {**body, path[0]: joined(body.get(path[0], {}), path[1:], value)}


def necessary(schema: type[BaseModel], body: Any) -> Any:
    """Return a body without the fields that can be left out."""
    found = {}
    for name, value in body.items():
        field = schema.model_fields.get(name)
        if field is None or not field.is_required():
            continue
        kind = field.annotation
        is_object = isinstance(kind, type) and issubclass(kind, BaseModel)
        found[name] = necessary(kind, value) if is_object else value
    return found
