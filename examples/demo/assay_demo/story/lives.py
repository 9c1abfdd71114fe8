"""11. Releases over time: conditions, expiry, voiding, recall, and emergency access."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRING_TEST, DOCSTRINGS, SENTIMENT, evaluate
from assay_demo.story.intake import MODELS, deliver, sign_off, version_of
from assay_demo.story.release import (
    OVERSIGHT,
    approve,
    attest,
    ensure_deployed,
    existing,
    submit,
    wait_serving,
)

BASE, ENCODER, MIRROR = "smollm2-135m-instruct", "all-minilm-l6-v2", "minilm-mirror"
# One deployment name for each case below.
TRIAGE, ASSISTANT = "complaint-triage", "writing-assistant"
TRIAL, PREVIEW, HOTFIX = "embeddings-trial", "search-preview", "docstring-hotfix"


def dossier(hazard: str, mitigation: str, monitor: str) -> dict[str, Any]:
    """Return a department's statements on risks, oversight, operation and conformity."""
    return {
        "oversight": {**OVERSIGHT, "stop_tested_on": "2026-01-15"},
        "risks": [
            {
                "hazard": hazard,
                "likelihood": "possible",
                "severity": "serious",
                "mitigation": mitigation,
                "residual": "low",
                "accepter_role": "lead",
            }
        ],
        "operation": {
            "monitors": [monitor],
            "incident_contact": "Lead of the department",
            "review_date": f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}",
        },
        "conformity": {"route": "voluntary", "standards": ["ISO/IEC 42001:2023"]},
    }


def run(stage: Stage) -> None:
    with stage.chapter("11. Releases over time: conditions, expiry, recall, emergency access"):
        _high_risk_on_conditions(stage)
        _general_purpose_waits(stage)
        _expires(stage)
        _voided_and_recalled(stage)
        _emergency(stage)


def _ended(stage: Stage, name: str, state: str) -> bool:
    """Return whether a release of that name is in this state."""
    return existing(stage["ada"], name, state) is not None


def _high_risk_on_conditions(stage: Stage) -> None:
    release = submit(
        stage,
        "mia",
        stage.facts[SENTIMENT],
        TRIAGE,
        departments=["media"],
        visibility="department",
        tier="high",
        purpose="Suggest the order in which staff read viewers' complaints.",
        affected="Viewers, children among them, whose complaint is read sooner or later.",
        answers={"vulnerable_groups": True, "autonomy": "decides_with_human"},
        dossier_fields=dossier(
            "A complaint is mistaken for praise and read too late.",
            "Staff read every complaint within a day. Only the order is suggested.",
            "Weekly share of negative labels, compared with the test data",
        ),
    )
    if release["state"] == "approved":
        return
    attest(stage, "carla", release)
    approve(stage, "carla", "compliance", release)
    approve(stage, "milo", "model-risk", release, conditions={"requests_per_minute": 60})
    release = approve(stage, "sana", "security", release)
    stage.expect(release["state"] == "approved", "three roles approve a high-risk release")
    stage.say(
        f"{TRIAGE} is high risk. Three roles approve it for {_days(release)} days, on the "
        "condition of at most 60 requests a minute."
    )


def _days(release: dict[str, Any]) -> int:
    approved, expires = (
        datetime.fromisoformat(release[name]) for name in ("approved_at", "expires_at")
    )
    return (expires - approved).days


def _general_purpose_waits(stage: Stage) -> None:
    """Leave a review open for visitors of the portal to finish."""
    evaluate(stage, stage["enzo"], stage.facts[BASE], DOCSTRING_TEST)
    release = submit(
        stage,
        "enzo",
        stage.facts[BASE],
        ASSISTANT,
        departments=["engineering", "finance"],
        visibility="organization",
        tier="general-purpose",
        purpose="Draft and shorten texts for employees, who check the result.",
        generates=True,
        answers={"general_purpose_model": True, "interacts_with_people": True},
        dossier_fields=dossier(
            "It invents facts, and the reader does not notice.",
            "The employee checks the text. The system sends nothing on its own.",
            "Weekly share of discarded drafts",
        ),
    )
    if not release["review"]["decisions"]:
        stage["carla"].post(
            f"releases/{release['id']}/threads",
            text="How does a reader in finance learn that a machine wrote this text?",
            anchor={"kind": "answer", "key": "interacts_with_people"},
        )
    stage.say(
        f"{ASSISTANT}, a general-purpose model, stays in review: Carla's question blocks approval."
    )


def _expires(stage: Stage) -> None:
    if _ended(stage, TRIAL, "expired"):
        return
    release = submit(
        stage,
        "devi",
        stage.facts[ENCODER],
        TRIAL,
        environment="staging",
        departments=["engineering"],
        visibility="department",
        tier="minimal",
        purpose="Try a new search for an afternoon.",
    )
    until = datetime.now(UTC) + timedelta(seconds=8)
    if release["state"] != "approved":
        attest(stage, "carla", release)
        approve(stage, "carla", "compliance", release, conditions={"until": until.isoformat()})
    stage.wait_for(f"{TRIAL} expires", lambda: _ended(stage, TRIAL, "expired"))
    stage.say(f"{TRIAL} is approved for a few seconds, on Carla's condition, and expires.")


def _voided_and_recalled(stage: Stage) -> None:
    """Approve a second copy of the encoder, which voids another review, then recall the copy."""
    mirror = _second_delivery(stage)
    if _ended(stage, PREVIEW, "recalled"):
        return
    preview: dict[str, Any] = {
        "environment": "staging",
        "departments": ["engineering"],
        "visibility": "department",
        "tier": "minimal",
        "purpose": "Preview of the wiki search.",
    }
    waiting = submit(stage, "devi", stage.facts[ENCODER], PREVIEW, **preview)
    other = submit(stage, "enzo", mirror, PREVIEW, again=True, **preview)
    attest(stage, "carla", other)
    approve(stage, "carla", "compliance", other)
    voided = stage["devi"].get(f"releases/{waiting['id']}")
    stage.expect(
        voided["state"] == "voided", "the other review of the same deployment name is voided"
    )
    stage.say(
        f"Release {other['id']} of {PREVIEW} is approved. Release {waiting['id']} was compared "
        "with an earlier state, so its review is voided."
    )
    radius = stage["milo"].get(f"versions/{mirror['id']}/recall")
    stage.prove("milo")
    stage["milo"].post(
        f"versions/{mirror['id']}/recall",
        reason="The mirror's files differ from those that the publisher signed.",
        confirm=radius["digest"],
    )
    stage.expect(_ended(stage, PREVIEW, "recalled"), "the version's release is recalled too")
    stage.say(
        f"Milo recalls {MIRROR}. Its release {other['id']} is recalled too and can never "
        "serve again."
    )


def _second_delivery(stage: Stage) -> dict[str, Any]:
    version = version_of(stage, MIRROR)
    if version is not None:
        return version
    folder = stage.folder / "uploads" / MIRROR
    _copied_with_another_card(stage.materials[MODELS[ENCODER]["material"]], folder)
    about = {**MODELS[ENCODER], "description": "all-MiniLM-L6-v2, from a mirror."}
    intake = deliver(stage, MIRROR, about, folder)
    stage.watch(stage["enzo"], {"id": intake["job"]}, f"checking {MIRROR}")
    sign_off(stage, MIRROR, intake)
    return stage.require(version_of(stage, MIRROR), f"{MIRROR} has a base version")


def _copied_with_another_card(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)
    (folder / "README.md").write_text("# all-MiniLM-L6-v2\n\nTaken from a mirror.\n")


def _emergency(stage: Stage) -> None:
    """Grant emergency access by two people before the review; a third must review it afterward.

    Both reviews stay open for visitors of the portal to finish.
    """
    release = submit(
        stage,
        "devi",
        stage.facts[DOCSTRINGS],
        HOTFIX,
        environment="staging",
        departments=["engineering"],
        visibility="department",
        tier="limited",
        generates=True,
        purpose="Write docstrings for tonight's release.",
    )
    if any(each["release"] == release["id"] for each in stage["ada"].all("emergency-access")):
        return
    access = stage["enzo"].post(
        f"releases/{release['id']}/emergency-access",
        reason="Tonight's build needs it, and no reviewer is available.",
        hours=1,
    )
    confirm = f"emergency-access/{access['id']}/confirm"
    stage.expect_refusal(
        403,
        "Enzo requested emergency access, so he cannot confirm it",
        lambda: stage["enzo"].post(confirm),
    )
    stage.prove("adil")
    emergency = stage["adil"].post(confirm)
    ensure_deployed(stage, "enzo", release)
    wait_serving(stage, "enzo", HOTFIX)
    stage.say(
        f"{HOTFIX} serves on emergency access until {emergency['ends_at'][11:16]} UTC: Enzo "
        "requested it, and Adil (admin) confirmed it. Every page shows this."
    )
    stage["adil"].post(f"emergency-access/{access['id']}/end", reason="The build is finished.")
    stage.wait_for(f"{HOTFIX} stops", lambda: _stopped(stage, HOTFIX))
    stage.say("Adil ends it, and the deployment stops. A third person still has to review it.")


def _stopped(stage: Stage, name: str) -> bool:
    return all(
        each["state"] not in {"pending", "serving"}
        for each in stage["enzo"].all("deployments")
        if each["name"] == name
    )
