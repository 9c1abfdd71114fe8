"""Conditions and the end of an approval through the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.reviews.models import Decision
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_api_releases import decide, people, release

__all__ = ["people", "release"]

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
ASKED = {
    "until": "2040-01-01T00:00:00+00:00",
    "requests_per_minute": 100,
    "requests_per_minute_of": {"clinical": 40},
    "obligations": ["A pharmacist reads every tenth answer."],
}


@pytest.fixture
def attested(people: dict[str, Api], release: dict[str, Any]) -> dict[str, Any]:
    for item in release["review"]["checklist"]:
        if not item["automatic"]:
            path = f"releases/{release['id']}/checklist/{item['code']}"
            assert people["carla"].post(path, {"note": "Read."}).status_code == 201
    return release


def test_an_approver_asks_for_conditions_and_everybody_sees_them(
    people: dict[str, Api], attested: dict[str, Any]
) -> None:
    until = (timezone.now() + timedelta(days=20)).replace(microsecond=0).isoformat()
    asked = {**ASKED, "until": until}
    answer = decide(people["carla"], attested, "approve", "compliance", conditions=asked)
    assert answer.status_code == 201, answer.content
    assert answer.body["conditions"]["words"] == []
    (seen,) = people["milo"].get(f"releases/{attested['id']}/decisions").body
    assert seen["conditions"]["requests_per_minute"] == 100
    assert seen["conditions"]["words"][-1] == "A pharmacist reads every tenth answer."

    done = decide(people["milo"], attested, "approve", "model-risk").body
    assert done["state"] == "approved"
    assert done["conditions"]["until"] == until
    assert done["conditions"]["requests_per_minute_of"] == {"clinical": 40}
    assert done["conditions"]["departments"] == []
    assert done["expires_at"] == done["serves_until"] == until.replace("+00:00", "Z")
    assert (done["grace_days"], done["in_grace"]) == (0, False)

    deployed = people["dev"].post("deployments", {"release": attested["id"]})
    assert deployed.status_code == 201, deployed.content
    assert deployed.body["approval"]["conditions"]["requests_per_minute"] == 100


@pytest.mark.parametrize(
    ("conditions", "member"),
    [
        ({"until": "2020-01-01T00:00:00Z"}, "conditions.until"),
        ({"until": "2030-01-01"}, "conditions.until"),
        ({"departments": ["finance"]}, "conditions.departments"),
        ({"requests_per_minute": 0}, "conditions.requests_per_minute"),
        ({"requests_per_minute": "100"}, "conditions.requests_per_minute"),
        ({"requests_per_minute_of": {"finance": 1}}, "conditions.requests_per_minute_of"),
        ({"obligations": [""]}, "conditions.obligations"),
        ({"weather": "dry"}, "conditions.weather"),
        ([], "conditions"),
    ],
)
def test_what_cannot_be_asked_names_its_member(
    conditions: Any, member: str, people: dict[str, Api], attested: dict[str, Any]
) -> None:
    answer = decide(people["carla"], attested, "approve", "compliance", conditions=conditions)
    problem = problem_of(answer, 400)
    fields = [error["field"] for error in problem["errors"]]
    assert any(field.startswith(member) for field in fields), fields
    assert not Decision.objects.exists()


def test_conditions_are_for_an_approval(people: dict[str, Api], release: dict[str, Any]) -> None:
    asked = {"requests_per_minute": 5}
    answer = decide(people["carla"], release, "comment", "compliance", conditions=asked)
    assert "takes no conditions" in problem_of(answer, 400)["detail"]


def test_a_release_in_its_grace_says_so(people: dict[str, Api], attested: dict[str, Any]) -> None:
    decide(people["carla"], attested, "approve", "compliance")
    decide(people["milo"], attested, "approve", "model-risk")
    Release.objects.update(expires_at=timezone.now() - timedelta(days=1))
    seen = people["dev"].get(f"releases/{attested['id']}").body
    assert (seen["state"], seen["in_grace"], seen["grace_days"]) == ("approved", True, 7)
    refused = people["dev"].post("deployments", {"release": attested["id"]})
    assert (
        "nothing new is deployed under it"
        in (problem_of(refused, 409, "release_in_grace")["detail"])
    )


def test_a_release_is_submitted_again_through_the_api(
    people: dict[str, Api], attested: dict[str, Any]
) -> None:
    path = f"releases/{attested['id']}"
    early = people["dev"].post(f"{path}/renewal")
    problem_of(early, 409, "not_renewable")
    assert "is in review" in people["dev"].get(f"{path}/renewal").body["obstacle"]

    decide(people["carla"], attested, "approve", "compliance")
    decide(people["milo"], attested, "approve", "model-risk")
    Release.objects.update(expires_at=timezone.now() - timedelta(days=1))
    seen = people["dev"].get(f"{path}/renewal").body
    assert (seen["obstacle"], seen["anew"]) == ("", [])
    assert {item["attested_by"]["name"] for item in seen["carried"]} == {"Carla"}
    assert "replaces" in {change["section"] for change in seen["changes"]}

    made = people["dev"].post(f"{path}/renewal")
    assert made.status_code == 201, made.content
    assert (made.body["renews"], made.body["state"]) == (attested["id"], "in_review")
    carried = [item for item in made.body["review"]["checklist"] if item["carried_from"]]
    assert len(carried) == len(seen["carried"])
    assert carried[0]["carried_from"] == {
        "review": attested["review"]["id"],
        "release": attested["id"],
    }
    assert people["dev"].get(path).body["renewals"] == [made.body["id"]]

    again = people["dev"].post(f"{path}/renewal", {"purpose": "Sort letters."})
    problem_of(again, 409)
    problem_of(people["carla"].get(f"{path}/renewal"), 403)
    problem_of(people["carla"].post(f"{path}/renewal"), 403)
    problem_of(people["fay"].get(f"{path}/renewal"), 404)
    problem_of(people["fay"].post(f"{path}/renewal"), 404)


def test_a_renewal_may_say_something_otherwise(
    people: dict[str, Api], attested: dict[str, Any]
) -> None:
    path = f"releases/{attested['id']}"
    people["dev"].post(f"{path}/withdraw", {"reason": "Later."})
    made = people["dev"].post(f"{path}/renewal", {"purpose": "Sort letters."})
    assert made.status_code == 201, made.content
    assert made.body["purpose"] == "Sort letters."
    assert not [item for item in made.body["review"]["checklist"] if item["carried_from"]]
    problem_of(people["dev"].post(f"{path}/renewal", {"color": "red"}), 400)
