"""Recall a version: it, versions built on it, and its bytes under any name never serve again.

One action reaches everything below in the lineage, in all departments. A recall locks the table of
versions against writes: it waits for running registrations, and no version can join the lineage
between its reading and its end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from django.db import connection, transaction
from django.utils import timezone

from governance.audit.services import AuditEntry, audit_record, audit_record_many
from governance.errors import WrongState
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.reviews.states import reviews_void
from governance.rowsecurity import lifted
from registry.canonical import json_digest
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import releases_visible_to
from registry.releases.states import releases_move
from registry.resources import acting_person, version_resource, version_subject
from registry.validation import checked_text
from registry.versions.models import REASON_MAX, ModelVersion, VersionState
from registry.versions.selectors import version_get, versions_visible_to

# Maximum number of each kind in a list; the rest is only counted.
LISTED = 200
# Registering a version takes a lock that conflicts with this one until the commit. Table locks
# queue in order, so that a stream of registrations does not delay a recall. This lock needs a
# privilege that workers lack.
_LOCK = "LOCK TABLE registry_modelversion IN SHARE ROW EXCLUSIVE MODE"
# Versions built on it at any depth, and those with the same bytes as one of these.
_BELOW = """
WITH RECURSIVE below(id, digest) AS (
    SELECT id, digest FROM registry_modelversion WHERE id = ANY (%s)
    UNION
    SELECT v.id, v.digest FROM below b
    JOIN registry_modelversion v ON v.base_id = b.id OR v.digest = b.digest
)
SELECT id FROM below ORDER BY id
"""


# Columns that are large and not needed here.
_HEAVY = ("manifest", "card", "base__manifest", "base__card")


@dataclass(frozen=True, slots=True)
class RecallRadius:
    """Objects that a recall of `version` reaches: itself first, then in the order they were made.

    `versions` and `releases` have at most 200 each that the actor may see; the totals count all.
    `digest` covers the current state of all of them, and confirms the recall.
    """

    version: ModelVersion
    digest: str
    versions: list[ModelVersion]
    releases: list[Release]
    versions_total: int
    releases_total: int
    release_ids: list[int]
    version_digests: list[str]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A recalled version, and the numbers of versions, releases and reviews that it ended."""

    version: ModelVersion
    versions: int
    releases: int
    reviews: int


def recall_radius(*, actor: Principal, version_id: int) -> RecallRadius:
    """Return everything that a recall would reach.

    Raises:
        NotFound, NotPermitted: the version does not exist, or the policy refuses the recall.
    """
    version = version_get(actor=actor, id=version_id)
    authorize(actor=actor, action=Action.VERSION_RECALL, resource=version_resource(version))
    with lifted():
        ids = versions_below(version.pk)
        digests = ModelVersion.objects.filter(pk__in=ids).values_list("digest", flat=True)
        version_digests = sorted(set(digests))
        releases, digest = _current_state(ids)
    others = versions_visible_to(actor).filter(pk__in=ids).exclude(pk=version.pk)
    visible = releases_visible_to(actor).filter(version_id__in=ids)
    visible = visible.defer("dossier", "version__manifest", "version__card")
    return RecallRadius(
        version=version,
        digest=digest,
        versions=[version, *others.defer(*_HEAVY).order_by("pk")[: LISTED - 1]],
        releases=list(visible.order_by("pk")[:LISTED]),
        versions_total=len(ids),
        releases_total=len(releases),
        release_ids=releases,
        version_digests=version_digests,
    )


def versions_below(*version_ids: int) -> list[int]:
    """Return IDs of the versions and of all that a recall of them reaches, visible or not."""
    with connection.cursor() as cursor:
        cursor.execute(_BELOW, [list(version_ids)])
        return [row[0] for row in cursor.fetchall()]


def _current_state(ids: Collection[int]) -> tuple[list[int], str]:
    """Return the IDs of the versions' releases, and the digest of versions and releases."""
    versions = ModelVersion.objects.filter(pk__in=ids).order_by("pk")
    releases = list(
        Release.objects.filter(version_id__in=ids)
        .order_by("pk")
        .values_list("pk", "version_id", "state")
    )
    state = {
        "versions": [list(row) for row in versions.values_list("pk", "digest", "state")],
        "releases": [list(row) for row in releases],
    }
    return [row[0] for row in releases], json_digest(state)


def version_recall(*, actor: Principal, version_id: int, reason: str, confirm: str) -> Recalled:
    """Recall a version and everything below it, for good. `confirm` is the digest of the list.

    Releases under review or approved are recalled with it and their reviews voided. Gateways cut
    running requests as soon as they are notified, and deployments stop.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the version does not exist, the policy refuses, or the actor has no
            recent second factor.
        WrongState: it is recalled already, or the list differs from the confirmed one.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        version = version_get(actor=actor, id=version_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.VERSION_RECALL,
            resource=version_resource(version),
            doing=f"recalling {version}",
        )
        person_id = acting_person(actor).pk
        with lifted():
            ids = lineage_locked(version.pk)
            _check_confirmed(version, ids, confirm)
            reached = _mark(actor, version, ids, reason, person_id, decision)
            releases, reviews = _end_releases(actor, version, ids, reason, decision)
    version.refresh_from_db(fields=["state", "recalled_at", "recall_reason"])
    return Recalled(version=version, versions=reached, releases=releases, reviews=reviews)


def lineage_locked(*version_ids: int) -> list[int]:
    """Return IDs of the versions and all below; none can join or leave them until the transaction
    ends. Their releases are locked too."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)
    ids = versions_below(*version_ids)
    # Submitting a release locks its version; approving and deploying lock the release.
    rows = ModelVersion.objects.select_for_update(of=("self",)).filter(pk__in=ids)
    list(rows.order_by("pk").values_list("pk"))
    releases = Release.objects.select_for_update(of=("self",)).filter(version_id__in=ids)
    list(releases.order_by("pk").values_list("pk"))
    return ids


def _check_confirmed(version: ModelVersion, ids: Collection[int], confirm: str) -> None:
    state = ModelVersion.objects.values_list("state", flat=True).get(pk=version.pk)
    if state == VersionState.RECALLED:
        raise WrongState(f"{version} is already recalled.", hint="A recall is permanent.")
    if _current_state(ids)[1] != confirm:
        raise WrongState(
            f"What a recall of {version} reaches is no longer the list that was confirmed; "
            "nothing was recalled.",
            code="lineage_changed",
            hint="Read the current list, and confirm that one.",
        )


def _mark(
    actor: Principal,
    version: ModelVersion,
    ids: Collection[int],
    reason: str,
    person_id: int,
    decision: Authorization,
) -> int:
    """Mark them recalled in one statement; return their number. A version that was recalled before
    keeps its own reason.

    The two states need no transition table: trusted versions can only become recalled.
    """
    rows = ModelVersion.objects.filter(pk__in=ids, state=VersionState.TRUSTED)
    reached = list(
        rows.select_related("model__department")
        .only("number", "digest", "model__name", "model__department__slug")
        .order_by("pk")
    )
    rows.update(
        state=VersionState.RECALLED,
        recalled_at=timezone.now(),
        recalled_by_id=person_id,
        recalled_with=version,
        recall_reason=reason,
    )
    record = partial(_event, actor, version, reason, decision)
    first = record(version, {"reached": len(reached), **proof_facts(actor.proof)})
    audit_record(
        actor=actor,
        action=first.action,
        subject=first.subject,
        reason=reason,
        department=first.department,
        data=first.data,
        decision=decision,
    )
    audit_record_many(record(each, {}) for each in reached if each.pk != version.pk)
    return len(reached)


def _event(
    actor: Principal,
    root: ModelVersion,
    reason: str,
    decision: Authorization,
    version: ModelVersion,
    more: Mapping[str, int | str],
) -> AuditEntry:
    return AuditEntry(
        actor=actor,
        action=Action.VERSION_RECALL,
        subject=version_subject(version),
        reason=reason,
        department=version.model.department.slug,
        data={"digest": version.digest, "recalled_with": f"version {root.pk}", **more},
        decision=decision,
    )


def _end_releases(
    actor: Principal,
    version: ModelVersion,
    ids: Collection[int],
    reason: str,
    decision: Authorization,
) -> tuple[int, int]:
    """Recall their releases and void their open reviews; return the number of each."""
    releases = (
        Release.objects.filter(version_id__in=ids)
        .select_related("department", "version")
        .only("state", "dossier_digest", "department__slug", "version__digest")
        .order_by("pk")
    )
    sentence = f"{version} is recalled: {reason}"
    moved = releases_move(
        actor=actor,
        releases=releases,
        to=ReleaseState.RECALLED,
        reason=sentence,
        decision=decision,
    )
    voided = reviews_void(
        actor=actor,
        subject_type="release",
        subject_ids=[str(release.pk) for release in moved],
        reason=sentence,
        decision=decision,
    )
    return len(moved), voided
