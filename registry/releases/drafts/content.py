"""Content of a draft: any part of a request for a release, within its bounds.

`release_submit` checks completeness when it is submitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TIER_MAX
from governance.errors import InvalidInput
from governance.faults import field_sentences
from governance.people.models import Department
from governance.schemas import (
    Choice,
    Filter,
    Id,
    Line,
    Paragraphs,
    ParagraphsOrEmpty,
    Schema,
)
from registry.canonical import canonical_json
from registry.catalog.engines import EngineName
from registry.releases.dossier_fields import SECTIONS, DossierSections
from registry.releases.drafts.models import CONTENT_BYTES_MAX
from registry.releases.engines import Precision
from registry.releases.models import DEPARTMENTS_MAX, PURPOSE_MAX, Environment, Visibility
from registry.releases.risk import NOTES_MAX, RiskAnswers


class ReleaseDraftFilter(Filter):
    """Filters of the list."""

    version: Id | None = None
    model: Line | None = Field(
        default=None, max_length=NAME_MAX, serialization_alias="version__model__name"
    )


class DraftContent(Schema):
    """Parts of a request for a release; each may be left out until it is submitted."""

    environment: Choice[Environment] | None = None
    deployment_name: Line | None = Field(default=None, max_length=NAME_MAX)
    departments: list[Annotated[Line, Field(max_length=DEPARTMENT_MAX)]] | None = Field(
        default=None, max_length=DEPARTMENTS_MAX
    )
    visibility: Choice[Visibility] | None = None
    purpose: Paragraphs | None = Field(default=None, max_length=PURPOSE_MAX)
    tier: Line | None = Field(default=None, max_length=TIER_MAX)
    engine: Choice[EngineName] | None = None
    precision: Choice[Precision] | None = None
    risk_answers: (
        dict[str, bool | Annotated[ParagraphsOrEmpty, Field(max_length=NOTES_MAX)]] | None
    ) = None
    dossier_fields: DossierSections | None = None


class NewReleaseDraft(DraftContent):
    """A version, and the request for its release so far."""

    version: Id


class ReleaseDraftChange(DraftContent):
    """Content that replaces the draft's. With `revision`, only if that is the newest."""

    revision: int | None = Field(default=None, ge=1, le=2**31 - 1)


def checked_draft(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that have a value.

    Raises:
        InvalidInput: a part is unknown, malformed or too long, a department does not exist, or the
            whole is too large; `fields` says which.
    """
    try:
        parsed = DraftContent.model_validate(dict(content))
    except ValidationError as error:
        raise _refused(field_sentences(error, whole="content")) from error
    parts = {name: value for name, value in parsed.model_dump().items() if value is not None}
    if faults := _faults(parts):
        raise _refused(faults)
    return parts


def _faults(parts: Mapping[str, Any]) -> dict[str, list[str]]:
    faults: dict[str, list[str]] = {}
    for part, fields in (("risk_answers", RiskAnswers.model_fields), ("dossier_fields", SECTIONS)):
        for name in parts.get(part, {}):
            if name not in fields:
                faults[f"{part}.{name[:40]}"] = ["Unknown field."]
    if slugs := set(parts.get("departments", ())):
        existing = set(Department.objects.filter(slug__in=slugs).values_list("slug", flat=True))
        if slugs - existing:
            faults["departments"] = ["One of these departments does not exist."]
    try:
        content = canonical_json(parts)
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
