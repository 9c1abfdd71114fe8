"""`assay deployments`: create, follow, place, stop and roll back deployments, and their health."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.following import follow_deployment
from assay.cli.options import Limit, Reason, json_document
from assay.cli.output import (
    Answer,
    CliError,
    console,
    facts,
    json_option,
    listing,
    sentence,
    state,
    table,
)

app = typer.Typer(no_args_is_help=True)
DeploymentId = Annotated[int, typer.Argument(help="The deployment's ID.", min=1)]
Minimum = Annotated[
    int | None,
    typer.Option("--min", help="Minimum replicas; 0 unloads an unused deployment.", min=0),
]
Maximum = Annotated[int | None, typer.Option("--max", help="Maximum replicas.", min=1)]
QueueAge = Annotated[
    int | None,
    typer.Option(help="Seconds that a request may wait before replicas are added.", min=1),
]
Label = Annotated[
    list[str] | None,
    typer.Option(help="Label that workers must have; empty for none. Repeatable."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Device of the workers: cpu or cuda; empty for any."),
]
StreamTotal = Annotated[
    int | None,
    typer.Option(help="Longest streamed answer, in seconds; 0 for the installation's.", min=0),
]
QueueWeight = Annotated[
    list[str] | None,
    typer.Option(
        help="DEPARTMENT=WEIGHT: turns while requests wait; others have 1. Repeat it; '' for none."
    ),
]
StreamIdle = Annotated[
    int | None,
    typer.Option(help="Longest pause of a stream, in seconds; 0 for the installation's.", min=0),
]
Follow = Annotated[bool, typer.Option("--follow", help="Wait until the deployment serves.")]


@app.command("list")
@json_option
def list_deployments(
    name: Annotated[str, typer.Option(help="Filter by name.")] = "",
    deployment_state: Annotated[
        str, typer.Option("--state", help="Filter by state: pending, serving, refused, stopped.")
    ] = "",
    limit: Limit = 25,
) -> Answer:
    """List the newest deployments."""
    return listing(
        Client.signed_in().all("deployments", limit=limit, name=name, state=deployment_state),
        {
            "id": "id",
            "name": "name",
            "state": "state",
            "version": lambda each: each["version"]["name"],
            "release": "release",
            "replicas": lambda each: f"{_ready(each)}/{each['replicas_wanted']}",
            "department": "department",
            "created": "created_at",
        },
        empty="No matching deployments that you may see. `assay deployments create` makes one.",
    )


@app.command()
@json_option
def show(deployment_id: DeploymentId) -> Answer:
    """Show a deployment and its replicas."""
    deployment = Client.signed_in().get(f"deployments/{deployment_id}")

    def print_answer() -> None:
        facts(
            [
                ("deployment", deployment["id"]),
                ("name", deployment["name"]),
                ("state", state(deployment["state"])),
                ("version", deployment["version"]["name"]),
                ("digest", deployment["version"]["digest"]),
                ("release", deployment["release"]),
                ("serves until", deployment["approval"]["serves_until"]),
                ("department", deployment["department"]),
                ("created by", deployment["created_by"]["name"]),
            ]
        )
        _show_replicas(deployment)

    return Answer(deployment, print_answer)


@app.command()
@json_option
def create(
    release_id: Annotated[int, typer.Argument(help="ID of an approved release.", min=1)],
    minimum: Minimum = None,
    maximum: Maximum = None,
    queue_age: QueueAge = None,
    label: Label = None,
    device: Device = None,
    follow: Follow = False,
) -> Answer:
    """Deploy an approved release, in place of the deployment of the same name."""
    client = Client.signed_in()
    body: dict[str, Any] = {"release": release_id}
    if any(value is not None for value in (minimum, maximum, queue_age, label, device)):
        body["replicas"] = {
            "replicas_min": 1 if minimum is None else minimum,
            "replicas_max": max(1, minimum or 1) if maximum is None else maximum,
            "labels": [each for each in label or () if each],
            "device": device or None,
            **({} if queue_age is None else {"queue_age_s": queue_age}),
        }
    deployment = client.post("deployments", **body)
    name, number = deployment["name"], deployment["id"]
    if follow:
        return follow_deployment(client, number)
    return sentence(deployment, f"{name} is {deployment['state']} as deployment {number}.")


@app.command()
@json_option
def stop(deployment_id: DeploymentId, reason: Reason) -> Answer:
    """Stop a deployment; its requests are refused at once."""
    deployment = Client.signed_in().post(f"deployments/{deployment_id}/stop", reason=reason)
    return sentence(deployment, f"{deployment['name']} ({deployment_id}) is {deployment['state']}.")


@app.command()
@json_option
def replicas(
    deployment_id: DeploymentId,
    minimum: Minimum = None,
    maximum: Maximum = None,
    queue_age: QueueAge = None,
    label: Label = None,
    device: Device = None,
    stream_total: StreamTotal = None,
    stream_idle: StreamIdle = None,
    queue_weight: QueueWeight = None,
) -> Answer:
    """Show or change the replicas of a deployment, their workers, limits and queue weights."""
    client = Client.signed_in()
    deployment = client.get(f"deployments/{deployment_id}")
    given = (minimum, maximum, queue_age, label, device, stream_total, stream_idle, queue_weight)
    if any(value is not None for value in given):
        deployment = client.post(
            f"deployments/{deployment_id}/replicas",
            replicas_min=deployment["replicas_min"] if minimum is None else minimum,
            replicas_max=deployment["replicas_max"] if maximum is None else maximum,
            queue_age_s=deployment["queue_age_s"] if queue_age is None else queue_age,
            labels=deployment["labels"] if label is None else [each for each in label if each],
            device=deployment["device"] if device is None else device,
            stream_total_s=_limit(deployment["stream_total_s"], stream_total),
            stream_idle_s=_limit(deployment["stream_idle_s"], stream_idle),
            queue_weights=deployment["queue_weights"]
            if queue_weight is None
            else dict(_weight(each) for each in queue_weight if each),
        )
    return Answer(deployment, lambda: _show_replicas(deployment))


@app.command()
@json_option
def rollback(
    deployment_id: DeploymentId,
    to: Annotated[
        int | None,
        typer.Option(help="ID of the release to roll back to; omit it to list the choices."),
    ] = None,
    reason: Reason = "",
    follow: Follow = False,
) -> Answer:
    """Roll back to an approved release that served under the same name before."""
    client = Client.signed_in()
    if to is not None:
        if not reason:
            raise CliError("A rollback needs a reason; nothing was rolled back.", "Add --reason.")
        new = client.post(f"deployments/{deployment_id}/rollback", release=to, reason=reason)
        outcome = f"{new['name']} rolls back to {new['version']['name']} as deployment {new['id']}."
        return follow_deployment(client, new["id"]) if follow else sentence(new, outcome)
    return listing(
        client.get(f"deployments/{deployment_id}/rollback"),
        {
            "release": "release",
            "version": lambda choice: choice["version"]["name"],
            "state": "state",
            "served from": "served_from",
            "expires": "expires_at",
            "may serve again": lambda choice: choice["obstacle"] or "yes",
        },
        empty="No other release served under this name.",
    )


@app.command()
@json_option
def targets(deployment_id: DeploymentId) -> Answer:
    """Show the primary and the targets of a deployment with their shares and requests."""
    return listing(
        Client.signed_in().get(f"deployments/{deployment_id}/targets"),
        {
            "deployment": "deployment",
            "release": "release",
            "version": lambda each: each["version"]["name"],
            "state": "state",
            "role": "role",
            "share": lambda each: "" if each["share"] is None else f"{each['share']}%",
            "conditions": lambda each: json.dumps(each["conditions"]) if each["conditions"] else "",
            "requests": lambda each: each["figures"]["requests"],
            "failed": lambda each: each["figures"]["failed"],
            "mean ms": lambda each: each["figures"]["mean_ms"],
            "canary": _verdict,
            "shadow": _shadow,
        },
        empty="No targets.",
    )


@app.command()
@json_option
def route(
    deployment_id: DeploymentId,
    file: Annotated[
        Path, typer.Argument(help='JSON with all targets: {"targets": [{"release": 7, …}]}.')
    ],
    reason: Reason,
    revision: Annotated[
        int | None,
        typer.Option(help="The targets_revision that the file is based on; default: the current."),
    ] = None,
) -> Answer:
    """Replace the targets of a deployment with those in a file. Needs `assay step-up`."""
    client = Client.signed_in()
    if revision is None:
        revision = client.get(f"deployments/{deployment_id}")["targets_revision"]
    body = {**json_document(file), "revision": revision, "reason": reason}
    deployment = client.put(f"deployments/{deployment_id}/targets", **body)
    number = deployment["targets_revision"]
    return sentence(
        deployment, f"The targets of {deployment['name']} are changed (revision {number})."
    )


@app.command()
@json_option
def switch(
    deployment_id: DeploymentId,
    target: Annotated[int, typer.Argument(help="Deployment ID of the target.", min=1)],
    reason: Reason,
) -> Answer:
    """Make a loaded target the primary, in one step. Needs `assay step-up`."""
    client = Client.signed_in()
    revision = client.get(f"deployments/{deployment_id}")["targets_revision"]
    primary = client.post(
        f"deployments/{deployment_id}/switch", target=target, revision=revision, reason=reason
    )
    version = primary["version"]["name"]
    return sentence(primary, f"{version} now answers requests to {primary['name']}.")


def _verdict(target: dict[str, Any]) -> str:
    """Return the result of the last comparison of a canary."""
    verdict = target["verdict"]
    tests = "; ".join(f"{test['of']} p = {test['p']:.2g}" for test in verdict.get("tests", ()))
    return f"rolled back: {tests}" if verdict.get("rolled_back") else tests


def _shadow(target: dict[str, Any]) -> str:
    """Return the agreement of a shadow with each release whose requests it answered."""
    return "; ".join(
        f"release {each['against']}: {each['copies']} copies"
        + ("" if each["agreement"] is None else f", {each['agreement']:.1%} {each['measure']}")
        for each in target["shadow"]
    )


def _weight(text: str) -> tuple[str, int]:
    name, _, weight = text.partition("=")
    if not (name and weight.isdecimal()):
        raise CliError(f"{text} is not a queue weight.", "Write it as DEPARTMENT=WEIGHT.")
    return name, int(weight)


def _limit(current: int | None, given: int | None) -> int | None:
    """Return a limit after a change; 0 removes it, and None leaves it."""
    return current if given is None else given or None


def _ready(deployment: dict[str, Any]) -> int:
    return sum(each["state"] == "ready" for each in deployment["replicas"])


def _show_replicas(deployment: dict[str, Any]) -> None:
    bounds = f"{deployment['replicas_min']} to {deployment['replicas_max']}"
    console.print(
        f"{deployment['name']}: {deployment['replicas_wanted']} requested, {bounds}.", markup=False
    )
    if deployment["replicas_min"] != deployment["replicas_max"]:
        console.print(f"Replicas are added while requests wait over {deployment['queue_age_s']} s.")
    if deployment["cold_start_s"] is not None:
        console.print(f"A replica took up to {deployment['cold_start_s']:.1f} s to load.")
    if deployment["queue_weights"]:
        weights = (f"{name} {weight}" for name, weight in deployment["queue_weights"].items())
        console.print(f"Turns in the queue: {', '.join(weights)}, others 1.", markup=False)
    if deployment["message"]:
        console.print(deployment["message"], markup=False)
    states = {each["worker"]: each["state"] for each in deployment["replicas"]}
    table(
        ("worker", "state", "since", "reason"),
        (
            (
                place["worker"],
                state(states.get(place["worker"], "assigned")),
                place["since"],
                place["reason"],
            )
            for place in deployment["placements"]
        ),
        empty="Assigned to no worker.",
    )


@app.command()
@json_option
def health(
    deployment_id: DeploymentId,
    span: Annotated[str, typer.Option(help="1h, 24h, 7d, 30d or 12w.")] = "24h",
) -> Answer:
    """Show latency, errors and cost of a deployment, and why it is slow."""
    body = Client.signed_in().get(f"deployments/{deployment_id}/health", span=span)

    def print_answer() -> None:
        total, slowest = body["total"], body["slowest"]
        times = [("latency", total["latency_ms"]), ("first token", total["first_token_ms"])]
        facts(
            [
                ("deployment", body["name"]),
                ("requests", f"{total['requests']:,}, {100 * total['error_rate']:.1f}% failed"),
                *((name, _percentiles(values)) for name, values in times if values),
                ("used", f"{total['units']:,} {total['unit'].replace('_', ' ')}"),
                ("cost", f"{total['cost_micro'] / 1_000_000:,.2f} {body['currency']}"),
                ("waiting", body["waiting"]),
                ("workers", [each["worker"] for each in body["workers"]]),
            ]
        )
        if body["explanation"]:
            console.print(body["explanation"], markup=False)
        phases = ("load", "queue", "prefill", "stream", "compute")
        table(
            ("phase", "all answers, ms", "slowest 5%, ms"),
            (
                (name, f"{body['phases'][name]:,.0f}", f"{slowest[name]:,.0f}")
                for name in phases
                if slowest[name] or body["phases"][name]
            ),
            empty="No answers in this period.",
        )
        table(
            ("at", "changed"),
            ((change["at"], change["text"]) for change in body["changes"]),
            empty="Nothing changed in this period.",
        )

    return Answer(body, print_answer)


def _percentiles(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value:,} ms" for name, value in values.items())
