"""A policy as code: its rules, tests and note as plain data and as YAML.

YAML follows the core schema of YAML 1.2, in which `18:00` and `on` are texts. Anchors, aliases,
tags and duplicate keys are refused. The YAML that is written reads back as the same data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from governance.errors import InvalidInput, TooLarge
from governance.policy.cases import RESOURCE_TYPES, SPECIALTIES, PolicyCase, parse_cases
from governance.policy.models import NOTE_MAX
from governance.policy.rules import LIST_MAX, Rule, parse_rules
from governance.yaml_text import (
    MAX_DEPTH,
    Reader,
    Writer,
    check_events,
    hides,
    yaml_problem,
)

MAX_RULES = 2000
MAX_CASES = 1000
MAX_BYTES = 1024 * 1024
# Beyond these bounds, PostgreSQL's JSON does not return the exact number.
MAX_WHOLE = 2**63 - 1
MAX_FLOAT = 9e15
# Blank characters of YAML; Python would strip more.
_BLANK = " \t\r\n"
_MEMBERS = ("note", "rules", "tests")


@dataclass(frozen=True, slots=True)
class Document:
    """Content of a policy: its rules and tests as plain data, and parsed."""

    rules: list[dict[str, Any]]
    tests: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    parsed: tuple[Rule, ...] = ()
    cases: tuple[PolicyCase, ...] = ()


def document_checked(*, rules: Any, tests: Any = (), note: str = "") -> Document:
    """Validate a policy's content and its size.

    Raises:
        InvalidInput: `fields` has every fault, under keys such as `rules.3.actions.0`.
        TooLarge: more rules, cases or bytes than a policy may have.
    """
    tests = list(tests) if isinstance(tests, tuple) else tests
    for name, value, most in (("rules", rules, MAX_RULES), ("tests", tests, MAX_CASES)):
        if not isinstance(value, list):
            raise InvalidInput(
                f"The policy's {name} are not a list.", fields={name: ["is not a list"]}
            )
        if len(value) > most:
            raise TooLarge(
                f"The policy has {len(value):,} {name}; {most:,} are allowed.",
                fields={name: [f"has more than {most:,}"]},
            )
    if not isinstance(note, str) or len(note) > NOTE_MAX or hides(note.translate(_LINES)):
        raise InvalidInput(
            f"The policy's note is a text of at most {NOTE_MAX} visible characters.",
            fields={"note": [f"is not a text of at most {NOTE_MAX} visible characters"]},
        )
    _check_plain({"rules": rules, "tests": tests})
    faults: dict[str, list[str]] = {}
    parsed: tuple[Rule, ...] = ()
    cases: tuple[PolicyCase, ...] = ()
    sentences: list[str] = []
    try:
        parsed = parse_rules(rules)
        if unmatched := _never_applying(parsed):
            raise InvalidInput("A rule names something unknown.", fields=unmatched)
    except InvalidInput as error:
        sentences.append(error.message)
        faults |= {_below("rules", where): why for where, why in error.fields.items()}
    try:
        cases = parse_cases(tests)
    except InvalidInput as error:
        sentences.append(error.message)
        faults |= {_below("tests", where): why for where, why in error.fields.items()}
    if faults:
        raise InvalidInput(" ".join(sentences), fields=dict(list(faults.items())[:100]))
    return Document(rules, tests, note, parsed, cases)


def _below(name: str, where: str) -> str:
    return name if where == name else f"{name}.{where}"


_LINES = {ord(sign): " " for sign in "\t\r\n"}


def _never_applying(rules: Sequence[Rule]) -> dict[str, list[str]]:
    """Report rules that can never match, so that a forbid would forbid nothing. Checked for new
    rules only; rules already in force stay readable.
    """
    faults: dict[str, list[str]] = {}
    for index, rule in enumerate(rules):
        if unknown := sorted(set(rule.resource_types) - set(RESOURCE_TYPES)):
            fault = f"{unknown[0][:60]} is not a type; types are {', '.join(RESOURCE_TYPES)}"
            faults[f"{index}.resource_types"] = [fault]
        field_path = f"{index}.principal.specialties"
        if unknown := sorted(set(rule.principal.specialties) - SPECIALTIES):
            fault = f"{unknown[0][:60]} is not one; they are {', '.join(sorted(SPECIALTIES))}"
            faults[field_path] = [fault]
        elif rule.principal.specialties and set(rule.principal.roles) != {"reviewer"}:
            others = ", ".join(sorted(set(rule.principal.roles) - {"reviewer"}))
            faults[field_path] = [f"belong to reviewers; give {others} a rule without them"]
    return faults


def _check_plain(value: dict[str, Any]) -> None:
    """Raise if JSON in PostgreSQL cannot store the data, or it is too large or not visible."""
    for path, inner in _walk(value, ""):
        if isinstance(inner, str) and hides(inner):
            raise InvalidInput(
                "The policy contains a character that does not show, such as a line break.",
                hint="Write each text of rules and tests on one line, in visible characters.",
                fields={path: ["contains a character that does not show"]},
            )
        most = MAX_FLOAT if isinstance(inner, float) else MAX_WHOLE
        if isinstance(inner, (int, float)) and not abs(inner) <= most:
            raise InvalidInput(
                "The policy contains a number that is too large.",
                fields={path: ["is a number that is too large to be stored exactly"]},
            )
    try:
        size = len(
            json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The policy is not plain data: {error}.") from error
    if size > MAX_BYTES:
        raise TooLarge(f"The policy has {size:,} bytes; {MAX_BYTES:,} are allowed.")


def _walk(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"The policy is nested more than {MAX_DEPTH} deep.")
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{path}.{name}" if path else str(name)
            if not isinstance(name, str):
                raise InvalidInput(
                    f"The policy has a key that is not a text: {name!r:.60}.",
                    fields={path: [f"has the key {name!r:.60}, which is not a text"]},
                )
            yield below, name
            yield from _walk(inner, below, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{path}.{index}", depth + 1)


def document_from_yaml(text: str) -> Document:
    """Parse a policy in YAML.

    Raises:
        InvalidInput, TooLarge: it is not YAML, or as `document_checked`.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise TooLarge(f"The document has more than {MAX_BYTES:,} bytes.")
    try:
        check_events(text)
        data = yaml.load(text, Loader=Reader)  # noqa: S506 (a safe loader of ours)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"This is not a policy in YAML: {yaml_problem(error)}.",
            fields={"yaml": [yaml_problem(error)]},
        ) from error
    if not isinstance(data, dict) or "rules" not in data:
        raise InvalidInput(
            "A policy in YAML is a mapping with `rules` and, optionally, `tests` and `note`.",
            fields={"yaml": ["has no rules"]},
        )
    if unknown := [str(name)[:60] for name in data if name not in _MEMBERS]:
        raise InvalidInput(
            f"A policy has no member {unknown[0]}; it has {', '.join(_MEMBERS)}.",
            fields={name: ["is not known"] for name in unknown[:20]},
        )
    tests, note = data.get("tests"), data.get("note")
    return document_checked(
        rules=data["rules"],
        tests=[] if tests is None else tests,
        note="" if note is None else note,
    )


def value_from_text(text: str, *, several: bool = False) -> Any:
    """Parse a condition's value: `18:00` is a text, `5` a number, `a, b` a list if `several`.

    Raises:
        InvalidInput: it is not YAML.
    """
    text = text.strip(_BLANK)
    try:
        if several and not text.startswith("["):
            parts = [part.strip(_BLANK) for part in text.split(",") if part.strip(_BLANK)]
            if len(parts) > LIST_MAX:
                raise ValueError(f"{LIST_MAX} values at most")
            return [value_from_text(part) for part in parts]
        check_events(text)
        return yaml.load(text, Loader=Reader)  # noqa: S506 (a safe loader of ours)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{text[:60]!r} is not a value: {yaml_problem(error)}.",
            hint="Put a text with special characters in quotes.",
            fields={"value": [yaml_problem(error)]},
        ) from error


def value_to_text(value: Any) -> str:
    """Write a value as text that `value_from_text` reads back."""
    if isinstance(value, list):
        parts = [value_to_text(item) for item in value]
        if value and not any("," in part for part in parts):
            return ", ".join(parts)
    text: str = yaml.dump(
        value, Dumper=Writer, default_flow_style=True, allow_unicode=True, width=10_000
    )
    return text.strip(_BLANK).removesuffix("...").strip(_BLANK)


def lines_from_text(text: str) -> dict[str, Any]:
    """Parse names and values that a person types, one `name: value` on each line.

    Raises:
        InvalidInput: the text has another form.
    """
    values = value_from_text(text) if text.strip() else {}
    if not isinstance(values, dict):
        raise InvalidInput(
            "Write one `name: value` a line.", fields={"value": ["has another form"]}
        )
    return values


def case_from_yaml(text: str) -> dict[str, Any]:
    """Parse one test in YAML; the schema validates it later.

    Raises:
        InvalidInput: it is not a mapping in YAML.
    """
    case = value_from_text(text)
    if not isinstance(case, dict):
        raise InvalidInput("A test is a mapping with a name.", fields={"case": ["is another type"]})
    return case


def case_to_yaml(case: dict[str, Any]) -> str:
    """Write a test as YAML that `case_from_yaml` reads back."""
    text: str = yaml.dump(
        _ordered(case, tuple(PolicyCase.model_fields)),
        Dumper=Writer,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )
    return text


def document_to_yaml(*, rules: Any, tests: Any = (), note: str = "") -> str:
    """Write a policy as YAML that `document_from_yaml` reads back exactly."""
    members: dict[str, Any] = {
        "note": note,
        "rules": [_ordered(rule, tuple(Rule.model_fields)) for rule in rules],
        "tests": [_ordered(case, tuple(PolicyCase.model_fields)) for case in tests],
    }
    text: str = yaml.dump(
        members,
        Dumper=Writer,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )
    return text


def _ordered(row: dict[str, Any], members: tuple[str, ...]) -> dict[str, Any]:
    """Return the members in the schema's order, which JSON in PostgreSQL does not preserve."""
    ordered = {name: row[name] for name in members if name in row}
    return ordered | {name: value for name, value in row.items() if name not in ordered}
