"""Input about people, departments, and the roles that people hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.bounds import DEPARTMENT, DEPARTMENT_MAX, EMAIL_MAX, GROUP_MAX, TITLE_MAX
from governance.people.models import (
    JOBS_AT_ONCE_MAX,
    REASON_MAX,
    Role,
    RoleRequestState,
    Specialty,
)
from governance.schemas import Choice, Filter, Line, Schema, Slug


class NewDepartment(Schema):
    """A new department."""

    slug: Slug = Field(max_length=DEPARTMENT_MAX, json_schema_extra={"pattern": DEPARTMENT})
    name: Line = Field(max_length=TITLE_MAX)


class JobsAtOnce(Schema):
    """Most jobs of a department that run at the same time; null is the platform's default."""

    jobs_at_once: int | None = Field(ge=1, le=JOBS_AT_ONCE_MAX)


class PeopleFilter(Filter):
    """Filters of the list; `q` is a part of the name or address."""

    q: Line | None = Field(default=None, max_length=100)
    state: Literal["active", "inactive"] | None = None
    department: Slug | None = Field(default=None, max_length=DEPARTMENT_MAX)


class NewPerson(Schema):
    """A new person. They set their own password, by a one-time link."""

    email: Line = Field(max_length=EMAIL_MAX, json_schema_extra={"format": "email"})
    name: Line = Field(max_length=TITLE_MAX)


class Deactivation(Schema):
    """Reason for ending a person's access."""

    reason: Line = Field(max_length=REASON_MAX)


class Reactivation(Schema):
    """Reason for restoring a person's access."""

    reason: Line = Field(default="", max_length=REASON_MAX)


class Erasure(Schema):
    """Reason for erasing a person. It stays in the audit log, so it must not name them."""

    reason: Line = Field(max_length=REASON_MAX)


class RoleGrant(Schema):
    """A role: platform-wide without a department; reviewers name their specialty."""

    role: Choice[Role]
    department: Slug | None = Field(default=None, max_length=DEPARTMENT_MAX)
    specialty: Choice[Specialty] | None = None


class NewGroupMapping(RoleGrant):
    """The role that everyone in the group of that name holds."""

    group: Line = Field(max_length=GROUP_MAX)


class RoleRequestFilter(Filter):
    """Filters of the list."""

    state: RoleRequestState | None = None


class RoleRequestRejection(Schema):
    """Reason for rejecting a role request."""

    reason: Line = Field(max_length=REASON_MAX)
