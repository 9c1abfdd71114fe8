"""`assay review-policies`: read and check review policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import faults, text_of
from assay.cli.output import Answer, CliError, facts, json_option, sentence, state, table

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="Policy in YAML.", exists=True, dir_okay=False)]
Name = Annotated[str, typer.Argument(help="Name of the policy, such as limited.")]
MAX_FILE = 64 * 1024


@app.command()
@json_option
def show(
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="Version; the one in force by default.")
    ] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the policy as YAML.")] = False,
) -> Answer:
    """Show the requirements of a review policy."""
    client = Client.signed_in()
    policy = _policy(client, name, version)
    if yaml:
        return Answer(policy, lambda: typer.echo(policy["text"], nl=False))
    return Answer(policy, lambda: _show(policy))


def _show(policy: dict[str, Any]) -> None:
    document = policy["document"]
    approvals = ", ".join(
        f"{each['count']} x {each['specialty']}" for each in document["approvals"]
    )
    facts(
        [
            ("policy", f"{policy['name']} v{policy['version']} (id {policy['id']})"),
            ("title", document["title"]),
            ("state", state(policy["state"])),
            ("digest", policy["digest"]),
            ("applies when", "; ".join(each["because"] for each in document["applies_when"])),
            ("approvals", approvals),
            ("valid", f"{document['valid_days']} days, and {document['grace_days']} days of grace"),
            ("due", f"{document['due_days']} days after it opens"),
        ]
    )
    table(
        ("item", "checked by", "title", "maps to"),
        (
            (item["code"], item["check"] or "a reviewer", item["title"], _mapped(item["maps"]))
            for item in document["items"]
        ),
        empty="The policy has no requirements.",
    )


@app.command()
@json_option
def check(file: File) -> Answer:
    """Check a policy in YAML as the server does for a draft; needs no server."""
    from governance.errors import DomainError
    from governance.reviews.policies.document import document_read
    from registry.releases.vocabulary import VOCABULARY

    try:
        document = document_read(text_of(file, at_most=MAX_FILE), VOCABULARY)
    except DomainError as error:
        raise CliError(f"{file}: {error.message}", faults(error)) from error
    return sentence(
        document.model_dump(mode="json"),
        f"{file} is a valid review policy: {document.name}, {len(document.items)} items, "
        f"valid {document.valid_days} days.",
    )


def _policy(client: Client, name: str, version: int | None) -> dict[str, Any]:
    query = {"state": "active"} if version is None else {}
    for row in client.all("review-policies", limit=1000, name=name, **query):
        if version in (None, row["version"]):
            policy: dict[str, Any] = client.get(f"review-policies/{row['id']}")
            return policy
    which = f"version {version}" if version else "version in force"
    raise CliError(f"No {which} of review policy {name} that you may see.")


def _mapped(maps: dict[str, list[str]]) -> list[str]:
    return [reference for references in maps.values() for reference in references]
