"""`assay requests`: list, show and export requests of departments, with their logged content."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.options import Limit, Reason
from assay.cli.output import Answer, console, facts, json_option, listing, print_json, sentence

app = typer.Typer(no_args_is_help=True)
Department = Annotated[str | None, typer.Option(help="Short name of the department.")]
Deployment = Annotated[str | None, typer.Option(help="Name of the deployment.")]
Outcome = Annotated[str | None, typer.Option(help="ok, failed or canceled.")]
User = Annotated[str | None, typer.Option(help="ID of the end user, as applications send it.")]
Since = Annotated[str | None, typer.Option(help="Earliest time, such as 2026-05-01T14:30:00Z.")]
SlowerMs = Annotated[int | None, typer.Option("--slower-ms", help="Minimum time in milliseconds.")]


@app.command("list")
@json_option
def list_requests(
    department: Department = None,
    deployment: Deployment = None,
    outcome: Outcome = None,
    key: Annotated[str | None, typer.Option(help="Public ID of the API key.")] = None,
    user: User = None,
    slower_ms: SlowerMs = None,
    since: Since = None,
    limit: Limit = 25,
) -> Answer:
    """List requests, the newest first."""
    rows = Client.signed_in().all(
        "requests",
        limit=limit,
        department=department,
        deployment=deployment,
        outcome=outcome,
        key=key,
        user=user,
        slower_ms=slower_ms,
        since=since,
    )
    return listing(
        rows,
        {
            "id": "request_id",
            "deployment": "deployment",
            "outcome": "outcome",
            "key": "key",
            "units": "units",
            "ms": "total_ms",
            "cost": lambda row: f"{row['cost_micro'] / 1_000_000:.4f}",
            "time": "occurred_at",
        },
        empty="No matching requests that you may see.",
    )


@app.command()
@json_option
def show(
    request_id: Annotated[str, typer.Argument(help="ID of the request: x-request-id.")],
    reason: Annotated[
        str, typer.Option(help="Also show prompt and answer; the audit log records this reason.")
    ] = "",
) -> Answer:
    """Show a request, with its prompt and answer if you give a reason."""
    client = Client.signed_in()
    if not reason:
        record = client.get(f"requests/{request_id}")
        return Answer(record, lambda: _show(record))
    read = client.post(f"requests/{request_id}/content", reason=reason)

    def print_answer() -> None:
        _show(read["request"])
        console.print()
        print_json({name: read[name] for name in ("prompt", "answer", "cut")})

    return Answer(read, print_answer)


def _show(record: dict[str, Any]) -> None:
    facts([(name.replace("_", " "), value) for name, value in record.items() if name != "id"])


@app.command()
@json_option
def export(
    department: Annotated[str, typer.Argument(help="Short name of the department.")],
    file: Annotated[Path, typer.Argument(help="File to write, in JSON Lines.")],
    reason: Reason,
    content: Annotated[bool, typer.Option("--content", help="With prompts and answers.")] = False,
    deployment: Deployment = None,
    outcome: Outcome = None,
    user: User = None,
    slower_ms: SlowerMs = None,
    since: Since = None,
    limit: Limit = 1_000,
) -> Answer:
    """Export requests of a department to a file, newest first. The audit log records the reason."""
    filters = present(
        deployment=deployment, outcome=outcome, user=user, slower_ms=slower_ms, since=since
    )
    body = {
        "department": department,
        "reason": reason,
        "content": content,
        "limit": limit,
        "filters": filters,
    }
    Client.signed_in().download("requests/export", file, method="POST", json=body)
    with file.open("rb") as lines:
        count = sum(1 for _ in lines)
    return sentence({"file": str(file), "requests": count}, f"{file} has {count} requests.")
