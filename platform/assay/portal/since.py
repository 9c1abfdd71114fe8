"""Changes since the person last looked, for the pages of objects and the first page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db.models import Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest
from django.urls import reverse

from governance.english import counted
from governance.looks.models import LookKind
from governance.looks.services import look_record, looks_latest
from governance.policy.differences import difference
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.selectors import policy_versions_visible_to
from governance.principals import Principal
from governance.reviews.models import Decision, Review, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.reviews.threads.models import ReviewThread, ThreadComment
from registry.evaluations.selectors import evaluations_visible_to
from registry.versions.models import Model
from registry.versions.selectors import models_visible_to, versions_visible_to
from workers.deployments.selectors import deployments_visible_to

# The first page compares this many objects, and shows those that changed.
LOOKS_COMPARED = 100
CHANGED_SHOWN = 8
_VOTES = {
    Verdict.APPROVE: "approved",
    Verdict.REJECT: "rejected",
    Verdict.REQUEST_CHANGES: "requested changes",
}


@dataclass(frozen=True, slots=True)
class News:
    """Sentences about changes after the person's last look, which ended at `since`."""

    since: datetime
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Changed:
    """An object that changed after the person's last look."""

    icon: str
    title: str
    detail: str
    href: str
    at: datetime


def _news(since: datetime | None, lines_after: Callable[[datetime], Iterator[str]]) -> News | None:
    """Return the news; None at a first look, or if nothing changed."""
    if since is None:
        return None
    lines = list(lines_after(since))
    return News(since, lines) if lines else None


def review_news(actor: Principal, review: Review, threads: Iterable[ReviewThread]) -> News | None:
    """Return the actions of others on a review, from the rows of its page; record this look."""
    since = look_record(actor=actor, kind=LookKind.REVIEW, reference=review.pk)
    return _news(since, partial(_review_lines, actor, review, threads))


def _review_lines(
    actor: Principal, review: Review, threads: Iterable[ReviewThread], since: datetime
) -> Iterator[str]:
    for vote in review.decisions.all():
        if vote.created_at > since and vote.person_id != actor.person_id:
            if vote.verdict in _VOTES:
                yield f"{vote.person.name} {_VOTES[Verdict(vote.verdict)]}."
            elif vote.person_id == review.opened_by_id:
                yield f"{vote.person.name} answered the reviewers."
    comments = [
        comment
        for thread in threads
        for comment in thread.comments.all()
        if comment.created_at > since and comment.person_id != actor.person_id
    ]
    if comments:
        names = list(dict.fromkeys(comment.person.name for comment in comments))
        yield f"{counted(len(comments), 'comment')} by {_listed(names)}."
    attested = Counter(
        item.attested_by.name
        for item in review.checklist.all()
        if item.attested_by is not None
        and item.attested_at is not None
        and item.attested_at > since
        and item.attested_by_id != actor.person_id
    )
    for name, number in attested.items():
        yield f"{name} attested {counted(number, 'checklist item')}."
    if review.closed_at is not None and review.closed_at > since:
        yield f"The review was closed: {review.get_state_display().lower()}."


def model_news(actor: Principal, model: Model) -> News | None:
    """Return the new versions, evaluations and deployments of a model; record this look."""
    since = look_record(actor=actor, kind=LookKind.MODEL, reference=model.name)
    return _news(since, partial(_model_lines, actor, model))


def _model_lines(actor: Principal, model: Model, since: datetime) -> Iterator[str]:
    versions = versions_visible_to(actor).filter(model=model, created_at__gt=since)
    numbers = list(versions.order_by("-number").values_list("number", flat=True)[:CHANGED_SHOWN])
    if numbers:
        noun = "New version" if len(numbers) == 1 else "New versions"
        yield f"{noun} {_listed([f'v{number}' for number in sorted(numbers)])}."
    evaluations = evaluations_visible_to(actor).filter(version__model=model, created_at__gt=since)
    if count := evaluations.order_by().count():
        yield f"{counted(count, 'evaluation')} recorded."
    deployments = deployments_visible_to(actor).filter(
        release__version__model=model, created_at__gt=since
    )
    for name, number in deployments.order_by("-pk").values_list("name", "release__version__number")[
        :CHANGED_SHOWN
    ]:
        yield f"v{number} deployed as {name}."


def policy_news(actor: Principal, active: PolicyVersion) -> News | None:
    """Return the rules that a new active policy changed; record this look."""
    since = look_record(actor=actor, kind=LookKind.POLICY, reference="")
    return _news(since, partial(_policy_lines, active))


def _policy_lines(active: PolicyVersion, since: datetime) -> Iterator[str]:
    if active.decided_at is None or active.decided_at <= since:
        return
    in_force = PolicyVersion.objects.filter(
        Q(decided_at__lte=since) | Q(number=1), state=PolicyState.SUPERSEDED
    )
    before = in_force.order_by("-number").first()
    if before is None:
        return
    changes = difference(before.rules, active.rules, before.tests, active.tests)
    yield f"Policy {active.number} replaced policy {before.number}."
    for verb, ids in (
        ("Added", [rule["id"] for rule in changes.added]),
        ("Changed", [rule.id for rule in changes.changed]),
        ("Removed", [rule["id"] for rule in changes.removed]),
    ):
        if ids:
            yield f"{verb}: {_listed(ids)}."


def changed_since(actor: Principal) -> list[Changed]:
    """Return the objects that changed after the person last looked, newest first. Runs one query
    for each kind of object."""
    looks: dict[str, dict[str, datetime]] = {kind: {} for kind in LookKind.values}
    for look in looks_latest(actor=actor, most=LOOKS_COMPARED):
        looks[look.kind][look.reference] = look.seen_at
    changed = [
        *_changed_reviews(actor, looks[LookKind.REVIEW]),
        *_changed_models(actor, looks[LookKind.MODEL]),
        *_changed_policy(actor, looks[LookKind.POLICY].get("")),
    ]
    return sorted(changed, key=lambda each: each.at, reverse=True)[:CHANGED_SHOWN]


def _changed_reviews(actor: Principal, looks: dict[str, datetime]) -> Iterator[Changed]:
    if not looks:
        return
    votes = Decision.objects.filter(review=OuterRef("pk"))
    comments = ThreadComment.objects.filter(thread__review=OuterRef("pk"))
    rows = (
        reviews_visible_to(actor)
        .filter(pk__in=map(int, looks))
        .annotate(
            voted_at=_latest(votes.exclude(person=actor.person_id), "review"),
            commented_at=_latest(comments.exclude(person=actor.person_id), "thread__review"),
        )
        .annotate(changed_at=Greatest("voted_at", "commented_at", "closed_at"))
    )
    for row in rows:
        if row.changed_at and row.changed_at > looks[str(row.pk)]:
            href = reverse("portal:review", args=[row.pk])
            detail = row.get_state_display().capitalize()
            yield Changed("clipboard-check", row.subject_name, detail, href, row.changed_at)


def _changed_models(actor: Principal, looks: dict[str, datetime]) -> Iterator[Changed]:
    if not looks:
        return
    versions = versions_visible_to(actor).filter(model=OuterRef("pk"))
    measured = evaluations_visible_to(actor).filter(version__model=OuterRef("pk"))
    rows = (
        models_visible_to(actor)
        .filter(name__in=looks)
        .annotate(
            versioned_at=_latest(versions, "model"),
            measured_at=_latest(measured, "version__model"),
        )
        .annotate(changed_at=Greatest("versioned_at", "measured_at"))
    )
    for row in rows:
        if row.changed_at and row.changed_at > looks[row.name]:
            new = "New version" if row.versioned_at == row.changed_at else "New evaluation"
            href = reverse("portal:model", args=[row.name])
            yield Changed("box", row.name, new, href, row.changed_at)


def _changed_policy(actor: Principal, seen_at: datetime | None) -> Iterator[Changed]:
    if seen_at is None:
        return
    active = policy_versions_visible_to(actor).filter(
        state=PolicyState.ACTIVE, decided_at__gt=seen_at
    )
    for number, decided_at in active.values_list("number", "decided_at"):
        if decided_at is not None:
            href = reverse("portal:policy")
            yield Changed("shield-lock", f"Policy {number}", "In force", href, decided_at)


def _latest(rows: QuerySet[Any], group: str) -> Subquery:
    """Return the time of the newest row of each group."""
    newest = rows.order_by().values(group).annotate(newest=Max("created_at"))
    return Subquery(newest.values("newest"))


def _listed(names: Sequence[str]) -> str:
    """Return the first four names and the number of the others."""
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
