"""`assay keys list|show|create|rotate|revoke|report-leak`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from assay.cli.client import Client, checked_server, stored_server
from assay.cli.models import Limit
from assay.cli.output import CliError, console, errors, facts, state, table

KeyId = Annotated[int, typer.Argument(help="The key's id.", min=1)]

app = typer.Typer(no_args_is_help=True, help="Departments' API keys, and your access tokens.")


@app.command("list")
def list_keys(limit: Limit = 100) -> None:
    """Keys and tokens that you may see."""
    table(
        ("id", "name", "owner", "state", "scopes", "expires", "last used"),
        (
            (
                key["id"],
                key["name"],
                key["department"] or key["person"]["name"],
                state(key["state"]),
                key["scopes"],
                key["expires_at"],
                key["last_used_at"],
            )
            for key in Client.signed_in().all("keys", limit=limit)
        ),
        empty="There are no keys that you may see.",
    )


@app.command()
def create(
    department: Annotated[str, typer.Argument(help="Whose key it is.")],
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; deployment:invoke and deployment:view if left out."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it lives.")] = 90,
    quota: Annotated[
        list[str] | None,
        typer.Option(help="KIND=LIMIT, such as requests_per_minute=60; may be repeated."),
    ] = None,
    purpose: Annotated[str, typer.Option(help="Why it is needed.")] = "",
    owner: Annotated[
        int | None, typer.Option(min=1, help="Who answers for it, by id; you if left out.")
    ] = None,
    deployment: Annotated[
        list[str] | None, typer.Option(help="Only this deployment; may be repeated.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Only from this network, such as 10.20.0.0/16; may be repeated."),
    ] = None,
) -> None:
    """Create a department's key. It is printed once, alone, on stdout."""
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
    errors.print(f"Key {key['id']} of {department}, until {key['expires_at'][:10]}. Keep it now:")
    console.print(key["key"], soft_wrap=True, markup=False)


@app.command()
def show(key_id: KeyId) -> None:
    """A key: who answers for it, where it may be used, and every limit that binds it."""
    key = Client.signed_in().get(f"keys/{key_id}")
    facts(
        (
            ("name", key["name"]),
            ("state", state(key["state"])),
            ("why it was revoked", key["revoked_reason"]),
            ("department", key["department"]),
            ("answers for it", key["owner"] and key["owner"]["name"]),
            ("purpose", key["purpose"]),
            ("scopes", key["scopes"] or "all of its person's"),
            ("deployments", key["allowed_deployments"] or "any"),
            ("networks", key["networks"] or "any"),
            ("made", key["created_at"]),
            ("expires", key["expires_at"]),
            ("last used", key["last_used_at"]),
            ("follows key", key["rotated_from"]),
            ("followed by key", key["successor"]),
        )
    )
    if key["limits"]:
        table(
            ("limit on", "limit", "used", "held", "left"),
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
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        int,
        typer.Option(min=0, max=720, help="Hours in which the old secret works on; 0 ends it now."),
    ] = 24,
    days: Annotated[
        int | None, typer.Option(min=1, help="How long the new one lives; as the old one did.")
    ] = None,
) -> None:
    """Give a key a successor with a new secret. It is printed once, alone, on stdout."""
    body: dict[str, Any] = {"overlap_hours": overlap}
    if days is not None:
        body["expires_in_days"] = days
    key = Client.signed_in().post(f"keys/{key_id}/rotate", **body)
    old = f"key {key_id} works for {overlap} h more" if overlap else f"key {key_id} is dead"
    errors.print(f"Key {key['id']}, until {key['expires_at'][:10]}; {old}. Keep it now:")
    console.print(key["key"], soft_wrap=True, markup=False)


@app.command("report-leak")
def report_leak(
    found: Annotated[
        str | None, typer.Argument(help="The key that was found; read from stdin if left out.")
    ] = None,
) -> None:
    """Report a leaked key, which revokes it. Needs no sign-in."""
    text = (sys.stdin.readline(4096) if found is None else found).strip()
    answer = Client(checked_server(stored_server())).post("keys/leaked", token=text)
    console.print(answer["detail"], markup=False)


@app.command()
def revoke(key_id: KeyId) -> None:
    """Make a key useless, at once and for good."""
    key = Client.signed_in().post(f"keys/{key_id}/revoke")
    console.print(f"{key['name']} ({key['public_id']}) is revoked.", markup=False)


def _quota(text: str) -> tuple[str, int]:
    kind, equals, limit = text.partition("=")
    if not equals or not limit.isascii() or not limit.isdigit():
        raise CliError(f"{text!r} is not KIND=LIMIT.", "For example requests_per_minute=60.")
    return kind, int(limit)
