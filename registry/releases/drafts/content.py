"""Content of a draft: any part of a request for a release, within its bounds.

Completeness is checked when it is submitted, by `release_submit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TIER_MAX
from governance.errors import InvalidInput
from governance.people.models import Department
from registry.canonical import canonical_json
from registry.releases.dossier_fields import SECTIONS
from registry.releases.drafts.models import CONTENT_BYTES_MAX
from registry.releases.engines import ENGINE_MAX, PRECISION_MAX
from registry.releases.models import PURPOSE_MAX
from registry.releases.risk import NOTES_MAX, RiskAnswers
from registry.validation import schema_faults

DEPARTMENTS_MAX = 100


def _storable(value: str) -> str:
    # PostgreSQL keeps neither a NUL nor half a character.
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("it holds a character that cannot be stored")
    return value


Text = Annotated[str, AfterValidator(_storable)]


class DraftContent(BaseModel):
    """Parts of a request for a release; each may be missing. `risk_answers` may be incomplete."""

    model_config = ConfigDict(extra="forbid", strict=True)

    environment: Literal["staging", "production"] | None = None
    deployment_name: Annotated[Text, Field(max_length=NAME_MAX)] | None = None
    departments: (
        Annotated[
            list[Annotated[Text, Field(max_length=DEPARTMENT_MAX)]],
            Field(max_length=DEPARTMENTS_MAX),
        ]
        | None
    ) = None
    visibility: Literal["department", "organization"] | None = None
    purpose: Annotated[Text, Field(max_length=PURPOSE_MAX)] | None = None
    tier: Annotated[Text, Field(max_length=TIER_MAX)] | None = None
    engine: Annotated[Text, Field(max_length=ENGINE_MAX)] | None = None
    precision: Annotated[Text, Field(max_length=PRECISION_MAX)] | None = None
    risk_answers: dict[str, bool | Annotated[Text, Field(max_length=NOTES_MAX)]] | None = None
    dossier_fields: dict[str, Any] | None = None


def checked_draft(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that are given.

    Raises:
        InvalidInput: a part is unknown, malformed or too long, a department does not exist, or all
            of it is too large; `fields` says which.
    """
    try:
        parsed = DraftContent.model_validate(dict(content))
    except ValidationError as error:
        raise _refused(schema_faults(error, whole="content")) from error
    found = {name: value for name, value in parsed.model_dump().items() if value is not None}
    if faults := _faults(found):
        raise _refused(faults)
    return found


def _faults(found: Mapping[str, Any]) -> dict[str, list[str]]:
    faults: dict[str, list[str]] = {}
    for part, known in (("risk_answers", RiskAnswers.model_fields), ("dossier_fields", SECTIONS)):
        for name in found.get(part, {}):
            if name not in known:
                faults[f"{part}.{name[:40]}"] = ["Unknown field."]
    if wanted := set(found.get("departments", ())):
        there = set(Department.objects.filter(slug__in=wanted).values_list("slug", flat=True))
        if wanted - there:
            faults["departments"] = ["One of these departments does not exist."]
    try:
        content = canonical_json(found)
    except (ValueError, RecursionError):
        return {**faults, "dossier_fields": ["It cannot be stored as JSON."]}
    if b"\\u0000" in content or len(content) > CONTENT_BYTES_MAX:
        faults["content"] = [f"At most {CONTENT_BYTES_MAX:,} bytes, and no NUL characters."]
    return faults


def _refused(faults: Mapping[str, list[str]]) -> InvalidInput:
    first, (why, *_) = next(iter(faults.items()))
    return InvalidInput(
        f"The draft was not saved. {first}: {why}",
        hint=f"Its parts are {', '.join(DraftContent.model_fields)}.",
        fields=dict(faults),
    )
