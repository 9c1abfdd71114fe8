"""The review of a release through the API, by the people who take part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, Person
from governance.reviews.models import Review
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.audit_support import recorded
from tests.unit.registry import objects
from tests.unit.registry.office import FIELDS
from workers.deployments.models import Deployment

ANSWERS = {
    "intended_purpose": "Sort reviews.",
    "affected_people": "Pharmacists.",
    "vulnerable_groups": False,
    "eu_ai_act_role": "deployer",
    "annex_iii": "none",
    "data_classification": "internal",
    "personal_data": False,
    "special_categories": False,
    "autonomy": "suggests",
    "interacts_with_people": False,
    "generates_content": False,
    "general_purpose_model": False,
}

pytestmark = pytest.mark.usefixtures("policy", "redis")


@pytest.fixture
def people(person: Callable[..., Person]) -> dict[str, Api]:
    return {
        "dev": Api(person("Devi", "developer@clinical")),
        "carla": Api(person("Carla", "reviewer:compliance")),
        "milo": Api(person("Milo", "reviewer:model-risk")),
        "fay": Api(person("Fay", "lead@finance")),
    }


@pytest.fixture
def release(
    people: dict[str, Api], person: Callable[..., Person], department: Callable[..., Department]
) -> dict[str, Any]:
    """A release of a classifier that was measured, on a base that another department took in."""
    owner, clinical = person("Maker", "developer@clinical"), department("clinical")
    enzo = person("Enzo", "lead@engineering")
    encoder = objects.model(enzo, department("engineering"), "encoder", "embeddings", shared=True)
    base = objects.version(encoder, enzo)
    objects.taken_in(base, enzo, person("Omar", "operator"))
    rows = [{"text": f"good {n}", "label": "positive"} for n in range(4)]
    rows += [{"text": f"bad {n}", "label": "negative"} for n in range(4)]
    train = objects.data(owner, clinical, "train", rows)
    test = objects.data(
        owner, clinical, "test", [{**row, "text": f"x{row['text']}"} for row in rows]
    )
    model = objects.model(owner, clinical, "sentiment")
    version = objects.version(model, owner, "full", base, dataset_version=train)
    people["dev"].post(
        "gates",
        {
            "model": "sentiment",
            "dataset": "test",
            "metric": "accuracy",
            "comparator": ">=",
            "threshold": 0.7,
        },
    )
    objects.evaluation(version, test, owner)
    answer = people["dev"].post(
        "releases",
        {
            "version": version.pk,
            "environment": "production",
            "deployment_name": "sentiment",
            "departments": ["clinical", "clinical"],
            "visibility": "organization",
            "purpose": "Sort reviews for pharmacists.",
            "risk_answers": ANSWERS,
            "dossier_fields": {"oversight": FIELDS["oversight"]},
            "tier": "limited",
        },
    )
    assert answer.status_code == 201, answer.content
    body: dict[str, Any] = answer.body
    return body


def decide(api: Api, release: dict[str, Any], verdict: str, specialty: str, **more: Any) -> Any:
    return api.post(
        f"releases/{release['id']}/decisions",
        {
            "verdict": verdict,
            "specialty": specialty,
            "reason": "The evidence supports it.",
            "digest": release["dossier_digest"],
            **more,
        },
    )


def test_a_release_shows_its_review_and_what_the_caller_may_do(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    assert release["departments"] == ["clinical"]
    review = release["review"]
    assert review["standing"]["missing"] == {"compliance": 1, "model-risk": 1}
    assert "submitted" in review["why_not"]["approve"]
    assert review["why_not"]["comment"] == ""
    assert {item["state"] for item in review["checklist"] if item["automatic"]} == {"satisfied"}
    assert set(review["standing"]["blocking"]) == {
        item["code"] for item in review["checklist"] if not item["automatic"]
    }

    seen = people["carla"].get(f"releases/{release['id']}").body
    assert seen["review"]["why_not"]["request_changes"] == ""

    dossier = people["carla"].get(f"releases/{release['id']}/dossier").body
    assert dossier["digest"] == release["dossier_digest"]
    assert dossier["dossier"]


def test_who_brought_in_the_base_for_another_department_does_not_decide_either(
    release: dict[str, Any],
) -> None:
    review = Review.objects.get(pk=release["review"]["id"])
    excluded = Person.objects.filter(pk__in=review.excluded_people)
    assert {each.name for each in excluded} == {"Devi", "Maker", "Enzo"}


def test_the_submitter_may_not_approve_and_the_attempt_is_audited(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    answer = decide(people["dev"], release, "approve", "compliance")

    assert "Separation of duties" in problem_of(answer, 403)["detail"]
    event = recorded(outcome="denied", action="release:decide")
    assert event.actor_name == "Devi"


def test_the_whole_review_ends_in_an_approved_release(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    path = f"releases/{release['id']}"
    asked = decide(people["carla"], release, "request_changes", "compliance")
    assert (asked.status_code, asked.body["state"]) == (201, "changes_requested")

    answered = people["dev"].post(
        f"{path}/answers",
        {"message": "Said who checks.", "risk_answers": {**ANSWERS, "notes": "A pharmacist."}},
    )
    assert answered.status_code == 201, answered.content
    now = answered.body
    assert now["dossier_digest"] != release["dossier_digest"]

    for item in now["review"]["checklist"]:
        if not item["automatic"]:
            attested = people["carla"].post(f"{path}/checklist/{item['code']}", {"note": "Read."})
            assert attested.status_code == 201, attested.content

    stale = decide(people["carla"], release, "approve", "compliance")
    problem_of(stale, 409, "digest_mismatch")

    assert decide(people["carla"], now, "approve", "compliance").body["state"] == "in_review"
    done = decide(people["milo"], now, "approve", "model-risk").body
    assert (done["state"], done["review"]["state"]) == ("approved", "approved")
    assert done["expires_at"]
    verdicts = [d["verdict"] for d in people["dev"].get(f"{path}/decisions").body]
    assert verdicts == ["request_changes", "comment", "approve", "approve"]


def test_an_unapproved_release_is_not_deployed(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    answer = people["dev"].post("deployments", {"release": release["id"]})

    problem_of(answer, 409)
    assert not Deployment.objects.exists()


def test_another_departments_release_does_not_exist(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    Release.objects.update(visibility="department")
    path = f"releases/{release['id']}"

    for answer in (
        people["fay"].get(path),
        people["fay"].get(f"{path}/dossier"),
        people["fay"].get(f"{path}/decisions"),
        people["fay"].post(f"{path}/answers", {"message": "Hello."}),
        people["fay"].post(f"{path}/withdraw", {"reason": "Mine."}),
        people["fay"].post(f"{path}/checklist/purpose", {"note": "Fine."}),
        decide(people["fay"], release, "approve", "compliance"),
        people["fay"].post("deployments", {"release": release["id"]}),
    ):
        problem_of(answer, 404)


def test_a_withdrawn_release_takes_no_decision(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    gone = people["dev"].post(f"releases/{release['id']}/withdraw", {"reason": "Not needed."})
    assert gone.body["state"] == "withdrawn"

    problem_of(decide(people["carla"], release, "reject", "compliance"), 409)
    problem_of(people["dev"].post(f"releases/{release['id']}/withdraw", {"reason": "Again."}), 409)
