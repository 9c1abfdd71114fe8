"""Sections of a dossier that people write besides the risk answers: risks, oversight, operation,
conformity.

`dossier.py` adds what the system knows by itself. Overseers and accepters are named by role; a
single person is named by number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from django.utils import timezone
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from governance.errors import InvalidInput
from governance.faults import field_sentences
from governance.people.models import Person
from registry.canonical import canonical_json

MAX_RISKS = MAX_LISTED = 20
MAX_BYTES = 32_768
SECTIONS = ("risks", "oversight", "operation", "conformity")
DossierSections = Annotated[
    dict[str, Any],
    Field(
        description="The dossier's sections other than the risk answers; each may be omitted. "
        "`risks`: up to 20 of {hazard, likelihood: rare|possible|likely, severity: "
        "minor|serious|critical, mitigation, residual: low|medium|high, accepter_role, "
        "accepter_person}. `oversight`: {overseers, stop_procedure, stop_tested_on, measures}. "
        "`operation`: {monitors, incident_contact, review_date}. `conformity`: {route: "
        "not_applicable|voluntary|internal_control|notified_body, standards, declaration}."
    ),
]
# Contents of each section, in words for a list of sections.
CONTENTS = {
    "risks": "risks with their mitigation",
    "oversight": "oversight (who oversees it, and how to stop it)",
    "operation": "operation (monitors, contact for incidents, date of the next review)",
    "conformity": "conformity (the route, and standards)",
}
# Sections that a tier requires; a tier that is not listed requires all.
REQUIRED: dict[str, tuple[str, ...]] = {"minimal": (), "limited": ("oversight",)}
# Control characters other than line ends and tabs, changes of the reading direction, surrogates.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _text(value: str) -> str:
    if _REFUSED.search(value):
        raise ValueError("it holds a control character")
    return value.strip()


def _filled(value: str) -> str:
    if not value:
        raise ValueError("it is empty")
    return value


def _day(value: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("it is not a date such as 2026-11-30")
    date.fromisoformat(value)
    return value


Text = Annotated[str, AfterValidator(_text)]
Filled = Annotated[Text, AfterValidator(_filled)]
Short = Annotated[Filled, Field(max_length=300)]
Long = Annotated[Filled, Field(max_length=2000)]
Note = Annotated[Text, Field(max_length=2000)]
Day = Annotated[str, AfterValidator(_day)]
Level = Literal["low", "medium", "high"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Risk(_Section):
    """One possible harm; `residual` is the risk left after the mitigation, which the accepter
    accepts."""

    hazard: Annotated[Filled, Field(max_length=500)]
    likelihood: Literal["rare", "possible", "likely"]
    severity: Literal["minor", "serious", "critical"]
    mitigation: Long
    residual: Level
    accepter_role: Literal[
        "lead", "operator", "admin", "compliance", "security", "model-risk", "privacy"
    ]
    accepter_person: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None


class Oversight(_Section):
    """People who notice wrong answers, and how to stop the model. `stop_tested_on` is the day on
    which the procedure was last tested; None if never.
    """

    overseers: Short
    stop_procedure: Long
    stop_tested_on: Day | None = None
    measures: Note = ""


class Operation(_Section):
    """Monitoring, the contact for incidents (a role or a mailbox), and the next review."""

    monitors: Annotated[list[Short], Field(min_length=1, max_length=MAX_LISTED)]
    incident_contact: Short
    review_date: Day


class Conformity(_Section):
    """Route of the conformity assessment, its standards, and the declaration's location."""

    route: Literal["not_applicable", "voluntary", "internal_control", "notified_body"]
    standards: Annotated[list[Short], Field(max_length=MAX_LISTED)] = []
    declaration: Annotated[Text, Field(max_length=300)] = ""


class DossierFields(_Section):
    """Sections of a dossier; all are optional here, but a tier may require some."""

    risks: Annotated[list[Risk], Field(max_length=MAX_RISKS)] = []
    oversight: Oversight | None = None
    operation: Operation | None = None
    conformity: Conformity | None = None


def checked_dossier_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that were filled in, each with all its fields.

    Raises:
        InvalidInput: a field is missing, malformed, unknown or too long, a date is on the wrong
            side of today, or an accepter does not exist; `fields` of the error says which.
    """
    try:
        parsed = DossierFields.model_validate(dict(fields))
    except ValidationError as error:
        raise _refused(field_sentences(error, whole="dossier_fields")) from error
    if faults := _wrong(parsed):
        raise _refused(faults)
    checked = parsed.model_dump()
    checked = {name: section for name in SECTIONS if (section := checked[name])}
    if len(canonical_json(checked)) > MAX_BYTES:
        raise InvalidInput(
            f"The dossier's fields take more than {MAX_BYTES:,} bytes.",
            hint="Write less, and refer to documents.",
            fields={"dossier_fields": [f"At most {MAX_BYTES:,} bytes."]},
        )
    return checked


def missing_sections(tier: str, sections: Mapping[str, Any]) -> list[str]:
    """Return the sections that `tier` requires and that are empty, in the dossier's order.
    `sections` are the fields of a release, or its dossier.
    """
    filled = {name for name in SECTIONS if sections.get(name)}
    # The system itself fills in a part of this section.
    if "review_date" not in (sections.get("operation") or {}):
        filled.discard("operation")
    return [name for name in REQUIRED.get(tier, SECTIONS) if name not in filled]


def _wrong(parsed: DossierFields) -> dict[str, list[str]]:
    """Return statements that are false, rather than malformed."""
    faults: dict[str, list[str]] = {}
    today = timezone.now().date().isoformat()
    if parsed.oversight and (parsed.oversight.stop_tested_on or "") > today:
        faults["oversight.stop_tested_on"] = ["It lies in the future."]
    if parsed.operation and parsed.operation.review_date < today:
        faults["operation.review_date"] = ["It lies in the past."]
    named = {risk.accepter_person for risk in parsed.risks if risk.accepter_person is not None}
    active = set(Person.objects.filter(pk__in=named, is_active=True).values_list("pk", flat=True))
    for place, risk in enumerate(parsed.risks):
        if risk.accepter_person is not None and risk.accepter_person not in active:
            faults[f"risks.{place}.accepter_person"] = ["No active person has this ID."]
    return faults


def _refused(faults: Mapping[str, list[str]]) -> InvalidInput:
    first, (why, *_) = next(iter(faults.items()))
    return InvalidInput(
        f"The dossier's fields are not complete and correct: {', '.join(faults)[:500]}. "
        f"{first}: {why}",
        hint=f"The sections are {', '.join(SECTIONS)}.",
        fields={f"dossier_fields.{name}": texts for name, texts in faults.items()},
    )
