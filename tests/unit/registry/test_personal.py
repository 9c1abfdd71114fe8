"""Signs of personal data: what has their form and their check digits, not what looks like it."""

from __future__ import annotations

import pytest

from registry.datasets import personal
from registry.datasets.personal import PersonalData, kinds_in


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to Ada.Lovelace+note@mail.example.co.uk.", "e-mail"),
        ("Call +49 30 901820, or later", "telephone"),
        ("tel. 0044 (20) 7946-0018", "telephone"),
        ("DE89 3704 0044 0532 0130 00", "iban"),
        ("IBAN GB82WEST12345698765432 OF THE FIRM", "iban"),
        ("NO9386011117947", "iban"),
        ("paid with 4111 1111 1111 1111, thanks", "card"),
        ("5555-5555-5555-4444", "card"),
        ("378282246310005 12/27", "card"),
    ],
)
def test_what_has_their_form_is_found(text: str, kind: str) -> None:
    assert kinds_in(text) == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "@dataclass(frozen=True)",
        "user@localhost and a @ b.example",
        "a+12345678, 3.14159265358979 and -4111111111111111",
        "DE88 3704 0044 0532 0130 00",  # one digit is wrong
        "XY89 3704 0044 0532 0130 00",  # no such country
        "4111 1111 1111 1112",  # one digit is wrong
        "9111111111111111 and 1234567890123456",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "2026-11-25T17:38:21 0012",
    ],
)
def test_what_looks_like_it_is_not(text: str) -> None:
    assert kinds_in(text) == set()


def test_rows_are_counted_by_field_and_kind_and_no_value_is_kept() -> None:
    found = PersonalData()
    found.look({"text": "a@b.example c@d.example", "label": "x"})
    found.look({"text": "a@b.example +49 30 901820", "label": "x"})
    turns = [{"role": "user", "content": "I am a@b.example"}, {"role": "assistant", "content": "x"}]
    found.look({"messages": turns})
    profile = found.profile()
    assert profile == {
        "detector": 2,
        "rows": 3,
        "rows_left_out": 0,
        "columns": {
            "messages of the user": {"e-mail": 1},
            "text": {"e-mail": 2, "telephone": 1},
        },
    }


def test_texts_in_lists_are_searched() -> None:
    found = PersonalData()
    found.look({"query": "Who?", "documents": ["Nobody.", "ann@example.org"], "relevant": [1]})
    assert found.profile()["columns"] == {"documents": {"e-mail": 1}}


def test_it_says_which_rows_it_did_not_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "MAX_ROWS", 2)
    found = PersonalData()
    for _ in range(5):
        found.look({"text": "a@b.example"})
    profile = found.profile()
    assert (profile["rows"], profile["rows_left_out"]) == (2, 3)
    assert profile["columns"]["text"]["e-mail"] == 2


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert kinds_in("x " * 10_000 + "a@b.example") == set()
    assert kinds_in("x " * 9_000 + "a@b.example") == {"e-mail"}


@pytest.mark.parametrize("part", ["a", "a.", "+1", "1 ", "AA11", "4-", "AA11 ", "a@", "a@b.", "+"])
def test_no_text_takes_long(part: str) -> None:
    """Twenty thousand characters of what each pattern begins with: the test's time limit holds."""
    for _ in range(20):
        assert len(kinds_in(part * 20_000)) <= len(personal.KINDS)
