"""The description of the API: complete, without warnings, readable offline."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS

from assay.api.docs import description
from assay.api.urls import urlpatterns
from assay.node_api import urls as node_urls

pytestmark = pytest.mark.sweep

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def schema(db: None) -> dict[str, Any]:
    GENERATOR_STATS.reset()
    description.cache_clear()
    response = Client().get("/api/schema/")
    assert response.status_code == 200
    loaded: dict[str, Any] = json.loads(response.content)
    return loaded


def test_the_schema_generates_without_warnings(schema: dict[str, Any]) -> None:
    assert not GENERATOR_STATS._warn_cache, GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache, GENERATOR_STATS._error_cache


def test_the_schema_lists_every_path(schema: dict[str, Any]) -> None:
    described = {re.sub(r"{[a-z_]+}", "{}", path) for path in schema["paths"]}
    mounted = {
        root + re.sub(r"<[a-z]+:[a-z_]+>", "{}", str(pattern.pattern))
        for root, patterns in (("/api/v1/", urlpatterns), ("/node/v1/", node_urls.urlpatterns))
        for pattern in patterns
    }

    assert described == mounted


def test_every_operation_is_described_and_says_how_it_refuses(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        for method in METHODS & operations.keys():
            described = operations[method]
            where = f"{method} {path}"
            assert described["tags"], where
            assert described["summary"], where
            assert "application/problem+json" in described["responses"]["default"]["content"], where
            assert {"401", "503"} <= described["responses"].keys(), where


def test_the_roles_of_the_caller_are_described(schema: dict[str, Any]) -> None:
    components = schema["components"]["schemas"]
    items = components["MeAnswer"]["properties"]["roles"]["items"]
    described = components[items["$ref"].rpartition("/")[2]]

    assert described["properties"].keys() == {"role", "department", "specialty"}


def test_the_header_that_makes_posts_safe_to_repeat_is_described(schema: dict[str, Any]) -> None:
    named = [p["name"] for p in schema["paths"]["/api/v1/fine-tunes"]["post"]["parameters"]]

    assert named == ["Idempotency-Key"]


def test_the_schema_comes_as_yaml_too(schema: dict[str, Any]) -> None:
    response = Client().get("/api/schema/", headers={"accept": "application/yaml"})

    assert response.headers["Content-Type"].startswith("application/yaml")
    assert response.content.startswith(b"openapi:")


def test_the_docs_need_no_other_host_and_no_inline_script(db: None) -> None:
    response = Client().get("/api/docs/")
    html = response.content.decode()

    assert response.status_code == 200
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert "https://" not in html
    assert "http://" not in html
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=", html)
    script = Client().get("/api/docs/start.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert b"SwaggerUIBundle" in script.content
