"""Review policies: requirements of each, and the approval of new versions."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, number_in, page_of
from assay.portal.review_policy_words import (
    approval_rows,
    item_rows,
    term_rows,
    text_difference,
)
from assay.portal.views.policy import decision_obstacle, trail_of
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.models import PolicyState
from governance.policy.services import authorize
from governance.reviews.policies.lifecycle import (
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
    review_policy_revise,
    review_policy_withdraw,
)
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.selectors import (
    policy_document,
    review_policies_in_force,
    review_policies_visible_to,
    review_policy_get,
    review_policy_in_force,
)

TABS = (
    ("items", "Requirements"),
    ("changes", "Changes"),
    ("yaml", "YAML"),
    ("audit", "Audit trail"),
)
WAITING = (PolicyState.DRAFT, PolicyState.PROPOSED)


class ReviewPolicies(Screen):
    """Requirements of each tier, from the lowest to the highest, and pending changes."""

    template_name = "portal/review_policies/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.POLICY_VIEW, resource=Resource("review_policy"))
        versions = review_policies_visible_to(self.actor)
        return {
            "tiers": [
                {
                    "policy": each.policy,
                    "document": each.document,
                    "approvals": approval_rows(each.document),
                    "terms": term_rows(each.document)[:1],
                }
                for each in review_policies_in_force()
            ],
            "waiting": versions.filter(state__in=WAITING)[:50],
            "page": page_of(self.request, versions.exclude(state__in=WAITING)),
            "may_draft": may(self.actor, Action.POLICY_DRAFT, kind="review_policy"),
        }


class ReviewPolicyPage(ActionScreen):
    """One version: requirements, changes, text, and the decision on it."""

    template_name = "portal/review_policies/policy.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        policy = review_policy_get(actor=self.actor, id=id)
        tab = self.request.GET.get("tab", "items")
        drafts = may(self.actor, Action.POLICY_DRAFT, kind="review_policy")
        active = review_policy_in_force(policy.name)
        return {
            "policy": policy,
            "document": policy_document(policy),
            "tabs": TABS,
            "tab": tab if tab in dict(TABS) else "items",
            "active": active,
            "stale": policy.state in WAITING
            and policy.based_on != (active.version if active else None),
            "may_draft": drafts,
            "editable": drafts and policy.state == PolicyState.DRAFT,
            "blocked": decision_obstacle(self.actor, policy, "review_policy"),
            "typed": self.request.POST,
            **self.part(tab, policy, active),
        }

    def part(self, tab: str, policy: ReviewPolicy, active: ReviewPolicy | None) -> dict[str, Any]:
        """Return the data of one tab."""
        if tab == "changes":
            before = self.before(policy, active)
            text = before.text if before else ""
            return {"before": before, "difference": text_difference(text, policy.text)}
        if tab == "audit":
            return {"trail": trail_of(self.actor, "review_policy", policy.pk)}
        if tab == "yaml":
            return {}
        document = policy_document(policy)
        return {
            "items": item_rows(document),
            "approvals": approval_rows(document),
            "terms": term_rows(document),
        }

    def before(self, policy: ReviewPolicy, active: ReviewPolicy | None) -> ReviewPolicy | None:
        """Return the version to compare with: the one in force, or the one at the time
        of drafting.
        """
        if policy.state in WAITING:
            return active
        earlier = review_policies_visible_to(self.actor).filter(name=policy.name)
        return earlier.filter(version=policy.based_on or 0).first()


class ReviewPolicyEditor(ActionScreen):
    """The text of a draft: a new one based on another version, or an existing one."""

    template_name = "portal/review_policies/editor.html"

    def context(self, *, id: int | None = None, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        authorize(actor=self.actor, action=Action.POLICY_DRAFT, resource=Resource("review_policy"))
        policy = review_policy_get(actor=self.actor, id=id) if id is not None else None
        source = policy or self.source()
        return {
            "policy": policy,
            "source": source,
            "text": self.request.POST.get("text", source.text if source else ""),
            "seen": self.request.POST.get("seen", policy.digest if policy else ""),
        }

    def source(self) -> ReviewPolicy | None:
        """Return the version that `?from=` names; a new draft starts with its text."""
        number = number_in(self.request.GET, "from")
        return None if number is None else review_policy_get(actor=self.actor, id=number)

    def act(self, *, id: int | None = None, **kwargs: Any) -> HttpResponse:  # noqa: A002
        text = self.request.POST.get("text", "").replace("\r\n", "\n")
        if id is None:
            policy = review_policy_draft(actor=self.actor, text=text)
        else:
            policy = review_policy_revise(
                actor=self.actor, policy_id=id, text=text, expected=self.request.POST.get("seen")
            )
        return self.done(
            f"Draft {policy} is saved. Review its changes.",
            "portal:review_policy",
            id=policy.pk,
            query={"tab": "changes"},
        )


class ReviewPolicyPropose(ReviewPolicyPage):
    """Propose a draft for decision."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review_policy_propose(actor=self.actor, policy_id=id)
        return self.done(
            "Proposed. A person who did not edit it must decide.", "portal:review_policy", id=id
        )


class ReviewPolicyDecide(ReviewPolicyPage):
    """Approve or reject a proposed version."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        policy = review_policy_decide(
            actor=self.actor,
            policy_id=id,
            verdict=self.request.POST.get("verdict", ""),
            reason=self.request.POST.get("reason", ""),
        )
        now = "in force" if policy.state == PolicyState.ACTIVE else "rejected"
        return self.done(f"Review policy {policy} is {now}.", "portal:review_policy", id=id)


class ReviewPolicyWithdraw(ReviewPolicyPage):
    """Withdraw a draft or a proposal."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        policy = review_policy_withdraw(actor=self.actor, policy_id=id)
        return self.done(f"Review policy {policy} is withdrawn.", "portal:review_policy", id=id)
