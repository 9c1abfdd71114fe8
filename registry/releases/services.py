"""Submit a release, answer reviewers, decide on it, and withdraw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.reviews.checklist import ChecklistEntry
from governance.reviews.models import Review, ReviewState
from governance.reviews.policies.selectors import ActivePolicy
from governance.reviews.selectors import review_resource
from governance.reviews.services import (
    review_answer,
    review_close,
    review_decide,
    review_open,
)
from governance.reviews.waivers.selectors import waived_until
from governance.rowsecurity import lifted
from registry.canonical import json_digest
from registry.incidents.reach import check_not_suspended
from registry.releases.carrying import attestations_carry, check_renewal
from registry.releases.checklist import checklist_build
from registry.releases.conditions import Conditions, conditions_agreed, conditions_checked
from registry.releases.dossier import dossier_build
from registry.releases.dossier_fields import checked_dossier_fields
from registry.releases.emergency_access.selectors import check_withdrawable
from registry.releases.engines import checked_engine
from registry.releases.models import (
    PURPOSE_MAX,
    WITHDRAW_REASON_MAX,
    Environment,
    Release,
    ReleaseState,
    Visibility,
)
from registry.releases.risk import checked_risk_answers
from registry.releases.selectors import release_get, release_review
from registry.releases.separation import people_behind
from registry.releases.serving import check_dossier, check_trusted
from registry.releases.serving import release_servable as release_servable
from registry.releases.states import place_locked, release_locked, release_set_state
from registry.releases.submittable import check_submittable
from registry.releases.terms import policy_terms
from registry.releases.tiers import (
    check_same_approvals,
    checked_tier,
    policy_of,
    policy_reference,
    risk_facts,
)
from registry.releases.validity import approve
from registry.releases.validity import releases_expire_due as releases_expire_due
from registry.releases.voiding import stale_because
from registry.resources import (
    acting_person,
    department_resource,
    model_resource,
    release_resource,
    release_subject,
)
from registry.validation import checked_choice, checked_name, checked_text
from registry.versions.models import ModelVersion

_STATE_AFTER = {
    ReviewState.OPEN: ReleaseState.IN_REVIEW,
    ReviewState.CHANGES_REQUESTED: ReleaseState.CHANGES_REQUESTED,
    ReviewState.APPROVED: ReleaseState.APPROVED,
    ReviewState.REJECTED: ReleaseState.REJECTED,
}


def release_submit(
    *,
    actor: Principal,
    version: ModelVersion,
    environment: str,
    deployment_name: str,
    departments: Sequence[Department],
    visibility: str = Visibility.DEPARTMENT,
    purpose: str,
    risk_answers: Mapping[str, Any],
    dossier_fields: Mapping[str, Any] | None = None,
    tier: str = "limited",
    renews: Release | None = None,
    engine: str | None = None,
    precision: str | None = None,
) -> Release:
    """Request a release of `version`: freeze its dossier and open the review.

    With `renews`, it is that release submitted again, and attestations that still hold are carried
    over. `engine` and `precision` are those to run with; None means the version's default.

    Raises:
        InvalidInput: a malformed field, an engine that cannot serve the version, a tier that is too
            low, or no evaluation although the tier requires one.
        NotFound, NotPermitted: the policy refuses.
        WrongState: the version is recalled, or is under review for this place already.
    """
    checked_choice(environment, list(Environment.values), field="environment")
    checked_choice(visibility, list(Visibility.values), field="visibility")
    checked_name(deployment_name, field="deployment_name")
    purpose = checked_text(purpose, field="purpose", limit=PURPOSE_MAX)
    answers = checked_risk_answers(risk_answers)
    sections = checked_dossier_fields(dossier_fields or {})
    if not departments:
        raise InvalidInput(
            "A release names the departments that may use it; none was named.",
            fields={"departments": ["At least one department."]},
        )
    owner = version.model.department
    with transaction.atomic():
        authorize(actor=actor, action=Action.MODEL_VIEW, resource=model_resource(version.model))
        decision = authorize(
            actor=actor,
            action=Action.RELEASE_SUBMIT,
            resource=department_resource("release", owner),
        )
        person = acting_person(actor)
        # After the permission check, which keeps the tiers from people who may not submit.
        policy = checked_tier(tier, risk_facts(version, answers))
        version = (
            ModelVersion.objects.select_for_update(of=("self",))
            .select_related("model__department", "dataset_version__dataset", "created_by")
            .get(pk=version.pk)
        )
        if renews is not None:
            # Read again, now that the version's row is locked.
            renews = release_get(actor=actor, id=renews.pk)
            check_renewal(renews, version, environment, deployment_name)
        check_submittable(version, environment, deployment_name, policy)
        chosen, computed_in = checked_engine(version, engine, precision)
        dossier = dossier_build(
            version,
            department=owner,
            environment=environment,
            deployment_name=deployment_name,
            departments=departments,
            visibility=visibility,
            purpose=purpose,
            risk_answers=answers,
            tier=tier,
            policy_version=decision.policy_version,
            submitted_by=person.pk,
            fields=sections,
            review_policy=policy_reference(policy),
            engine=chosen,
            precision=computed_in,
            after_upgrade=policy.document.after_upgrade,
        )
        release = Release.objects.create(
            version=version,
            department=owner,
            environment=environment,
            deployment_name=deployment_name,
            visibility=visibility,
            purpose=purpose,
            risk_answers=answers,
            dossier_fields=sections,
            tier=tier,
            dossier=dossier,
            dossier_digest=json_digest(dossier),
            submitted_by=person,
            renews=renews,
            engine=chosen,
            precision=computed_in,
        )
        release.departments.set(departments)
        audit_record(
            actor=actor,
            action=Action.RELEASE_SUBMIT,
            subject=release_subject(release),
            department=owner.slug,
            data={
                "version": version.digest,
                "dossier": release.dossier_digest,
                "environment": environment,
                "deployment_name": deployment_name,
                "departments": dossier["release"]["departments"],
                "tier": tier,
                "engine": chosen,
                "precision": computed_in,
                **({"renews": renews.pk} if renews is not None else {}),
            },
            decision=decision,
        )
        review = _open_review(actor, release, policy)
        attestations_carry(actor=actor, release=release, review=review)
    return release


def _open_review(actor: Principal, release: Release, policy: ActivePolicy) -> Review:
    version = release.version
    return review_open(
        actor=actor,
        subject=Subject(
            type="release", id=str(release.pk), name=f"{version} as {release.deployment_name}"
        ),
        department=release.department,
        tier=release.tier,
        digest=release.dossier_digest,
        required_approvals=policy.document.required_approvals(
            risk_facts(version, release.risk_answers)
        ),
        excluded_people=sorted(people_behind(version) | {release.submitted_by_id}),
        review_policy=policy.policy,
        checklist=checklist_build(version, release.dossier, policy.document),
        due_at=timezone.now() + timedelta(days=policy_terms(policy.document).due_days),
    )


def release_answer(
    *,
    actor: Principal,
    release_id: int,
    message: str,
    risk_answers: Mapping[str, Any] | None = None,
    dossier_fields: Mapping[str, Any] | None = None,
) -> Release:
    """Answer a request for changes: freeze a new dossier and open the next round.

    Risk answers and dossier fields, where passed, replace all earlier ones.

    Raises:
        InvalidInput: malformed answers, no message, or a tier that is now too low.
        NotFound, NotPermitted: the policy refuses.
        WrongState: no changes are requested, or the version is recalled.
    """
    with transaction.atomic():
        release = release_locked(release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_SUBMIT, resource=release_resource(release)
        )
        if release.state != ReleaseState.CHANGES_REQUESTED:
            raise WrongState(
                f"Release {release.pk} is {release.get_state_display().lower()}; "
                "there is nothing to answer.",
                hint="An answer follows a request for changes.",
            )
        if risk_answers is not None:
            release.risk_answers = checked_risk_answers(risk_answers)
        if dossier_fields is not None:
            release.dossier_fields = checked_dossier_fields(dossier_fields)
        facts = risk_facts(release.version, release.risk_answers)
        checked_tier(release.tier, facts)
        review = _review(release)
        # The review continues under the policy version that it opened with.
        policy = policy_of(review)
        check_same_approvals(review, policy, facts)
        check_trusted(release.version, "released")
        release.frozen_at = timezone.now()
        release.dossier = dossier_again(
            release, policy, decision.policy_version, release.submitted_by_id, release.risk_answers
        )
        release.dossier_digest = json_digest(release.dossier)
        review_answer(
            actor=actor,
            review_id=review.pk,
            digest=release.dossier_digest,
            message=message,
            excluded_people=people_behind(release.version),
            checklist=_entries_to_update(review, release, policy),
        )
        release_set_state(
            actor=actor,
            release=release,
            state=ReleaseState.IN_REVIEW,
            reason=message,
            decision=decision,
        )
    return release


def _entries_to_update(
    review: Review, release: Release, policy: ActivePolicy
) -> list[ChecklistEntry]:
    """Return items whose state must be written again: decided by machine now or before, newly
    required, or checked by machine for a reviewer to judge on a changed dossier."""
    by_machine = dict(review.checklist.values_list("code", "automatic"))
    changed = release.dossier_digest != review.digest
    entries = checklist_build(release.version, release.dossier, policy.document)
    return [
        each
        for each in entries
        if each.automatic or by_machine.get(each.code, True) or (changed and each.outcome)
    ]


def dossier_again(
    release: Release,
    policy: ActivePolicy,
    policy_version: int,
    submitted_by: int,
    risk_answers: Mapping[str, Any],
) -> dict[str, Any]:
    """Build a release's dossier again, with the version's current evidence and under `policy`."""
    return dossier_build(
        release.version,
        department=release.department,
        environment=release.environment,
        deployment_name=release.deployment_name,
        departments=list(release.departments.all()),
        visibility=release.visibility,
        purpose=release.purpose,
        risk_answers=risk_answers,
        tier=release.tier,
        policy_version=policy_version,
        submitted_by=submitted_by,
        fields=release.dossier_fields,
        review_policy=policy_reference(policy),
        engine=release.engine,
        precision=release.precision,
        after_upgrade=policy.document.after_upgrade,
    )


def release_decide(
    *,
    actor: Principal,
    release_id: int,
    verdict: str,
    reason: str,
    digest: str,
    specialty: str = "",
    conditions: Mapping[str, Any] | None = None,
    submit_drafts: bool = True,
) -> Release:
    """Record a decision on the dossier with this digest; the last missing approval approves it.

    An approval may have `conditions`; the strictest of each kind applies. `submit_drafts` also
    submits the actor's drafts in the review's threads.

    Raises:
        InvalidInput: conditions that are not allowed, or with a verdict other than approval.
        NotFound, NotPermitted: policy or separation of duties refuses.
        WrongState: another digest, a closed review, a second vote, unmet items or blocking threads;
            or the version was recalled or evaluated again since the dossier was frozen.
    """
    with transaction.atomic():
        if verdict == "approve":
            place_locked(release_id)
        release = release_locked(release_id)
        review = review_decide(
            actor=actor,
            review_id=_review(release).pk,
            verdict=verdict,
            reason=reason,
            digest=digest,
            specialty=specialty,
            conditions=conditions_checked(conditions or {}, release).to_json(),
            submit_drafts=submit_drafts,
        )
        # After the review's checks, so that a person who may not decide gets that error first.
        agreed = Conditions()
        if verdict == "approve":
            _check_current(release)
            agreed = conditions_agreed(_review(release))
        state = _STATE_AFTER[ReviewState(review.state)]
        if state != release.state:
            if state == ReleaseState.APPROVED:
                approve(release, agreed, waived_until(review))
            release_set_state(
                actor=actor,
                release=release,
                state=state,
                reason=reason,
                decision=authorize_binding(
                    actor=actor,
                    action=Action.RELEASE_DECIDE,
                    resource=review_resource(review),
                    doing=f"deciding on release {release.pk}",
                ),
            )
    return release


@lifted()
def _check_current(release: Release) -> None:
    check_dossier(release)
    check_trusted(release.version, "approved")
    check_not_suspended(release.version, "approved")
    if because := stale_because(release):
        raise WrongState(
            f"{because} The dossier of release {release.pk} is outdated; the approval was not "
            "recorded.",
            code="dossier_outdated",
            hint="The release will be voided within seconds; submit it again.",
        )


def release_withdraw(*, actor: Principal, release_id: int, reason: str) -> Release:
    """Withdraw a request or an approval; what serves under it stops.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is rejected, expired, recalled or withdrawn already.
    """
    reason = checked_text(reason, field="reason", limit=WITHDRAW_REASON_MAX)
    with transaction.atomic():
        release = release_locked(release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_WITHDRAW, resource=release_resource(release)
        )
        under_review = release.state in (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)
        if under_review:
            check_withdrawable(release)
        release_set_state(
            actor=actor,
            release=release,
            state=ReleaseState.WITHDRAWN,
            reason=reason,
            decision=decision,
        )
        if under_review:
            review_close(
                actor=actor,
                review_id=_review(release).pk,
                state=ReviewState.WITHDRAWN,
                reason=reason,
            )
    return release


def _review(release: Release) -> Review:
    review = release_review(release)
    if review is None:
        raise NotFound(f"Release {release.pk} has no review.")
    return review
