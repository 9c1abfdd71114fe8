"""9. Policy: dry-run a rule on recorded decisions, test it, and have a second person approve it."""

from __future__ import annotations

from typing import Any

import httpx
import yaml

from assay_demo.client import RequestRejected
from assay_demo.stage import Stage
from assay_demo.story.release import EMBEDDINGS

RULE = "restricted-data-stays-away"


def run(stage: Stage) -> None:
    with stage.chapter("9. Policy: dry-run, test and approve a rule"):
        ada = stage["ada"]
        active = ada.get("policy")
        if any(rule["id"] == RULE for rule in active["rules"]):
            stage.say(f"Policy {active['version']} is already in force from an earlier run.")
        else:
            _change_the_policy(stage, active["version"])
        _restricted_data_is_refused(stage)


def _change_the_policy(stage: Stage, number: int) -> None:
    ada = stage["ada"]
    document = yaml.safe_load(ada.get(f"policy/versions/{number}/document")["yaml"])
    document["note"] = "No model receives restricted data."
    for case in document["tests"]:
        # The new rule reads the classification, so every tested request must have one.
        if case["action"] == "deployment:invoke" and case["principal"].get("kind") == "key":
            case["context"] = {"classification": "internal", **case.get("context", {})}
    document["tests"] += [_case("internal", "permit"), _case("restricted", "deny")]
    draft = _write(stage, None, document, ["internal", "confidential", "restricted"])
    flips = ada.get(f"policy/versions/{draft}/replay", last=1000)
    stage.expect(flips["flips"] > 0, "the dry run shows that the first draft is too broad")
    stage.say(
        f"Ada dry-runs draft {draft} on {flips['replayed']} recorded decisions: it would deny "
        f"{flips['now_denied']} of them. The rule is too broad."
    )
    stage.expect_refusal(
        409,
        "The draft fails its own tests, so it cannot be proposed",
        lambda: ada.post(f"policy/versions/{draft}/propose"),
    )
    _write(stage, draft, document, ["restricted"])
    flips = ada.get(f"policy/versions/{draft}/replay", last=1000)
    stage.expect(flips["flips"] == 0, "the narrower draft changes no decision")
    stage.say(
        f"Ada narrows the rule: it changes {flips['flips']} recorded decisions, and all "
        f"{len(document['tests'])} tests pass."
    )
    ada.post(f"policy/versions/{draft}/propose")
    stage.prove("ada")
    stage.expect_refusal(
        403,
        "Ada wrote the draft, so she cannot approve it",
        lambda: ada.post(f"policy/versions/{draft}/approve"),
    )
    stage.prove("adil")
    approved = stage["adil"].post(
        f"policy/versions/{draft}/approve", note="The dry run and the tests are fine."
    )
    stage.say(f"Adil (admin) approves. Policy {approved['number']} is in force at once.")


def _case(classification: str, expect: str) -> dict[str, Any]:
    return {
        "name": f"a key with {classification} data",
        "principal": {"kind": "key", "department": "engineering"},
        "action": "deployment:invoke",
        "resource": {
            "type": "deployment",
            "department": "engineering",
            "attributes": {"departments": ["engineering"]},
        },
        "context": {"classification": classification},
        "expect": expect,
    }


def _write(stage: Stage, draft: int | None, document: dict[str, Any], classes: list[str]) -> int:
    """Save the draft with the rule on these classifications; return its number."""
    rules = [rule for rule in document["rules"] if rule["id"] != RULE]
    rules.append(
        {
            "id": RULE,
            "effect": "forbid",
            "description": "no model receives data of this classification",
            "principal": {"kinds": ["key"]},
            "actions": ["deployment:invoke"],
            "resource_types": ["deployment"],
            "conditions": [
                {"attribute": "context.classification", "operator": "in", "value": classes}
            ],
        }
    )
    document["rules"] = rules
    text = yaml.safe_dump(document, sort_keys=False)
    if draft is None:
        number: int = stage["ada"].post("policy/versions", yaml=text)["number"]
        return number
    stage["ada"].patch(f"policy/versions/{draft}", yaml=text)
    return draft


def _restricted_data_is_refused(stage: Stage) -> None:
    def ask(classification: str) -> httpx.Response:
        return httpx.post(
            f"{stage.stack.url}/v1/embeddings",
            headers={
                "authorization": f"Bearer {stage.facts['key']}",
                "assay-data-classification": classification,
            },
            json={"model": EMBEDDINGS, "input": "a cat sits on the mat"},
            timeout=60,
        )

    refused = stage.wait_for(
        "the new rule is in force",
        lambda: answer if (answer := ask("restricted")).status_code == 403 else None,
        timeout_s=5,
    )
    stage.refused(
        "A request that declares restricted data is denied",
        RequestRejected(403, {"detail": refused.json()["error"]["message"]}),
    )
    stage.expect(ask("internal").status_code == 200, "internal data is still accepted")
    stage.say("A request with internal data is still answered.")
