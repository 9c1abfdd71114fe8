"""The audit log is searched by the words in which its events are shown, and shows one number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from governance.audit.sealer import seal_once
from governance.audit.search.action_words import actions_matching
from governance.people.models import Department, Person
from governance.people.roles import role_grant
from governance.people.services import department_create
from governance.principals import Principal
from tests.proofs import signed_in


@pytest.mark.parametrize(
    ("typed", "action"),
    [
        ("granted a role", "role:grant"),
        ("GRANTED  role", "role:grant"),
        ("grant a role to", "role:grant"),
        ("second fact", "person:add_factor"),
        ("recalled", "version:recall"),
        ("signed out", "person:sign_out"),
    ],
)
def test_words_of_a_sentence_find_its_action(typed: str, action: str) -> None:
    assert action in actions_matching(typed)


@pytest.mark.parametrize("typed", ["", "a", "the of", "gra role", "granted a cheese", "{}", "%"])
def test_words_of_no_sentence_find_nothing(typed: str) -> None:
    assert actions_matching(typed) == ()


def test_the_list_finds_what_it_says_and_shows_one_number_of_an_event(
    actor: Callable[..., Principal],
    person: Callable[..., Person],
    department: Callable[[str], Department],
) -> None:
    admin = actor("Ada", "admin")
    department_create(actor=admin, slug="legal", name="Legal")
    vera = person("Vera")
    role_grant(
        actor=admin, person=vera, role="viewer", department=Department.objects.get(slug="legal")
    )
    seal_once()
    ada = signed_in(Client(), Person.objects.get(name="Ada"))

    def events(query: str) -> list[str]:
        page: Any = ada.get("/audit", {"query": query})
        found = re.findall(r"<strong>[^<]+</strong>\s+([^<]+)<", page.content.decode())
        return [each.strip() for each in found]

    assert events("granted a role") == ["granted a role to Vera"]
    assert events("created the department") == ["created the department Legal"]
    assert events("granted a cheese") == []

    page = ada.get("/audit").content.decode()
    number = re.search(r'href="/audit/(\d+)">\s*Event (\d+)<', page)
    assert number is not None
    assert number[1] == number[2]
    # The place in the Merkle tree is no second number of the event.
    assert re.findall(r"</svg>\s*\d+\s*</span>", page) == []
    assert re.search(r"</svg>\s*sealed\s*</span>", page)
    head = ada.get(f"/audit/{number[1]}").content.decode().partition("<h1>")[2]
    words = re.sub("<[^>]+>", " ", head.partition("</h1>")[0])
    assert re.findall(r"\d+", words) == [number[1]]
