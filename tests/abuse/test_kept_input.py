"""Typed input survives the request for a second factor: on every form, field by field.

Each form is sent without a fresh second factor, verified on the page that asks for one, and must
then do exactly what it does when it is sent with a fresh factor at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import QueryDict
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from assay.portal.second_factor import MARK, SECRETS, typed_fields
from assay.portal.views.account import FreshScreen
from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.credentials import has_factor
from governance.people.models import Person
from tests.abuse.company import address_book, person_of
from tests.abuse.database import undone
from tests.abuse.surface import Address
from tests.abuse.test_step_up_portal import BINDING, STATE_FIRST, forms, opened, taking_forms
from tests.proofs import signed_in
from tests.unit.assay.portal_data import Company
from tests.unit.assay.sign_in_support import PASSWORD, Visitor, give_totp, totp_now, with_password

ODD = '“Ünï” & <b>bold</b> "it\'s"\r\nsecond line\ttab {{ x }} {% y %} 漢字 \U0001f511'
FORM = "application/x-www-form-urlencoded"


class Forms(HTMLParser):
    """Forms of a page: address, and each value of each field."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, Any], list[tuple[str, str]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given, []))
        elif tag == "input" and self.found and "name" in given:
            self.found[-1][1].append((given["name"], given.get("value", "")))


def asked(page: Any) -> tuple[str, list[tuple[str, str]]]:
    """The address and the kept fields of the page that asks for a code."""
    for given, fields in Forms(page.content.decode()).found:
        if any(name == "code" for name, _ in fields) and (MARK, "yes") in fields:
            left_out = {"code", "credential", "csrfmiddlewaretoken", MARK}
            return given["action"], [each for each in fields if each[0] not in left_out]
    raise AssertionError("no form asks for a code")


def verified(person: Person, path: str, body: dict[str, str]) -> Any:
    """Send a form without a fresh second factor, verify on the page that asks for one, and return
    the answer. For forms of `STATE_FIRST`, whose objects tests bring into the right state."""
    if not has_factor(person.pk):
        give_totp(person)
    client = Client()
    client.force_login(person)
    action, fields = asked(client.post(path, body))
    assert (action, dict(fields)) == (path, body)
    return client.post(action, {**body, MARK: "yes", "code": totp_now(person)})


def listed(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A body as a browser sends it, value by value."""
    return [
        (name, str(each))
        for name, value in body.items()
        for each in (value if isinstance(value, list) else [value])
    ]


def outcome(response: Any, since: int) -> tuple[Any, ...]:
    """Outcome of a form: status, next page, and its events in the audit log."""
    events = AuditEvent.objects.filter(pk__gt=since).exclude(action="person:step_up")
    told = [(event.action, event.outcome, event.subject_type) for event in events.order_by("pk")]
    return response.status_code, response.headers.get("Location"), told


def newest() -> int:
    last = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True).first()
    return last or 0


def test_every_form_that_binds_does_the_same_after_verifying(company: Company) -> None:
    company.key.scopes = ["deployment:invoke", "model:create"]
    company.key.save(update_fields=["scopes"])
    book, sent = address_book(company), forms(company)
    for name in set(BINDING.values()):
        give_totp(person_of(company, name))
    faults, kept = [], 0
    for pattern, name in BINDING.items():
        if pattern in STATE_FIRST:
            continue
        person = person_of(company, name)
        path = f"{Address(pattern).filled(book)}?tab=two&page=1"
        body = listed({**sent.get(pattern, {}), "note-1": ODD, "many": ["a", "b", "a"]})
        text = urlencode(body)
        with undone():
            since = newest()
            client = Client(raise_request_exception=False)
            direct = outcome(signed_in(client, person).post(path, text, content_type=FORM), since)
        with undone():
            client = opened(company, name)
            page = client.post(path, text, content_type=FORM)
            action, fields = asked(page)
            # The one link that leads away from the page would lose what it keeps.
            leaves = "/account/prove" in page.content.decode()
            since = newest()
            again = [*fields, (MARK, "yes"), ("code", totp_now(person))]
            late = outcome(client.post(action, urlencode(again), content_type=FORM), since)
        kept += len(fields)
        if leaves or (action, sorted(fields), late) != (path, sorted(body), direct):
            faults.append((pattern, action, set(body) ^ set(fields), direct, late))
    assert faults == []
    assert kept > 4 * len(BINDING)


def test_an_emergency_that_is_reviewed_keeps_verdict_and_lessons(company: Company) -> None:
    """The page offered a link that left it, and came back empty."""
    path = f"/emergency-access/{company.emergency_access.pk}"
    page = opened(company, "a security reviewer").get(path).content.decode()
    assert "/account/prove" not in page


def test_no_page_offers_to_leave_a_form_in_order_to_verify() -> None:
    """A link to the verification is for pages without a form of their own; `parts/alert.html` shows
    it for what was read."""
    from assay.portal import templates

    root = next(iter(templates.__path__))
    found = [
        path.name
        for path in __import__("pathlib").Path(root).rglob("*.html")
        if "account_prove" in path.read_text()
    ]
    assert found == ["alert.html"]


def test_no_field_has_a_name_that_the_request_for_a_factor_takes_away(company: Company) -> None:
    """`code` or `submit` in a form would be lost, or hide the form's own method."""
    taken = {MARK, "local", "submit", "elements", "dataset", *SECRETS}
    for pattern, body in forms(company).items():
        assert not taken & body.keys(), pattern


def test_no_form_that_binds_takes_files(company: Company) -> None:
    """A browser hands none to a page; one that did would have to say so, as this page does."""
    book = address_book(company)
    for pattern, name in BINDING.items():
        page = opened(company, name).get(Address(pattern).filled(book))
        if page.status_code == 200:
            for given, fields in Forms(page.content.decode()).found:
                if given.get("action") == Address(pattern).filled(book):
                    assert given.get("enctype") != "multipart/form-data", (pattern, fields)
    client = opened(company, "an admin")
    give_totp(person_of(company, "an admin"))
    form = {"email": "new@assay.example", "name": "New", "file": SimpleUploadedFile("a", b"x")}
    page = client.post("/people", form)
    assert "files, which you choose again" in page.content.decode()
    assert dict(asked(page)[1]) == {"email": "new@assay.example", "name": "New"}


def test_kept_input_holds_no_secret_and_belongs_to_its_page_alone(company: Company) -> None:
    admin = person_of(company, "an admin")
    give_totp(admin)
    client = opened(company, "an admin")
    secrets = dict.fromkeys(SECRETS, "hunter2hunter2")
    page = client.post("/people", {"email": "new@assay.example", "name": "New", **secrets})
    assert "hunter2hunter2" not in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    # Nothing is stored: not in the session, and not for another session of the same person.
    assert "new@assay.example" not in str(dict(client.session))
    other = opened(company, "an admin")
    assert "new@assay.example" not in other.get("/people").content.decode()
    # A form of another site brings no token, and is refused before anything of it is shown.
    strict = Client(enforce_csrf_checks=True, raise_request_exception=False)
    strict.force_login(admin)
    refused = strict.post("/people", {"email": "evil@assay.example", "name": "Evil"})
    assert (refused.status_code, "evil@assay.example" in refused.content.decode()) == (403, False)


def test_a_code_that_comes_with_another_form_is_used_up(company: Company) -> None:
    """Kept fields that are sent elsewhere need a code of their own, like any other form."""
    admin = person_of(company, "an admin")
    give_totp(admin)
    client = opened(company, "an admin")
    _, fields = asked(client.post("/people", {"email": "new@assay.example", "name": "New"}))
    code = totp_now(admin)
    body = [*fields, (MARK, "yes"), ("code", code)]
    victim = f"/people/{company.enzo.pk}/deactivate"
    assert client.post(victim, urlencode(body), content_type=FORM).status_code == 400
    assert client.post("/people", urlencode(body), content_type=FORM).status_code == 401
    assert not Person.objects.filter(email="new@assay.example").exists()


def test_input_is_bounded_before_it_is_kept(company: Company) -> None:
    give_totp(person_of(company, "an admin"))
    client = opened(company, "an admin")
    many = urlencode([(f"f{number}", "x") for number in range(1001)])
    assert client.post("/people", many, content_type=FORM).status_code == 400
    large = urlencode({"name": "x" * (3 * 1024 * 1024)})
    assert client.post("/people", large, content_type=FORM).status_code in {400, 413}


@pytest.mark.parametrize("factor", [True, False], ids=["factor", "password"])
def test_a_token_form_is_kept_when_the_page_was_open_for_long(
    company: Company, factor: bool
) -> None:
    person = with_password(company.devi)
    visitor = Visitor().sign_in(person)
    if factor:
        give_totp(person)
    session = visitor.client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= 3600
    session.save()
    name = "laptop “north” & co"
    page = visitor.post("/account/tokens", name=name, days="7")
    assert page.status_code == 403
    assert "Your input is kept" in page.content.decode()
    form = next(
        fields for _, fields in Forms(page.content.decode()).found if ("days", "7") in fields
    )
    assert ("name", name) in form
    given = {"code": totp_now(person)} if factor else {"password": PASSWORD}
    wrong = visitor.post(
        "/account/tokens", name=name, days="7", step_up="yes", code="1", password="x"
    )
    assert (wrong.status_code, name in wrong.content.decode().replace("&amp;", "&")) == (401, True)
    done = visitor.post("/account/tokens", name=name, days="7", step_up="yes", **given)
    assert done.status_code == 201, done.content.decode()[:3000]
    assert ApiKey.objects.filter(person=person, name=name, revoked_at=None).exists()


def test_a_form_with_a_password_is_not_kept_and_says_so(company: Company) -> None:
    person = with_password(company.devi)
    visitor = Visitor().sign_in(person)
    session = visitor.client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= 3600
    session.save()
    answer = visitor.post("/account/password", current=PASSWORD, new="another horse battery x")
    assert answer.status_code == 302
    page = visitor.get(answer["Location"]).content.decode()
    assert "another horse battery x" not in page
    assert "passwords and codes are not kept" in page


def test_every_form_about_ones_own_sign_in_is_one_or_the_other() -> None:
    screens = {
        pattern
        for pattern, view in _views(get_resolver().url_patterns, "/")
        if issubclass(view, FreshScreen) and "post" in view.http_method_names
    }
    assert screens == {
        "/account/authenticator",
        "/account/factors/{id}/remove",
        "/account/passkeys",
        "/account/password",
        "/account/recovery-codes",
        "/account/tokens",
    }
    assert screens <= taking_forms()


def _views(patterns: Any, prefix: str) -> Any:
    for pattern in patterns:
        text = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns, text)
        elif isinstance(pattern, URLPattern):
            view = getattr(pattern.callback, "view_class", None)
            if view is not None:
                yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text), view


def test_repeated_fields_keep_their_values_and_their_order() -> None:
    body = QueryDict(mutable=True)
    body.setlist("form-0-name", ["a", "b", ""])
    body["form-TOTAL_FORMS"] = "2"
    request = RequestFactory().post("/x", body.urlencode(), content_type=FORM)
    assert typed_fields(request) == [
        ("form-0-name", "a"),
        ("form-0-name", "b"),
        ("form-0-name", ""),
        ("form-TOTAL_FORMS", "2"),
    ]
