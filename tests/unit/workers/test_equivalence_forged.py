"""Results of comparisons that a worker or a node forges, or two report at the same moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from governance.errors import WrongState
from registry.releases.equivalence import services
from registry.releases.equivalence.environments import environments_keep
from registry.releases.equivalence.models import EquivalenceCheck, SoftwareEnvironment
from registry.releases.equivalence.services import Place, equivalence_without_answers
from registry.releases.equivalence.standing import fingerprint_of
from registry.releases.models import Release
from tests.database_roles import acting_as
from tests.unit.registry.test_recall_races import one_after_another
from tests.unit.workers.test_equivalence import (
    NEW,
    OLD,
    SAME,
    deployed,
    measured,
    outcomes,
    version,
    workers,
)
from workers.deployments.equivalence import references_report
from workers.deployments.services import ENGINE_WORKER
from workers.deployments.states import deployment_subject
from workers.offers.models import WorkerTasks

pytestmark = pytest.mark.django_db(transaction=True)
WRONG = [{"row": row, "text": "wrong", "results": []} for row in range(len(SAME))]
__all__ = ["workers"]


def forged(release: Release, versions: dict[str, str], outcome: str, rows: int = 0) -> None:
    """As a worker's session writes it, past every service."""
    with acting_as("worker"):
        EquivalenceCheck.objects.create(
            release=release, environment_id=fingerprint_of(versions), outcome=outcome, rows=rows,
            worker="evil",
        )  # fmt: skip


@pytest.mark.parametrize("outcome", ["differs", "unverified"])
def test_no_worker_suspends_a_release_with_the_software_that_its_dossier_names(
    workers: Any, outcome: str
) -> None:
    """The way back after any upgrade stays open, whoever writes what."""
    of = version()
    measured(of, SAME)
    deployment = deployed(of)
    worker = workers(OLD)
    forged(deployment.release, OLD, outcome, rows=2 if outcome == "differs" else 0)
    worker.again()
    assert worker.copy().state == "ready"
    assert list(worker.host.loaded()) == [deployment.pk]


@pytest.mark.parametrize("software", [OLD, NEW], ids=["of the dossier", "passed"])
def test_who_was_not_asked_cannot_suspend_what_others_serve(
    workers: Any, monkeypatch: pytest.MonkeyPatch, software: dict[str, str]
) -> None:
    of = version()
    measured(of, SAME)
    deployment = deployed(of)
    honest = workers(software)
    before = outcomes()
    monkeypatch.setattr(services, "TOGETHER", timedelta(0))
    with pytest.raises(WrongState) as refused:
        references_report(
            worker="e1", deployment_id=deployment.pk, answers=WRONG, actor=ENGINE_WORKER
        )
    assert refused.value.code == "not_asked"
    assert outcomes() == before
    honest.again()
    assert honest.copy().state == "ready"


def test_of_two_that_answer_at_the_same_time_the_difference_counts(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployment = deployed(of)
    honest = workers(NEW)
    assert outcomes() == [(fingerprint_of(NEW), "passed")]
    references_report(worker="e1", deployment_id=deployment.pk, answers=WRONG, actor=ENGINE_WORKER)
    honest.again()
    assert (honest.copy().state, honest.host.loaded()) == ("failed", {})


def test_one_environment_is_the_first_of_two_at_the_same_time(workers: Any) -> None:
    deployment = deployed(version())
    for versions in (OLD, NEW):
        environments_keep({"own": versions})

    def record(versions: dict[str, str]) -> Callable[[], Any]:
        place = Place(deployment_subject(deployment), "e1", fingerprint_of(versions))
        return lambda: equivalence_without_answers(
            actor=ENGINE_WORKER, release=deployment.release, place=place
        )

    one_after_another(record(OLD), record(NEW))
    assert outcomes() == [(fingerprint_of(OLD), "first"), (fingerprint_of(NEW), "unverified")]


def test_a_worker_s_session_makes_no_second_environment_the_first(workers: Any) -> None:
    deployment = deployed(version())
    assert workers(OLD).copy().state == "ready"
    environments_keep({"own": NEW})
    with pytest.raises(IntegrityError, match="one_first_environment"):
        forged(deployment.release, NEW, "first")
    assert workers(NEW, "e2").copy().state == "failed"


def test_versions_have_the_fingerprint_that_names_them(workers: Any) -> None:
    """A dossier names versions; a row that gave others would have it name what nobody runs."""
    odd = {"b": "1.0", "B": 'x"y\\z\t', "a b": "", "assay": "0.1.0+ü", "z": "\u2028/\x7f"}
    for versions in ({}, odd, NEW):
        environments_keep({"own": versions})
        assert SoftwareEnvironment.objects.get(pk=fingerprint_of(versions)).versions == versions
    later = {"assay": "2"}
    with (
        acting_as("worker"),
        pytest.raises(IntegrityError, match="do not have the fingerprint"),
        transaction.atomic(),
    ):
        SoftwareEnvironment.objects.create(
            fingerprint=fingerprint_of(later), engine="own", versions=NEW
        )
    environments_keep({"own": later})
    assert SoftwareEnvironment.objects.get(pk=fingerprint_of(later)).versions == later


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO workers_workertasks (worker, role, tasks, seen_at)"
        " VALUES ('evil', 'engine', %(json)s, now())",
        "UPDATE workers_workertasks SET tasks = %(json)s",
        "UPDATE workers_workerkey SET code = %(json)s",
        "UPDATE workers_workerkey SET environments = %(json)s",
        "INSERT INTO registry_softwareenvironment (fingerprint, engine, versions, first_seen_at,"
        " seen_at) VALUES (encode(sha256(convert_to('{\"a\":\"' || repeat('x', 2000000) || '\"}',"
        " 'UTF8')), 'hex'), 'own', %(json)s, now(), now())",
        "INSERT INTO registry_equivalencecheck (release_id, environment_id, outcome, rows,"
        " differing, worker, checked_at) SELECT release_id, fingerprint, 'differs', 1, %(json)s,"
        " 'evil', now() FROM workers_deployment, registry_softwareenvironment",
        "INSERT INTO workers_attemptlog (job_id, attempt, at, lines)"
        " VALUES (gen_random_uuid(), 1, now(), %(json)s)",
    ],
)
def test_what_a_worker_s_session_says_of_its_software_is_bounded(
    workers: Any, statement: str
) -> None:
    deployed(version())
    workers(OLD)
    WorkerTasks.objects.create(worker="e1", role="engine", tasks={}, seen_at=timezone.now())
    much = json.dumps({"a": "x" * 2_000_000}, separators=(",", ":"))
    with (
        acting_as("worker"),
        pytest.raises(DatabaseError, match="is too large"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, {"json": much})
