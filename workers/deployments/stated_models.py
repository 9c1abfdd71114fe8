"""Record the models and fingerprints that a provider's answers state, and compare them.

A worker may add names and nothing else; a trigger bounds their number and sets their times. So a
worker that is taken over can lie about a provider, which suspends where approvers chose so; the
event, the incident and the suspension are the controller's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import NotFound
from governance.principals import Principal, background, service_principal
from registry.catalog.hosted import HostedDescription
from registry.incidents.models import Cause, Severity
from registry.incidents.raising import incident_raise
from registry.versions.hosted import hosted_served
from registry.versions.models import ModelVersion
from registry.versions.weights import weights_version
from workers.deployments.models import Deployment, StatedModel
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.states import deployment_subject

logger = logging.getLogger(__name__)
# Maximum number of names of a deployment. Further differing names share one row.
NAMES_MAX = 40
FURTHER = "(further names)"
# A difference counts as present for this time after it was last recorded: names are recorded once
# an hour.
RECENT = timedelta(hours=2)
# Rows in one round of the controller.
_AT_ONCE = 50
_CONTROLLER = service_principal("controller")
_STATED = """
INSERT INTO workers_statedmodel AS last (deployment_id, model, fingerprint, first_at, seen_at)
VALUES (%s, %s, %s, now(), now())
ON CONFLICT (deployment_id, model, fingerprint) DO UPDATE SET seen_at = now()
 WHERE date_trunc('hour', last.seen_at, 'UTC') < date_trunc('hour', now(), 'UTC')
"""


@transaction.atomic
def model_stated(*, worker: str, deployment_id: int, model: str, fingerprint: str) -> None:
    """Record the names in an answer of a hosted deployment, once an hour.

    Raises:
        NotFound: the deployment does not exist, or no provider answers for it.
    """
    rows = Deployment.objects.select_related("release__version__base__base")
    deployment = rows.filter(pk=deployment_id).first()
    description = None if deployment is None else hosted_served(deployment.release.version)
    if description is None:
        raise NotFound(f"No provider answers for deployment {deployment_id}.")
    names = StatedModel.objects.filter(deployment=deployment_id)
    is_new = not names.filter(model=model, fingerprint=fingerprint).exists()
    if is_new and names.count() >= NAMES_MAX:
        if description.covers(model, fingerprint):
            return
        model, fingerprint = FURTHER, ""
    with connection.cursor() as cursor:
        cursor.execute(_STATED, [deployment_id, model, fingerprint])


def stated_models_record() -> int:
    """Compare new names with the approved descriptions, and record differences; return the number
    of rows. A duty of the controller."""
    due = StatedModel.objects.filter(
        Q(recorded_at__isnull=True) | Q(differs=True, seen_at__gt=F("recorded_at"))
    )
    with transaction.atomic():
        # Rows that a worker holds must not take the places of others.
        free = due.select_for_update(skip_locked=True).order_by("seen_at")[:_AT_ONCE]
        ids = [stated.pk for stated in free]
    for pk in ids:
        try:
            _record(pk)
        except Exception:
            logger.exception("Stated model %s cannot be recorded", pk)
    return len(ids)


@transaction.atomic
def _record(pk: int) -> None:
    rows = StatedModel.objects.select_related(
        "deployment__department",
        "deployment__release__version__model__department",
        "deployment__release__version__base__model__department",
        "deployment__release__version__base__base__model__department",
    )
    stated = rows.select_for_update(of=("self",), skip_locked=True).filter(pk=pk).first()
    if stated is None:
        return
    deployment, is_new = stated.deployment, stated.recorded_at is None
    version = weights_version(deployment.release.version)
    description = hosted_served(version)
    # An unreadable description names no model.
    stated.differs = description is None or not description.covers(stated.model, stated.fingerprint)
    stated.recorded_at = stated.seen_at
    stated.save(update_fields=["differs", "recorded_at"])
    if stated.differs:
        _differs(stated, version, description)
    elif is_new:
        _fingerprint_changed(stated)


def _differs(
    stated: StatedModel, version: ModelVersion, description: HostedDescription | None
) -> None:
    deployment = stated.deployment
    provider = "The provider" if description is None else description.provider
    difference = f"as {stated}, which {version} does not name. Such answers are not passed on."
    sentence = f"{provider} answered a request to {deployment.name} {difference}"
    data = {"version": version.digest}
    _event(stated, action="deployment:provider_differs", reason=sentence, data=data)
    incident_raise(
        cause=Cause.DIFFERS,
        version=version,
        title=f"The provider of {version} answers as another model",
        # Without the deployment: other departments that use the version may not see it.
        happened=f"{provider} answered {difference}",
        severity=Severity.HIGH
        if deployment.release.conditions.get("suspend_on_difference")
        else Severity.MEDIUM,
    )


def _fingerprint_changed(stated: StatedModel) -> None:
    """Record a new fingerprint that the description permits, if answers stated another before."""
    first = (
        StatedModel.objects.filter(
            deployment=stated.deployment_id, model=stated.model, differs=False
        )
        .exclude(pk=stated.pk)
        .exclude(fingerprint="")
        .order_by("first_at")
        .first()
    )
    if first is not None and stated.fingerprint:
        _event(
            stated,
            action="deployment:provider_fingerprint",
            reason=f"The answers state the fingerprint {stated.fingerprint}; the first one was "
            f"{first.fingerprint}.",
            data={"first": first.fingerprint},
        )


def _event(stated: StatedModel, *, action: str, reason: str, data: dict[str, str]) -> None:
    deployment = stated.deployment
    with background(f"deployment-{deployment.pk}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action=action,
            subject=deployment_subject(deployment),
            reason=reason,
            department=deployment.department.slug,
            data={
                "release": deployment.release_id,
                "model": stated.model,
                "fingerprint": stated.fingerprint,
                **data,
            },
        )


def stated_by(deployments: Collection[Deployment]) -> list[StatedModel]:
    """Return the names in answers of some deployments, the newest first."""
    rows = StatedModel.objects.filter(deployment__in=deployments).select_related("deployment")
    return list(rows.order_by("-seen_at", "-pk")[: 2 * NAMES_MAX])


def stated_of_version(actor: Principal, version: ModelVersion) -> QuerySet[StatedModel]:
    """Return the names in answers of the deployments, of a version and of prompts on it, that the
    actor may see."""
    below = Q(release__version=version) | Q(release__version__base=version)
    seen = deployments_visible_to(actor).filter(below)
    rows = StatedModel.objects.filter(deployment__in=seen.order_by().values("pk"))
    return rows.select_related("deployment").order_by("-seen_at", "-pk")


def differing_now() -> QuerySet[StatedModel]:
    """Return the differences that were recorded recently."""
    rows = StatedModel.objects.filter(differs=True, seen_at__gte=timezone.now() - RECENT)
    return rows.select_related("deployment").order_by("pk")
