"""`assay reviews`: the reviewer's inbox."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import Answer, json_option, listing

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_reviews(
    mine: Annotated[bool, typer.Option("--mine", help="Only reviews that wait for you.")] = False,
    review_state: Annotated[
        str, typer.Option("--state", help="Filter by state, such as open.")
    ] = "",
    limit: Limit = 25,
) -> Answer:
    """List reviews; `assay releases show` and `decide` take the ID of their release."""
    awaiting = "me" if mine else ""
    return listing(
        Client.signed_in().all("reviews", limit=limit, awaiting=awaiting, state=review_state),
        {
            "release": _release,
            "subject": "subject_name",
            "tier": "tier",
            "state": "state",
            "due": "due_at",
            "opened by": lambda review: review["opened_by"]["name"],
            "assigned to": lambda review: [each["name"] for each in review["assignees"]],
            "department": "department",
        },
        empty="No review waits for you." if mine else "No matching reviews that you may see.",
    )


def _release(review: dict[str, Any]) -> str:
    kind, number = review["subject_type"], review["subject_id"]
    return str(number) if kind == "release" else f"{kind} {number}"
