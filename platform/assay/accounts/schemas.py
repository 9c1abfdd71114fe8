"""Input of sign-in without a browser."""

from __future__ import annotations

from pydantic import Field

from assay.accounts.factors import CODE_MAX
from governance.bounds import EMAIL_MAX
from governance.people.signing_in import PASSWORD_MAX
from governance.schemas import Line, Schema


class SignIn(Schema):
    """Credentials."""

    email: Line = Field(max_length=EMAIL_MAX)
    # As typed: nothing is stripped.
    password: str = Field(
        min_length=1, max_length=PASSWORD_MAX, json_schema_extra={"writeOnly": True}
    )
    code: Line | None = Field(
        default=None,
        max_length=CODE_MAX,
        description="Code of the authenticator app, or a recovery code; required after 401 "
        "`second_factor_required`.",
    )


class StepUp(Schema):
    """A second factor."""

    code: Line = Field(
        max_length=CODE_MAX, description="Code of the authenticator app, or a recovery code."
    )
