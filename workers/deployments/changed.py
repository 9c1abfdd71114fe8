"""Find the live deployments that a change may affect."""

from __future__ import annotations

from datetime import datetime

from django.db import connection
from django.db.models import Q

from governance.changes.reading import Changes
from governance.reviews.models import Review
from workers.deployments.models import Deployment, Replica
from workers.deployments.states import LIVE
from workers.placement.models import Placement

# A version affects those built on it, and, by an incident, those with the same bytes: the paths of
# `registry.incidents.reach` and of `base_chain`, in the other direction.
_BY_VERSION = """
WITH RECURSIVE reached(id, digest) AS (
    SELECT v.id, v.digest FROM registry_modelversion v
     WHERE v.id = ANY (%(versions)s) OR v.model_id = ANY (%(models)s)
        OR v.id IN (SELECT version_id FROM registry_incidentversion
                     WHERE incident_id = ANY (%(incidents)s))
        OR v.dataset_version_id IN (SELECT id FROM registry_datasetversion
                                     WHERE dataset_id = ANY (%(datasets)s))
    UNION
    SELECT v.id, v.digest FROM reached r
      JOIN registry_modelversion v ON v.base_id = r.id OR v.digest = r.digest
)
SELECT d.id FROM workers_deployment d JOIN registry_release r ON r.id = d.release_id
 WHERE (d.state = ANY (%(live)s) OR d.stopped_at >= %(since)s)
   AND r.version_id IN (SELECT id FROM reached)
"""


def deployments_rejudged(changes: Changes, since: datetime) -> set[int]:
    """Return the IDs of deployments for which the one rule may decide otherwise after `changes`:
    live ones, those that stopped after `since`, and all that changed themselves.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    ids = changes.numbers("deployment")
    releases = changes.numbers("release")
    if reviews := changes.numbers("review"):
        of_releases = Review.objects.filter(pk__in=reviews, subject_type="release")
        releases |= {int(subject) for subject in of_releases.values_list("subject_id", flat=True)}
    if releases:
        rows = Deployment.objects.filter(
            Q(state__in=LIVE) | Q(stopped_at__gte=since), release__in=releases
        )
        ids |= set(rows.order_by().values_list("pk", flat=True))
    origins = {
        f"{kind}s": list(changes.numbers(kind))
        for kind in ("version", "model", "incident", "dataset")
    }
    if any(origins.values()):
        with connection.cursor() as cursor:
            cursor.execute(_BY_VERSION, {**origins, "live": list(LIVE), "since": since})
            ids |= {pk for (pk,) in cursor.fetchall()}
    return ids


def deployments_moved(changes: Changes) -> set[int]:
    """Return the IDs of deployments whose replicas, placements or workers changed.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    ids = changes.numbers("places")
    workers, nodes = changes.of("worker"), changes.of("node")
    if workers or nodes:
        on_them = Q(worker__in=workers)
        for node in nodes:
            on_them |= Q(worker__startswith=f"{node}/")
        for model in (Replica, Placement):
            rows = model.objects.filter(on_them, deployment__state__in=LIVE)
            ids |= set(rows.order_by().values_list("deployment_id", flat=True))
    return ids
