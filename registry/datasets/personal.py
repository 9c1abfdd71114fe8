"""Signs of personal data in the rows of a dataset: their number and fields, never their text.

Detects four kinds by their form: e-mail addresses, telephone numbers with a country code, IBANs
(ISO 13616, whose remainder by 97 is 1) and payment cards (ISO/IEC 7812, Luhn's check digit). It
does not detect names, places, health data or anything else that is personal by its meaning, nor
unusual notations: a clean result does not prove that the data is not personal. Every pattern takes
linear time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

# 2 also searches texts in lists, such as the documents of a query.
DETECTOR = 2
KINDS = ("e-mail", "telephone", "iban", "card")
# Only the first rows, and the beginning of each field, are searched, to bound the time.
MAX_ROWS = 200_000
MAX_CHARACTERS = 20_000

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}\b", re.IGNORECASE | re.ASCII
)
# +49 30 901820, 0044 (20) 7946-0018: a country code and 7 to 14 digits after it, E.164.
_TELEPHONE = re.compile(
    r"(?<![\w+])(?<!\d[ -])(?:\+|00)[1-9](?:[ ()./-]{0,2}\d){7,14}(?!\d)", re.ASCII
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.ASCII)
_CARD = re.compile(r"(?<![\d.-])[2-6](?:[ -]?\d){12,18}", re.ASCII)
_ISSUED = re.compile(
    r"4\d{12}|4\d{15}|4\d{18}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}"
    r"|6(?:011|2\d\d|4[4-9]\d|5\d\d)\d{12}"
)
# The registry of ISO 13616 (SWIFT, release 99).
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"), (16, "BE"), (18, "DK FI FO GL NL"), (19, "MK SI"),
        (20, "AT BA EE KZ LT LU XK"), (21, "CH HR LI LV"), (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ"), (24, "AD CZ ES MD PK RO SA SE SK TN VG"), (25, "PT"), (26, "IS TR"),
        (27, "FR GR IT MC MR SM"), (28, "AL AZ BY CY DO GT HU LB PL"), (29, "BR EG PS QA UA"),
        (30, "JO KW MU"), (31, "MT SC"), (32, "LC"),
    )
    for country in countries.split()
}  # fmt: skip


class PersonalData:
    """Counts of the rows with signs of personal data, by field and kind."""

    def __init__(self) -> None:
        self._rows = 0
        self._left_out = 0
        self._found: dict[str, Counter[str]] = {}

    def look(self, row: Mapping[str, Any]) -> None:
        """Search one validated row."""
        if self._rows == MAX_ROWS:
            self._left_out += 1
            return
        self._rows += 1
        seen = {(field, kind) for field, text in _texts(row) for kind in kinds_in(text)}
        for field, kind in seen:
            self._found.setdefault(field, Counter())[kind] += 1

    def profile(self) -> dict[str, Any]:
        """Return {detector, rows, rows_left_out, columns: {field: {kind: rows}}}."""
        return {
            "detector": DETECTOR,
            "rows": self._rows,
            "rows_left_out": self._left_out,
            "columns": {
                field: {kind: counts[kind] for kind in KINDS if counts[kind]}
                for field, counts in sorted(self._found.items())
            },
        }


def kinds_in(text: str) -> set[str]:
    """Return the `KINDS` with signs in the beginning of a text."""
    text = text[:MAX_CHARACTERS]
    kinds = set()
    if "@" in text and _EMAIL.search(text):
        kinds.add("e-mail")
    if _TELEPHONE.search(text):
        kinds.add("telephone")
    if any(_is_iban(match.group()) for match in _IBAN.finditer(text)):
        kinds.add("iban")
    if any(_is_card(match.group()) for match in _CARD.finditer(text)):
        kinds.add("card")
    return kinds


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each text with its field, and the role of a message or the name of a feature."""
    for field, value in row.items():
        if isinstance(value, str):
            yield field, value
        elif isinstance(value, Mapping):
            for name, each in value.items():
                if isinstance(each, str):
                    yield f"{field} of the {name}", each
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, str):
                    yield field, each
                elif isinstance(each, Mapping) and isinstance(each.get("content"), str):
                    yield f"{field} of the {each.get('role', 'other')}", each["content"]


def _is_iban(text: str) -> bool:
    """Return whether a text begins with an IBAN of its country's length; more words may follow."""
    compact = text.replace(" ", "")
    length = _IBAN_LENGTHS.get(compact[:2], 0)
    if not 0 < length <= len(compact):
        return False
    moved = compact[4:length] + compact[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _is_card(text: str) -> bool:
    """Return whether a text begins with a card number of a known issuer; more digits may follow."""
    digits = "".join(sign for sign in text if sign.isdigit())
    return any(
        _ISSUED.fullmatch(digits[:length]) is not None and _luhn(digits[:length])
        for length in (13, 14, 15, 16, 19)
        if length <= len(digits)
    )


def _luhn(digits: str) -> bool:
    numbers = [int(sign) for sign in digits]
    doubled = [number * 2 for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0
