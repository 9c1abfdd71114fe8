"""A department's office with all that a release is made of, and those who decide on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, Person
from governance.policy.services import policy_bootstrap
from governance.reviews.checklist import checklist_attest
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry.evaluations.services import gate_set
from registry.releases.models import Release
from registry.releases.selectors import release_review
from registry.releases.services import release_decide, release_submit
from tests.people import find_or_make, make_person
from tests.proofs import proven
from tests.unit.registry.objects import data, evaluation, model, taken_in, version
from tests.worlds import built_once, copied

ANSWERS: dict[str, Any] = {
    "intended_purpose": "Sort reviews for pharmacists.",
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
FIELDS: dict[str, Any] = {
    "risks": [
        {
            "hazard": "A complaint about a side effect is sorted as praise.",
            "likelihood": "possible",
            "severity": "serious",
            "mitigation": "Pharmacists read every review that names a side effect.",
            "residual": "low",
            "accepter_role": "lead",
        }
    ],
    "oversight": {
        "overseers": "The pharmacists on duty.",
        "stop_procedure": "Stop the deployment; the inbox falls back to order of arrival.",
        "stop_tested_on": "2026-01-15",
    },
    "operation": {
        "monitors": ["Share of negative reviews, weekly."],
        "incident_contact": "pharmacy-oncall@example.org",
        "review_date": "2099-01-01",
    },
    "conformity": {"route": "voluntary", "standards": ["ISO/IEC 42001:2023"]},
}
ATTESTED = ("purpose", "oversight", "classification")


class Office:
    """A tuned classifier, evaluated, with its gate; and the people around it."""

    def __init__(
        self, person: Callable[..., Person], department: Callable[[str], Department]
    ) -> None:
        self.clinical = department("clinical")
        self.trainer = person("Tara", "developer@clinical", "reviewer:compliance")
        self.uploader = person("Uma", "developer@clinical", "reviewer:compliance")
        self.supplier = person("Sven", "developer@clinical", "reviewer:compliance")
        self.submitter = person("Devi", "developer@clinical", "reviewer:compliance")
        self.compliance = person("Carla", "reviewer:compliance")
        self.risk = person("Milo", "reviewer:model-risk")
        self.operator = person("Otto", "operator")
        self.base = version(model(self.supplier, self.clinical, "minilm"), self.supplier)
        taken_in(self.base, self.supplier, self.operator)
        train = [{"text": f"text {n}", "label": "good"} for n in range(20)]
        test = [{"text": f"new {n}", "label": "good"} for n in range(20)]
        self.train = data(self.uploader, self.clinical, "train", train)
        self.test = data(self.uploader, self.clinical, "test", test)
        self.tuned = version(
            model(self.trainer, self.clinical, "sentiment"),
            self.trainer,
            "full",
            self.base,
            dataset_version=self.train,
            parameters={"epochs": 2, "learning_rate": 5e-05, "huge": 1e22, "zero": -0.0},
        )
        gate_set(
            actor=proven(self.trainer),
            model=self.tuned.model,
            dataset=self.test.dataset,
            metric="accuracy",
            comparator=">=",
            threshold=0.75,
        )
        self.measured = evaluation(self.tuned, self.test, self.trainer)

    def submit(self, who: Person | None = None, **changes: Any) -> Release:
        return release_submit(
            **{
                "actor": proven(who or self.submitter),
                "version": self.tuned,
                "environment": "production",
                "deployment_name": "review-sentiment",
                "departments": [self.clinical],
                "purpose": "Sort reviews.",
                "risk_answers": ANSWERS,
                "dossier_fields": FIELDS,
                **changes,
            }
        )

    def attest(self, release: Release) -> None:
        review = release_review(release)
        assert review is not None
        for code in ATTESTED:
            checklist_attest(
                actor=proven(self.compliance),
                review_id=review.pk,
                code=code,
                note="Read it.",
            )

    def decide(self, release: Release, who: Person, verdict: str = "approve", **kw: Any) -> Release:
        return release_decide(
            actor=proven(who),
            release_id=release.pk,
            verdict=verdict,
            reason="Because.",
            **{"digest": release.dossier_digest, **kw},
        )

    def approve(self, release: Release) -> Release:
        self.attest(release)
        self.decide(release, self.compliance)
        return self.decide(release, self.risk)

    def checklist(self, release: Release) -> dict[str, tuple[str, str]]:
        review = release_review(release)
        assert review is not None
        return {item.code: (item.state, item.note) for item in review.checklist.all()}


def open_office() -> Office:
    """An office under the default policies."""
    review_policies_bootstrap()
    policy_bootstrap()
    return Office(make_person, find_or_make)


office_built = built_once(open_office)


@pytest.fixture
def office(office_built: Office, db: None) -> Office:
    """An office; changes are undone after the test."""
    return copied(office_built)
