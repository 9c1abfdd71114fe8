"""`assay keys`: list, show, create, rotate, revoke and report keys."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from assay.cli.client import Client, checked_server, stored_server
from assay.cli.options import Limit
from assay.cli.output import (
    Answer,
    CliError,
    console,
    errors,
    facts,
    json_option,
    listing,
    sentence,
    state,
    table,
)

KeyId = Annotated[int, typer.Argument(help="The key's ID.", min=1)]

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_keys(limit: Limit = 100) -> Answer:
    """List keys and tokens."""
    return listing(
        Client.signed_in().all("keys", limit=limit),
        {
            "id": "id",
            "name": "name",
            "owner": lambda key: key["department"] or key["person"]["name"],
            "state": "state",
            "scopes": "scopes",
            "expires": "expires_at",
            "last used": "last_used_at",
        },
        empty="No keys that you may see.",
    )


@app.command()
@json_option
def create(
    department: Annotated[str, typer.Argument(help="Department that owns the key.")],
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="Permitted action; deployment:invoke and deployment:view by default. Repeatable."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="Lifetime in days.")] = 90,
    quota: Annotated[
        list[str] | None,
        typer.Option(help="KIND=LIMIT, such as requests_per_minute=60. Repeatable."),
    ] = None,
    purpose: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    owner: Annotated[
        int | None, typer.Option(min=1, help="ID of the responsible person; you by default.")
    ] = None,
    deployment: Annotated[
        list[str] | None, typer.Option(help="Permitted deployment. Repeatable.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Permitted network, such as 10.20.0.0/16. Repeatable."),
    ] = None,
) -> Answer:
    """Create a key for a department, and print only the key on stdout. It is shown only once."""
    body: dict[str, Any] = {"department": department, "name": name, "expires_in_days": days}
    if scope:
        body["scopes"] = scope
    if quota:
        body["quotas"] = dict(_quota(text) for text in quota)
    if owner is not None:
        body["owner"] = owner
    details = {"purpose": purpose, "allowed_deployments": deployment, "networks": network}
    body.update({name: value for name, value in details.items() if value})
    key = Client.signed_in().post("keys", **body)
    return _new_key(key, f"Key {key['id']} of {department}, until {key['expires_at'][:10]}.")


@app.command()
@json_option
def show(key_id: KeyId) -> Answer:
    """Show a key: its owner, where it may be used, and its limits."""
    key = Client.signed_in().get(f"keys/{key_id}")
    return Answer(key, lambda: _show(key))


def _show(key: dict[str, Any]) -> None:
    facts(
        (
            ("name", key["name"]),
            ("state", state(key["state"])),
            ("reason for revocation", key["revoked_reason"]),
            ("department", key["department"]),
            ("responsible", key["owner"] and key["owner"]["name"]),
            ("purpose", key["purpose"]),
            ("scopes", key["scopes"] or "all of its person's"),
            ("deployments", key["allowed_deployments"] or "any"),
            ("networks", key["networks"] or "any"),
            ("created", key["created_at"]),
            ("expires", key["expires_at"]),
            ("last used", key["last_used_at"]),
            ("rotated from key", key["rotated_from"]),
            ("rotated to key", key["successor"]),
        )
    )
    if key["limits"]:
        table(
            ("limit on", "limit", "used", "reserved", "remaining"),
            (
                (
                    limit["subject"],
                    limit["description"] + (" (shadow)" if limit["shadow"] else ""),
                    limit["used"],
                    limit["reserved"],
                    limit["remaining"],
                )
                for limit in key["limits"]
            ),
            empty="",
        )


@app.command()
@json_option
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        int,
        typer.Option(min=0, max=720, help="Hours until the old key stops working; 0 stops it now."),
    ] = 24,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, help="Lifetime of the new key in days; that of the old one by default."
        ),
    ] = None,
) -> Answer:
    """Replace a key with a new one, and print only the key on stdout. It is shown only once."""
    body: dict[str, Any] = {"overlap_hours": overlap}
    if days is not None:
        body["expires_in_days"] = days
    key = Client.signed_in().post(f"keys/{key_id}/rotate", **body)
    old = f"key {key_id} works for {overlap} h more" if overlap else f"key {key_id} is revoked"
    return _new_key(key, f"Key {key['id']}, until {key['expires_at'][:10]}; {old}.")


def _new_key(key: dict[str, Any], summary: str) -> Answer:
    def show() -> None:
        errors.print(f"{summary} Store it now:", markup=False)
        console.print(key["key"], soft_wrap=True, markup=False)

    return Answer(key, show)


@app.command("report-leak")
@json_option
def report_leak(
    leaked: Annotated[
        str | None, typer.Argument(help="The leaked key; read from stdin by default.")
    ] = None,
) -> Answer:
    """Report and thereby revoke a leaked key. Needs no sign-in."""
    text = (sys.stdin.readline(4096) if leaked is None else leaked).strip()
    answer = Client(checked_server(stored_server())).post("keys/leaked", token=text)
    return sentence(answer, answer["detail"])


@app.command()
@json_option
def revoke(key_id: KeyId) -> Answer:
    """Revoke a key at once and permanently."""
    key = Client.signed_in().post(f"keys/{key_id}/revoke")
    return sentence(key, f"{key['name']} ({key['public_id']}) is revoked.")


def _quota(text: str) -> tuple[str, int]:
    kind, equals, limit = text.partition("=")
    if not equals or not limit.isascii() or not limit.isdigit():
        raise CliError(f"{text!r} is not KIND=LIMIT.", "For example requests_per_minute=60.")
    return kind, int(limit)
