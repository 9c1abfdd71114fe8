"""`assay people`: list, invite, recover, role requests, end access, erase."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.django_commands import manage
from assay.cli.models import Limit
from assay.cli.output import CliError, console, state, table

app = typer.Typer(no_args_is_help=True, help="Who is here, as what, and who has access.")


class Standing(StrEnum):
    """Access of a person."""

    ACTIVE = "active"
    INACTIVE = "inactive"


Who = Annotated[str, typer.Argument(help="The person's id or whole e-mail address.")]


@app.command("list")
def list_people(
    text: Annotated[str | None, typer.Argument(help="Part of a name or address.")] = None,
    department: Annotated[str | None, typer.Option(help="With a role in it.")] = None,
    standing: Annotated[
        Standing | None, typer.Option("--state", help="With access or not.")
    ] = None,
    limit: Limit = 100,
) -> None:
    """People that you may see, with their roles and where those are from."""
    asked = {"q": text, "department": department, "state": standing}
    given = {name: str(value) for name, value in asked.items() if value is not None}
    people = Client.signed_in().all("people", limit=limit, **given)
    table(
        ("id", "name", "e-mail", "state", "roles"),
        (
            (
                person["id"],
                person["name"],
                person["email"],
                state("active" if person["is_active"] else "inactive"),
                [_role(held) for held in person["roles"]],
            )
            for person in people
        ),
        empty="No matching people that you may see.",
    )


@app.command()
def invite(
    email: Annotated[str, typer.Argument(help="The new person's e-mail address.")],
    name: Annotated[str, typer.Option(prompt=True, help="Their name.")],
) -> None:
    """Add a person and print the one-time link by which they set their password."""
    client = Client.signed_in()
    person = client.post("people", email=email, name=name)
    _show_link(client.post(f"people/{person['id']}/password-link"), f"{name} sets their password")


@app.command("reset-password")
def reset_password(who: Who) -> None:
    """Print a one-time link by which a person sets a new password, or their first one."""
    client = Client.signed_in()
    made = client.post(f"people/{_id(client, who)}/password-link")
    _show_link(made, "They set their password")


def _show_link(made: dict[str, Any], what: str) -> None:
    console.print(
        f"{what} with this link. It works once, until {made['expires_at'][:16]}, and is shown "
        f"only now{'; it is mailed too' if made['mailed'] else ''}:",
        markup=False,
    )
    console.print(made["link"], markup=False, highlight=False, soft_wrap=True)


@app.command("request-recovery")
def request_recovery(
    who: Who,
    reason: Annotated[str, typer.Option(prompt=True, help="For the audit log.")],
    factor: Annotated[
        bool, typer.Option("--factor", help="For a second factor alone, without a password.")
    ] = False,
) -> None:
    """Request that a person's account gets a new password and second factor. Another administrator
    approves it."""
    client = Client.signed_in()
    purpose = "factor" if factor else "password"
    path = f"people/{_id(client, who)}/recoveries"
    made = client.post(path, purpose=purpose, reason=reason)
    number, name = made["recovery"]["id"], made["recovery"]["person"]["name"]
    console.print(
        f"Recovery {number} is requested. Give this code to {name} yourself; it is shown only now:",
        markup=False,
    )
    console.print(made["code"], markup=False, highlight=False)
    console.print(
        f"Another administrator approves it: assay people approve-recovery {number}. On the "
        f"server, where there is none: assay people recover {made['recovery']['person']['id']}.",
        markup=False,
    )


@app.command()
def recoveries(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    limit: Limit = 100,
) -> None:
    """Recoveries of accounts that are requested or approved."""
    rows = Client.signed_in().all("recoveries", limit=limit)
    live = ("pending", "approved")
    table(
        ("id", "account", "state", "requested by", "approved by", "effective", "expires"),
        (
            (
                one["id"],
                one["person"]["name"],
                state(one["state"]),
                (one["requested_by"] or {}).get("name") or "the server",
                "the server" if one["on_server"] else (one["approved_by"] or {}).get("name"),
                one["effective_at"],
                one["expires_at"],
            )
            for one in rows
            if every or one["state"] in live
        ),
        empty="No recoveries that you may see.",
    )


RecoveryId = Annotated[int, typer.Argument(help="The recovery's id: `assay people recoveries`.")]


@app.command("approve-recovery")
def approve_recovery(recovery_id: RecoveryId) -> None:
    """Approve a recovery that another administrator requested, and print its link."""
    made = Client.signed_in().post(f"recoveries/{recovery_id}/approve")
    name = made["recovery"]["person"]["name"]
    if made["link"] is None:
        console.print(f"Approved. The link is mailed to {name}.", markup=False)
        return
    console.print(
        f"Approved. Give this link to {name} yourself; it works once, with the code of "
        f"{made['recovery']['requested_by']['name']}, and is shown only now:",
        markup=False,
    )
    console.print(made["link"], markup=False, highlight=False, soft_wrap=True)


@app.command("reject-recovery")
def reject_recovery(
    recovery_id: RecoveryId,
    reason: Annotated[str, typer.Option(prompt=True, help="For the audit log.")],
) -> None:
    """Reject a recovery of an account, also of your own, before its link is opened."""
    rejected = Client.signed_in().post(f"recoveries/{recovery_id}/reject", reason=reason)
    console.print(f"Recovery {rejected['id']} is rejected.", markup=False)


@app.command()
def recover(
    who: Who,
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "",
    factor: Annotated[
        bool, typer.Option("--factor", help="For a second factor alone, without a password.")
    ] = False,
) -> None:
    """On the server: approve the recovery of an account that two administrators cannot recover.

    Where no other administrator has a second factor, it needs no request. The recovery is announced
    to all administrators, and its link works after the waiting time of the review policies.
    """
    options = [*(["--reason", reason] if reason else []), *(["--factor"] if factor else [])]
    manage(["assay", "recover_account", who, *options])


@app.command()
def deactivate(
    who: Who, reason: Annotated[str, typer.Option(prompt=True, help="For the audit log.")]
) -> None:
    """End a person's access at once: sessions and tokens die for good, the record stays."""
    client = Client.signed_in()
    person = client.post(f"people/{_id(client, who)}/deactivate", reason=reason)
    console.print(f"{person['name']} has no access any more.", markup=False)


@app.command()
def reactivate(
    who: Who, reason: Annotated[str | None, typer.Option(help="For the audit log.")] = None
) -> None:
    """Let a person in again, in the roles they have; they sign in anew."""
    client = Client.signed_in()
    given = {} if reason is None else {"reason": reason}
    person = client.post(f"people/{_id(client, who)}/reactivate", **given)
    console.print(f"{person['name']} may sign in again.", markup=False)


@app.command()
def erase(
    who: Who,
    reason: Annotated[
        str, typer.Option(prompt=True, help="For the audit log; it must not name them.")
    ],
    confirm: Annotated[
        str | None, typer.Option(help="The person's e-mail address, instead of being asked.")
    ] = None,
) -> None:
    """Erase a deactivated person. Their name, addresses and credentials are deleted for good, also
    from the audit log, whose proofs stay valid. What they made and decided stays, without their
    name.
    """
    client = Client.signed_in()
    person_id = _id(client, who)
    person = client.get(f"people/{person_id}")
    typed = confirm or typer.prompt(
        f"This cannot be undone. Type {person['email']} to erase {person['name']}"
    )
    if typed.strip().lower() != person["email"]:
        raise CliError("The address does not match; the person was not erased.")
    erased = client.post(f"people/{person_id}/erase", reason=reason)
    console.print(f"They are {erased['name'].lower()} from now on.", markup=False)


@app.command("role-requests")
def role_requests(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    limit: Limit = 100,
) -> None:
    """Requests for the roles administrator and reviewer, which a second administrator approves."""
    asked = {} if every else {"state": "pending"}
    table(
        ("id", "for", "as", "state", "requested by", "expires"),
        (
            (
                one["id"],
                one["group"] or one["person"]["name"],
                f"{one['specialty']} {one['role']}".strip(),
                state(one["state"]),
                one["requested_by"]["name"],
                one["expires_at"],
            )
            for one in Client.signed_in().all("role-requests", limit=limit, **asked)
        ),
        empty="No role requests that you may see.",
    )


RequestId = Annotated[int, typer.Argument(help="The request's id: `assay people role-requests`.")]


@app.command("approve-role")
def approve_role(request_id: RequestId) -> None:
    """Approve a role request, as another administrator than the one who made it."""
    approved = Client.signed_in().post(f"role-requests/{request_id}/approve")
    console.print(f"Role request {approved['id']} is approved.", markup=False)


@app.command("reject-role")
def reject_role(
    request_id: RequestId,
    reason: Annotated[str, typer.Option(prompt=True, help="For the audit log.")],
) -> None:
    """Reject a role request."""
    rejected = Client.signed_in().post(f"role-requests/{request_id}/reject", reason=reason)
    console.print(f"Role request {rejected['id']} is rejected.", markup=False)


@app.command()
def groups(limit: Limit = 100) -> None:
    """Show the roles that members of an identity provider's group get."""
    table(
        ("id", "group", "makes people", "set by", "at"),
        (
            (
                mapping["id"],
                mapping["group"],
                _role(mapping),
                (mapping["created_by"] or {}).get("name"),
                mapping["created_at"],
            )
            for mapping in Client.signed_in().all("group-mappings", limit=limit)
        ),
        empty="No group means anything that you may see.",
    )


def _role(held: dict[str, Any]) -> str:
    words = f"{held['specialty']} {held['role']}".strip()
    where = f" in {held['department']}" if held["department"] else ""
    # A mapping names its group in a column of its own.
    through = f" through {held['group']}" if held.get("source", "manual") != "manual" else ""
    return words + where + through


def _id(client: Client, who: str) -> int:
    """The id of that person.

    Raises:
        CliError: no person has that address.
    """
    if who.isascii() and who.isdigit():
        return int(who)
    found = [
        person
        for person in client.all("people", limit=100, q=who)
        if person["email"] == who.strip().lower()
    ]
    if not found:
        raise CliError(
            f"No person that you may see has the address {who}.",
            "`assay people list` shows the people that you may see.",
        )
    return int(found[0]["id"])
