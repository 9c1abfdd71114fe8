"""Code examples are requests that work, in each language."""

from __future__ import annotations

import ast
import dataclasses
import json

import pytest

from assay.portal.code_examples import code_examples, request_body, request_path
from registry.catalog import TASKS, get_task
from registry.catalog.declaration import Playground, Task
from registry.catalog.prompt import PromptDocument
from registry.catalog.requests import Body

ROOT = "https://assay.example"


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_the_example_body_is_one_that_the_endpoint_takes(task: Task) -> None:
    body = request_body(task, "mine")
    if body is None:
        assert request_path(task, "mine").endswith("/mine")
        return
    (endpoint,) = [
        each
        for each in task.endpoints
        if request_path(task, "mine") in (each.path, f"{each.path}/mine")
    ]
    given = Body("application/json", json.dumps(body).encode())
    assert endpoint.read(given, "req_1", "mine").model == "mine"


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_every_language_says_the_address_and_where_the_key_goes(task: Task) -> None:
    curl, python, javascript = code_examples(task, "mine", ROOT)
    ast.parse(python.code)
    for example in (curl, python, javascript):
        assert f"{ROOT}{request_path(task, 'mine')}" in example.code
        assert "ASSAY_KEY" in example.code


def test_quotes_in_the_sample_do_not_end_the_shells_argument() -> None:
    asks = Playground(body={"model": "$model", "input": "$text"}, text='it\'s "quoted"\nand long')
    task = dataclasses.replace(get_task("embeddings"), playground=asks)
    curl, python, _ = code_examples(task, "mine", ROOT)
    assert "it'\\''s" in curl.code
    call = ast.parse(python.code).body[2]
    assert isinstance(call, ast.Assign)
    assert isinstance(call.value, ast.Call)
    (sent,) = [each.value for each in call.value.keywords if each.arg == "json"]
    assert ast.literal_eval(sent) == {"model": "mine", "input": 'it\'s "quoted"\nand long'}


def test_the_variables_that_a_prompt_requires_are_given() -> None:
    variables = [{"name": "team", "max_length": 3}, {"name": "tone", "default": "kind"}]
    prompt = PromptDocument.read({"system": "{{team}}, be {{tone}}.", "variables": variables})
    task = get_task("text-generation")
    body = request_body(task, "mine", prompt=prompt)
    assert body is not None
    assert body["prompt_variables"] == {"team": "tea"}
    given = Body("application/json", json.dumps(body).encode())
    prompt.check(task.endpoints[0].read(given, "req_1", "mine").inputs)


def test_a_file_is_sent_as_it_is() -> None:
    asks = Playground(body=None, path="/v1/tasks/embeddings/{model}")
    task = dataclasses.replace(get_task("embeddings"), playground=asks)
    curl, python, javascript = code_examples(task, "mine", ROOT)
    assert "--data-binary @input.bin" in curl.code
    assert 'open("input.bin", "rb")' in python.code
    assert "body: file" in javascript.code


def test_a_file_inside_the_body_is_the_one_of_the_sample() -> None:
    asks = Playground(body={"inputs": "$file", "parameters": {"candidate_labels": "$lines"}})
    sample = {"inputs": "iVBORw0KGgo=", "parameters": {"candidate_labels": ["a cat", "a dog"]}}
    task = dataclasses.replace(get_task("image-classification"), playground=asks, sample=sample)
    assert request_body(task, "mine") == sample
