"""A policy as code: it goes out and comes back the same, and nothing else comes in."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.errors import DomainError, InvalidInput, TooLarge
from governance.policy.cases import failed_results, parse_role, run_cases
from governance.policy.differences import difference
from governance.policy.document import (
    case_from_yaml,
    case_to_yaml,
    document_checked,
    document_from_yaml,
    document_to_yaml,
    lines_from_text,
    value_from_text,
    value_to_text,
)
from governance.policy.engine import PolicySnapshot
from governance.policy.services import DEFAULT_POLICY

RULE: dict[str, Any] = {
    "id": "one",
    "effect": "permit",
    "description": "one",
    "principal": {"kinds": ["person"]},
    "actions": ["model:view"],
}
CASE: dict[str, Any] = {
    "name": "one",
    "principal": {"roles": ["lead@clinical"]},
    "action": "model:view",
    "resource": {"type": "model"},
    "expect": "permit",
}
# Texts that YAML is known to misread as times, numbers, truth values, comments or null.
TRAPS = (
    *("18:00", "09:30", "1:2", "007", "0x1f", "1e5", "1_000", "+1", "-1", ".5", "5.", "12e03"),
    *("true", "True", "no", "on", "off", "y", "null", "~", "", " ", "- a", "a: b", "#x", "a #b"),
    *("2024-01-01", "<<", "=", "&a", "*a", "!t", "|", ">", "%", "@", "`", "[a", "{a", "a,b"),
    *("'", '"', "\\", "ü", "☃", "a'b", "10.0.0.0/8", "::/0", "?", ".inf", ".nan", "\u00a0", "…"),
)
texts = st.sampled_from(TRAPS) | st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf"], exclude_characters="\u2028\u2029"),
    max_size=30,
)
values = texts | st.integers(1 - 2**63, 2**63 - 1) | st.booleans()


@given(texts, st.lists(values, max_size=5), values)
@settings(max_examples=300, deadline=None)
def test_any_policy_goes_out_as_yaml_and_comes_back_the_same(
    text: str, several: list[Any], value: Any
) -> None:
    attributes = {"a": value, "b": several, "c": None}
    rules = [{**RULE, "description": text[:200] or "one"}]
    tests = [{**CASE, "resource": {"type": "model", "name": text, "attributes": attributes}}]
    read = document_from_yaml(document_to_yaml(rules=rules, tests=tests, note=text))
    assert (read.rules, read.tests, read.note) == (rules, tests, text)
    assert repr(read.tests) == repr(tests)
    assert case_from_yaml(case_to_yaml(tests[0])) == tests[0]


@given(values | st.lists(values, min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_a_condition_s_value_is_read_back_as_it_was_written(value: Any) -> None:
    text = value_to_text(value)
    assert repr(value_from_text(text, several=isinstance(value, list))) == repr(value)


def test_what_a_person_types_is_what_they_mean() -> None:
    assert value_from_text("18:00") == "18:00"
    assert value_from_text("5") == 5
    assert value_from_text("true") is True
    assert value_from_text("no") == "no"
    assert value_from_text("a, b ,c", several=True) == ["a", "b", "c"]
    assert value_from_text("[1, 2]", several=True) == [1, 2]
    assert lines_from_text("time: 18:30\ntokens: 5") == {"time": "18:30", "tokens": 5}
    assert lines_from_text(" ") == {}
    with pytest.raises(InvalidInput, match="200 values at most"):
        value_from_text("a," * 201, several=True)
    for wrong in ("[", "&a x", "!!python/name:os.system ''"):
        with pytest.raises(InvalidInput):
            value_from_text(wrong)
    with pytest.raises(InvalidInput):
        lines_from_text("- a")


def test_the_default_policy_passes_its_own_tests() -> None:
    document = document_from_yaml(DEFAULT_POLICY.read_text(encoding="utf-8"))
    assert len(document.cases) >= 20
    snapshot = PolicySnapshot.from_rules(1, document.rules)
    assert failed_results(run_cases(snapshot, document.cases)) == []


def test_a_test_that_the_wrong_rule_satisfies_fails() -> None:
    document = document_checked(rules=[RULE], tests=[{**CASE, "rule": "another"}])
    (result,) = run_cases(PolicySnapshot.from_rules(1, document.rules), document.cases)
    assert (result.allowed, result.passed) == (True, False)
    assert "Rule another did not make this decision; one did." in result.reason


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nrules: [*c]"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "anchors, aliases and tags"),
        ("rules: !!python/object/apply:os.system [id]", "anchors, aliases and tags"),
        ("rules: []\nrules: []", "line 2, column 1: a mapping names a key twice"),
        ("rules: []\ntests: [{a: 1, a: 2}]", "names a key twice"),
        ("rules: [", "line 2, column 1"),
        ("rules: []\n---\nrules: []", "line 2"),
        ("[" * 100 + "]" * 100, "nested more than"),
        ("rules: []\nstate: active", "no member state"),
        ("- a", "is a mapping with `rules`"),
        ("", "is a mapping with `rules`"),
        ("rules: {}", "not a list"),
        ("rules: []\nnote: [a]", "note is a text"),
        ("rules: []\nnote: 5", "note is a text"),
        ("rules: []\ntests: [{? [a] : b}]", "by something other than a text"),
        ("rules: [{1: a}]", "a key that is not a text"),
        (f"rules: [{{id: {2**63}}}]", "too large"),
        ("rules: [{id: 1e400}]", "too large"),
        (f"rules: [{'[[]],' * 100_000}]", "more than 200,000 parts"),
    ],
)
def test_what_is_no_policy_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        document_from_yaml(text)


@pytest.mark.parametrize(
    "sign", ["\x1b", "\x07", "\x7f", "\x9b", "\n", "\u2028", "\u202e", "\u2066", "\u200b", "\xad"]
)
def test_a_policy_holds_no_sign_that_would_show_another_text_than_there_is(sign: str) -> None:
    """Approvers read it on a page or in a terminal."""
    text = f"a{sign}b"
    told = [
        {"rules": [{**RULE, "description": text}]},
        {"rules": [{**RULE, "conditions": [{"attribute": "a", "operator": "eq", "value": text}]}]},
        {"rules": [{**RULE, "principal": {"kinds": ["service"], "services": [text]}}]},
        {"rules": [RULE], "tests": [{**CASE, "name": text}]},
    ]
    if sign != "\n":
        told.append({"rules": [RULE], "note": text})
    for given_ in told:
        with pytest.raises(InvalidInput):
            document_checked(**given_)
        with pytest.raises(InvalidInput):
            document_from_yaml(json.dumps(given_))


@pytest.mark.parametrize(
    ("changes", "where", "why"),
    [
        ({"resource_types": ["model", "deploymnet"]}, "rules.1.resource_types", "deploymnet"),
        (
            {"principal": {"roles": ["reviewer"], "specialties": ["securty"]}},
            "rules.1.principal.specialties",
            "securty",
        ),
        (
            {"principal": {"roles": ["admin", "reviewer"], "specialties": ["security"]}},
            "rules.1.principal.specialties",
            "admin",
        ),
    ],
)
def test_a_rule_that_could_never_apply_is_refused_when_it_is_written(
    changes: dict[str, Any], where: str, why: str
) -> None:
    """A forbid with a slip of the pen would forbid nothing."""
    wrong = {**RULE, "id": "two", "effect": "forbid", **changes}
    with pytest.raises(InvalidInput) as caught:
        document_checked(rules=[RULE, wrong])
    assert list(caught.value.fields) == [where]
    assert why in caught.value.fields[where][0]
    # One that is in force already is still read.
    assert PolicySnapshot.from_rules(1, [RULE, wrong]).rules[1].id == "two"


def test_bounds_are_told() -> None:
    with pytest.raises(TooLarge, match="1,048,576 bytes"):
        document_from_yaml("#" * (1024 * 1024 + 1))
    with pytest.raises(TooLarge, match="2,001 rules; 2,000 are allowed"):
        document_checked(rules=[RULE] * 2001)
    with pytest.raises(TooLarge, match="1,001 tests; 1,000 are allowed"):
        document_checked(rules=[], tests=[CASE] * 1001)
    many = [{**RULE, "id": f"r-{n}", "description": "x" * 200} for n in range(2000)]
    wide = [{**rule, "actions": ["deployment:invoke"] * 20} for rule in many]
    with pytest.raises(TooLarge, match="bytes; 1,048,576 are allowed"):
        document_checked(rules=wide)
    for note in ("x" * 501, "a\x00", "\ud800"):
        with pytest.raises(InvalidInput, match="note"):
            document_checked(rules=[], note=note)
    with pytest.raises(InvalidInput, match="does not show"):
        document_checked(rules=[{**RULE, "description": "a\x00b"}])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_in_is_taken_or_refused_in_words(data: Any) -> None:
    for arguments in (
        {"rules": data},
        {"rules": [data]},
        {"rules": [], "tests": [data]},
        {"rules": [{**RULE, "conditions": [data]}]},
        {"rules": [], "tests": [{**CASE, "principal": data}]},
        {"rules": [], "tests": [{**CASE, "context": data}]},
    ):
        with contextlib.suppress(DomainError):
            document_checked(**arguments)
    with contextlib.suppress(DomainError):
        document_from_yaml(yaml.safe_dump(data, allow_unicode=True))


def test_the_largest_policy_is_read_in_seconds() -> None:
    rules = [{**RULE, "id": f"r-{n}", "description": "x" * 150} for n in range(2000)]
    text = document_to_yaml(rules=rules)
    started = time.thread_time()
    assert len(document_from_yaml(text).parsed) == 2000
    assert time.thread_time() - started < 10


@pytest.mark.parametrize(
    "role", ["", "king", "lead", "admin@clinical", "reviewer", "reviewer:x", "lead@", "admin:x"]
)
def test_what_is_no_role_is_refused(role: str) -> None:
    with pytest.raises(ValueError, match=r"role|department"):
        parse_role(role)


def test_two_policies_are_compared_rule_by_rule_and_test_by_test() -> None:
    other = {**RULE, "id": "two"}
    changed = {**RULE, "effect": "forbid", "conditions": []}
    found = difference([RULE, other], [changed, {**RULE, "id": "three"}], [CASE], [])
    assert [rule["id"] for rule in found.added] == ["three"]
    assert [rule["id"] for rule in found.removed] == ["two"]
    assert [(rule.id, rule.members) for rule in found.changed] == [
        ("one", ["effect", "conditions"])
    ]
    assert (found.tests_removed, found.tests_added, found.reordered) == (["one"], [], False)
    assert difference([RULE, other], [other, RULE]).reordered
    assert difference([RULE], [dict(RULE)]).empty
