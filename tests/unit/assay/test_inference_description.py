"""The description of the inference API follows from the tasks' declarations."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from django.test import Client

from assay.api.inference_description import inference_description
from registry.catalog import TASKS


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_every_endpoint_of_every_task_is_described() -> None:
    paths = inference_description()["paths"]
    for task in TASKS.values():
        for endpoint in task.endpoints:
            operation = paths[endpoint.path_to("{model}")]["post"]
            assert task.name in operation["tags"]
            assert set(endpoint.content_types) <= set(operation["requestBody"]["content"])


@pytest.mark.parametrize("name", sorted(TASKS))
def test_an_example_fits_the_schema_that_is_announced(name: str) -> None:
    document = inference_description()
    (endpoint, *_) = TASKS[name].endpoints
    content = document["paths"][endpoint.path_to("{model}")]["post"]["requestBody"]["content"]
    described = content.get("application/json")
    if described is None or endpoint.request is None:
        return
    schema = resolved(document, described["schema"])
    jsonschema.validate(described["example"], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**described["example"], "no_such_field": 1}, schema)


def test_no_reference_leads_nowhere() -> None:
    document = inference_description()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert named <= known


def test_names_of_classes_and_functions_are_unique() -> None:
    """A generator of clients drops classes and functions that share a name, or fails."""
    document = inference_description()
    schemas = document["components"]["schemas"]
    names = Counter(re.sub(r"\W", "", schema["title"].title()) for schema in schemas.values())
    assert [name for name, count in names.items() if count > 1] == []
    operations = Counter(
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    )
    assert [name for name, count in operations.items() if count > 1] == []
    assert not [
        values
        for values in enums(document)
        if len({str(value).lower() for value in values}) < len(values)
    ]


def enums(part: Any) -> Iterator[list[Any]]:
    """Yield the values of each enumeration."""
    if isinstance(part, list):
        for each in part:
            yield from enums(each)
    elif isinstance(part, dict):
        if isinstance(part.get("enum"), list):
            yield part["enum"]
        for each in part.values():
            yield from enums(each)


def test_anyone_can_read_the_document_and_its_page(client: Client, db: None) -> None:
    assert client.get("/api/inference/schema/").json()["openapi"] == "3.1.0"
    page = client.get("/api/inference/docs/")
    assert page.status_code == 200
    assert b'data-schema="/api/inference/schema/"' in page.content
