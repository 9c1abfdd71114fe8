"""5 and 6. Submit, review and deploy releases, with the refusals on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from assay_demo.client import Api, RequestRejected
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRINGS, SENTIMENT

EMBEDDINGS = "sentence-embeddings"
CANARY = "docstring-canary"
OVERSIGHT = {
    "overseers": "The employees who use the answers, and the lead of the department.",
    "stop_procedure": "The lead stops the deployment in the portal. Requests are refused at once.",
}


def existing(api: Api, deployment_name: str, *states: str) -> dict[str, Any] | None:
    """Return the newest release of that name in one of the states, or None."""
    for item in api.all("releases"):
        if item["deployment_name"] == deployment_name and item["state"] in states:
            release: dict[str, Any] = api.get(f"releases/{item['id']}")
            return release
    return None


def submit(
    stage: Stage, owner: str, version: dict[str, Any], name: str, **fields: Any
) -> dict[str, Any]:
    """Return the open or approved release of that name, or submit one; `again` always submits.

    `answers` are risk answers that differ from the defaults.
    """
    api = stage[owner]
    again = fields.pop("again", False)
    release = existing(api, name, "in_review", "changes_requested", "approved")
    if release is not None and not again:
        return release
    created: dict[str, Any] = api.post(
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
    return created


def attest(stage: Stage, reviewer: str, release: dict[str, Any]) -> None:
    """Attest every open checklist item that needs a person's judgment."""
    current = stage[reviewer].get(f"releases/{release['id']}")
    for item in current["review"]["checklist"]:
        if not item["automatic"] and item["state"] == "open":
            stage[reviewer].post(
                f"releases/{release['id']}/checklist/{item['code']}",
                note="I read the dossier. The answer is complete and fits the purpose.",
            )


def approve(
    stage: Stage, reviewer: str, specialty: str, release: dict[str, Any], **more: Any
) -> Any:
    """Approve the current dossier as one reviewer; `more` adds fields such as conditions."""
    current = stage[reviewer].get(f"releases/{release['id']}")
    stage.prove(reviewer)
    return stage[reviewer].post(
        f"releases/{release['id']}/decisions",
        verdict="approve",
        specialty=specialty,
        reason=f"The evidence in dossier {current['dossier_digest'][:12]} supports the purpose.",
        digest=current["dossier_digest"],
        **more,
    )


def review(stage: Stage) -> None:
    with stage.chapter("5. Review: other people approve each release"):
        release = submit(
            stage,
            "devi",
            stage.facts[DOCSTRINGS],
            DOCSTRINGS,
            departments=["engineering"],
            visibility="organization",
            purpose="Suggest one-line docstrings to engineers, who accept or edit each one.",
            tier="limited",
        )
        stage.say(
            f"Devi submits release {release['id']} of {DOCSTRINGS}. Its dossier is frozen; the "
            f"digest starts with {release['dossier_digest'][:12]}."
        )
        if release["state"] != "approved":
            _the_whole_review(stage, release)
        for version, name, owner, fields in (
            (
                stage.facts[SENTIMENT],
                SENTIMENT,
                "mia",
                {
                    "departments": ["media"],
                    "visibility": "department",
                    "tier": "limited",
                    "purpose": "Sort film reviews by sentiment. Editors read the bad ones first.",
                },
            ),
            (
                stage.facts["all-minilm-l6-v2"],
                EMBEDDINGS,
                "devi",
                {
                    "departments": ["engineering", "media"],
                    "visibility": "organization",
                    "tier": "minimal",
                    "purpose": "Sentence embeddings for search within the departments.",
                },
            ),
        ):
            other = submit(stage, owner, version, name, **fields)
            if other["state"] != "approved":
                attest(stage, "carla", other)
                for reviewer, specialty in (("carla", "compliance"), ("milo", "model-risk")):
                    if other["state"] != "approved":
                        other = approve(stage, reviewer, specialty, other)
            stage.expect(other["state"] == "approved", f"{name} is approved")
            stage.facts[f"release:{name}"] = other
            stage.say(
                f"Release {other['id']} of {name} is approved until {other['expires_at'][:10]}."
            )


def _the_whole_review(stage: Stage, release: dict[str, Any]) -> None:
    stage.expect_refusal(
        403,
        "Devi submitted the release, so she cannot approve it",
        lambda: stage["devi"].post(
            f"releases/{release['id']}/decisions",
            verdict="approve",
            specialty="compliance",
            reason="I made it, and it works well.",
            digest=release["dossier_digest"],
        ),
    )
    _refuse_unapproved_deployment(stage, release)
    if release["state"] == "in_review":
        word = {
            "verdict": "request_changes",
            "specialty": "compliance",
            "reason": "State who checks a suggested docstring before it is committed.",
            "digest": release["dossier_digest"],
        }
        stage.prove("carla")
        stage.say("Carla verifies her identity with a code from her authenticator app.")
        release = stage["carla"].post(f"releases/{release['id']}/decisions", **word)
        stage.say("Carla (compliance) requests changes.")
    answers = dict(release["risk_answers"])
    answers["notes"] = "An engineer accepts or edits each suggestion before it is committed."
    release = stage["devi"].post(
        f"releases/{release['id']}/answers",
        message="The editor shows each suggestion, and an engineer accepts it. I added this.",
        risk_answers=answers,
    )
    stage.say(
        f"Devi answers. The dossier changes, and so does its digest: "
        f"{release['dossier_digest'][:12]}."
    )
    attest(stage, "carla", release)
    release = approve(stage, "carla", "compliance", release)
    stage.say(
        f"Carla approves. The release stays {release['state'].replace('_', ' ')}: "
        "model risk has to approve too."
    )
    release = approve(stage, "milo", "model-risk", release)
    stage.expect(release["state"] == "approved", "two roles approve it")
    stage.say(
        f"Milo (model risk) approves. The release is valid until {release['expires_at'][:10]}."
    )


def _refuse_unapproved_deployment(stage: Stage, release: dict[str, Any]) -> None:
    stage.expect_refusal(
        409,
        "An unapproved release cannot be deployed",
        lambda: stage["enzo"].post("deployments", release=release["id"]),
    )


def deploy(stage: Stage) -> None:
    with stage.chapter("6. Deploy: load only the approved bytes"):
        stage.facts[f"release:{DOCSTRINGS}"] = stage.require(
            existing(stage["devi"], DOCSTRINGS, "approved"),
            "docstring-writer has an approved release",
        )
        for name, owner in ((EMBEDDINGS, "enzo"), (SENTIMENT, "mia"), (DOCSTRINGS, "enzo")):
            ensure_deployed(stage, owner, stage.facts[f"release:{name}"])
        for name, owner in ((EMBEDDINGS, "enzo"), (SENTIMENT, "mia"), (DOCSTRINGS, "enzo")):
            served = wait_serving(stage, owner, name)
            replica = served["replicas"][0]
            stage.expect(
                replica["loaded_digest"] == stage.facts[f"release:{name}"]["version"]["digest"],
                f"{name} loaded exactly the approved digest",
            )
            stage.say(
                f"{name} serves the approved digest {replica['loaded_digest'][:12]}. Loading and "
                f"verifying took {replica['load_seconds']:.1f} s."
            )
        _tampered_bytes_are_refused(stage)


def _live(api: Api, name: str) -> dict[str, Any] | None:
    for item in api.all("deployments"):
        primary = item["name"] == name and item["target_of"] is None
        if primary and item["state"] in {"pending", "serving"}:
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

    deployment: dict[str, Any] = stage.wait_for(f"{name} serves", serving)
    return deployment


def _tampered_bytes_are_refused(stage: Stage) -> None:
    """Change one byte of an approved file on the disk, deploy it, and restore the byte."""
    version = stage.facts[DOCSTRINGS]
    release = submit(
        stage,
        "devi",
        version,
        CANARY,
        environment="staging",
        departments=["engineering"],
        visibility="department",
        purpose="A staging copy of the same version, to show that a changed byte is refused.",
        tier="minimal",
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        release = approve(stage, "carla", "compliance", release)
    file = _weights(stage, version["digest"])
    original = _flip_byte(file)
    try:
        deployment = stage["enzo"].post("deployments", release=release["id"])

        def refused() -> Any:
            now = stage["enzo"].get(f"deployments/{deployment['id']}")
            return now if now["state"] in {"refused", "serving"} else None

        outcome = stage.wait_for("the changed file is refused", refused)
    finally:
        _flip_byte(file)
    stage.expect(file.read_bytes() == original, "the byte is restored")
    stage.expect(outcome["state"] == "refused", "a version with a changed byte is refused at load")
    stage.refused(
        "One byte of an approved file is changed on the disk; the worker refuses to load it",
        _as_refusal(outcome["message"]),
    )
    event = stage.wait_for(
        "the refusal is audited",
        lambda: stage["asha"].get("audit/events", action="deployment:load", outcome="denied")[
            "results"
        ],
    )[0]
    stage.say(f"The refusal is audit event {event['id']}: {event['action']} {event['outcome']}.")


def _as_refusal(message: str) -> RequestRejected:
    return RequestRejected(409, {"detail": message})


def _weights(stage: Stage, digest: str) -> Path:
    """Return the stored file of a version's weights."""
    artifacts = stage.stack.folder / "data" / "artifacts" / "files"
    manifest = json.loads((artifacts / digest[:2] / digest).read_bytes())
    weights = [file for file in manifest["files"] if file["path"].endswith(".safetensors")]
    sha256 = str(weights[0]["sha256"])
    return artifacts / sha256[:2] / sha256


def _flip_byte(file: Path) -> bytes:
    """Flip the lowest bit of the last byte; return the original content."""
    before = file.read_bytes()
    mode = file.stat().st_mode
    os.chmod(file, mode | 0o200)
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([before[-1] ^ 1]))
    os.chmod(file, mode)
    return before
