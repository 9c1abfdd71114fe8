"""Texts with made-up personal data, and its positions.

Faker generates names, addresses and numbers; they are not real personal data. The test sentences
differ from the training sentences, so a model cannot pass by memorizing sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from faker import Faker

SEED = 17

_TRAIN = (
    "Dear {GIVEN_NAME} {SURNAME}, your parcel is on its way to {BUILDING_NUMBER} {STREET_NAME}, "
    "{CITY}, {STATE} {ZIP_CODE}.",
    "Please update my e-mail address to {EMAIL}; my phone number is still {PHONE}.",
    "Caller {GIVEN_NAME} asked for a call back at {PHONE} before Friday.",
    "My name is {SURNAME}, {GIVEN_NAME} {SURNAME}. I moved from {CITY} to {CITY} in May.",
    "The form lists the taxpayer number {TAX_ID} for {GIVEN_NAME} {SURNAME}.",
    "Send the invoice to {EMAIL} with a copy to {EMAIL}, order 48-1120.",
    "Ship to:\n{GIVEN_NAME} {SURNAME}\n{BUILDING_NUMBER} {STREET_NAME}\n{SECONDARY_ADDRESS}\n"
    "{CITY}, {STATE} {ZIP_CODE}",
    "Our customer in {CITY} reported that {URL} does not load since the update to version 2.4.",
    "Ms. {SURNAME} wired the amount to account {BANK_ACCOUNT}, routing number {ROUTING_NUMBER}.",
    "{GIVEN_NAME}, can you look at ticket 88213? {GIVEN_NAME} {SURNAME} <{EMAIL}> opened it.",
    "Passport {PASSPORT} was issued to {GIVEN_NAME} {SURNAME}, who lives in {CITY}, {STATE}.",
    "The meeting is moved to room 12 on Tuesday; bring the figures of the third quarter.",
    "Version 3.11.4 fixes 17 defects; the download has 240 megabytes.",
    "License {DRIVERS_LICENSE} belongs to {GIVEN_NAME} {SURNAME}, phone {PHONE}.",
    "Ask for {GIVEN_NAME} at the desk, {BUILDING_NUMBER} {STREET_NAME}, {SECONDARY_ADDRESS}.",
)
_TEST = (
    "Hello, this is {GIVEN_NAME} {SURNAME} from {CITY}. You can reach me under {PHONE} or {EMAIL}.",
    "Refund approved for {GIVEN_NAME} {SURNAME}, {BUILDING_NUMBER} {STREET_NAME}, {CITY}, {STATE} "
    "{ZIP_CODE}, within ten days.",
    "Could somebody check why {EMAIL} never got the confirmation? The phone on file is {PHONE}.",
    "Social security number {TAX_ID} appears twice, for {SURNAME} and for {SURNAME}.",
    "I talked to {GIVEN_NAME} about it; he forwarded me the link {URL} and left for {CITY}.",
    "The warehouse in {CITY} ({STATE}) closes at 6 pm; about 120 orders are late.",
    "New address of our tenant: {BUILDING_NUMBER} {STREET_NAME}, {SECONDARY_ADDRESS}, {CITY}. "
    "Contact: {EMAIL}.",
    "{GIVEN_NAME} {SURNAME} signed the contract on Monday, and {GIVEN_NAME} {SURNAME} on Tuesday.",
    "Deposit goes to account {BANK_ACCOUNT} of {GIVEN_NAME} {SURNAME}.",
    "Nothing to report today: all 48 checks passed and no machine was restarted.",
    "Travel document {PASSPORT}, driver {GIVEN_NAME} {SURNAME}, license {DRIVERS_LICENSE}.",
)
_SLOT = re.compile(r"\{([A-Z_]+)\}")


def personal_texts(train: int, test: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return training and test rows {"text", "spans"}, deterministic for a version of Faker."""
    fake = Faker("en_US")
    fake.seed_instance(SEED)
    return _rows(_TRAIN, train, fake), _rows(_TEST, test, fake)


def _rows(templates: Sequence[str], count: int, fake: Faker) -> list[dict[str, Any]]:
    """Return `count` distinct rows, using the templates in turn."""
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    number = 0
    while len(rows) < count and number < 4 * count:
        row = _filled(templates[number % len(templates)], fake)
        number += 1
        if row["text"] not in seen:
            seen.add(row["text"])
            rows.append(row)
    return rows


def _filled(template: str, fake: Faker) -> dict[str, Any]:
    text, at = "", 0
    spans: list[dict[str, Any]] = []
    for slot in _SLOT.finditer(template):
        text += template[at : slot.start()]
        value = _values(fake)[slot.group(1)]()
        spans.append({"start": len(text), "end": len(text) + len(value), "label": slot.group(1)})
        text, at = text + value, slot.end()
    return {"text": text + template[at:], "spans": spans}


def _values(fake: Faker) -> dict[str, Callable[[], str]]:
    return {
        "GIVEN_NAME": fake.first_name,
        "SURNAME": fake.last_name,
        "EMAIL": fake.email,
        "PHONE": fake.phone_number,
        "URL": fake.url,
        "TAX_ID": fake.ssn,
        "BANK_ACCOUNT": fake.bban,
        "ROUTING_NUMBER": fake.aba,
        "PASSPORT": fake.passport_number,
        "DRIVERS_LICENSE": lambda: fake.bothify("?#######").upper(),
        "BUILDING_NUMBER": fake.building_number,
        "STREET_NAME": fake.street_name,
        "SECONDARY_ADDRESS": fake.secondary_address,
        "CITY": fake.city,
        "STATE": fake.state_abbr,
        "ZIP_CODE": fake.zipcode,
    }
