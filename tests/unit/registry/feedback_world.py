"""An office whose model answers, with requests on record to give feedback on."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.people.models import Person
from governance.policy.services import policy_bootstrap
from governance.principals import Principal, PrincipalKind
from governance.reviews.policies.shipping import review_policies_bootstrap
from governance.usage.models import UsageRecord
from registry.feedback.models import Feedback
from registry.feedback.services import feedback_create
from tests.people import find_or_make, make_person
from tests.proofs import proven
from tests.unit.registry.office import Office


class FeedbackOffice(Office):
    """An office with a release, a lead, and an application's key."""

    def __init__(self) -> None:
        super().__init__(make_person, find_or_make)
        self.lead = make_person("Lena", "lead@clinical")
        self.release = self.submit()
        self.key = Principal(
            kind=PrincipalKind.KEY, id="1", name="app", department="clinical", key_id=None
        )

    def answered(self, number: int, **changes: Any) -> str:
        """Put one answered request on record; return its ID."""
        request_id = f"req_{number:032x}"
        UsageRecord.objects.create(
            **{
                "request_id": request_id,
                "occurred_at": timezone.now(),
                "department": "clinical",
                "key_public_id": "app",
                "deployment": "review-sentiment",
                "release": self.release.pk,
                "version_digest": self.tuned.digest,
                "endpoint": "/v1/classify",
                "outcome": "ok",
                **changes,
            }
        )
        return request_id

    def feedback(self, number: int, who: Person | None = None, **said: Any) -> Feedback:
        """Send feedback on a new request, from the application or from a person."""
        actor = self.key if who is None else proven(who)
        given, _ = feedback_create(
            actor=actor,
            department=self.clinical,
            sender="app",
            request_id=self.answered(number),
            **{
                "rating": "down",
                "input": {"input": f"text {number}"},
                "answer": "good",
                "correction": "bad",
                **said,
            },
        )
        return given


def open_feedback_office() -> FeedbackOffice:
    """An office under the default policies."""
    review_policies_bootstrap()
    policy_bootstrap()
    return FeedbackOffice()
