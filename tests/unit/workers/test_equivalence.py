"""After an upgrade a release serves on a worker once it gave the answers of its dossier there."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError
from django.utils import timezone

from governance.audit.models import AuditEvent
from registry.catalog import TASKS, task_catalog
from registry.catalog.answers import FILE
from registry.catalog.code import NO_PACKAGES
from registry.evaluations.models import Evaluation, EvaluationReference
from registry.evaluations.services import evaluation_record
from registry.releases.equivalence.models import EquivalenceCheck, EquivalenceOutcome
from registry.releases.equivalence.standing import fingerprint_of
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.fleets import assign_everything
from tests.unit.workers import company, echo
from tests.unit.workers.releases import release
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.control.protocol import Software
from workers.deployments.alarms import answers_changed
from workers.deployments.models import Deployment, Replica
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create
from workers.deployments.worker_keys import worker_key_register
from workers.placement.capacity import Capacity

pytestmark = pytest.mark.django_db(transaction=True)

OLD = {"assay": "1", "torch": "2.0"}
NEW = {"assay": "1", "torch": "3.0"}


class Asked(echo.EchoEngine):
    """Echoes, and keeps the prompts that it was asked, and whether applications were answered."""

    PROMPTS: ClassVar[list[str]] = []
    LEASED: ClassVar[list[bool]] = []
    HOSTS: ClassVar[list[EngineHost]] = []

    def submit(self, request: Any, sink: Any) -> None:
        Asked.PROMPTS.append(request.inputs.prompt)
        for host in Asked.HOSTS:
            Asked.LEASED.extend(host.leased(each) for each in host.loaded())
        super().submit(request, sink)


class Worker:
    """An engine worker with its own software."""

    def __init__(self, name: str, software: dict[str, str]) -> None:
        self.name, self.software = name, software
        self.host = EngineHost()
        self.loop = Reconciler(
            self.host,
            DirectControl(),
            worker=name,
            consume=self.consume,
            cease=lambda queue: None,
        )
        # The state of the copy on record each time that its queue began to be read.
        self.consumed: list[str] = []

    def consume(self, queue: str) -> None:
        self.consumed.append(self.copy().state)

    def start(self) -> None:
        worker_key_register(
            worker=self.name,
            public_key="ab" * 32,
            engines=["own"],
            capacity=Capacity(10**9),
            software=Software({"own": self.software} if self.software else {}),
        )
        self.again()

    def again(self) -> None:
        assign_everything(self.name)
        self.loop.settle()
        self.loop.load_missing(threading.Event())
        self.loop.settle()

    def copy(self) -> Replica:
        return Replica.objects.get(worker=self.name)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.test_equivalence:Asked"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    monkeypatch.setattr("workers.deployments.attempts.RETRY_FIRST_S", 0.0)
    for kept in (Asked.PROMPTS, Asked.LEASED, Asked.HOSTS):
        kept.clear()
    made: list[Worker] = []

    def worker(software: dict[str, str], name: str = "e1") -> Worker:
        made.append(Worker(name, software))
        Asked.HOSTS.append(made[-1].host)
        made[-1].start()
        return made[-1]

    yield worker
    for each in made:
        each.host.close()


def version() -> ModelVersion:
    model = company.model("smol", "text-generation")
    return company.version(model, files={"weights.bin": b"w"})


def measured(
    of: ModelVersion,
    answers: dict[str, str],
    files: dict[str, str] | None = None,
    **details: Any,
) -> Evaluation:
    """An evaluation that keeps these answers by their prompts, made with the old software.
    `files` are in the inputs of each, by their SHA-256."""
    named = {name: {FILE: sha256} for name, sha256 in (files or {}).items()}
    data = company.data(f"measured-{uuid4().hex[:8]}", "text-generation")
    rows = [
        {
            "row": number,
            "inputs": {"prompt": prompt, **named},
            "options": {"max_tokens": 8, "temperature": 0.0},
            "text": text,
            "results": [],
        }
        for number, (prompt, text) in enumerate(answers.items())
    ]
    return evaluation_record(
        job_id=uuid4(),
        version=of,
        dataset_version=data,
        metrics={"perplexity": 2.0},
        baseline={},
        baseline_name="",
        details={
            "engine": "own",
            "precision": "stored",
            "code": NO_PACKAGES.digest,
            "environment": OLD,
            **details,
        },
        sample_size=len(rows) or 1,
        started_at=timezone.now() - timedelta(minutes=1),
        created_by=company._someone(),
        reference=rows,
    )


def deployed(of: ModelVersion, **changes: Any) -> Deployment:
    approved = release(of, **changes)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def outcomes() -> list[tuple[str, str]]:
    rows = EquivalenceCheck.objects.order_by("pk")
    return [(each.environment_id, each.outcome) for each in rows]


SAME = {"hello world": "helloworld", "good day": "goodday"}


def test_with_the_software_of_the_evaluation_nothing_is_compared(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployed(of)
    assert workers(OLD).copy().state == "ready"
    assert (Asked.PROMPTS, outcomes()) == ([], [])


def test_with_other_software_the_same_answers_are_enough_and_are_given_once(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployment = deployed(of)
    first = workers(NEW)
    assert first.copy().state == "ready"
    assert sorted(Asked.PROMPTS) == sorted(SAME)
    assert outcomes() == [(fingerprint_of(NEW), "passed")]
    (event,) = AuditEvent.objects.filter(action="deployment:compare")
    assert (event.subject_id, event.outcome) == (str(deployment.pk), "allowed")
    assert "same answers to 2 requests with Assay 1, torch 3.0" in event.reason
    # Another worker with this software, and a later load, need no comparison.
    assert workers(NEW, "e2").copy().state == "ready"
    assert len(Asked.PROMPTS) == 2
    assert AuditEvent.objects.filter(action="deployment:compare").count() == 1


def test_other_answers_suspend_the_release_with_that_software_alone(workers: Any) -> None:
    of = version()
    measured(of, {**SAME, "good day": "another answer"})
    deployment = deployed(of)
    upgraded = workers(NEW)
    copy = upgraded.copy()
    assert copy.state == "failed"
    assert "suspended with the software of this worker" in copy.message
    assert outcomes() == [(fingerprint_of(NEW), "differs")]
    check = EquivalenceCheck.objects.get()
    assert check.differing == [{"row": 1, "how": "text differs"}]
    (event,) = AuditEvent.objects.filter(action="deployment:compare")
    assert (event.outcome, "1 of 2 answers differ" in event.reason) == ("denied", True)
    assert "another answer" not in event.canonical.decode(), "Answers stay out of the log."
    # Loaded and asked once: the next round refuses it before it loads anything.
    asked = len(Asked.PROMPTS)
    upgraded.again()
    assert (upgraded.copy().state, len(Asked.PROMPTS)) == ("failed", asked)
    # A worker with the software of the evaluation serves it.
    assert workers(OLD, "e2").copy().state == "ready"
    deployment.refresh_from_db()
    assert deployment.state == "serving"
    assert "docs" in answers_changed()


@pytest.mark.parametrize("same", [True, False])
def test_a_copy_answers_no_application_before_it_is_recorded_as_ready(
    workers: Any, same: bool
) -> None:
    of = version()
    measured(of, {**SAME, "good day": "goodday" if same else "another answer"})
    deployment = deployed(of)
    # Gateways seal requests for copies that still load, and the queue may hold some.
    upgraded = workers(NEW)
    assert Asked.LEASED == [False, False]
    assert upgraded.consumed == (["ready"] if same else [])
    assert upgraded.host.leased(deployment.pk) is same
    if same:
        Deployment.objects.update(state="stopped")
        upgraded.loop.settle()
        assert not upgraded.host.leased(deployment.pk)


def test_by_policy_other_answers_raise_an_alarm_and_serve(workers: Any) -> None:
    of = version()
    measured(of, {"hello world": "something else"})
    deployed(of, after_upgrade="alarm")
    assert answers_changed() == ""
    assert workers(NEW).copy().state == "ready"
    assert outcomes() == [(fingerprint_of(NEW), "differs")]
    assert "torch 3.0" in answers_changed()
    (event,) = AuditEvent.objects.filter(action="deployment:compare")
    assert (event.outcome, "It serves on" in event.reason) == ("allowed", True)


def test_a_difference_outweighs_what_passed_before(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployment = deployed(of)
    worker = workers(NEW)
    assert worker.copy().state == "ready"
    EquivalenceCheck.objects.create(
        release=deployment.release,
        environment_id=fingerprint_of(NEW),
        outcome=EquivalenceOutcome.DIFFERS,
        rows=2,
        differing=[{"row": 0, "how": "it differs"}],
        worker="e2",
    )
    worker.again()
    assert (worker.copy().state, worker.host.loaded()) == ("failed", {})


@pytest.mark.parametrize("policy", ["suspend", "alarm"])
def test_without_answers_the_first_software_serves_and_another_is_up_to_the_policy(
    workers: Any, policy: str
) -> None:
    deployed(version(), after_upgrade=policy)
    assert workers(OLD).copy().state == "ready"
    assert outcomes() == [(fingerprint_of(OLD), "first")]
    upgraded = workers(NEW, "e2").copy()
    assert upgraded.state == ("failed" if policy == "suspend" else "ready")
    assert outcomes()[1:] == [(fingerprint_of(NEW), "unverified")]
    assert "no answers to compare with" in answers_changed()


def test_without_answers_the_software_that_was_approved_serves(workers: Any) -> None:
    of = version()
    present = workers(NEW)
    deployed(of)
    present.again()
    assert present.copy().state == "ready"
    assert outcomes() == []
    (stated,) = Release.objects.get().dossier["software"]["serves_with"]
    assert stated == NEW
    assert (
        "was not evaluated" in (Release.objects.get().dossier["software"]["equivalence"]["because"])
    )


def test_answers_of_another_engine_precision_or_code_are_not_compared_with(workers: Any) -> None:
    of = version()
    measured(of, SAME, engine="vllm")
    measured(of, SAME, code="ab" * 32)
    assert deployed(of).release.dossier["software"]["equivalence"]["rows"] == 0


def test_answers_that_were_changed_in_the_database_are_compared_with_nothing(workers: Any) -> None:
    of = version()
    measured(of, {"hello world": "something else"})
    deployed(of)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("ALTER TABLE registry_evaluationreference DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE registry_evaluationreference SET rows = jsonb_set(rows, '{0,text}', "
            "'\"helloworld\"')"
        )
        cursor.execute(
            "ALTER TABLE registry_evaluationreference ENABLE ALWAYS TRIGGER "
            "assay_append_only_update"
        )
        cursor.execute("SET session_replication_role = origin")
    copy = workers(NEW).copy()
    assert copy.state != "ready"
    assert outcomes() == []


def test_what_was_found_and_the_answers_never_change(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployed(of)
    workers(NEW)
    for change in (
        lambda: EquivalenceCheck.objects.update(outcome="passed", rows=9),
        lambda: EquivalenceCheck.objects.all().delete(),
        lambda: EvaluationReference.objects.update(rows=[]),
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()


def test_a_worker_that_reports_no_software_is_compared_too(workers: Any) -> None:
    of = version()
    measured(of, SAME)
    deployed(of)
    assert workers({}).copy().state == "ready"
    assert outcomes() == [(fingerprint_of({}), "passed")]
