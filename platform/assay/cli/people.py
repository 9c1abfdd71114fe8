"""`assay people`: list, invite, recover, deactivate and erase people."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.django_commands import manage
from assay.cli.options import Limit, Reason
from assay.cli.output import Answer, CliError, console, json_option, listing, sentence, state

app = typer.Typer(no_args_is_help=True)


class Standing(StrEnum):
    """Access of a person."""

    ACTIVE = "active"
    INACTIVE = "inactive"


Who = Annotated[str, typer.Argument(help="The person's ID or full e-mail address.")]


@app.command("list")
@json_option
def list_people(
    text: Annotated[str | None, typer.Argument(help="Part of a name or e-mail address.")] = None,
    department: Annotated[str | None, typer.Option(help="Filter by department.")] = None,
    standing: Annotated[Standing | None, typer.Option("--state", help="Filter by access.")] = None,
    limit: Limit = 100,
) -> Answer:
    """List people with their roles and the sources of the roles."""
    filters = {"q": text, "department": department, "state": standing and standing.value}
    return listing(
        Client.signed_in().all("people", limit=limit, **filters),
        {
            "id": "id",
            "name": "name",
            "e-mail": "email",
            "state": lambda person: state("active" if person["is_active"] else "inactive"),
            "roles": lambda person: [_role(role) for role in person["roles"]],
        },
        empty="No matching people that you may see.",
    )


@app.command()
@json_option
def invite(
    email: Annotated[str, typer.Argument(help="The new person's e-mail address.")],
    name: Annotated[str, typer.Option(prompt=True, help="The person's name.")],
) -> Answer:
    """Add a person, and print the one-time link with which they set their password."""
    client = Client.signed_in()
    person = client.post("people", email=email, name=name)
    link = client.post(f"people/{person['id']}/password-link")
    return _link(link, f"{name} sets their password")


@app.command("reset-password")
@json_option
def reset_password(who: Who) -> Answer:
    """Print a one-time link with which a person sets a new password."""
    client = Client.signed_in()
    link = client.post(f"people/{_id(client, who)}/password-link")
    return _link(link, "They set their password")


def _link(link: dict[str, Any], purpose: str) -> Answer:
    def show() -> None:
        console.print(
            f"{purpose} with this link. It works once, until {link['expires_at'][:16]}, and is "
            f"shown only now{'; it was also mailed' if link['mailed'] else ''}:",
            markup=False,
        )
        console.print(link["link"], markup=False, highlight=False, soft_wrap=True)

    return Answer(link, show)


@app.command()
def recover(
    who: Who,
    reason: Reason = "",
    factor: Annotated[
        bool, typer.Option("--factor", help="Recover only the second factor, not the password.")
    ] = False,
) -> None:
    """On the server, approve the recovery of an account that two administrators cannot recover.

    Needs no request if no other administrator has a second factor. All administrators are notified,
    and the link works after the waiting time of the review policies.
    """
    options = [*(["--reason", reason] if reason else []), *(["--factor"] if factor else [])]
    manage(["assay", "recover_account", who, *options])


@app.command()
@json_option
def deactivate(
    who: Who, reason: Annotated[str, typer.Option(prompt=True, help="Reason, for the audit log.")]
) -> Answer:
    """End a person's access at once, with their sessions and tokens; their record stays."""
    client = Client.signed_in()
    person = client.post(f"people/{_id(client, who)}/deactivate", reason=reason)
    return sentence(person, f"{person['name']} no longer has access.")


@app.command()
@json_option
def erase(
    who: Who,
    reason: Annotated[
        str, typer.Option(prompt=True, help="Reason, for the audit log; do not name the person.")
    ],
    confirm: Annotated[
        str | None, typer.Option(help="The person's e-mail address; skips the prompt.")
    ] = None,
) -> Answer:
    """Erase a deactivated person.

    Permanently deletes their name, addresses and credentials, also from the audit log, whose proofs
    stay valid. Their work and decisions stay, without their name.
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
    return sentence(erased, f"Erased; the person is now {erased['name'].lower()}.")


def _role(role: dict[str, Any]) -> str:
    words = f"{role['specialty']} {role['role']}".strip()
    where = f" in {role['department']}" if role["department"] else ""
    through = f" through {role['group']}" if role["source"] != "manual" else ""
    return words + where + through


def _id(client: Client, who: str) -> int:
    """Return the ID of a person.

    Raises:
        CliError: no visible person has that address.
    """
    if who.isascii() and who.isdigit():
        return int(who)
    for person in client.all("people", limit=100, q=who):
        if person["email"] == who.strip().lower():
            return int(person["id"])
    raise CliError(
        f"No person that you may see has the address {who}.",
        "`assay people list` shows the people that you may see.",
    )
