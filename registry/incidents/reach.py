"""Search for the incident that suspends a version, its bases or versions with the same bytes."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connection

from governance.errors import WrongState
from governance.rowsecurity import lifted
from registry.versions.models import ModelVersion

# A recall walks down the lineage; this walks up to the bases, and across to versions with the same
# bytes. Without any suspension, which is nearly always, it walks nothing.
_SUSPENDING_INCIDENTS = """
WITH RECURSIVE above(start, id, base_id, digest) AS (
    SELECT id, id, base_id, digest FROM registry_modelversion WHERE id = ANY (%s)
    AND EXISTS (SELECT FROM registry_incidentsuspension WHERE lifted_at IS NULL)
    UNION
    SELECT a.start, v.id, v.base_id, v.digest FROM above a
    JOIN registry_modelversion v ON v.id = a.base_id OR v.digest = a.digest
)
SELECT a.start, min(s.incident_id) FROM above a
JOIN registry_incidentversion l ON l.version_id = a.id
JOIN registry_incidentsuspension s ON s.incident_id = l.incident_id AND s.lifted_at IS NULL
GROUP BY a.start
"""


def suspended_by(version_ids: Collection[int]) -> dict[int, int]:
    """Return the suspended ones of these versions, each with the first incident suspending it."""
    with lifted(), connection.cursor() as cursor:
        cursor.execute(_SUSPENDING_INCIDENTS, [list(version_ids)])
        return dict(cursor.fetchall())


def check_not_suspended(version: ModelVersion, verb: str) -> None:
    """Raise WrongState while an incident suspends `version` or one of its bases."""
    refuse_suspended(version, suspended_by([version.pk]).get(version.pk), verb)


def refuse_suspended(version: ModelVersion, incident: int | None, verb: str) -> None:
    """Raise WrongState if `incident` (None: no incident) suspends `version`."""
    if incident is not None:
        raise WrongState(
            f"Incident {incident} suspends {version}; it cannot be {verb}.",
            code="incident_suspends",
            hint="Once it is resolved, a reviewer for model risk or security who had no part in it "
            "lifts the suspension.",
        )
