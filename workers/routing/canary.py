"""Compare canaries with their primaries by ledger and feedback, and roll back one that is worse.

The share of a canary is taken away when its error rate, its latency or its share of negative
feedback is worse both by a test and by an amount that matters. The test, with its numbers, is in
the event and on the page.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from governance.audit.services import audit_record
from governance.principals import background, service_principal
from governance.usage.models import UsageRecord
from governance.usage.records import JOBS
from registry.feedback.models import Feedback, Rating
from workers.deployments.models import Deployment, TargetRole
from workers.deployments.states import LIVE, deployment_subject
from workers.dispatch import wake_gateways
from workers.routing.statistics import error_rate_p, slower_p

logger = logging.getLogger(__name__)
_CONTROLLER = service_principal("controller")
# Minimum number of requests of each side for a comparison; the newest `MOST` are compared.
LEAST, MOST = 30, 1000
# Minimum number of answers with feedback on each side; few answers get feedback.
LEAST_FEEDBACK = 20
# Earlier requests are not compared.
WINDOW = timedelta(hours=24)
# Significance level of one comparison. It is far below the usual 0.05, because comparisons repeat
# every `EVERY_S` seconds.
ALPHA = 0.001
# Differences that matter: of error rates, of shares of negative feedback, and the ratio of median
# times.
ERROR_RATE_DIFFERENCE, NEGATIVE_DIFFERENCE, SLOWER_BY = 0.02, 0.1, 1.5
EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Side:
    """Requests of one release. `median_ms` is that of answered ones; None without any. `rated`
    answers have feedback, of which `negative` rates the answer as bad or corrects it."""

    requests: int
    failed: int
    median_ms: float | None
    rated: int = 0
    negative: int = 0

    @property
    def error_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    @property
    def negative_share(self) -> float:
        return self.negative / self.rated if self.rated else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test of a canary against the primary. `worse`: it decides for a rollback."""

    name: str
    of: str
    p: float
    worse: bool

    def __str__(self) -> str:
        return f"{self.name} of the {self.of}"


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """Comparison of the requests since `since`. Without enough of them there are no tests."""

    at: datetime
    since: datetime
    canary: Side
    stable: Side
    tests: tuple[Comparison, ...]

    @property
    def worse(self) -> Comparison | None:
        """The first test that decides for a rollback."""
        return next((test for test in self.tests if test.worse), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "since": self.since.isoformat(timespec="seconds"),
            "canary": asdict(self.canary),
            "stable": asdict(self.stable),
            "tests": [asdict(test) for test in self.tests],
            "rolled_back": self.worse is not None,
            "decided_by": "" if self.worse is None else str(self.worse),
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests of one release, each with its outcome and its time in milliseconds, and the feedback
    on its answers: true for negative."""

    requests: list[tuple[str, int]]
    feedback: list[bool] = field(default_factory=list)


def compared(canary: Sample, stable: Sample, since: datetime) -> CanaryVerdict:
    """Compare two samples by error rate, latency and feedback."""
    sides, times = [], []
    for sample in (canary, stable):
        ended = [row for row in sample.requests if row[0] not in ("canceled", "cut")]
        answered = [ms for outcome, ms in ended if outcome == "ok"]
        times.append(answered)
        sides.append(
            Side(
                requests=len(ended),
                failed=len(ended) - len(answered),
                median_ms=median(answered) if answered else None,
                rated=len(sample.feedback),
                negative=sum(sample.feedback),
            )
        )
    ours, theirs = sides
    tests: list[Comparison] = []
    if min(ours.requests, theirs.requests) >= LEAST:
        p = error_rate_p(ours.failed, ours.requests, theirs.failed, theirs.requests)
        matters = ours.error_rate - theirs.error_rate >= ERROR_RATE_DIFFERENCE
        tests.append(Comparison("Fisher's exact test", "error rate", p, p < ALPHA and matters))
    if min(map(len, times)) >= LEAST and ours.median_ms and theirs.median_ms:
        p = slower_p(*times)
        matters = ours.median_ms >= SLOWER_BY * theirs.median_ms
        tests.append(Comparison("Mann–Whitney U test", "latency", p, p < ALPHA and matters))
    if min(ours.rated, theirs.rated) >= LEAST_FEEDBACK:
        p = error_rate_p(ours.negative, ours.rated, theirs.negative, theirs.rated)
        matters = ours.negative_share - theirs.negative_share >= NEGATIVE_DIFFERENCE
        tests.append(
            Comparison("Fisher's exact test", "negative feedback", p, p < ALPHA and matters)
        )
    return CanaryVerdict(timezone.now(), since, ours, theirs, tuple(tests))


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One measure of both sides, with its test; None until each side has `least`."""

    title: str
    canary: str
    stable: str
    test: dict[str, Any] | None
    least: str


def verdict_lines(verdict: dict[str, Any]) -> list[VerdictLine]:
    """Return a stored verdict as lines of a table."""
    tests = {test["of"]: test for test in verdict.get("tests", [])}
    # Verdicts of an earlier version of Assay have no feedback.
    sides = [{"rated": 0, "negative": 0, **verdict[name]} for name in ("canary", "stable")]
    of = {
        "error rate": (
            f"{LEAST} requests",
            [_share(side["failed"], side["requests"]) for side in sides],
        ),
        "latency": (f"{LEAST} answers", [_milliseconds(side["median_ms"]) for side in sides]),
        "negative feedback": (
            f"{LEAST_FEEDBACK} answers with feedback",
            [_share(side["negative"], side["rated"]) for side in sides],
        ),
    }
    return [
        VerdictLine(name.capitalize(), canary, stable, tests.get(name), least)
        for name, (least, (canary, stable)) in of.items()
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "none"


def _milliseconds(median_ms: float | None) -> str:
    return "–" if median_ms is None else f"median {median_ms:,.0f} ms"


def canaries_judge() -> int:
    """Compare every canary that gets requests, and take the share of a worse one away. Return the
    number of rollbacks. A duty of the controller."""
    rows = Deployment.objects.filter(
        state__in=LIVE, role=TargetRole.CANARY, weight__gt=0, target_of__state__in=LIVE
    )
    rolled_back = 0
    for canary in rows.select_related("target_of", "department").order_by("pk"):
        try:
            rolled_back += _judge(canary)
        except Exception:
            logger.exception("Canary %s cannot be judged", canary.pk)
    return rolled_back


def _judge(canary: Deployment) -> bool:
    primary = canary.target_of
    if primary is None or canary.routed_at is None:
        return False
    since = max(canary.routed_at, timezone.now() - WINDOW)
    verdict = compared(
        _sample(canary.name, canary.release_id, since),
        _sample(canary.name, primary.release_id, since),
        since,
    )
    if verdict.worse is not None:
        return canary_roll_back(canary, verdict, verdict.worse)
    Deployment.objects.filter(pk=canary.pk, routed_at=canary.routed_at).update(
        canary_verdict=verdict.to_json()
    )
    return False


def _sample(name: str, release_id: int, since: datetime) -> Sample:
    requests = UsageRecord.objects.filter(
        deployment=name, release=release_id, occurred_at__gte=since
    ).exclude(endpoint__startswith=JOBS)
    # The rating counts; without one, a correction does. Erased feedback keeps only its rating.
    feedback = Feedback.objects.filter(
        ~Q(rating="", correction=""), deployment=name, release=release_id, answered_at__gte=since
    )
    return Sample(
        list(requests.order_by("-occurred_at").values_list("outcome", "total_ms")[:MOST]),
        [rating != Rating.UP for rating in feedback.values_list("rating", flat=True)[:MOST]],
    )


@transaction.atomic
def canary_roll_back(canary: Deployment, verdict: CanaryVerdict, test: Comparison) -> bool:
    """Take the share of a canary away; return false if a person changed it meanwhile. The canary
    stays loaded, so that people can examine its answers."""
    rows = Deployment.objects.select_for_update(of=("self",))
    if canary.target_of_id is None:
        return False
    primary = rows.get(pk=canary.target_of_id)
    same = rows.filter(pk=canary.pk, routed_at=canary.routed_at, state__in=LIVE, weight__gt=0)
    row = same.select_related("department").first()
    if row is None:
        return False
    share, row.weight, row.canary_verdict = row.weight, 0, verdict.to_json()
    row.save(update_fields=["weight", "canary_verdict"])
    primary.targets_revision += 1
    primary.save(update_fields=["targets_revision"])
    with background(f"deployment-{row.pk}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action="deployment:canary_rollback",
            subject=deployment_subject(row),
            reason=f"{test}: p = {test.p:.2g}.",
            department=row.department.slug,
            data={
                "release": row.release_id,
                "stable": primary.release_id,
                "share": share,
                "revision": primary.targets_revision,
                **verdict.to_json(),
            },
        )
    transaction.on_commit(wake_gateways)
    return True
