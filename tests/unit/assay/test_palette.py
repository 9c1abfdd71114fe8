"""The search of the command palette: all that a person may see, and no name beyond it."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from assay.portal.context import MENU
from assay.portal.palette import ACTIONS, EACH_MAX, PAGES, RESULTS_MAX, SOURCES, palette
from assay.portal.synonyms import QUERY_MAX, SYNONYMS
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from registry.versions.models import Model
from tests import proofs
from tests.turns import some
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

TEMPLATES = Path(palette.__code__.co_filename).parent / "templates"
# Finds something of nearly every kind: most names of the story hold one of them.
TYPED = (
    "",
    "a",
    "e",
    "o",
    "s",
    "1",
    "2",
    "docstring",
    "smoll",
    "review 1",
    "new",
    "release",
    "key",
)


def signed_in(person: Person) -> Client:
    return proofs.signed_in(Client(), person)


def titles(person: Person, typed: str) -> list[str]:
    return [each.title for each in palette(principal_for_person(person), typed)]


def results(client: Client, typed: str) -> list[dict[str, Any]]:
    answer = client.get("/search/results", {"q": typed})
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_whatever_is_found_opens_for_whoever_found_it(company: Company) -> None:
    """A result of each page, for each person."""
    seen = 0
    for number, (name, person) in enumerate(company.people.items()):
        client = signed_in(person)
        typed = some(TYPED, number, 3)
        found = {each["href"]: each for word in typed for each in results(client, word)}
        pages = defaultdict(list)
        for href in found:
            pages[resolve(urlsplit(href).path).route].append(href)
        for hrefs in pages.values():
            assert client.get(hrefs[0]).status_code == 200, (name, found[hrefs[0]])
            seen += 1
    assert seen > 50


def test_every_kind_of_thing_is_found_by_an_administrator_or_a_developer(company: Company) -> None:
    principals = [principal_for_person(person) for person in (company.ada, company.enzo)]
    kinds: set[str] = set()
    for source in SOURCES:
        words = (f"{source.kind.split()[0]} {word}" for word in "aeo12")
        for principal, typed in product(principals, ("a 1", *words)):
            if source.kind in kinds:
                break
            kinds |= {each.kind for each in palette(principal, typed)}
    assert {source.kind for source in SOURCES} - kinds <= {"Incident", "Job", "API key"}
    assert titles(company.ada, "editor") != []


def test_another_departments_names_are_neither_shown_nor_found(company: Company) -> None:
    Model.objects.create(
        name="quicksilver", department=company.departments["engineering"],
        task="text-generation", description="A mystery of engineering.", created_by=company.enzo,
    )  # fmt: skip
    assert titles(company.enzo, "quicksilver") == ["quicksilver"]
    for person in (company.fay, company.clara):
        found = [title for typed in TYPED for title in titles(person, typed)]
        assert titles(person, "quicksilver") == titles(person, "mystery") == []
        assert not [title for title in found if "Enzo" in title or "quicksilver" in title]
        assert f"Review {company.review_open.pk}: {company.review_open.subject_name}" not in found


def test_pages_and_actions_are_those_that_the_role_has(company: Company) -> None:
    admin, developer, finance = (titles(p, "") for p in (company.ada, company.enzo, company.fay))
    assert {"Overview", "People", "Invite a person"} <= set(admin)
    assert {"New model", "Upload for checks", "New fine-tune: choose a model"} <= set(developer)
    assert "Invite a person" not in developer
    assert "People" not in finance
    assert "New model" not in titles(company.asha, "new")


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("health", "Health"),
        ("recall", "Recall a version: choose a model"),
        ("users", "People"),
        ("log", "Audit log"),
        ("sso", "Single sign-on"),
        ("retire depl", "Stop a deployment: choose one"),
        ("GPU", "Operations"),
        ("password", "Your account"),
        ("train", "New fine-tune: choose a model"),
        ("compare", "Compare runs: choose jobs"),
    ],
)
def test_pages_are_found_by_the_words_that_people_type(
    company: Company, typed: str, title: str
) -> None:
    # A lead has actions that an administrator does not have.
    found = [*titles(company.ada, typed)[:4], *titles(company.enzo, typed)[:4]]
    assert title in found


def test_every_synonym_means_a_word_of_a_title_or_of_a_button() -> None:
    entries = (entry for _, entries in MENU for entry in entries)
    titles_of_all = [entry.title for entry in (*entries, *PAGES)]
    titles_of_all += [title for title, *_ in ACTIONS]
    templates = "".join(path.read_text() for path in TEMPLATES.rglob("*.html"))
    marked = re.findall(r'data-palette-action="([^"]+)"', templates)
    words = f" {' '.join([*titles_of_all, *marked])} ".lower()
    # Buttons in the head of a page.
    buttons = {"deploy"}
    assert {each for each in SYNONYMS if f" {each}" not in words} <= buttons


def test_the_page_gets_the_meanings_of_the_typed_words(company: Company) -> None:
    answer = signed_in(company.enzo).get("/search/results", {"q": "Retire it"})
    assert answer.json()["meanings"] == [["retire", "stop"], ["it"]]


def test_the_best_comes_first_and_numbers_find_things_of_that_number(company: Company) -> None:
    assert titles(company.enzo, "docstring-writer")[0] == "docstring-writer"
    number = company.waiting.pk
    assert titles(company.enzo, f"release {number}")[0].startswith(f"Release {number}:")
    assert f"Release {number}: {company.waiting.version}" in titles(company.enzo, f"#{number}")
    assert "docstring-writer v2" in titles(company.enzo, "writer v2")


def test_results_and_what_is_read_are_bounded(company: Company) -> None:
    engineering = company.departments["engineering"]
    for number in range(EACH_MAX + 3):
        Model.objects.create(
            name=f"many-{number}", department=engineering, task="text-generation",
            created_by=company.enzo,
        )  # fmt: skip
    assert len(titles(company.enzo, "many")) == EACH_MAX
    assert len(titles(company.ada, "e")) == RESULTS_MAX
    # Beyond the bound nothing is read.
    assert titles(company.enzo, " " * (QUERY_MAX - 4) + "many" + "x" * 100) != []
    client = signed_in(company.enzo)
    for typed in ("\x00", "%", "_", "\\", "'", "9" * 60, "🦊", "many\x00"):
        assert isinstance(results(client, typed), list)
    assert results(client, "%") == results(client, "\\") == []


def test_a_search_costs_a_fixed_number_of_queries(company: Company) -> None:
    client = signed_in(company.ada)
    client.get("/search/results", {"q": "e"})

    def counted(typed: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            results(client, typed)
        return len(captured)

    # One for each kind of thing; the policy is read once.
    before = {typed: counted(typed) for typed in ("e", "no such thing", "", "docstring")}
    assert before == {"e": 23, "no such thing": 23, "": 8, "docstring": 23}
    for number in range(30):
        Model.objects.create(
            name=f"e-docstring-{number}", department=company.departments["engineering"],
            task="text-generation", created_by=company.enzo,
        )  # fmt: skip
    assert {typed: counted(typed) for typed in before} == before


def test_the_page_has_the_same_results_without_a_script(company: Company) -> None:
    client = signed_in(company.enzo)
    html = client.get("/search", {"q": "docstring"}).content.decode()
    assert inline_in(html) == []
    main = html.partition("<main")[2]
    shown = re.findall(r'class="row-title" href="([^"]+)"', main)
    assert shown == [each["href"] for each in results(client, "docstring")]
    assert "No results" in client.get("/search", {"q": "zzzz"}).content.decode()
    assert 'href="/search"' in html
    escaped = client.get("/search", {"q": '"><script>x</script>'}).content.decode()
    assert "<script>x" not in escaped


def test_who_is_signed_out_finds_nothing(company: Company) -> None:
    for address in ("/search", "/search/results"):
        assert Client().get(address).status_code == 302


def test_results_are_not_kept_by_caches(company: Company) -> None:
    answer = signed_in(company.enzo).get("/search/results", {"q": "e"})
    assert answer["Cache-Control"] == "no-store"
