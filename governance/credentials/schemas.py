"""Input of the services for credentials, for API, pages and commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationError

from governance.bounds import DEPARTMENT_MAX
from governance.credentials.models import (
    CREDENTIAL_MAX,
    HOST_MAX,
    HOSTS_MAX,
    CredentialKind,
    CredentialState,
)
from governance.credentials.secrets import (
    SECRET_MAX,
    SECRETS,
    URL_MAX,
    GoogleSecret,
    Secret,
    checked_host,
)
from governance.errors import InvalidInput
from governance.faults import about, field_sentence, words
from governance.schemas import Choice, Filter, Line, Schema, Slug, rejecting

CredentialName = Annotated[Slug, Field(max_length=CREDENTIAL_MAX)]
Host = Annotated[Line, Field(max_length=HOST_MAX), AfterValidator(checked_host)]
Hosts = Annotated[list[Host], Field(min_length=1, max_length=HOSTS_MAX)]


EnteredText = Annotated[
    SecretStr,
    rejecting(
        lambda secret: not 1 <= len(secret.get_secret_value()) <= SECRET_MAX,
        f"must have 1 to {SECRET_MAX:,} characters",
    ),
    Field(json_schema_extra={"minLength": 1, "maxLength": SECRET_MAX}),
]


class EnteredSecret(Schema):
    """A secret, and the other fields of its kind.

    `secret` is the whole value of a header (such as `Bearer …`), the client's secret, the JSON key
    file of the service account, or the secret access key. `header` belongs to the kind `header`,
    `token_url` and `client_id` to `oauth2`, `scope` to `oauth2` and `google`, `access_key_id`,
    `region` and `service` to `aws`.
    """

    secret: EnteredText
    header: Line | None = Field(default=None, max_length=60)
    token_url: Line | None = Field(default=None, max_length=URL_MAX)
    client_id: Line | None = Field(default=None, max_length=200)
    scope: Line | None = Field(default=None, max_length=1_000)
    access_key_id: Line | None = Field(default=None, max_length=128)
    region: Line | None = Field(default=None, max_length=40)
    service: Line | None = Field(default=None, max_length=40)


class NewCredential(EnteredSecret):
    """A new credential of a department, with the hosts that it may be sent to."""

    department: Slug = Field(max_length=DEPARTMENT_MAX)
    name: CredentialName
    kind: Choice[CredentialKind]
    hosts: Hosts


class CredentialRotation(EnteredSecret):
    """A new secret. `hosts` replaces the hosts. With `version`, the rotation is refused unless that
    version is the current one.
    """

    hosts: Hosts | None = None
    version: int | None = Field(default=None, ge=1, le=2**31 - 1)


class CredentialFilter(Filter):
    state: Choice[CredentialState] | None = None
    department: Slug | None = Field(
        default=None, max_length=DEPARTMENT_MAX, serialization_alias="department__slug"
    )


def secret_of(kind: str, entered: EnteredSecret) -> Secret:
    """Return the secret of a kind from what a person entered.

    Raises:
        InvalidInput: a field is missing, invalid or of another kind. The error has no part of the
            secret.
    """
    schema = SECRETS[kind]
    values = {
        name: value
        for name in EnteredSecret.model_fields
        if (value := getattr(entered, name)) is not None
    }
    if unknown := [name for name in values if name not in schema.entered]:
        taken = ", ".join(schema.entered)
        raise InvalidInput(
            f"A credential of kind {kind} has no {unknown[0]}; it takes {taken}.",
            fields={name: [f"Only {taken} belong to the kind {kind}."] for name in unknown},
        )
    names = {inner: name for name, inner in schema.entered.items()}
    parts = {schema.entered[name]: value for name, value in values.items()}
    if schema is GoogleSecret:
        try:
            parts |= GoogleSecret.parts_of(parts.pop("service_account").get_secret_value())
        except ValueError as error:
            text = str(error)
            raise _invalid(kind, {"secret": [f"{text[:1].upper()}{text[1:]}."]}, text) from None
    try:
        return schema.model_validate(parts)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    fields: dict[str, list[str]] = {}
    for fault in faults:
        inner = str(fault["loc"][0])
        # Members of a key file have no field of their own.
        name = names.get(inner, "secret")
        text = field_sentence(fault) if inner in names else f"In the file: {inner} {words(fault)}."
        fields.setdefault(name, []).append(text)
    first = faults[0]
    raise _invalid(kind, fields, about(str(first["loc"][0]), words(first)))


def _invalid(kind: str, fields: dict[str, list[str]], text: str) -> InvalidInput:
    return InvalidInput(f"The secret does not fit the kind {kind}: {text}.", fields=fields)
