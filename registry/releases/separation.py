"""Separation of duties: people who had a part in what a release runs."""

from __future__ import annotations

from governance.people.credentials import with_sign_in_admins
from governance.rowsecurity import lifted
from registry.versions.models import ModelVersion
from registry.versions.selectors import base_chain


@lifted()
def people_behind(version: ModelVersion) -> set[int]:
    """Return the people who worked on `version`, in any department, and may not decide on it.

    For the version and its bases: those who started the job that made it, created its model, or
    brought in its bytes or its training data. For the version itself also those who evaluated it or
    brought in the test data. Keys of applications can do none of that, and an access token counts
    as its person. A person who alone set up one of these accounts counts too.
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
    return with_sign_in_admins(people)
