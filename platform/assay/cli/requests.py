"""`assay requests`: list, show and export requests of departments, with their logged content."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.options import Limit, Reason
from assay.cli.output import (
    Answer,
    CliError,
    console,
    facts,
    json_option,
    listing,
    print_json,
    sentence,
)

app = typer.Typer(no_args_is_help=True)
Department = Annotated[str | None, typer.Option(help="Short name of the department.")]
Deployment = Annotated[str | None, typer.Option(help="Name of the deployment.")]
Key = Annotated[str | None, typer.Option(help="Public ID of the API key.")]
User = Annotated[str | None, typer.Option(help="ID of the end user, as applications send it.")]
Outcome = Annotated[str | None, typer.Option(help="ok, failed or canceled.")]
SlowerMs = Annotated[int | None, typer.Option("--slower-ms", help="Minimum time in milliseconds.")]
FasterMs = Annotated[int | None, typer.Option("--faster-ms", help="Only times below, in ms.")]
CostFrom = Annotated[
    int | None, typer.Option("--cost-from", help="Minimum cost in millionths of the currency.")
]
Fallback = Annotated[
    bool | None,
    typer.Option("--fallback/--no-fallback", help="With or without a failed earlier target."),
]
Streamed = Annotated[
    bool | None, typer.Option("--streamed/--whole", help="Answered as a stream or in one piece.")
]
Since = Annotated[str | None, typer.Option(help="Earliest time, such as 2026-05-01T14:30:00Z.")]
Until = Annotated[str | None, typer.Option(help="Time before which requests arrived.")]
Release = Annotated[
    int | None,
    typer.Option(help="Release whose approvers let you read its requests, as a reviewer."),
]


@app.command("list")
@json_option
def list_requests(
    department: Department = None,
    deployment: Deployment = None,
    key: Key = None,
    user: User = None,
    outcome: Outcome = None,
    slower_ms: SlowerMs = None,
    faster_ms: FasterMs = None,
    cost_from: CostFrom = None,
    fallback: Fallback = None,
    streamed: Streamed = None,
    since: Since = None,
    until: Until = None,
    release: Release = None,
    limit: Limit = 25,
) -> Answer:
    """List requests, the newest first. With --release, the other filters do not apply."""
    filters = {
        "department": department,
        "deployment": deployment,
        "key": key,
        "user": user,
        "outcome": outcome,
        "slower_ms": slower_ms,
        "faster_ms": faster_ms,
        "cost_from": cost_from,
        "fallback": fallback,
        "streamed": streamed,
        "since": since,
        "until": until,
    }
    if release is None:
        rows = Client.signed_in().all("requests", limit=limit, **filters)
    else:
        rows = Client.signed_in().all(f"releases/{release}/requests", limit=limit)
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
    release: Release = None,
) -> Answer:
    """Show a request, with its prompt and answer if you give a reason."""
    client = Client.signed_in()
    if release is not None and not reason:
        raise CliError(
            "A request under a release is shown only with its content.",
            "Also give --reason, or list the facts: assay requests list --release ID.",
        )
    if not reason:
        record = client.get(f"requests/{request_id}")
        return Answer(record, lambda: _show(record))
    path = f"requests/{request_id}/content"
    read = client.post(path if release is None else f"releases/{release}/{path}", reason=reason)

    def print_answer() -> None:
        _show(read["request"])
        console.print()
        print_json({name: read[name] for name in ("prompt", "answer", "cut")})

    return Answer(read, print_answer)


def _show(record: dict[str, Any]) -> None:
    facts([(name.replace("_", " "), value) for name, value in record.items() if name != "id"])


@app.command()
@json_option
def feedback(
    request_id: Annotated[str, typer.Argument(help="ID of the request: x-request-id.")],
    reason: Reason,
    correction: Annotated[
        str, typer.Option(help="Correct answer. Without it, the given answer is correct.")
    ] = "",
) -> Answer:
    """Send a logged request as feedback. Another person reviews it before it becomes a row."""
    body = present(reason=reason, correction=correction or None)
    sent = Client.signed_in().post(f"requests/{request_id}/feedback", **body)
    return sentence(sent, f"Feedback {sent['id']} waits for review.")


@app.command()
@json_option
def export(
    department: Annotated[str, typer.Argument(help="Short name of the department.")],
    file: Annotated[Path, typer.Argument(help="File to write, in JSON Lines.")],
    reason: Reason,
    content: Annotated[bool, typer.Option("--content", help="With prompts and answers.")] = False,
    deployment: Deployment = None,
    key: Key = None,
    user: User = None,
    outcome: Outcome = None,
    slower_ms: SlowerMs = None,
    faster_ms: FasterMs = None,
    cost_from: CostFrom = None,
    fallback: Fallback = None,
    streamed: Streamed = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 1_000,
) -> Answer:
    """Export requests of a department to a file, newest first. The audit log records the reason."""
    filters = present(
        deployment=deployment,
        key=key,
        user=user,
        outcome=outcome,
        slower_ms=slower_ms,
        faster_ms=faster_ms,
        cost_from=cost_from,
        fallback=fallback,
        streamed=streamed,
        since=since,
        until=until,
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
