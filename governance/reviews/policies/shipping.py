"""Install the review policies that ship with the platform."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction

from governance.audit.services import audit_record
from governance.policy.models import PolicyState
from governance.principals import background, service_principal
from governance.reviews.policies.document import document_parsed, text_digest
from governance.reviews.policies.lifecycle import REVIEW_POLICIES
from governance.reviews.policies.models import SHIPPED, ReviewPolicy

FOLDER = Path(__file__).parent / "shipped"
_AT_ONCE = (
    "vote_after_hours: 24\n",
    "# Only in this demonstration: every account is new. The shipped policies say 24.\n"
    "vote_after_hours: 0\n",
)


def shipped_text(name: str) -> str:
    """Return the YAML of a shipped policy."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def installed_text(name: str) -> str:
    """Return the YAML to install. In the demonstration, every account is new and could not vote
    yet, so its policies have no waiting time, with a comment that gives the reason."""
    text = shipped_text(name)
    return text.replace(*_AT_ONCE) if settings.DEMO else text


def review_policies_bootstrap() -> list[ReviewPolicy]:
    """Install each shipped policy that has no version yet, as version 1 and in force."""
    with transaction.atomic():
        REVIEW_POLICIES.lock()
        names = set(ReviewPolicy.objects.values_list("name", flat=True))
        return [_install(name) for name in SHIPPED if name not in names]


def _install(name: str) -> ReviewPolicy:
    text = installed_text(name)
    document_parsed(text)
    policy = ReviewPolicy.objects.create(
        name=name,
        version=1,
        text=text,
        digest=text_digest(text),
        state=PolicyState.ACTIVE,
    )
    bootstrap = service_principal("bootstrap")
    with background("bootstrap", bootstrap):
        audit_record(
            actor=bootstrap,
            action="review_policy:activate",
            subject=REVIEW_POLICIES.subject(policy),
            data={"digest": policy.digest},
        )
    return policy
