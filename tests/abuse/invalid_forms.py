"""Every form of the portal with invalid values, and the person who sends it."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlencode

from django.test import Client

from tests.abuse.company import address_book, browser
from tests.abuse.database import undone
from tests.abuse.surface import Address
from tests.abuse.test_step_up_portal import BINDING, forms, taking_forms
from tests.unit.assay.portal_data import Company

# The sender of forms that need no session.
NOBODY = ""
# Tried in this order for forms that `BINDING` does not name.
SENDERS = (
    "a lead of engineering", "an admin", "a compliance reviewer", "a security reviewer",
    "a developer of engineering", "an auditor", NOBODY,
)  # fmt: skip
TYPED = frozenset({"number", "date", "datetime-local", "time", "email", "url"})
KEPT = frozenset({"hidden", "submit", "button", "image", "reset"})
CHOSEN = frozenset({"checkbox", "radio", "file"})
NOT_A_VALUE = "not a value"
FORM = "application/x-www-form-urlencoded"


class Control(NamedTuple):
    """A field of a form as a page declares it. `kind` is the type of its input, or its element."""

    name: str
    kind: str
    value: str
    required: bool
    max_length: int | None


class InvalidForm(NamedTuple):
    """A form that is refused: its sender, its address and its fields."""

    sender: str
    path: str
    body: list[tuple[str, str]]


class _Forms(HTMLParser):
    """Fields of the forms of a page, by the address that the form is sent to."""

    def __init__(self, page: str, path: str) -> None:
        super().__init__()
        self.fields: dict[str, list[Control]] = {}
        self._path = path
        self._form: list[Control] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            action = values.get("action", self._path).partition("?")[0]
            posts = values.get("method") == "post"
            self._form = self.fields.setdefault(action, []) if posts else None
        elif tag in {"input", "select", "textarea", "button"} and self._form is not None:
            kind = values.get("type", "text") if tag == "input" else tag
            length = values.get("maxlength")
            self._form.append(
                Control(
                    values.get("name", ""), kind, values.get("value", ""), "required" in values,
                    int(length) if length else None,
                )
            )  # fmt: skip

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None


def invalid_body(controls: list[Control]) -> list[tuple[str, str]]:
    """Return values that the fields refuse: nothing, text that is too long, or of another type.

    Of several required texts, every second one is too long. Nothing is chosen.
    """
    body: list[tuple[str, str]] = []
    for place, control in enumerate(controls):
        if control.name in {"", "csrfmiddlewaretoken"} or control.kind in CHOSEN:
            continue
        if control.kind in KEPT:
            value = control.value
        elif control.kind in TYPED:
            value = NOT_A_VALUE
        elif control.kind == "select":
            value = "" if control.required else NOT_A_VALUE
        elif control.max_length and (place % 2 or not control.required):
            value = "x" * (control.max_length + 1)
        else:
            value = ""
        body.append((control.name, value))
    return body


def invalid_forms(company: Company) -> Iterator[InvalidForm]:
    """Yield each form that is refused. Nothing that it changes stays.

    Forms without a field that can be invalid are left out, such as the form of a button.
    """
    book, valid = address_book(company), forms(company)
    for pattern in sorted(taking_forms()):
        path = Address(pattern).filled(book)
        for sender in [BINDING[pattern]] if pattern in BINDING else SENDERS:
            client = browser(company, sender) if sender else Client()
            controls = _Forms(_refusal(client, path, []), path).fields.get(path, [])
            names = valid.get(pattern, {})
            body = invalid_body(controls) or [(name, NOT_A_VALUE) for name in names]
            if body and _refusal(client, path, body):
                yield InvalidForm(sender, path, body)
                break


def _refusal(client: Client, path: str, body: list[tuple[str, str]]) -> str:
    """Return the page of a refusal; empty if the form is accepted, is not for this sender, or is
    answered without a page."""
    with undone():
        response = client.post(path, urlencode(body), content_type=FORM)
    page = response.headers.get("Content-Type", "").startswith("text/html")
    if response.status_code < 400 or response.status_code in {403, 404, 405} or not page:
        return ""
    return str(response.content.decode())
