"""5 and 6. Release and review, then deploy; and what is refused on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from assay.demo.client import Api, Refused
from assay.demo.stage import Stage
from assay.demo.story.adapt import DOCSTRINGS, SENTIMENT

EMBEDDINGS = "sentence-embeddings"
CANARY = "docstring-canary"
OVERSIGHT = {
    "overseers": "Whoever uses the answer, and the lead of the department.",
    "stop_procedure": "The lead stops the deployment in the portal; requests are refused at once.",
}


def existing(api: Api, deployment_name: str, *states: str) -> dict[str, Any] | None:
    """The newest release of that name in one of the states."""
    for item in api.all("releases"):
        if item["deployment_name"] == deployment_name and item["state"] in states:
            release: dict[str, Any] = api.get(f"releases/{item['id']}")
            return release
    return None


def submit(
    stage: Stage, owner: str, version: dict[str, Any], name: str, **fields: Any
) -> dict[str, Any]:
    """The open or approved release of that name, or a new one; with `again`, a new one in any case.

    `answers` are the risk answers that are not the usual ones.
    """
    api = stage[owner]
    again = fields.pop("again", False)
    release = existing(api, name, "in_review", "changes_requested", "approved")
    if release is not None and not again:
        return release
    made: dict[str, Any] = api.post(
        "releases",
        version=version["id"],
        environment=fields.pop("environment", "production"),
        deployment_name=name,
        risk_answers={
            "intended_purpose": fields["purpose"],
            "affected_people": fields.pop("affected", "Employees who read the answers."),
            "vulnerable_groups": False,
            "eu_ai_act_role": "deployer",
            "annex_iii": "none",
            "data_classification": "internal",
            "personal_data": False,
            "special_categories": False,
            "autonomy": "suggests",
            "interacts_with_people": False,
            "generates_content": fields.pop("generates", False),
            "general_purpose_model": False,
            **fields.pop("answers", {}),
        },
        dossier_fields=fields.pop("dossier_fields", {"oversight": OVERSIGHT}),
        **fields,
    )
    return made


def attest(stage: Stage, reviewer: str, release: dict[str, Any]) -> None:
    """Attest every checklist item that waits for a person."""
    current = stage[reviewer].get(f"releases/{release['id']}")
    for item in current["review"]["checklist"]:
        if not item["automatic"] and item["state"] == "open":
            stage[reviewer].post(
                f"releases/{release['id']}/checklist/{item['code']}",
                note="Read the dossier; the answer is complete and fits the purpose.",
            )


def approve(
    stage: Stage, reviewer: str, speciality: str, release: dict[str, Any], **more: Any
) -> Any:
    """One reviewer's approval of the dossier as it is; `more` goes with it, such as conditions."""
    current = stage[reviewer].get(f"releases/{release['id']}")
    stage.prove(reviewer)
    return stage[reviewer].post(
        f"releases/{release['id']}/decisions",
        verdict="approve",
        speciality=speciality,
        reason=f"The evidence in dossier {current['dossier_digest'][:12]} supports the purpose.",
        digest=current["dossier_digest"],
        **more,
    )


def review(stage: Stage) -> None:
    with stage.chapter("5. Release and review: nobody approves their own work"):
        release = submit(
            stage,
            "devi",
            stage.facts[DOCSTRINGS],
            DOCSTRINGS,
            departments=["engineering"],
            visibility="organisation",
            purpose="Suggest one-line docstrings to engineers, who accept or edit each one.",
            tier="limited",
        )
        stage.say(f"release {release['id']} froze dossier {release['dossier_digest'][:12]}")
        if release["state"] != "approved":
            _the_whole_review(stage, release)
        for version, name, owner, fields in (
            (
                stage.facts[SENTIMENT],
                SENTIMENT,
                "clara",
                {
                    "departments": ["clinical"],
                    "visibility": "department",
                    "tier": "limited",
                    "purpose": "Sort drug reviews by sentiment for pharmacists to read first.",
                },
            ),
            (
                stage.facts["all-minilm-l6-v2"],
                EMBEDDINGS,
                "devi",
                {
                    "departments": ["engineering", "clinical"],
                    "visibility": "organisation",
                    "tier": "minimal",
                    "purpose": "Sentence embeddings for search inside the departments.",
                },
            ),
        ):
            other = submit(stage, owner, version, name, **fields)
            if other["state"] != "approved":
                attest(stage, "carla", other)
                for reviewer, speciality in (("carla", "compliance"), ("milo", "model-risk")):
                    if other["state"] != "approved":
                        other = approve(stage, reviewer, speciality, other)
            stage.expect(other["state"] == "approved", f"{name} is approved")
            stage.facts[f"release:{name}"] = other
            stage.say(f"{name}: release {other['id']} approved until {other['expires_at'][:10]}")


def _the_whole_review(stage: Stage, release: dict[str, Any]) -> None:
    stage.expect_refusal(
        403,
        "Devi, who submitted it, may not approve it",
        lambda: stage["devi"].post(
            f"releases/{release['id']}/decisions",
            verdict="approve",
            speciality="compliance",
            reason="I made it and it is good.",
            digest=release["dossier_digest"],
        ),
    )
    _refuse_unapproved_deployment(stage, release)
    if release["state"] == "in_review":
        word = {
            "verdict": "request_changes",
            "speciality": "compliance",
            "reason": "Say who checks a suggested docstring before it is committed.",
            "digest": release["dossier_digest"],
        }
        stage.prove("carla")
        stage.say("Carla has verified her identity with the code of her authenticator app")
        release = stage["carla"].post(f"releases/{release['id']}/decisions", **word)
        stage.say("Carla (compliance) requests changes")
    answers = dict(release["risk_answers"])
    answers["notes"] = "An engineer accepts or edits each suggestion; nothing is committed unseen."
    release = stage["devi"].post(
        f"releases/{release['id']}/answers",
        message="The editor shows it; committing it takes a person. Added to the answers.",
        risk_answers=answers,
    )
    stage.say(f"Devi answers; the dossier is now {release['dossier_digest'][:12]}")
    attest(stage, "carla", release)
    release = approve(stage, "carla", "compliance", release)
    stage.say(f"Carla approves: {release['state'].replace('_', ' ')}, one role still missing")
    release = approve(stage, "milo", "model-risk", release)
    stage.expect(release["state"] == "approved", "two roles approve it")
    stage.say(f"Milo (model risk) approves: approved until {release['expires_at'][:10]}")


def _refuse_unapproved_deployment(stage: Stage, release: dict[str, Any]) -> None:
    stage.expect_refusal(
        409,
        "An unapproved release may not be deployed",
        lambda: stage["enzo"].post("deployments", release=release["id"]),
    )


def deploy(stage: Stage) -> None:
    with stage.chapter("6. Deploy: what is loaded is hashed, and must be what was approved"):
        stage.facts[f"release:{DOCSTRINGS}"] = stage.found(
            existing(stage["devi"], DOCSTRINGS, "approved"),
            "docstring-writer has an approved release",
        )
        for name, owner in ((EMBEDDINGS, "enzo"), (SENTIMENT, "clara"), (DOCSTRINGS, "enzo")):
            ensure_deployed(stage, owner, stage.facts[f"release:{name}"])
        for name, owner in ((EMBEDDINGS, "enzo"), (SENTIMENT, "clara"), (DOCSTRINGS, "enzo")):
            served = wait_serving(stage, owner, name)
            replica = served["replicas"][0]
            stage.expect(
                replica["loaded_digest"] == stage.facts[f"release:{name}"]["version"]["digest"],
                f"{name} loaded exactly the approved digest",
            )
            stage.say(
                f"{name} serves {replica['loaded_digest'][:12]}, loaded and verified in "
                f"{replica['load_seconds']:.1f} s"
            )
        _tampered_bytes_are_refused(stage)


def _live(api: Api, name: str) -> dict[str, Any] | None:
    for item in api.all("deployments"):
        if item["name"] == name and item["state"] in {"pending", "serving"}:
            return item
    return None


def ensure_deployed(stage: Stage, owner: str, release: dict[str, Any]) -> None:
    live = _live(stage[owner], release["deployment_name"])
    if live is None or live["release"] != release["id"]:
        stage[owner].post("deployments", release=release["id"])


def wait_serving(stage: Stage, owner: str, name: str) -> dict[str, Any]:
    def serving() -> dict[str, Any] | None:
        live = _live(stage[owner], name)
        if live is None or live["state"] != "serving":
            return None
        detail: dict[str, Any] = stage[owner].get(f"deployments/{live['id']}")
        ready = [replica for replica in detail["replicas"] if replica["state"] == "ready"]
        return {**detail, "replicas": ready} if ready else None

    found: dict[str, Any] = stage.wait_for(f"{name} serves", serving)
    return found


def _tampered_bytes_are_refused(stage: Stage) -> None:
    """Change one byte of an approved artefact on the disk, deploy it, and put the byte back."""
    version = stage.facts[DOCSTRINGS]
    release = submit(
        stage,
        "devi",
        version,
        CANARY,
        environment="staging",
        departments=["engineering"],
        visibility="department",
        purpose="A second place for the same version, to show what a changed byte does.",
        tier="minimal",
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        release = approve(stage, "carla", "compliance", release)
    file = _weights(stage, version["digest"])
    original = _flip_byte(file)
    try:
        made = stage["enzo"].post("deployments", release=release["id"])

        def refused() -> Any:
            now = stage["enzo"].get(f"deployments/{made['id']}")
            return now if now["state"] in {"refused", "serving"} else None

        outcome = stage.wait_for("the changed artefact is refused", refused)
    finally:
        _flip_byte(file)
    stage.expect(file.read_bytes() == original, "the byte is back")
    stage.expect(outcome["state"] == "refused", "one changed byte is refused at load")
    stage.refused("One byte changed on the disk: refused at load", _as_refusal(outcome["message"]))
    event = stage.wait_for(
        "the refusal is audited",
        lambda: stage["asha"].get("audit/events", action="deployment:load", outcome="denied")[
            "results"
        ],
    )[0]
    stage.say(f"audit event {event['id']}: {event['action']} {event['outcome']}")


def _as_refusal(message: str) -> Refused:
    return Refused(409, {"detail": message})


def _weights(stage: Stage, digest: str) -> Path:
    folder = stage.stack.folder / "data" / "artifacts" / "versions" / digest
    return next(iter(sorted(folder.rglob("*.safetensors"))))


def _flip_byte(file: Path) -> bytes:
    """Flip the lowest bit of the last byte; returns what the file held before."""
    before = file.read_bytes()
    mode = file.stat().st_mode
    os.chmod(file, mode | 0o200)
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([before[-1] ^ 1]))
    os.chmod(file, mode)
    return before
