"""OpenAPI description of files, batches and stored chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.gateway.stored.batches import PATH as BATCHES
from assay.gateway.stored.batches import BatchRequest
from assay.gateway.stored.chats import PATH as CHATS
from assay.gateway.stored.chats import UpdateRequest
from assay.gateway.stored.files import PATH as FILES
from registry.files.models import LEAST_S, MOST_S


def stored_paths(schemas: dict[str, Any], refusals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths, and add their schemas to `schemas`."""
    return {**_files(refusals), **_batches(schemas, refusals)}


def _files(refusals: Mapping[str, Any]) -> dict[str, Any]:
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "tags": ["files"],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **refusals,
        },
    }
    form = {
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"const": "batch"},
            "expires_after[anchor]": {"const": "created_at"},
            "expires_after[seconds]": {"type": "integer", "minimum": LEAST_S, "maximum": MOST_S},
        },
    }
    query = [
        {"name": "after", "in": "query", "schema": {"type": "string"}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 10_000}},
        {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
        {"name": "purpose", "in": "query", "schema": {"enum": ["batch", "batch_output"]}},
    ]
    one = {**answer, "parameters": [id_parameter]}
    return {
        FILES: {
            "get": {**answer, "summary": "List the department's files", "parameters": query},
            "post": {
                **answer,
                "summary": "Upload a file",
                "requestBody": {
                    "required": True,
                    "content": {"multipart/form-data": {"schema": form}},
                },
            },
        },
        f"{FILES}/{{id}}": {
            "get": {**one, "summary": "Show a file"},
            "delete": {**one, "summary": "Delete a file"},
        },
        f"{FILES}/{{id}}/content": {"get": {**one, "summary": "Download a file"}},
    }


def _batches(schemas: dict[str, Any], refusals: Mapping[str, Any]) -> dict[str, Any]:
    request = BatchRequest.model_json_schema(ref_template="#/components/schemas/batches.{model}")
    for part, schema in request.pop("$defs", {}).items():
        schemas[f"batches.{part}"] = schema
    request["properties"]["endpoint"]["description"] = (
        "Path of the lines' requests: any endpoint of a task that takes JSON, such as "
        "`/v1/chat/completions` or `/v1/tasks/image-classification/my-deployment`."
    )
    schemas["batches.BatchRequest"] = request
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "tags": ["batches"],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "409": {
                "description": "The batch's state, or the number of batches, does not allow it."
            },
            **refusals,
        },
    }
    query = [
        {"name": "after", "in": "query", "schema": {"type": "string"}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
    ]
    one = {**answer, "parameters": [id_parameter]}
    body = {"schema": {"$ref": "#/components/schemas/batches.BatchRequest"}}
    return {
        BATCHES: {
            "get": {**answer, "summary": "List the department's batches", "parameters": query},
            "post": {
                **answer,
                "summary": "Create a batch",
                "requestBody": {"required": True, "content": {"application/json": body}},
            },
        },
        f"{BATCHES}/{{id}}": {"get": {**one, "summary": "Show a batch"}},
        f"{BATCHES}/{{id}}/cancel": {"post": {**one, "summary": "Cancel a batch"}},
    }


def chat_paths(schemas: dict[str, Any], refusals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the operations on stored chats, and add the schema of an update to `schemas`."""
    schemas["chats.UpdateRequest"] = UpdateRequest.model_json_schema()
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "tags": ["chats"],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **refusals,
        },
    }
    page = [
        {"name": "after", "in": "query", "schema": {"type": "string"}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
        {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
    ]
    model = {"name": "model", "in": "query", "schema": {"type": "string"}}
    one = {**answer, "parameters": [id_parameter]}
    body = {"schema": {"$ref": "#/components/schemas/chats.UpdateRequest"}}
    return {
        CHATS: {"get": {**answer, "summary": "List stored chats", "parameters": [*page, model]}},
        f"{CHATS}/{{id}}": {
            "get": {**one, "summary": "Show a stored chat"},
            "post": {
                **one,
                "summary": "Replace the metadata of a stored chat",
                "requestBody": {"required": True, "content": {"application/json": body}},
            },
            "delete": {**one, "summary": "Delete a stored chat"},
        },
        f"{CHATS}/{{id}}/messages": {
            "get": {
                **answer,
                "summary": "List the messages of a stored chat",
                "parameters": [id_parameter, *page],
            }
        },
    }
