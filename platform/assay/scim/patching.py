"""PATCH (RFC 7644 §3.5.2) in the shapes that Okta and Entra send.

A group's members are a set here: the library's generic lists cost a second for each operation on
some thousand members.
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
    NoTargetException,
    PatchOp,
    Resource,
    TooManyException,
)

from assay.scim.resources import TOLERANT, Group, User, check_emails, member_id

OPERATIONS_MAX = 1000
# A person has a dozen attributes; a group has members.
PERSON_OPERATIONS_MAX = 100
# The library's filters cost the more the longer they are, on each entry that they look at.
PATH_MAX = 400
SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_MEMBERS = re.compile(
    r"(?:urn:ietf:params:scim:schemas:core:2\.0:Group:)?members(?P<filter>\[.*\])?", re.I | re.S
)
_ONE = re.compile(r"\[\s*value\s+eq\s+\"(?P<value>[^\"\\]{1,40})\"\s*\]", re.I)

R = TypeVar("R", bound=Resource[Any])


def operations_of(body: Any) -> list[Any]:
    """The operations of a PATCH body.

    Raises:
        InvalidSyntaxException: it is no PATCH body.
        TooManyException: there are more than 1,000, or one names more than 1,000 attributes.
        InvalidPathException: a path is longer than any attribute's.
    """
    members = {str(name).lower(): value for name, value in body.items()} if _is(body) else {}
    operations = members.get("operations")
    schemas = members.get("schemas")
    if not isinstance(operations, list) or not operations or schemas != [SCHEMA]:
        raise InvalidSyntaxException(detail=f"The body is no {SCHEMA} with its Operations.")
    if len(operations) > OPERATIONS_MAX:
        raise TooManyException(
            detail=f"There are {len(operations)} operations; {OPERATIONS_MAX} are read."
        )
    for operation in filter(_is, operations):
        for name, value in operation.items():
            _check_size([value] if str(name).lower() == "path" else value if _is(value) else [])
    return operations


def _check_size(paths: Collection[Any]) -> None:
    if len(paths) > OPERATIONS_MAX:
        raise TooManyException(
            detail=f"An operation names {len(paths)} attributes; {OPERATIONS_MAX} are read."
        )
    if any(isinstance(path, str) and len(path) > PATH_MAX for path in paths):
        raise InvalidPathException(detail=f"A path has {PATH_MAX} characters at most.")


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def patch(resource: R, operations: list[Any]) -> R:
    """Apply the operations to `resource`, in place.

    Raises:
        ValidationError, SCIMException: an operation that is malformed or does not fit.
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
        TooManyException: there are more than 100.
        InvalidInput: there are more e-mail addresses than are read.
    """
    if len(operations) > PERSON_OPERATIONS_MAX:
        raise TooManyException(
            detail=f"There are {len(operations)} operations on a person; "
            f"{PERSON_OPERATIONS_MAX} are read."
        )
    for operation in operations:
        patch(user, [operation])
        check_emails(user.emails or [])
    return user


def patch_group(group: Group, members: frozenset[int], operations: list[Any]) -> frozenset[int]:
    """Apply the operations to `group`, in place, and to its members, which are returned.

    Raises:
        ValidationError, SCIMException, InvalidInput: as `patch`, or a member that is no id.
    """
    present = set(members)
    for operation in operations:
        verb, path, value = _parts(operation)
        found = _MEMBERS.fullmatch(path.strip())
        if found is not None:
            _change_members(present, verb, found["filter"], value)
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
        raise InvalidSyntaxException(detail="An operation is no object.")
    named = {str(name).lower(): value for name, value in operation.items()}
    path = named.get("path")
    if path is not None and not isinstance(path, str):
        raise InvalidPathException(detail="A path is no string.")
    return str(named.get("op")).lower(), path or "", named.get("value")


def _change_members(present: set[int], verb: str, selection: str | None, value: Any) -> None:
    if selection is not None:
        one = _ONE.fullmatch(selection)
        if one is None:
            raise InvalidPathException(detail='Members are selected by [value eq "their id"] only.')
        if verb != "remove":
            raise NoTargetException(detail="A member is added or removed, not changed.")
        present.discard(member_id(one["value"]))
        return
    named = _named(value)
    if verb == "add":
        present |= named
    elif verb == "replace":
        present.clear()
        present |= named
    elif verb == "remove":
        # Entra names whom in the value; without one, everybody goes.
        present.difference_update(named if value is not None else set(present))
    else:
        raise InvalidValueException(detail=f"{verb[:40]!r} is not add, remove or replace.")


def _named(value: Any) -> set[int]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return {member_id(entry.get("value") if _is(entry) else entry) for entry in entries}
