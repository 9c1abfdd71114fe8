"""The paths under `/v1` that no task declares: a test uses each field of their requests."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

from pydantic import BaseModel

import assay.gateway
from registry.catalog.requests import Strict

HERE = Path(__file__).parent
# The tests in which the fields of a request's schema are given and change what comes back.
USED = {
    "BatchRequest": [
        "test_gateway_batches.py::test_a_batch_answers_every_line_once_and_bills_it_once",
        "test_gateway_batches.py::test_the_files_of_a_batch_expire_when_its_creation_says",
        "batch_support.py::create",
    ],
    "ChatsQuery": [
        "test_gateway_chats.py::test_a_stored_chat_is_read_listed_labeled_and_deleted",
    ],
    "FeedbackRequest": ["test_feedback_surfaces.py::test_every_field_of_feedback_is_kept"],
    "FilesQuery": [
        "test_gateway_files.py::test_a_file_is_uploaded_read_listed_and_deleted",
    ],
    "ItemsQuery": ["test_gateway_responses.py::test_parameters_of_reading_act_or_are_refused"],
    "ListQuery": [
        "test_gateway_batches.py::test_a_batch_answers_every_line_once_and_bills_it_once",
        "test_gateway_batches.py::test_a_list_of_batches_goes_on_after_one",
    ],
    "MessagesQuery": [
        "test_gateway_chats.py::test_a_stored_chat_is_read_listed_labeled_and_deleted",
    ],
    "OutputExpiry": [
        "test_gateway_batches.py::test_the_files_of_a_batch_expire_when_its_creation_says"
    ],
    "PageQuery": ["test_gateway_files.py::test_a_file_is_uploaded_read_listed_and_deleted"],
    "RankingOptions": [
        "test_gateway_knowledge.py::test_a_search_takes_its_options_or_refuses_them"
    ],
    "SearchRequest": ["test_gateway_knowledge.py::test_a_search_takes_its_options_or_refuses_them"],
    "UpdateRequest": [
        "test_gateway_chats.py::test_a_stored_chat_is_read_listed_labeled_and_deleted"
    ],
}


def schemas() -> dict[str, type[BaseModel]]:
    """Return the schemas of requests that the gateway itself declares, by name."""
    found: dict[str, type[BaseModel]] = {}
    for module in pkgutil.walk_packages(assay.gateway.__path__, "assay.gateway."):
        for value in vars(importlib.import_module(module.name)).values():
            is_schema = isinstance(value, type) and issubclass(value, Strict)
            if is_schema and value.__module__ == module.name:
                found[value.__name__] = value
    return found


def words_of(test: str) -> set[str]:
    """Return the names and strings in a function of a test file."""
    file, _, name = test.partition("::")
    tree = ast.parse((HERE / file).read_text())
    (found,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    words = {node.value for node in ast.walk(found) if isinstance(node, ast.Constant)}
    return {str(each) for each in words} | {
        node.arg for node in ast.walk(found) if isinstance(node, ast.keyword) and node.arg
    }


def test_a_test_uses_each_field() -> None:
    """`after` is what the client asks the next page with, in every list of more than a page."""
    found = schemas()
    assert USED.keys() == found.keys()
    unused = {
        name: set(schema.model_fields) - {"after"} - set().union(*map(words_of, USED[name]))
        for name, schema in found.items()
    }
    assert not {name: fields for name, fields in unused.items() if fields}
