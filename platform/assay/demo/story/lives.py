"""9. What becomes of releases: of every tier, on conditions, voided, expired, recalled, and let
through in an emergency.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from assay.demo.stage import Stage
from assay.demo.story.adapt import DOCSTRINGS, SENTIMENT, evaluate
from assay.demo.story.intake import MODELS, deliver, sign_off, version_of
from assay.demo.story.release import (
    OVERSIGHT,
    approve,
    attest,
    ensure_deployed,
    existing,
    submit,
    wait_serving,
)

BASE, ENCODER, MIRROR = "smollm2-135m-instruct", "all-minilm-l6-v2", "minilm-mirror"
# One for each life; the names that applications would call.
TRIAGE, ASSISTANT = "complaint-triage", "writing-assistant"
TRIAL, PREVIEW, HOTFIX = "embeddings-trial", "search-preview", "docstring-hotfix"


def dossier(hazard: str, mitigation: str, monitor: str) -> dict[str, Any]:
    """What a department says of risks, oversight, operation and conformity."""
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
    with stage.chapter("9. What becomes of releases: conditions, change, time, recall, emergency"):
        _high_risk_on_conditions(stage)
        _general_purpose_waits(stage)
        _expires(stage)
        _voided_and_recalled(stage)
        _emergency(stage)


def _ended(stage: Stage, name: str, state: str) -> bool:
    """Whether an earlier run brought a release of that name there."""
    return existing(stage["ada"], name, state) is not None


def _high_risk_on_conditions(stage: Stage) -> None:
    release = submit(
        stage,
        "clara",
        stage.facts[SENTIMENT],
        TRIAGE,
        departments=["clinical"],
        visibility="department",
        tier="high",
        purpose="Put patients' complaints in the order in which pharmacists read them.",
        affected="Patients, whose complaint is read sooner or later.",
        answers={"vulnerable_groups": True, "autonomy": "decides_with_human"},
        dossier_fields=dossier(
            "A complaint is taken for praise and read too late.",
            "Everything is read within a day; only the order is suggested.",
            "Share of negative labels a week, against the held-out data",
        ),
    )
    if release["state"] == "approved":
        return
    attest(stage, "carla", release)
    approve(stage, "carla", "compliance", release)
    approve(stage, "milo", "model-risk", release, conditions={"requests_per_minute": 60})
    release = approve(stage, "sana", "security", release)
    stage.expect(release["state"] == "approved", "three roles approve a release of high risk")
    stage.say(
        f"{TRIAGE}: high risk, approved by three roles for "
        f"{_days(release)} days, at most 60 requests a minute"
    )


def _days(release: dict[str, Any]) -> int:
    approved, expires = (
        datetime.fromisoformat(release[name]) for name in ("approved_at", "expires_at")
    )
    return (expires - approved).days


def _general_purpose_waits(stage: Stage) -> None:
    """A review that is left open, for whoever looks at the portal to finish."""
    evaluate(stage, stage["enzo"], stage.facts[BASE], "stdlib-docstrings-heldout")
    release = submit(
        stage,
        "enzo",
        stage.facts[BASE],
        ASSISTANT,
        departments=["engineering", "finance"],
        visibility="organisation",
        tier="general-purpose",
        purpose="Draft and shorten texts for employees, who check what it wrote.",
        generates=True,
        answers={"general_purpose_model": True, "interacts_with_people": True},
        dossier_fields=dossier(
            "It states as a fact what it made up, and nobody notices.",
            "Whoever asked checks the text; nothing is sent by itself.",
            "Share of drafts that are discarded, a week",
        ),
    )
    if not release["review"]["decisions"]:
        stage["carla"].post(
            f"releases/{release['id']}/threads",
            text="Who tells a reader in finance that this was written by a machine?",
            anchor={"kind": "answer", "key": "interacts_with_people"},
        )
    stage.say(f"{ASSISTANT}: a general-purpose model, in review; one question of Carla's blocks it")


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
        purpose="Try another search for an afternoon.",
    )
    until = datetime.now(UTC) + timedelta(seconds=8)
    if release["state"] != "approved":
        attest(stage, "carla", release)
        approve(stage, "carla", "compliance", release, conditions={"until": until.isoformat()})
    stage.wait_for(f"{TRIAL} expires", lambda: _ended(stage, TRIAL, "expired"))
    stage.say(f"{TRIAL}: approved for seconds on Carla's condition, and expired by itself")


def _voided_and_recalled(stage: Stage) -> None:
    """A second delivery of the encoder takes the place that another release asks for, and turns out
    to be one that nobody should have trusted.
    """
    mirror = _second_delivery(stage)
    if _ended(stage, PREVIEW, "recalled"):
        return
    preview: dict[str, Any] = {
        "environment": "staging",
        "departments": ["engineering"],
        "visibility": "department",
        "tier": "minimal",
        "purpose": "Preview of search over the wiki.",
    }
    waiting = submit(stage, "devi", stage.facts[ENCODER], PREVIEW, **preview)
    other = submit(stage, "enzo", mirror, PREVIEW, again=True, **preview)
    attest(stage, "carla", other)
    approve(stage, "carla", "compliance", other)
    voided = stage["devi"].get(f"releases/{waiting['id']}")
    stage.expect(voided["state"] == "voided", "what it was to replace changed: its review is void")
    stage.say(f"{PREVIEW}: release {other['id']} is approved, so the review of {waiting['id']}, "
              "which compared with what was there before, is void")  # fmt: skip
    radius = stage["milo"].get(f"versions/{mirror['id']}/recall")
    stage.prove("milo")
    stage["milo"].post(
        f"versions/{mirror['id']}/recall",
        reason="The mirror's files are not those that the publisher signed.",
        confirm=radius["digest"],
    )
    stage.expect(_ended(stage, PREVIEW, "recalled"), "its release is recalled with the version")
    stage.say(f"Milo recalls {MIRROR}: release {other['id']} is recalled with it, for good")


def _second_delivery(stage: Stage) -> dict[str, Any]:
    found = version_of(stage, MIRROR)
    if found is not None:
        return found
    folder = stage.folder / "uploads" / MIRROR
    _copied_with_another_card(stage.materials[MODELS[ENCODER]["material"]], folder)
    about = {**MODELS[ENCODER], "description": "all-MiniLM-L6-v2, from a mirror."}
    intake = deliver(stage, MIRROR, about, folder)
    stage.watch(stage["enzo"], {"id": intake["job"]}, f"checking {MIRROR}")
    sign_off(stage, MIRROR, intake)
    return stage.found(version_of(stage, MIRROR), f"{MIRROR} has a base version")


def _copied_with_another_card(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)
    (folder / "README.md").write_text("# all-MiniLM-L6-v2\n\nTaken from a mirror.\n")


def _emergency(stage: Stage) -> None:
    """Two persons let a release through before its review; a third says afterwards whether that
    was right. Both reviews are left for whoever looks at the portal.
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
        purpose="Docstrings for the release that goes out tonight.",
    )
    if any(each["release"] == release["id"] for each in stage["ada"].all("break-glass")):
        return
    asked = stage["enzo"].post(
        f"releases/{release['id']}/break-glass",
        reason="The build of tonight's release waits for it, and no reviewer is awake.",
        hours=1,
    )
    confirm = f"break-glass/{asked['id']}/confirm"
    stage.expect_refusal(
        403, "Enzo, who asked for it, may not confirm it", lambda: stage["enzo"].post(confirm)
    )
    stage.prove("adil")
    glass = stage["adil"].post(confirm)
    ensure_deployed(stage, "enzo", release)
    wait_serving(stage, "enzo", HOTFIX)
    stage.say(
        f"{HOTFIX} serves by break-glass until {glass['ends_at'][11:16]} UTC: Enzo asked, Adil "
        "(admin) confirmed, and every page says so"
    )
    stage["adil"].post(f"break-glass/{asked['id']}/end", reason="The build is through.")
    stage.wait_for(f"{HOTFIX} stops", lambda: _stopped(stage, HOTFIX))
    stage.say("ended by Adil, and stopped; a third person still has to say whether it was right")


def _stopped(stage: Stage, name: str) -> bool:
    return all(
        each["state"] not in {"pending", "serving"}
        for each in stage["enzo"].all("deployments")
        if each["name"] == name
    )
