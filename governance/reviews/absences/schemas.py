"""Input about absences."""

from __future__ import annotations

from governance.people.models import Specialty
from governance.schemas import Choice, Id, Moment, Schema


class NewAbsence(Schema):
    """Deputy, specialty and dates of an absence. `person` defaults to the caller."""

    deputy: Id
    specialty: Choice[Specialty]
    starts_at: Moment
    ends_at: Moment
    person: Id | None = None
