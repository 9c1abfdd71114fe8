"""Sentences about pydantic's errors: complete, and free of pydantic's own words."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails
from pydantic_core._pydantic_core import list_all_errors

from governance.english import counted
from governance.errors import InvalidInput
from governance.faults import clauses, field_path, field_sentences, words

# Words of pydantic that no sentence may contain.
RAW = re.compile(
    r"Input|should|\bExtra\b|Field required|Value error|dictionary|\btag\b|validator|instance"
)
# Error types by kind of schema. Every type needs a sentence of its own.
PRODUCED = {
    "any": (),
    "bool": ("bool_type", "bool_parsing"),
    "chain": (),
    "dataclass": ("dataclass_type",),
    "dataclass-args": ("dataclass_type", "missing", "extra_forbidden"),
    "dataclass-field": (),
    "date": (
        "date_type",
        "date_parsing",
        "date_from_datetime_parsing",
        "date_from_datetime_inexact",
    ),
    "datetime": ("datetime_type", "datetime_parsing", "timezone_aware", "timezone_naive"),
    "default": (),
    "definition-ref": ("recursion_loop",),
    "definitions": (),
    "dict": ("dict_type", "too_short", "too_long", "invalid_key"),
    "enum": ("enum",),
    "float": ("float_type", "float_parsing", "finite_number", "multiple_of"),
    "function-after": ("value_error", "assertion_error"),
    "function-before": ("value_error", "assertion_error"),
    "function-plain": ("value_error", "assertion_error"),
    "function-wrap": ("value_error", "assertion_error"),
    "general": (),
    # Parts of a secret text: bodies and forms are JSON or plain values, so its text is checked.
    "is-instance": (),
    "json-or-python": (),
    "lax-or-strict": (),
    "int": ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
    "list": ("list_type", "too_short", "too_long"),
    "literal": ("literal_error",),
    "model": ("model_type",),
    "model-field": ("missing",),
    "model-fields": ("model_type", "extra_forbidden", "model_attributes_type"),
    "no-info": (),
    "none": ("none_required",),
    "nullable": (),
    "str": (
        "string_type",
        "string_unicode",
        "string_too_short",
        "string_too_long",
        "string_pattern_mismatch",
    ),
    "tagged-union": ("union_tag_invalid", "union_tag_not_found"),
    "tuple": ("tuple_type", "too_short", "too_long"),
    "union": (),
    "uuid": ("uuid_type", "uuid_parsing"),
    "with-info": (),
}
VALIDATORS = ("value_error", "assertion_error")
BOUNDS = {
    "gt": "greater_than",
    "ge": "greater_than_equal",
    "lt": "less_than",
    "le": "less_than_equal",
}
# Packages whose input comes only from Assay's own processes.
MACHINES = ("workers.control", "workers.run", "workers.placement", "workers.wire")
ROOTS = ("governance", "registry", "workers", "assay", "tasks")
HEAVY = ("engines", "trainers", "celery_tasks", "migrations", "settings", "engine_process")


def fault_of(kind: str, **context: Any) -> ErrorDetails:
    """Return an error of this type, as pydantic reports it."""
    line = InitErrorDetails(type=kind, loc=("field",), input=None, ctx=context)
    return ValidationError.from_exception_data("Schema", [line]).errors(include_url=False)[0]


def schemas() -> Iterator[type[BaseModel]]:
    """Yield every schema of Assay and of the tasks that ship."""
    for root in ROOTS:
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, f"{root}."):
            if not any(part in HEAVY for part in module.name.split(".")):
                importlib.import_module(module.name)
    waiting, known = [BaseModel], set[type[BaseModel]]()
    while waiting:
        new = set(waiting.pop().__subclasses__()) - known
        known |= new
        waiting += new
    yield from (each for each in known if each.__module__.split(".")[0] in ROOTS)


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a core schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for name, part in schema.items():
            if name not in ("serialization", "metadata", "ref"):
                yield from parts(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from parts(part)


def refuse(text: str) -> str:
    raise ValueError(text)


@pytest.mark.parametrize("error", list_all_errors(), ids=lambda error: str(error["type"]))
def test_no_error_of_pydantic_reaches_a_person_in_its_words(error: Any) -> None:
    said = words(fault_of(error["type"], **(error.get("example_context") or {})))
    assert said
    assert not RAW.search(said)


def test_every_error_that_a_schema_of_ours_can_raise_has_words_of_its_own() -> None:
    examples = {each["type"]: each.get("example_context") or {} for each in list_all_errors()}
    vague, unknown, seen = set[str](), set[str](), 0
    for schema in schemas():
        seen += 1
        machines = schema.__module__.startswith(MACHINES)
        for part in parts(schema.__pydantic_core_schema__):
            kind = part["type"]
            if kind not in PRODUCED:
                unknown.add(f"{schema.__module__}.{schema.__name__}: {kind}")
                continue
            bounds = [error for bound, error in BOUNDS.items() if bound in part]
            for each in (*PRODUCED[kind], *bounds):
                context = examples[each]
                if each == "union_tag_invalid":
                    context = {**context, "discriminator": "'type'"}
                if each not in VALIDATORS and words(fault_of(each, **context)) == "is not valid":
                    vague.add(f"{schema.__module__}.{schema.__name__}: {each}")
            if kind == "str" and (pattern := part.get("pattern")) and not machines:
                said = words(fault_of("string_pattern_mismatch", pattern=pattern))
                if str(pattern) in said:
                    vague.add(f"{schema.__module__}.{schema.__name__}: {pattern}")
    assert (sorted(vague), sorted(unknown)) == ([], [])
    assert seen > 400


@pytest.mark.parametrize(
    ("kind", "value", "clause", "sentence"),
    [
        (Annotated[str, Field(min_length=1)], "", "x is empty", "This field is empty."),
        (Annotated[str, Field(min_length=8)], "a", "x must have at least 8 characters", None),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "x must have at most 1 entry", None),
        (Annotated[int, Field(le=2_000)], 2_001, "x must be at most 2,000", None),
        (Annotated[float, Field(gt=0.5)], 0.25, "x must be greater than 0.5", None),
        (Literal["low", "high"], "mid", "x must be low or high", "Must be low or high."),
        (Literal["", "high"], "mid", "x must be '' or high", None),
        (Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], "E", "x must be a language code", None),
        (Annotated[str, Field(pattern="^q$")], "E", "x does not have the form ^q$", None),
        (str | bool, 7, "x must be text", "Must be text."),
        (Annotated[str, AfterValidator(refuse)], "is late.", "x is late", "This field is late."),
        (Annotated[str, AfterValidator(refuse)], "give one", "x: give one", "Give one."),
        (Annotated[str, AfterValidator(refuse)], "a_b is 3", "x: a_b is 3", "a_b is 3."),
    ],
)
def test_an_error_is_a_clause_about_its_field_and_a_sentence_next_to_it(
    kind: Any, value: Any, clause: str, sentence: str | None
) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[Literal["x"], kind]).validate_python({"x": value})
    assert clauses(caught.value)[0].startswith(clause)
    if sentence is not None:
        assert field_sentences(caught.value, whole="all")["x"][0] == sentence


def test_an_error_of_the_whole_has_a_subject_and_a_key() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, int]).validate_python([])
    assert clauses(caught.value) == ["it must be an object"]
    assert field_path(("features", "size (cm)")) == "features.size (cm)"
    assert field_path(("among", 0, "function-after[check(), str]")) == "among.0"
    assert field_sentences(caught.value, whole="document") == {"document": ["Must be an object."]}


def test_a_text_without_a_subject_gets_one_next_to_its_field() -> None:
    texts = ["is empty", "must be a date.", "Choose one.", "rank is 3"]
    refused = InvalidInput("Wrong.", fields={"a": texts})
    assert refused.fields["a"] == [
        "This field is empty.",
        "Must be a date.",
        "Choose one.",
        "rank is 3",
    ]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 copies"), (1, "1 copy"), (1_200, "1,200 copies")]
)
def test_a_count_has_its_noun(number: int, text: str) -> None:
    assert counted(number, "copy", "copies") == text
    assert counted(number, "job") == f"{number:,} {'job' if number == 1 else 'jobs'}"


def test_one_module_alone_reads_the_messages_of_pydantic() -> None:
    root = Path(__file__).resolve().parents[3]
    folders = (*ROOTS[:3], "platform/assay", "tasks", "tasks-extra")
    files = [file for folder in folders for file in (root / folder).rglob("*.py")]
    assert len(files) > 800
    message = re.compile(r"""\[["']msg["']\]""")
    readers = [file for file in files if message.search(file.read_text())]
    assert readers == [root / "governance/faults.py"]
