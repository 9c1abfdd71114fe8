"""`assay served DEPARTMENT`: deployments of a past moment, with approvals and evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.output import Answer, CliError, console, facts, json_option, state, table
from assay.cli.releases import waived

LIMIT = 1_000
Moment = Annotated[
    str,
    typer.Option(
        help="Moment, such as 2026-05-01T14:30, in UTC without an offset; now by default."
    ),
]


@json_option
def served(
    department: Annotated[str, typer.Argument(help="Short name of the department.")],
    at: Moment = "",
    since: Annotated[str, typer.Option(help="List a period instead: its start.")] = "",
    until: Annotated[str, typer.Option(help="End of the period; now by default.")] = "",
) -> Answer:
    """Show the deployments that served a department at a moment, with approvers and evidence."""
    moments = {"at": at, "since": since, "until": until}
    client = Client.signed_in()
    query = {
        "department": department,
        **{name: _moment(name, text) for name, text in moments.items() if text},
    }
    rows = list(client.all("served", limit=LIMIT, **query))
    sentence = "" if rows else client.get("served", **query)["said"]

    def print_answer() -> None:
        if sentence:
            console.print(sentence, markup=False)
        elif since or until:
            _show_period(rows)
        else:
            for row in rows:
                _show(row)

    return Answer(rows, print_answer)


def _moment(name: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"--{name} is not a date and time: {text}.", "Write it as 2026-05-01T14:30."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _show_period(rows: list[dict[str, Any]]) -> None:
    table(
        ("deployment", "from", "until", "ended", "version", "digest", "release"),
        (
            (
                row["name"],
                row["serving_from"],
                row["serving_until"],
                row["ended"],
                row["version"]["name"],
                row["digest"][:12],
                row["release"]["id"],
            )
            for row in rows
        ),
        empty="",
    )


def _show(row: dict[str, Any]) -> None:
    release, approval, usage = row["release"], row["approval"], row["usage"]
    pairs: list[tuple[str, Any]] = [
        ("deployment", f"{row['name']} ({row['environment']}, of {row['department']})"),
        ("served from", row["serving_from"]),
        ("until", row["serving_until"] or "still serving"),
        ("version", row["version"]["name"]),
        ("bytes loaded", row["digest"]),
        ("release", release["id"]),
        ("current state", state(release["state"])),
        ("dossier", release["dossier_digest"]),
        ("approved", release["approved_at"]),
        ("expires", release["expires_at"]),
        ("for", release["departments"]),
        ("purpose", release["purpose"]),
    ]
    if usage is not None:
        pairs.append(("requests in that hour", usage["requests"]))
    pairs.extend(
        (
            "EMERGENCY ACCESS",
            f"{each['serving_from']} to {each['serving_until']}, requested by "
            f"{each['asked_by']['name']}, confirmed by {each['confirmed_by']['name']}",
        )
        for each in row["emergency_access"]
    )
    facts(pairs)
    console.print()
    if approval is None:
        console.print("Only those who may see the release can see who approved it.")
    else:
        _show_approval(approval)
    console.print()


def _show_approval(approval: dict[str, Any]) -> None:
    table(
        ("vote", "person", "specialty", "time", "reason"),
        (
            (
                vote["verdict"].replace("_", " "),
                vote["person"]["name"],
                vote["specialty"],
                vote["created_at"],
                vote["reason"],
            )
            for vote in approval["votes"]
        ),
        empty="No votes on this dossier.",
    )
    console.print()
    review = approval["review"] or {"checklist": []}
    waivers = [(item["title"], waived(item)) for item in review["checklist"] if waived(item)]
    if waivers:
        table(("waived", "end, decider and reason"), waivers, empty="")
        console.print()
    table(
        ("measured on", "rows", "metrics", "digest of the results"),
        (
            (
                _measured_on(each),
                each["sample_size"],
                "  ".join(f"{name} {value:.4g}" for name, value in each["metrics"].items()),
                each["digest"],
            )
            for each in approval["evaluations"]
        ),
        empty="The dossier has no evaluations.",
    )
    console.print()
    table(
        ("event", "number", "time", "ID"),
        (
            (
                event["action"],
                event["sequence"],
                event["occurred_at"],
                event["id"],
            )
            for event in approval["events"]
        ),
        empty="The audit log has no event of the decision.",
    )


def _measured_on(evaluation: dict[str, Any]) -> str:
    marks = ["training data"] if evaluation["on_training_data"] else []
    if cut := evaluation["rows_cut"]:
        marks.append(f"{cut} rows cut")
    return f"{evaluation['dataset']} ({', '.join(marks)})" if marks else evaluation["dataset"]
