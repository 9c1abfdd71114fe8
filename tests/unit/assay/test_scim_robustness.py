"""Whatever an identity provider sends, it is answered in SCIM's shape and never by a fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from governance.people.models import Person
from governance.policy.services import policy_bootstrap
from tests.unit.assay.scim_support import ENTERPRISE, GROUP, PATCH, TOKEN, USER, Scim

ATTRIBUTES = (
    "userName", "name", "name.givenName", "displayName", "active", "emails", "emails.value",
    "externalId", "id", "meta", "meta.created", "groups", "schemas", "members", "members.value",
    "password", "title", "$ref", f"{USER}:userName", f"{GROUP}:members", ENTERPRISE,
    f"{ENTERPRISE}:manager", 'emails[type eq "work"]', 'emails[type eq "work"].value',
    'members[value eq "1"]', "members[value pr]", "", " ", "((", "a" * 300, "ü", "\u202e",
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(("", "True", "False", "1", "a@example.org", "x" * 400, "\u2028", "\u202ea")),
    st.text(max_size=20),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from((*ATTRIBUTES, "value", "type", "primary")), TEXTS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
OPERATIONS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"op": st.sampled_from(("add", "Add", "replace", "Replace", "remove", "bless"))},
            optional={"path": st.sampled_from(ATTRIBUTES), "value": VALUES},
        ),
        VALUES,
    ),
    max_size=3,
)
WORDS = st.sampled_from(
    (
        *ATTRIBUTES,
        "eq",
        "ne",
        "co",
        "sw",
        "ew",
        "pr",
        "gt",
        "le",
        "and",
        "or",
        "not",
        "(",
        ")",
        '"a"',
        '"2027-01-31T00:00:00Z"',
        "true",
        "null",
        "1",
        "1.5",
        '"\\u0000"',
        "[",
        "]",
        '"',
    )
)  # fmt: skip
BOUNDS = settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.sweep
@pytest.mark.usefixtures("redis")
class TestWhateverIsSent(TestCase):
    """Each example in a transaction of its own."""

    def setUp(self) -> None:
        policy_bootstrap()
        self.scim = Scim()

    def run_one(self, method: str, path: str, body: Any = None, **query: Any) -> None:
        """The answer is no fault, and an error is one of SCIM's."""
        with self.settings(SCIM_TOKEN=TOKEN):
            answer = self.scim.call(method, path, body, **query)
        assert answer.status_code < 500, (method, path, body, query, answer.content[:400])
        if answer.status_code >= 400:
            assert answer.headers["Content-Type"] == "application/scim+json"
            assert answer.body["status"] == str(answer.status_code)

    @given(OPERATIONS)
    @BOUNDS
    def test_a_patch_of_a_person_is_answered(self, operations: list[Any]) -> None:
        person = Person.objects.create(email="a@example.org", name="A")
        body = {"schemas": [PATCH], "Operations": operations}
        self.run_one("PATCH", f"Users/{person.pk}", body)

    @given(OPERATIONS)
    @BOUNDS
    def test_a_patch_of_a_group_is_answered(self, operations: list[Any]) -> None:
        with self.settings(SCIM_TOKEN=TOKEN):
            group = self.scim.group("g").body["id"]
        body = {"schemas": [PATCH], "Operations": operations}
        self.run_one("PATCH", f"Groups/{group}", body)

    @given(st.sampled_from(("Users", "Groups")), VALUES, st.booleans())
    @BOUNDS
    def test_a_resource_is_answered(self, where: str, given: Any, described: bool) -> None:
        if isinstance(given, dict) and described:
            given = {"userName": "a@example.org", "displayName": "A", "schemas": [USER], **given}
        self.run_one("POST", where, given)

    @given(st.sampled_from(("Users", "Groups")), st.lists(WORDS, min_size=1, max_size=9))
    @BOUNDS
    def test_a_filter_is_answered(self, where: str, words: list[str]) -> None:
        self.run_one("GET", where, filter=" ".join(words))

    @given(
        st.sampled_from(("attributes", "excludedAttributes", "startIndex", "count", "sortBy")),
        st.one_of(st.sampled_from(ATTRIBUTES), TEXTS),
    )
    @BOUNDS
    def test_a_parameter_is_answered(self, name: str, value: str) -> None:
        Person.objects.create(email="a@example.org", name="A")
        self.run_one("GET", "Users", **{name: value})
