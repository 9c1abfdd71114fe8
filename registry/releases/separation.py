"""Separation of duties: who had a hand in what a release runs."""

from __future__ import annotations

from governance.people.credentials import with_makers
from governance.rowsecurity import lifted
from registry.versions.models import ModelVersion
from registry.versions.selectors import base_chain


@lifted()
def people_behind(version: ModelVersion) -> set[int]:
    """Return the people who worked on `version`, in any department: none of them decides on it.

    For it and everything that it stands on: who started the job that made it, who registered the
    line of versions that it is in, who brought in its bytes or its training data. For itself also
    who measured it, and who brought in the data that it was measured on. An application's key makes
    none of that, and an access token is its person. Who alone set up one of these accounts counts,
    too.
    """
    people: set[int] = set()
    for each in (version, *base_chain(version)):
        people |= {each.created_by_id, each.model.created_by_id}
        if each.dataset_version is not None:
            people.add(each.dataset_version.created_by_id)
        if (intake := getattr(each, "intake", None)) is not None:
            people.add(intake.submitted_by_id)
    for evaluation in version.evaluations.select_related("dataset_version"):
        people |= {evaluation.created_by_id, evaluation.dataset_version.created_by_id}
    return with_makers(people)
