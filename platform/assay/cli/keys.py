"""`assay keys list`, `assay keys create`, `assay keys revoke`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import CliError, console, errors, state, table

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
                state(_state(key)),
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
) -> None:
    """Create a department's key. It is printed once, alone, on stdout."""
    body: dict[str, Any] = {"department": department, "name": name, "expires_in_days": days}
    if scope:
        body["scopes"] = scope
    if quota:
        body["quotas"] = dict(_quota(text) for text in quota)
    key = Client.signed_in().post("keys", **body)
    errors.print(f"Key {key['id']} of {department}, until {key['expires_at'][:10]}. Keep it now:")
    console.print(key["key"], soft_wrap=True, markup=False)


@app.command()
def revoke(key_id: Annotated[int, typer.Argument(help="The key's id.", min=1)]) -> None:
    """Make a key useless, at once and for good."""
    key = Client.signed_in().post(f"keys/{key_id}/revoke")
    console.print(f"{key['name']} ({key['public_id']}) is revoked.", markup=False)


def _quota(text: str) -> tuple[str, int]:
    kind, equals, limit = text.partition("=")
    if not equals or not limit.isascii() or not limit.isdigit():
        raise CliError(f"{text!r} is not KIND=LIMIT.", "For example requests_per_minute=60.")
    return kind, int(limit)


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return "revoked"
    expires = datetime.fromisoformat(key["expires_at"].replace("Z", "+00:00"))
    return "expired" if expires <= datetime.now(UTC) else "active"
