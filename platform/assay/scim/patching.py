"""PATCH (RFC 7644 §3.5.2) in the forms that Okta and Entra send.

A group's members are a set here, because the library's generic lists take a second for each
operation on some thousand members.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from scim2_models import (
    Context,
    InvalidPathException,
    InvalidSyntaxException,
    InvalidValueException,
    MutabilityException,
    NoTargetException,
    PatchOp,
    Resource,
    TooManyException,
)

from assay.scim.resources import TOLERANT, Group, User, check_emails, member_id, member_of

OPERATIONS_MAX = 1000
# Fewer than for a group with its members, since a person has only a dozen attributes.
PERSON_OPERATIONS_MAX = 100
# The cost of the library's filters grows with their length, for each entry that they check.
PATH_MAX = 400
SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_MEMBERS = re.compile(
    r"(?:urn:ietf:params:scim:schemas:core:2\.0:Group:)?members(?P<filter>\[.*\])?", re.I | re.S
)
_ONE = re.compile(r"\[\s*value\s+eq\s+\"(?P<value>[^\"\\]{1,40})\"\s*\]", re.I)

R = TypeVar("R", bound=Resource[Any])


def operations_of(body: Any) -> list[Any]:
    """Return the operations of a PATCH body.

    Raises:
        InvalidSyntaxException: it is not a PATCH body.
        TooManyException: there are more than 1,000, or one names more than 1,000 attributes.
        InvalidPathException: a path is too long.
    """
    members = {str(name).lower(): value for name, value in body.items()} if _is(body) else {}
    operations = members.get("operations")
    schemas = members.get("schemas")
    if not isinstance(operations, list) or not operations or schemas != [SCHEMA]:
        raise InvalidSyntaxException(detail=f"The body is not a {SCHEMA} with Operations.")
    if len(operations) > OPERATIONS_MAX:
        raise TooManyException(
            detail=f"There are {len(operations)} operations; the limit is {OPERATIONS_MAX}."
        )
    for operation in filter(_is, operations):
        for name, value in operation.items():
            _check_size([value] if str(name).lower() == "path" else value if _is(value) else [])
    return operations


def _check_size(paths: Collection[Any]) -> None:
    if len(paths) > OPERATIONS_MAX:
        raise TooManyException(
            detail=f"An operation has {len(paths)} attributes; the limit is {OPERATIONS_MAX}."
        )
    if any(isinstance(path, str) and len(path) > PATH_MAX for path in paths):
        raise InvalidPathException(detail=f"A path has at most {PATH_MAX} characters.")


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def patch(resource: R, operations: list[Any]) -> R:
    """Apply the operations to `resource`, in place.

    Raises:
        ValidationError, SCIMException: an operation is malformed or cannot be applied.
    """
    with TOLERANT:
        message = PatchOp[type(resource)].model_validate(  # type: ignore[misc]
            {"schemas": [SCHEMA], "Operations": operations},
            scim_ctx=Context.RESOURCE_PATCH_REQUEST,
        )
        message.patch(resource)
    return resource


def patch_user(user: User, operations: list[Any]) -> User:
    """Apply the operations to `user`, in place, one after another.

    Raises:
        ValidationError, SCIMException: as `patch`.
        MutabilityException: they remove `active`.
        TooManyException: there are more than 100.
        InvalidInput: there are too many e-mail addresses.
    """
    if len(operations) > PERSON_OPERATIONS_MAX:
        raise TooManyException(
            detail=f"There are {len(operations)} operations on a person; "
            f"the limit is {PERSON_OPERATIONS_MAX}."
        )
    for operation in operations:
        patch(user, [operation])
        check_emails(user.emails or [])
    if user.active is None:
        # A missing `active` counts as true, so its removal would restore access unnoticed.
        raise MutabilityException(
            detail="active cannot be removed. Set it to false to end the person's access."
        )
    return user


def patch_group(group: Group, members: frozenset[int], operations: list[Any]) -> frozenset[int]:
    """Apply the operations to `group`, in place, and return its new members.

    Raises:
        ValidationError, SCIMException: as `patch`.
        InvalidInput: a member is not an ID.
    """
    present = set(members)
    for operation in operations:
        verb, path, value = _parts(operation)
        match = _MEMBERS.fullmatch(path.strip())
        if match is not None:
            _change_members(present, verb, match["filter"], value)
            continue
        if not path and verb != "remove" and _is(value):
            value = dict(value)
            for name in [name for name in value if _MEMBERS.fullmatch(str(name))]:
                _change_members(present, verb, None, value.pop(name))
            if not value:
                continue
            operation = {"op": verb, "value": value}
        patch(group, [operation])
    return frozenset(present)


def _parts(operation: Any) -> tuple[str, str, Any]:
    if not _is(operation):
        raise InvalidSyntaxException(detail="An operation is not an object.")
    fields = {str(name).lower(): value for name, value in operation.items()}
    path = fields.get("path")
    if path is not None and not isinstance(path, str):
        raise InvalidPathException(detail="A path is not a string.")
    return str(fields.get("op")).lower(), path or "", fields.get("value")


def _change_members(present: set[int], verb: str, selection: str | None, value: Any) -> None:
    if selection is not None:
        match = _ONE.fullmatch(selection)
        if match is None:
            raise InvalidPathException(detail='Select members by [value eq "their id"] only.')
        if verb != "remove":
            raise NoTargetException(detail="Members can be added or removed, not changed.")
        present.discard(member_id(match["value"]))
        return
    ids = _member_ids(value)
    if verb == "add":
        present |= ids
    elif verb == "replace":
        present.clear()
        present |= ids
    elif verb == "remove":
        # Entra names the members in the value; without a value, all are removed.
        present.difference_update(ids if value is not None else set(present))
    else:
        raise InvalidValueException(detail=f"{verb[:40]!r} is not add, remove or replace.")


def _member_ids(value: Any) -> set[int]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return {
        member_of(entry.get("value"), entry.get("$ref")) if _is(entry) else member_id(entry)
        for entry in entries
    }
