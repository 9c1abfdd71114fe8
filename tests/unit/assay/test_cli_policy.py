"""`assay policy …` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.keys.services import access_token_create
from governance.people.models import Department, Person
from governance.policy.document import document_from_yaml, document_to_yaml
from governance.policy.models import PolicyVersion
from tests.proofs import fresh_proof
from tests.unit.assay.test_cli import Run, ada, run, signed_in

__all__ = ["ada", "run", "signed_in"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]

RULE = {
    "id": "viewers-set-gates",
    "effect": "permit",
    "description": "viewers set gates",
    "principal": {"department_roles": ["viewer"]},
    "actions": ["gate:set"],
}
CASE = {
    "name": "a viewer sets a gate",
    "principal": {"roles": ["viewer@clinical"]},
    "action": "gate:set",
    "resource": {"type": "gate", "department": "clinical"},
    "expect": "permit",
}


@pytest.fixture
def ben(person: Callable[..., Person]) -> Person:
    return person("Ben", "admin")


@pytest.fixture
def changed(signed_in: Run, tmp_path: Path) -> Path:
    """The policy in force as a file, with one more rule and a test."""
    file = tmp_path / "policy.yaml"
    signed_in("policy", "export", "-o", str(file), code=0)
    document = document_from_yaml(file.read_text())
    rules, tests = [*document.rules, RULE], [CASE]
    file.write_text(document_to_yaml(rules=rules, tests=tests, note="Viewers set gates."))
    return file


def test_a_policy_that_was_exported_changes_nothing_when_it_is_applied(
    signed_in: Run, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    signed_in("policy", "export", "-o", str(file), code=0)
    _, out, _ = signed_in("policy", "apply", str(file), code=0)
    assert "equals policy 1" in out
    _, out, _ = signed_in("policy", "diff", str(file), code=0)
    assert "equals policy 1" in out
    assert PolicyVersion.objects.count() == 1


def test_a_file_is_tested_compared_applied_rehearsed_and_approved_by_another_admin(
    signed_in: Run, changed: Path, ben: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = signed_in("policy", "test", str(changed), code=0)
    assert "a viewer sets a gate" in out
    (result,) = json.loads(signed_in("policy", "test", str(changed), "--json", code=0)[1])
    assert (result["name"], result["passed"]) == ("a viewer sets a gate", True)
    _, out, _ = signed_in("policy", "diff", str(changed), code=0)
    assert "viewers-set-gates" in out
    changes = json.loads(signed_in("policy", "diff", str(changed), "--json", code=0)[1])
    assert (changes["before"], changes["after"]) == (1, str(changed))
    assert [rule["id"] for rule in changes["added"]] == ["viewers-set-gates"]
    _, out, _ = signed_in(
        "policy", "apply", str(changed), "--propose", "--acknowledge-removals", code=0
    )
    assert "Draft 2, based on policy 1." in out
    assert "1 of its 1 tests pass." in out
    assert "Policy 2 is proposed" in out
    _, out, _ = signed_in("policy", "replay", "2", code=0)
    assert "No decision changes." in out
    approve = ("api", "post", "policy/versions/2/approve", "-F", "acknowledge_removals=true")
    _, _, err = signed_in(*approve, code=4)
    assert "Separation of duties" in err

    _, token = access_token_create(person=ben, name="cli", proof=fresh_proof())
    monkeypatch.setenv("ASSAY_TOKEN", token)
    _, out, _ = signed_in(*approve, code=0)
    assert json.loads(out)["state"] == "active"
    _, out, _ = signed_in("api", "get", "policy/versions", code=0)
    states = [row["state"] for row in json.loads(out)["results"]]
    assert states == ["active", "superseded"]
    _, out, _ = signed_in("policy", "show", code=0)
    assert "viewers-set-gates" in out
    assert "may set gates." in out


def test_a_failing_test_is_named_and_the_exit_code_says_so(signed_in: Run, changed: Path) -> None:
    changed.write_text(changed.read_text().replace("expect: permit", "expect: deny"))
    _, out, err = signed_in("policy", "test", str(changed), code=1)
    assert "failed" in out
    assert "1 of 1 tests fail." in err
    _, out, err = signed_in("policy", "apply", str(changed), "--propose", "--json", code=4)
    assert "a viewer sets a gate" in err
    assert (json.loads(out)["number"], json.loads(out)["state"]) == (2, "draft")
    _, _, err = signed_in("api", "post", "policy/versions/2/propose", code=4)
    assert "a viewer sets a gate" in err


@pytest.mark.parametrize("text", ["rules: [", "rules: [{id: x}]", "rules: []\nmore: 1", "- a"])
def test_a_file_that_is_no_policy_is_told_where(run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    _, _, err = run("policy", "test", str(file), code=1)
    assert str(file) in err.replace("\n", "")


def test_why_and_who_can(
    signed_in: Run, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    vera = person("Vera", "viewer@clinical")
    _, out, _ = signed_in(
        "policy", "explain", f"person/{vera.pk}", "gate:set", "department/clinical", code=0
    )
    assert "Vera may not set gate" in out
    _, out, _ = signed_in(
        *("policy", "explain", "lead@clinical", "gate:set", "gate", "--department", "clinical"),
        code=0,
    )
    assert "developers-build" in out
    _, out, _ = signed_in("policy", "who-can", "policy:decide", "policy", code=0)
    assert "Ada" in out
    assert "Vera" not in out
