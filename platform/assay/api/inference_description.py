"""OpenAPI description of the inference API, with all endpoints that installed tasks declare."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pydantic import BaseModel

from assay.api.stored_description import chat_paths, stored_paths
from assay.gateway.stored.feedback import PATH as FEEDBACK
from assay.gateway.stored.feedback import FeedbackRequest
from assay.gateway.stored.responses import PATH as RESPONSES
from assay.gateway.stored.vector_stores import PATH as STORES
from assay.gateway.stored.vector_stores import SearchRequest
from registry.catalog import TASKS
from registry.catalog.declaration import Task
from registry.catalog.endpoints import Endpoint

_ERROR = {"$ref": "#/components/schemas/Error"}
_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Model": {
        "type": "object",
        "description": "A deployment that the key may see.",
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "task": {"type": "string"},
            "endpoint": {"type": "string"},
            "release": {"type": "integer"},
            "digest": {"type": "string"},
            "usable": {"type": "boolean"},
            "ready": {"type": "boolean"},
            "type": {"const": "model"},
            "display_name": {"type": "string"},
            "created_at": {"type": "string", "format": "date-time"},
            "lifecycle": {"const": "active"},
            "retires_at": {"type": ["string", "null"], "format": "date-time"},
        },
    },
}
_ONCE = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Within an hour, a request with the key of an answered request is refused with "
    "409, which names that request. If the first request failed, it runs again.",
}
_REFUSALS = {
    "400": "The request is not valid; `param` names the field.",
    "401": "The key is missing, unknown, expired or revoked.",
    "403": "The access policy or the release does not allow it.",
    "404": "The model does not exist, or the key may not know of it.",
    "413": "The body is too large.",
    "429": "A quota or a budget is used up; `Retry-After` states for how long.",
    "503": "No replica is ready, or a store cannot be reached; nothing was charged.",
}


@cache
def inference_description() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    schemas: dict[str, Any] = dict(_SCHEMAS)
    paths: dict[str, Any] = {
        "/v1/models": {"get": _models("List the models that the key may see", many=True)},
        "/v1/models/{model}": {"get": _models("Show one model", many=False)},
        FEEDBACK: {"post": _feedback(schemas)},
        **_knowledge(schemas),
        **_stored_responses(),
        **stored_paths(schemas, _refusals()),
    }
    for task in TASKS.values():
        for endpoint in task.endpoints:
            path = endpoint.path_to("{model}")
            existing = paths.get(path)
            operation = _operation(task, endpoint, schemas)
            paths[path] = {
                "post": operation if existing is None else _joined(existing["post"], operation)
            }
    for path, operations in chat_paths(schemas, _refusals()).items():
        paths[path] = {**paths.get(path, {}), **operations}
    for path, operations in paths.items():
        if (post := operations.get("post")) is not None:
            operations["post"] = _once(post)
        for method, operation in operations.items():
            operation.setdefault("operationId", f"{_identifier(path)}_{method}")
    for name, schema in schemas.items():
        _untitle(schema)
        # Generators of clients name classes by titles, and the tasks' schemas share names.
        schema["title"] = name
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Assay inference API",
            "version": "1",
            "description": "Governed answers of released models, in the formats of OpenAI, Hugging "
            "Face and Cohere. Every answer names the release that permitted it.",
        },
        "security": [{"key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    }


def _untitle(schema: Any) -> None:
    """Remove the titles that pydantic adds to every field; client generators turn them into
    classes."""
    if isinstance(schema, list):
        for each in schema:
            _untitle(each)
    elif isinstance(schema, dict):
        schema.pop("title", None)
        for name, part in schema.items():
            # Keys of these are names of fields and schemas; a field may be named "title".
            for each in part.values() if name in ("properties", "$defs") else (part,):
                if name not in ("example", "examples", "default", "const", "enum"):
                    _untitle(each)


def _once(post: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with the parameter and the refusal of the idempotency key."""
    conflict = {"description": "A request with the Idempotency-Key was answered, or is running."}
    return {
        **post,
        "parameters": [*post.get("parameters", ()), _ONCE],
        "responses": {"409": conflict, **post["responses"]},
    }


def _models(summary: str, *, many: bool) -> dict[str, Any]:
    one: dict[str, Any] = {"$ref": "#/components/schemas/Model"}
    listed = {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": one}},
    }
    operation = {
        "summary": summary,
        "tags": ["models"],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": listed if many else one}},
            },
            **_refusals(),
        },
    }
    return operation if many else {**operation, "parameters": [_model_in_path()]}


def _feedback(schemas: dict[str, Any]) -> dict[str, Any]:
    schemas["FeedbackRequest"] = FeedbackRequest.model_json_schema()
    return {
        "summary": "Send feedback on an answer",
        "description": "One feedback for each answered request of the key's department. If the "
        "same feedback is sent again, the answer is 200 with the first feedback.",
        "tags": ["feedback"],
        "operationId": "feedback",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/FeedbackRequest"}}
            },
        },
        "responses": {
            "201": {
                "description": "Recorded, and pending review.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "409": {"description": "The request already has different feedback."},
            **_refusals(),
        },
    }


def _knowledge(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the paths of knowledge bases, in the format of OpenAI's vector stores."""
    request = SearchRequest.model_json_schema(ref_template="#/components/schemas/knowledge.{model}")
    for part, schema in request.pop("$defs", {}).items():
        schemas[f"knowledge.{part}"] = schema
    schemas["knowledge.SearchRequest"] = request
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    body = {"schema": {"$ref": "#/components/schemas/knowledge.SearchRequest"}}
    answer: dict[str, Any] = {
        "tags": ["knowledge"],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "409": {"description": "It has no index, or no deployment embeds the question."},
            **_refusals(),
        },
    }
    one = {**answer, "parameters": [id_parameter]}
    return {
        STORES: {"get": {**answer, "summary": "List the knowledge bases that the key may see"}},
        f"{STORES}/{{id}}": {"get": {**one, "summary": "Show one knowledge base"}},
        f"{STORES}/{{id}}/search": {
            "post": {
                **one,
                "summary": "Find passages in a knowledge base",
                "requestBody": {"required": True, "content": {"application/json": body}},
            }
        },
    }


def _stored_responses() -> dict[str, Any]:
    """Return the paths of responses that the key's department stores."""
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "tags": ["responses"],
        "parameters": [id_parameter],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **_refusals(),
        },
    }
    return {
        f"{RESPONSES}/{{id}}": {
            "get": {**answer, "summary": "Show a stored response"},
            "delete": {**answer, "summary": "Delete a stored response"},
        },
        f"{RESPONSES}/{{id}}/input_items": {
            "get": {**answer, "summary": "List the input items of a stored response"}
        },
    }


def _operation(task: Task, endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": endpoint.summary or task.description,
        "description": f"For deployments of the task `{task.name}`. Metered in {task.unit.plural}.",
        "tags": [task.name],
        "operationId": _identifier(endpoint.path),
        **({"parameters": [_model_in_path()]} if endpoint.named else {}),
        "requestBody": {"required": True, "content": _content(task, endpoint, schemas)},
        "responses": {
            "200": {
                "description": "The answer. `x-assay-release`, `x-assay-digest` and "
                "`x-assay-units` state the release, the digest and the use: a whole number and the "
                f"unit's name, such as `12 {task.unit}`.",
                "content": {"application/json": {"schema": {}}},
            },
            **_refusals(),
        },
    }


def _content(task: Task, endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for kind in endpoint.content_types:
        if kind in ("application/json", "multipart/form-data") and endpoint.request is not None:
            schema = _schema(task, endpoint.request, schemas)
            if kind == "multipart/form-data":
                file = {"type": "string", "format": "binary"}
                schema = {
                    "allOf": [
                        schema,
                        {"type": "object", "required": ["file"], "properties": {"file": file}},
                    ]
                }
            content[kind] = {"schema": schema}
            if kind == "application/json" and endpoint is task.endpoints[0]:
                model = {} if endpoint.named else {"model": "my-deployment"}
                content[kind]["example"] = {**model, **task.sample}
        else:
            content[kind] = {"schema": {"type": "string", "format": "binary"}}
    return content


def _schema(task: Task, request: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the request's schema to `schemas`, and return a reference to it."""
    name = f"{task.name}.{request.__name__}"
    schema_of_request = request.model_json_schema(
        ref_template=f"#/components/schemas/{task.name}.{{model}}"
    )
    for part, schema in schema_of_request.pop("$defs", {}).items():
        schemas[f"{task.name}.{part}"] = schema
    schemas[name] = schema_of_request
    return {"$ref": f"#/components/schemas/{name}"}


def _joined(first_operation: dict[str, Any], second_operation: dict[str, Any]) -> dict[str, Any]:
    """Return the joined operation of a path that several tasks serve."""
    schemas = [
        each["requestBody"]["content"]["application/json"]
        for each in (first_operation, second_operation)
    ]
    first = schemas[0]["schema"].get("anyOf", [schemas[0]["schema"]])
    return {
        **first_operation,
        "description": f"{first_operation['description']} {second_operation['description']}",
        "tags": [*first_operation["tags"], *second_operation["tags"]],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    **schemas[0],
                    "schema": {"anyOf": [*first, schemas[1]["schema"]]},
                }
            },
        },
    }


def _identifier(path: str) -> str:
    """Return a name for the operations of a path, such as `tasks_image_classification`."""
    return re.sub(r"\W+", "_", path.removeprefix("/v1")).strip("_")


def _refusals() -> dict[str, Any]:
    return {
        status: {"description": description, "content": {"application/json": {"schema": _ERROR}}}
        for status, description in _REFUSALS.items()
    }


def _model_in_path() -> dict[str, Any]:
    return {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "The name of a deployment.",
        "schema": {"type": "string"},
    }
