"""`assay review-policies …`: what each tier of risk is reviewed for, as code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import CliError, console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="What a release is reviewed for, by tier of risk.")

Id = Annotated[int, typer.Argument(help="The version's id, from `list`.", min=1)]
File = Annotated[Path, typer.Argument(help="A policy in YAML.", exists=True, dir_okay=False)]
Name = Annotated[str, typer.Argument(help="Its name, such as limited.")]
Reason = Annotated[str, typer.Option(prompt=True, help="Why.")]
MAX_FILE = 64 * 1024


@app.command("list")
def list_policies(limit: Limit = 25) -> None:
    """Versions of review policies that you may see, newest first."""
    table(
        ("id", "policy", "title", "state", "drafted by", "decided by"),
        (
            (
                row["id"],
                f"{row['name']} v{row['version']}",
                row["title"],
                state(row["state"]),
                (row["created_by"] or {}).get("name") or "the platform",
                (row["decided_by"] or {}).get("name"),
            )
            for row in Client.signed_in().all("review-policies", limit=limit)
        ),
        empty="No review policies that you may see.",
    )


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="That in force if left out.")] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="The text itself, for a file.")] = False,
) -> None:
    """Show the requirements of a review policy."""
    client = Client.signed_in()
    policy = _found(client, name, version)
    if yaml:
        typer.echo(policy["text"], nl=False)
        return
    says = policy["document"]
    approvals = ", ".join(f"{each['count']} x {each['specialty']}" for each in says["approvals"])
    facts(
        [
            ("policy", f"{policy['name']} v{policy['version']} (id {policy['id']})"),
            ("title", says["title"]),
            ("state", state(policy["state"])),
            ("digest", policy["digest"]),
            ("applies when", "; ".join(each["because"] for each in says["applies_when"])),
            ("approvals", approvals),
            ("valid", f"{says['valid_days']} days, and {says['grace_days']} days of grace"),
            ("due", f"{says['due_days']} days after it opens"),
        ]
    )
    table(
        ("item", "by", "title", "maps to"),
        (
            (item["code"], item["check"] or "a reviewer", item["title"], _mapped(item["maps"]))
            for item in says["items"]
        ),
        empty="It asks for nothing.",
    )


@app.command()
def check(file: File) -> None:
    """Read a file as a policy would be read when it is drafted; needs no server."""
    from governance.errors import DomainError
    from governance.reviews.policies.document import document_read
    from registry.releases.vocabulary import VOCABULARY

    try:
        document = document_read(_text(file), VOCABULARY)
    except DomainError as error:
        wrong = [f"{where}: {'; '.join(why)}" for where, why in error.fields.items()]
        raise CliError(f"{file}: {error.message}", "\n".join(wrong)) from error
    console.print(
        f"{file} is a review policy: {document.name}, {len(document.items)} items, "
        f"valid {document.valid_days} days.",
        markup=False,
    )


@app.command()
def draft(file: File) -> None:
    """Draft a version from a file; the name in the file selects the policy."""
    made = Client.signed_in().post("review-policies", text=_text(file))
    console.print(f"Draft {made['name']} v{made['version']} has the id {made['id']}.")


@app.command()
def propose(id: Id) -> None:  # noqa: A002
    """Ask for a decision on a draft, which freezes it."""
    made = Client.signed_in().post(f"review-policies/{id}/propose")
    console.print(f"{made['name']} v{made['version']} is proposed; another person decides.")


@app.command()
def approve(id: Id, reason: Reason) -> None:  # noqa: A002
    """Put a proposal in force, at once. You wrote no part of it."""
    _decide(id, "approve", reason)


@app.command()
def reject(id: Id, reason: Reason) -> None:  # noqa: A002
    """Refuse a proposal for good."""
    _decide(id, "reject", reason)


@app.command()
def withdraw(id: Id) -> None:  # noqa: A002
    """Take a draft or a proposal back."""
    made = Client.signed_in().post(f"review-policies/{id}/withdraw")
    console.print(f"{made['name']} v{made['version']} is withdrawn.")


def _decide(policy_id: int, verdict: str, reason: str) -> None:
    made = Client.signed_in().post(
        f"review-policies/{policy_id}/decide", verdict=verdict, reason=reason
    )
    console.print(f"{made['name']} v{made['version']} is {made['state']}.")


def _found(client: Client, name: str, version: int | None) -> dict[str, Any]:
    wanted = {"state": "active"} if version is None else {}
    for row in client.all("review-policies", limit=1000, name=name, **wanted):
        if version in (None, row["version"]):
            policy: dict[str, Any] = client.get(f"review-policies/{row['id']}")
            return policy
    asked = f"version {version}" if version else "version in force"
    raise CliError(f"No {asked} of review policy {name} found, or you may not see it.")


def _mapped(maps: dict[str, list[str]]) -> list[str]:
    return [reference for references in maps.values() for reference in references]


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise CliError(f"{file} has more than {MAX_FILE:,} bytes.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {error}.") from error
