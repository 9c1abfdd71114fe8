"""Convert people and groups to and from SCIM. Only stored attributes are declared.

Other attributes of a provider (`title`, `phoneNumbers`, the enterprise extension) are accepted but
not stored, as RFC 7644 §3.3 allows and Okta and Entra need.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from scim2_models import (
    URN,
    ComplexAttribute,
    Meta,
    Mutability,
    Reference,
    Required,
    Resource,
    Returned,
    ScimPolicy,
    Uniqueness,
)

from governance.errors import InvalidInput
from governance.people.directory import GroupRecord
from governance.people.models import DirectoryGroup, Person
from governance.people.provisioning import PersonRecord

# Entra's deviations from the standard: a `remove` whose value names the entries, a filter for an
# entry that does not exist, and undeclared attributes.
TOLERANT = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
EMAILS_MAX = 20
ID_DIGITS_MAX = 18


class Name(ComplexAttribute):
    """A person's name in parts."""

    family_name: str | None = None
    given_name: str | None = None


class Email(ComplexAttribute):
    """An address. The primary one is stored, else the one for work, else the first.

    Answers contain the stored address as the primary address for work.
    """

    value: str | None = None
    type: str | None = Field(None, examples=["work"])
    primary: bool | None = None


class Membership(ComplexAttribute):
    """A group that a person is in."""

    value: Annotated[str | None, Mutability.read_only] = None
    display: Annotated[str | None, Mutability.read_only] = None


class User(Resource[Any]):
    """A person."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    name: Name | None = None
    display_name: str | None = None
    active: bool | None = None
    emails: list[Email] | None = None
    groups: Annotated[list[Membership] | None, Mutability.read_only] = None


class Member(ComplexAttribute):
    """A person in a group."""

    value: Annotated[str | None, Mutability.immutable] = None
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display: Annotated[str | None, Mutability.read_only, Returned.request] = None


class Group(Resource[Any]):
    """A group of people."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    members: list[Member] | None = None


def user_of(person: Person, *, base: str) -> User:
    """Return a person as a SCIM resource; `base` is the URL of this service."""
    user_name = person.user_name or person.email
    groups = [
        Membership(value=str(group.pk), display=group.name)
        for group in person.directory_groups.all()
    ]
    return User(
        id=str(person.pk),
        external_id=person.external_id or None,
        user_name=user_name,
        name=Name(given_name=person.given_name or None, family_name=person.family_name or None)
        if person.given_name or person.family_name
        else None,
        # Without a name from the provider, people are called by their user name.
        display_name=person.name if person.name != _name_from(user_name) else None,
        active=person.is_active,
        emails=[Email(value=person.email, type="work", primary=True)],
        groups=groups or None,
        meta=Meta(
            resource_type="User",
            created=person.created_at,
            last_modified=person.changed_at,
            location=f"{base}Users/{person.pk}",
        ),
    )


def person_record(user: User) -> PersonRecord:
    """Parse a provider's description of a person.

    Raises:
        InvalidInput: there is no address.
    """
    user_name = user.user_name or ""
    name = user.name or Name()
    parts = " ".join(part for part in (name.given_name, name.family_name) if part)
    return PersonRecord(
        user_name=user_name,
        email=_address(user.emails or []) or user_name,
        name=user.display_name or parts or _name_from(user_name),
        given_name=name.given_name or "",
        family_name=name.family_name or "",
        external_id=user.external_id or "",
        # If omitted, the account is active.
        active=user.active is not False,
    )


def _name_from(user_name: str) -> str:
    return user_name[:120]


def check_emails(emails: list[Email]) -> None:
    """Raise InvalidInput if there are more than `EMAILS_MAX`."""
    if len(emails) > EMAILS_MAX:
        raise InvalidInput(
            f"A person has {len(emails)} e-mail addresses; the limit is {EMAILS_MAX}."
        )


def _address(emails: list[Email]) -> str:
    check_emails(emails)
    addresses = [email for email in emails if email.value]
    ranked = sorted(
        addresses, key=lambda email: (not email.primary, (email.type or "").lower() != "work")
    )
    return (ranked[0].value or "") if ranked else ""


def group_of(group: DirectoryGroup, *, base: str, members: list[tuple[int, str]] | None) -> Group:
    """Return a group as a SCIM resource; `members` are (ID, name), None if not requested."""
    return Group(
        id=str(group.pk),
        external_id=group.external_id or None,
        display_name=group.name,
        members=[
            Member(value=str(pk), display=name, ref=Reference(f"{base}Users/{pk}"))
            for pk, name in members
        ]
        if members
        else None,
        meta=Meta(
            resource_type="Group",
            created=group.created_at,
            last_modified=group.changed_at,
            location=f"{base}Groups/{group.pk}",
        ),
    )


def group_record(group: Group, members: frozenset[int]) -> GroupRecord:
    """Parse a provider's description of a group."""
    return GroupRecord(
        name=group.display_name or "", external_id=group.external_id or "", members=members
    )


def member_of(value: object, ref: object) -> int:
    """Return the ID of the person in a member's `value`, or else in its `$ref`.

    Raises:
        InvalidInput: neither names a person.
    """
    if value is None and ref is not None:
        # The ID of a group must not be taken for a person's.
        kind, number = ["", *str(ref).split("/")][-2:]
        value = number if kind == "Users" else f"$ref {ref}"
    return member_id(value)


def member_id(text: object) -> int:
    """Return the ID of a person, as a number.

    Raises:
        InvalidInput: no person has that ID.
    """
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX:
        return int(text)
    raise InvalidInput(
        f"There is no person {str(text)[:40]!r}; the group's members were not changed.",
        fields={"members": ["names a person who does not exist"]},
    )
