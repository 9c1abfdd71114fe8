"""Every link that a persona is shown leads to a page that opens for them."""

from __future__ import annotations

import html
import re
from collections import Counter
from urllib.parse import urljoin, urlsplit

import pytest
from django.test import Client
from django.urls import Resolver404, resolve

from governance.people.models import Person
from registry.releases.models import Release
from tests.abuse.company import attacked_company
from tests.proofs import signed_in
from tests.unit.assay.portal_data import Company
from tests.worlds import built_once, copied

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

LINK = re.compile(r'\s(?:href|hx-get)="([^"]+)"')
# Of one address's objects, as many are visited by each persona; those who see most visit more.
EACH = {"ada": 2, "enzo": 2}
PERSONAS = ("ada", "omar", "asha", "carla", "enzo", "devi", "vera", "fay", "nobody")


attacked = built_once(attacked_company)


@pytest.fixture
def company(attacked: Company, redis: None) -> Company:
    made = copied(attacked)
    # Whoever uses what another department shares sees neither its version nor its release.
    Release.objects.filter(pk=made.live.pk).update(visibility="organization")
    made.people["nobody"] = Person.objects.create(name="Nina Nobody", email="nina@assay.example")
    return made


def links_of(page: str, path: str) -> list[str]:
    """Addresses of this site on a page, without fragments, in order."""
    found = []
    for text in LINK.findall(page):
        parts = urlsplit(urljoin(path, html.unescape(text)))
        if parts.scheme or parts.netloc or parts.path.startswith("/static/"):
            continue
        found.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    return list(dict.fromkeys(found))


def name_of(address: str) -> str:
    """The address's name, by which many objects' pages are one."""
    try:
        return resolve(urlsplit(address).path).view_name or address
    except Resolver404:
        return address


def walked(client: Client, each: int) -> tuple[dict[str, tuple[int, str]], int]:
    """Errors by address, each with the page that links there; and how many were asked."""
    waiting, seen = [("/", "")], {"/"}
    visits: Counter[str] = Counter()
    broken: dict[str, tuple[int, str]] = {}
    while waiting:
        address, origin = waiting.pop(0)
        name = name_of(address)
        visits[name] += 1
        if visits[name] > each:
            continue
        answer = client.get(address)
        if answer.status_code in {403, 404} or answer.status_code >= 500:
            broken[address] = (answer.status_code, origin)
        if answer.status_code != 200 or "text/html" not in answer["Content-Type"]:
            continue
        for link in links_of(answer.content.decode(), address):
            if link not in seen:
                seen.add(link)
                waiting.append((link, address))
    return broken, sum(visits.values())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", PERSONAS)
def test_every_link_that_a_persona_is_shown_leads_to_a_page_of_theirs(
    company: Company, who: str
) -> None:
    broken, asked = walked(signed_in(Client(), company.people[who]), EACH.get(who, 1))
    assert asked > 5
    assert broken == {}
