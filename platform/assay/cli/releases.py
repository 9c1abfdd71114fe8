"""`assay releases`: submit, show, decide, renew and export releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from assay.cli.client import Client, present
from assay.cli.evidence import ReleaseId, check_evidence, evidence, export_dossier
from assay.cli.options import Limit, Reason, VersionRef, json_document, version_id
from assay.cli.output import (
    Answer,
    CliError,
    console,
    errors,
    facts,
    json_option,
    listing,
    sentence,
    state,
    table,
)

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_releases(
    release_state: Annotated[
        str, typer.Option("--state", help="Filter by state, such as in_review or approved.")
    ] = "",
    environment: Annotated[str, typer.Option(help="Filter: staging or production.")] = "",
    name: Annotated[str, typer.Option(help="Filter by the deployment's name.")] = "",
    limit: Limit = 25,
) -> Answer:
    """List the newest releases."""
    filters = {"state": release_state, "environment": environment, "deployment_name": name}
    return listing(
        Client.signed_in().all("releases", limit=limit, **filters),
        {
            "id": "id",
            "deployment": "deployment_name",
            "version": lambda release: release["version"]["name"],
            "environment": "environment",
            "state": "state",
            "department": "department",
            "expires": "expires_at",
        },
        empty="No matching releases that you may see. `assay releases submit` requests one.",
    )


@app.command()
@json_option
def show(release_id: ReleaseId) -> Answer:
    """Show a release: its terms, checklist and decisions."""
    release = Client.signed_in().get(f"releases/{release_id}")
    return Answer(release, lambda: _show(release))


@app.command()
@json_option
def submit(
    version: VersionRef,
    name: Annotated[str, typer.Option(help="Name under which applications call it.")] = "",
    environment: Annotated[str, typer.Option(help="staging or production.")] = "",
    department: Annotated[
        list[str] | None, typer.Option(help="Department that may call it. Repeatable.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="Purpose of the release.")] = "",
    tier: Annotated[str, typer.Option(help="Risk tier, such as minimal or limited.")] = "",
    visibility: Annotated[
        str, typer.Option(help="Visibility of the release: department or organization.")
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="JSON with further fields: risk_answers, dossier_fields, engine, …"
        ),
    ] = None,
) -> Answer:
    """Submit a version for release, which freezes its dossier and opens its review.

    Options replace the fields of --input. `assay versions readiness` lists what is missing before.
    """
    client = Client.signed_in()
    fields = present(
        deployment_name=name,
        environment=environment,
        departments=department,
        purpose=purpose,
        tier=tier,
        visibility=visibility,
    )
    body = (json_document(file) if file else {}) | fields
    release = client.post("releases", **body | {"version": version_id(client, version)})
    return sentence(
        release,
        f"Release {release['id']} of {release['version']['name']} is in review as "
        f"{release['deployment_name']}; approvals missing: {_missing(release['review'])}.",
    )


@app.command()
@json_option
def attest(
    release_id: ReleaseId,
    code: Annotated[str, typer.Argument(help="Checklist item, as `assay releases show` names it.")],
    note: Annotated[str, typer.Option(help="What you checked.")],
) -> Answer:
    """Attest an item of the checklist that a reviewer must judge."""
    release = Client.signed_in().post(f"releases/{release_id}/checklist/{code}", note=note)
    codes = [item["code"] for item in _open_items(release)]
    rest = f"still open: {', '.join(codes)}" if codes else "no item is open"
    return sentence(release, f"{code} of release {release_id} is attested; {rest}.")


@app.command()
@json_option
def decide(
    release_id: ReleaseId,
    verdict: Annotated[
        Literal["approve", "reject", "request-changes", "comment"],
        typer.Argument(help="Your decision."),
    ],
    reason: Annotated[str, typer.Option(help="Reason, which the department reads.")],
    specialty: Annotated[
        str,
        typer.Option(help="Your specialty: compliance, security, model-risk or privacy."),
    ] = "",
    digest: Annotated[
        str, typer.Option(help="Digest of the dossier that you read; skips the prompt.")
    ] = "",
) -> Answer:
    """Approve or reject the dossier of a release, request changes, or comment.

    A decision names the digest of the dossier, so it never covers a later change. `assay api post
    releases/ID/decisions` adds conditions to an approval.
    """
    client = Client.signed_in()
    if not digest:
        release = client.get(f"releases/{release_id}")
        digest = release["dossier_digest"]
        if verdict != "comment":
            _confirm(release, verdict)
    release = client.post(
        f"releases/{release_id}/decisions",
        verdict=verdict.replace("-", "_"),
        reason=reason,
        digest=digest,
        **present(specialty=specialty),
    )
    outcome = f"Release {release_id} is {release['state'].replace('_', ' ')}"
    if release["state"] == "in_review":
        outcome += f"; approvals missing: {_missing(release['review'])}"
    return sentence(release, f"{outcome}.")


@app.command()
@json_option
def answer(
    release_id: ReleaseId,
    message: Annotated[str, typer.Option(help="Answer to the reviewers.")],
    file: Annotated[
        Path | None,
        typer.Option("--input", help="JSON with new risk_answers or dossier_fields."),
    ] = None,
) -> Answer:
    """Answer a request for changes, which opens the next round."""
    changes = json_document(file) if file else {}
    release = Client.signed_in().post(
        f"releases/{release_id}/answers", **changes | {"message": message}
    )
    return sentence(release, f"Release {release_id} is in review again.")


@app.command()
@json_option
def withdraw(release_id: ReleaseId, reason: Reason) -> Answer:
    """Withdraw a release: it no longer serves, or its review ends."""
    release = Client.signed_in().post(f"releases/{release_id}/withdraw", reason=reason)
    return sentence(release, f"Release {release_id} is {release['state']}.")


app.command()(evidence)
app.command("export")(export_dossier)
app.command("check-evidence")(check_evidence)


def _confirm(release: dict[str, Any], verdict: str) -> None:
    """Ask the person at the terminal to confirm the dossier that the decision names.

    Raises:
        CliError: there is no terminal, or they did not confirm.
    """
    digest = release["dossier_digest"]
    if not sys.stdin.isatty():
        raise CliError(
            "A decision names the dossier that you read; nothing was decided.",
            f"Read it (`assay releases show {release['id']}`), then add --digest {digest}.",
        )
    errors.print(
        f"Release {release['id']}: {release['version']['name']} as {release['deployment_name']} "
        f"in {release['environment']}, dossier {digest}.",
        markup=False,
        soft_wrap=True,
    )
    if not typer.confirm(f"{verdict.replace('-', ' ').capitalize()}?", err=True):
        raise CliError("Nothing was decided.")


def _missing(review: dict[str, Any] | None) -> str:
    """Return the number of missing approvals by specialty, or `none`."""
    missing = review["standing"]["missing"] if review else {}
    return ", ".join(f"{count} × {name}" for name, count in missing.items()) or "none"


def _open_items(release: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        item
        for item in (release["review"] or {"checklist": ()})["checklist"]
        if not item["automatic"] and item["state"] == "open"
    ]


def _show(release: dict[str, Any]) -> None:
    facts(
        [
            ("release", release["id"]),
            ("state", state(release["state"])),
            *(
                [("reason for voiding", release["voided_because"])]
                if release["voided_because"]
                else []
            ),
            ("version", release["version"]["name"]),
            ("digest", release["version"]["digest"]),
            ("deployment", f"{release['deployment_name']} ({release['environment']})"),
            ("departments", release["departments"]),
            ("purpose", release["purpose"]),
            ("risk tier", release["tier"]),
            ("engine", f"{release['engine']} ({release['precision']})"),
            ("code of the task", _task_code(release["code"])),
            ("dossier", release["dossier_digest"]),
            ("submitted by", release["submitted_by"]["name"]),
            ("expires", release["expires_at"]),
            ("serves until", release["serves_until"]),
            ("conditions", release["conditions"]["words"]),
            *([("renews", f"release {release['renews']}")] if release["renews"] else []),
        ]
    )
    if release["code"]["difference"]:
        console.print(f"The release does not serve: {release['code']['difference']}.", markup=False)
    if release["upgrades"]:
        table(
            ("software", "answers", "state", "checked", "worker"),
            (
                (
                    ", ".join(" ".join(pair) for pair in sorted(each["versions"].items())),
                    each["outcome"],
                    state(each["standing"]),
                    each["checked_at"],
                    each["worker"],
                )
                for each in release["upgrades"]
            ),
            empty="",
        )
    if release["review"] is not None:
        _show_review(release["review"])


def _task_code(code: dict[str, Any]) -> str:
    packages = ", ".join(f"{each['name']} {each['version']}" for each in code["packages"])
    return f"{packages or 'Assay itself'} ({code['digest'][:12]})"


@app.command()
@json_option
def renew(
    release_id: ReleaseId,
    yes: Annotated[bool, typer.Option("--yes", help="Submit the release again.")] = False,
) -> Answer:
    """Show what a renewal of a release would carry over; with --yes, submit it."""
    client = Client.signed_in()
    renewal = client.get(f"releases/{release_id}/renewal")
    if renewal["obstacle"]:
        raise CliError(renewal["obstacle"], renewal["hint"])
    if yes:
        successor = client.post(f"releases/{release_id}/renewal")
        return sentence(
            successor, f"Release {successor['id']} renews release {release_id}; it is in review."
        )
    return Answer(renewal, lambda: _show_renewal(renewal))


def _show_renewal(renewal: dict[str, Any]) -> None:
    table(
        ("carried over", "attested by", "on"),
        (
            (item["title"], item["attested_by"]["name"], item["attested_at"])
            for item in renewal["carried"]
        ),
        empty="Nothing would be carried over.",
    )
    facts(
        [
            ("to attest again", renewal["anew"]),
            (
                "changed since",
                [change["section"].replace("_", " ") for change in renewal["changes"]],
            ),
        ]
    )
    errors.print("Nothing was submitted. To submit, add --yes.", style="dim")


def waived(item: dict[str, Any]) -> str:
    """Return an item's waiver in words: its end, its decider and the reason; else an empty text."""
    for waiver in item["waivers"]:
        if item["state"] == "waived" and waiver["state"] in ("granted", "revoked", "expired"):
            ended = "" if waiver["state"] == "granted" else f", {waiver['state']}"
            until, by = waiver["expires_at"][:10], waiver["decided_by"]["name"]
            return f"until {until} by {by}{ended}: {waiver['reason']}"
    return ""


def _show_review(review: dict[str, Any]) -> None:
    console.print()
    table(
        ("item", "checklist", "state", "note"),
        (
            (
                item["code"],
                item["title"],
                state(item["state"]),
                waived(item) or item["note"] or item["why"],
            )
            for item in review["checklist"]
        ),
        empty="The checklist is empty.",
    )
    console.print()
    table(
        ("decision", "by", "for", "round", "reason"),
        (
            (
                decision["verdict"].replace("_", " "),
                decision["person"]["name"],
                decision["specialty"],
                decision["round"],
                "; ".join([decision["reason"], *decision["conditions"]["words"]]),
            )
            for decision in review["decisions"]
        ),
        empty="No decisions yet.",
    )
    facts([("approvals missing", _missing(review))])
