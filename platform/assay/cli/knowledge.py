"""`assay knowledge …`: knowledge bases and their documents."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.output import console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="Knowledge bases and their documents.")
Base = Annotated[str, typer.Argument(help="Name of the knowledge base.")]
Version = Annotated[int, typer.Argument(help="ID of the document version.")]


@app.command("list")
def list_bases() -> None:
    """List knowledge bases."""
    rows = Client.signed_in().all("knowledge-bases", limit=1000)
    table(
        ("name", "title", "department", "embedding", "passages"),
        (
            (
                base["name"],
                base["title"],
                base["department"],
                base["embedding"],
                base["index"]["chunks"] if base["index"] else "not indexed",
            )
            for base in rows
        ),
        empty="There are no knowledge bases that you may see.",
    )


@app.command()
def documents(base: Base) -> None:
    """List the versions of the documents of a knowledge base."""
    rows = Client.signed_in().all(f"knowledge-bases/{base}/documents", limit=10_000)
    table(
        ("id", "document", "version", "state", "classification", "sha256", "created"),
        (
            (
                each["id"],
                each["title"],
                f"v{each['number']}",
                state(each["state"]),
                each["classification"],
                each["sha256"][:12],
                each["created_at"],
            )
            for each in rows
        ),
        empty="It has no documents yet.",
    )


@app.command()
def create(
    name: Base,
    department: Annotated[str, typer.Option(help="Owning department.")],
    title: Annotated[str, typer.Option(help="Title for people.")],
    embedding: Annotated[int, typer.Option(help="ID of the embedding version.")],
) -> None:
    """Create a knowledge base."""
    made = Client.signed_in().post(
        "knowledge-bases",
        name=name,
        department=department,
        title=title,
        embedding_version=embedding,
    )
    facts((each, made[each]) for each in ("name", "title", "department", "embedding"))


@app.command()
def publish(version: Version) -> None:
    """Publish a draft and index it."""
    made = Client.signed_in().post(f"documents/{version}/publish")
    said = f"{made['title']} v{made['number']} is {made['state']}; it is being indexed."
    console.print(said, markup=False)


@app.command()
def recall(
    version: Version, reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")]
) -> None:
    """Recall a document version for good."""
    made = Client.signed_in().post(f"documents/{version}/recall", reason=reason)
    console.print(f"{made['title']} v{made['number']} is {made['state']}.", markup=False)
    if others := ", ".join(map(str, made["same_text"])):
        console.print(f"The same text stays in force; recall it too: {others}.")


@app.command()
def answers(version: Version) -> None:
    """List the answers that used a document version."""
    rows = Client.signed_in().all(f"documents/{version}/answers", limit=10_000)
    table(
        ("request", "when", "department", "deployment"),
        (
            (each["request_id"], each["occurred_at"], each["department"], each["deployment"])
            for each in rows
        ),
        empty="No answer that you may see used it.",
    )
