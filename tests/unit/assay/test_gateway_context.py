"""A request is decided on with what it declares, how much it asks for, and whence it comes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.policy_support import install_rules

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
CHAT = "/v1/chat/completions"
HI = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}


def install(stage: Stage, *conditions: tuple[str, str, Any], effect: str = "permit") -> None:
    """Keys see deployments, and use them under (or never under) these conditions."""
    common = {
        "effect": "permit",
        "description": "keys see and use deployments",
        "principal": {"kinds": ["key"]},
        "resource_types": ["deployment"],
    }
    use = {**common, "id": "keys-use", "actions": ["deployment:invoke"]}
    asked = [{"attribute": a, "operator": o, "value": v} for a, o, v in conditions]
    rules = [{**common, "id": "keys-see", "actions": ["deployment:view"]}]
    if effect == "forbid":
        rules.append(use)
        use = {**use, "id": "not-so", "effect": "forbid", "description": "these are kept out"}
    install_rules([*rules, {**use, "conditions": asked}])
    stage.notify()


def ask(stage: Stage, token: str, said: str | None = None, **changes: Any) -> tuple[int, str]:
    """Status and the error's code, or nothing."""
    headers = {} if said is None else {"Assay-Data-Classification": said}
    response = stage.post(CHAT, token, headers=headers, json={**HI, **changes})
    return response.status_code, (response.json().get("error") or {}).get("code", "")


def test_data_that_is_declared_too_sensitive_is_kept_out(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.classification", "in", ["public", "internal"]))
    assert ask(stage, token) == (200, "")
    assert ask(stage, token, "Public") == (200, "")
    assert ask(stage, token, "restricted") == (403, "policy_denied")
    assert ask(stage, token, "secret") == (400, "invalid_classification")
    assert ask(stage, token, "") == (400, "invalid_classification")


def test_of_two_declarations_the_more_sensitive_counts(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.classification", "eq", "public"))
    both = [("assay-data-classification", "public"), ("assay-data-classification", "restricted")]
    for headers in (both, both[::-1]):
        response = stage.client(token)._client.post(
            f"{stage.url}{CHAT}",
            headers=[("authorization", f"Bearer {token}"), *headers],
            json=HI,
        )
        assert response.status_code == 403


def test_the_size_of_a_request_is_part_of_the_decision(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.tokens", "gte", 1000), effect="forbid")
    assert ask(stage, token, max_tokens=100) == (200, "")
    assert ask(stage, token, max_tokens=1000) == (403, "policy_denied")
    assert ask(stage, token, max_tokens=1, messages=[{"role": "user", "content": "x" * 9000}]) == (
        403,
        "policy_denied",
    )


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 200), ("192.0.2.0/24", 403)])
def test_the_client_is_known_by_its_address(stage: Stage, network: str, status: int) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.client_address", "in_network", [network]))
    response = stage.post(CHAT, token, json=HI, headers={"x-forwarded-for": "192.0.2.1"})
    assert response.status_code == status


def test_environment_modality_and_hour_are_known(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(
        stage,
        ("context.environment", "eq", "production"),
        ("context.modality", "eq", "text"),
        ("context.time", "gte", "00:00"),
        ("context.weekday", "lte", 7),
        ("environment", "eq", "production"),
        ("modality", "eq", "text"),
        ("classification", "eq", "public"),
        ("name", "eq", "writer"),
    )
    assert ask(stage, token) == (200, "")


def test_the_list_of_models_tells_what_could_be_used_here_and_now(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.classification", "eq", "restricted"), effect="forbid")
    client = stage.client(token)
    [plain] = client.models.list().data
    [sensitive] = client.models.list(extra_headers={"Assay-Data-Classification": "restricted"}).data
    assert plain.model_extra is not None
    assert sensitive.model_extra is not None
    assert (plain.model_extra["usable"], sensitive.model_extra["usable"]) == (True, False)


def test_the_record_of_a_request_says_in_which_circumstances_it_was_decided(stage: Stage) -> None:
    token = stage.key()
    stage.deployment()
    install(stage, ("context.classification", "eq", "restricted"), effect="forbid")
    assert ask(stage, token, "confidential", max_tokens=10)[0] == 200
    assert ask(stage, token, "restricted", max_tokens=10)[0] == 403
    for entry, said in zip(stage.entries(2), ("confidential", "restricted"), strict=True):
        context = entry.decision["context"]
        assert context["classification"] == said
        assert context["client_address"] == "127.0.0.1"
        assert set(context) >= {"environment", "modality", "time", "tokens", "weekday"}
