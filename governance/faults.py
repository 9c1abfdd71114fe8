"""Sentences about pydantic's errors. Imports no Django.

Pydantic's own messages ("String should have at least 1 character") never reach a person: whoever
reads the errors of a schema takes the words from here.
"""

from __future__ import annotations

import re
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from governance.english import PREDICATE, field_text

# Predicates of an error type, without the subject; `{}` takes a bound of the error's context.
_PREDICATES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "bytes_type": "must be bytes",
    "dataclass_type": "must be an object",
    "date_from_datetime_inexact": "must be a date without a time",
    "date_from_datetime_parsing": "must be a date such as 2027-03-31",
    "date_parsing": "must be a date such as 2027-03-31",
    "date_type": "must be a date such as 2027-03-31",
    "datetime_from_date_parsing": "must be a date and time such as 2027-03-31T12:00:00Z",
    "datetime_object_invalid": "must be a date and time such as 2027-03-31T12:00:00Z",
    "datetime_parsing": "must be a date and time such as 2027-03-31T12:00:00Z",
    "datetime_type": "must be a date and time such as 2027-03-31T12:00:00Z",
    "dict_type": "must be an object",
    "extra_forbidden": "is unknown",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "frozen_set_type": "must be a list",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "int_type": "must be a whole number",
    "invalid_key": "has a name that is not text",
    "json_invalid": "is not valid JSON",
    "json_type": "is not valid JSON",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "mapping_type": "must be an object",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "multiple_of": "must be a multiple of {multiple_of}",
    "none_required": "is not supported; leave it out",
    "recursion_loop": "contains itself",
    "recursion_depth_exceeded": "is nested too deeply",
    "set_item_not_hashable": "must have texts or numbers as entries",
    "set_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "contains an invalid character",
    "time_delta_type": "must be a duration",
    "time_parsing": "must be a time such as 14:30",
    "time_type": "must be a time such as 14:30",
    "timezone_aware": "must state its offset from UTC",
    "timezone_naive": "must not state an offset from UTC",
    "tuple_type": "must be a list",
    "union_tag_not_found": "has no known type",
    "url_parsing": "must be a URL",
    "url_type": "must be a URL",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
}
# Bounds on a length: the member of the context, and the counted unit.
_LENGTHS = {
    "bytes_too_long": ("at most", "max_length", "byte", "bytes"),
    "bytes_too_short": ("at least", "min_length", "byte", "bytes"),
    "string_too_long": ("at most", "max_length", "character", "characters"),
    "string_too_short": ("at least", "min_length", "character", "characters"),
    "too_long": ("at most", "max_length", "entry", "entries"),
    "too_short": ("at least", "min_length", "entry", "entries"),
}
# Predicates for regular expressions, which people should not have to read.
_PATTERNS = {
    r"^[0-9a-f]{64}$": "must be a SHA-256 in 64 lowercase hexadecimal digits",
    r"^[0-9]{1,9}$": "must be a number of 1 to 9 digits",
    r"^[A-Za-z0-9_-]{1,40}$": "must be 1 to 40 letters, digits, hyphens and underscores",
    r"^[A-Za-z_][A-Za-z0-9_]{0,39}$": (
        "must be 1 to 40 letters, digits and underscores, without a leading digit"
    ),
    r"^[^\s<|\\/>]+$": r"must not contain spaces or any of < > | \ /",
    r"^[^\x00]*$": "contains a NUL character",
    r"^[a-z]{2,3}$": "must be a language code such as en",
    r"^[a-z][a-z0-9-]{1,59}$": (
        "must be 2 to 60 lowercase letters, digits and hyphens, starting with a letter"
    ),
    r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$": "must be lowercase letters, digits and single hyphens",
    r"^[a-zA-Z0-9_-]{1,64}$": "must be 1 to 64 letters, digits, hyphens and underscores",
    r"^[A-Z0-9]{16,128}$": "must be 16 to 128 capital letters and digits",
    r"^[a-z0-9-]{1,40}$": "must be 1 to 40 lowercase letters, digits and hyphens",
    r"^([\x21-\x7e]+( [\x21-\x7e]+)*)?$": "must be words of visible ASCII characters",
    r"^[\x21-\x7e]+$": "must be visible ASCII characters without spaces",
    r"^[0-9a-zA-Z]*$": "must be letters and digits",
    r"^([a-z0-9]+(-[a-z0-9]+)*)?$": "must be lowercase letters, digits and single hyphens",
    r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$": (
        "must be 1 to 200 letters, digits and . _ : / @ + -, starting with a letter or digit"
    ),
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": "must be a time such as 08:00",
    r"^\d{4}-\d{2}-\d{2}": "must start with a date such as 2027-03-31",
    r"^(auto|[1-9]\d{0,3}x[1-9]\d{0,3})$": "must be auto, or a size such as 1024x1024",
    r"^(context\.)?[a-z][a-z0-9_]{0,59}$": (
        "must be an attribute such as environment or context.tokens"
    ),
    r"\S": "is blank",
    r"\{\}": "must contain {}",
}
# Error type for rules that JSON Schema cannot express.
RULE = "rule"
# A union's branch, or the key of an object, at the end of a path.
_BRANCH = re.compile(
    r"str|bool|int|float|none|\[key\]|(?:function-\w+|list|dict|tuple|set|literal|nullable)\[.*"
)
_OWN_TYPES = frozenset(get_args(ErrorType))
_PATH_MAX = 80


def broken_rule(sentence: str) -> PydanticCustomError:
    """Return the error of well-formed input that breaks a rule beyond JSON Schema."""
    return PydanticCustomError(RULE, "{sentence}", {"sentence": sentence})


def words(fault: ErrorDetails) -> str:
    """Return a predicate such as `must be at least 1`, or a validator's own message."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]).rstrip(".") or "is not valid"
    if kind not in _OWN_TYPES:  # A `PydanticCustomError` has its own message.
        return fault["msg"].rstrip(".")
    if kind in _LENGTHS:
        bound, member, one, several = _LENGTHS[kind]
        length = int(context[member])
        if bound == "at least" and length == 1:
            return "is empty"
        return f"must have {bound} {length:,} {one if length == 1 else several}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return _PATTERNS.get(pattern, f"does not have the form {pattern[:200]}")
    if kind in ("literal_error", "enum"):
        return f"must be {_unquoted(context['expected'])}"
    if kind == "union_tag_invalid" and (name := _unquoted(context["discriminator"])).isidentifier():
        return f"has an unknown {name}; known: {_unquoted(context['expected_tags'])}"
    bounds = {name: _number(bound) for name, bound in context.items()}
    return _PREDICATES.get(kind, "is not valid").format_map(bounds)


def field_path(place: tuple[int | str, ...]) -> str:
    """Return the dotted path of an error's place (`loc`); empty for the document as a whole."""
    steps = [str(step) for step in place]
    if len(steps) > 1 and _BRANCH.fullmatch(steps[-1]):
        steps.pop()
    return ".".join(steps)[:_PATH_MAX]


def about(name: str, text: str) -> str:
    """Return `words` about the field `name` as a clause: `text is empty`, `box: give 4 numbers`.

    Without a name, the clause is about the document as a whole.
    """
    if PREDICATE.match(text):
        return f"{name or 'it'} {text}"
    return f"{name}: {text}" if name else text


def field_sentence(fault: ErrorDetails) -> str:
    """Return one error as a sentence to be shown next to its field: `Must be at most 8.`"""
    text = words(fault)
    if PREDICATE.match(text):
        return field_text(text)
    # Names in the schema, such as `warn_days`, keep their case.
    return f"{text[:1].upper() if text.split()[0].isalpha() else text[:1]}{text[1:]}."


def field_sentences(error: ValidationError, *, whole: str, most: int = 100) -> dict[str, list[str]]:
    """Return the sentences of up to `most` errors, by the dotted path of their field.

    `whole` is the key for errors of the document as a whole.
    """
    fields: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False, include_input=False)[:most]:
        fields.setdefault(field_path(fault["loc"]) or whole, []).append(field_sentence(fault))
    return fields


def clauses(error: ValidationError) -> list[str]:
    """Return each error as a clause that names its field: `size must be at most 8`."""
    return [
        about(field_path(fault["loc"]), words(fault))
        for fault in error.errors(include_url=False, include_input=False)
    ]


def _unquoted(names: str) -> str:
    """Return `a, b or c` for `'a', 'b' or 'c'`; an empty name keeps its quotes."""
    return re.sub("'([^']*)'", lambda name: name[1] or "''", names[:500])


def _number(bound: object) -> str:
    if isinstance(bound, float):
        return f"{bound:,g}" if abs(bound) < 1e6 else f"{bound:g}"
    return f"{bound:,}" if isinstance(bound, int) else str(bound)
