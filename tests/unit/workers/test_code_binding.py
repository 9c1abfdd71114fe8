"""A release serves with the packages of its task that its dossier names, and with no others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.cli.doctor import check_task_code
from assay.cli.findings import CheckFailed
from assay.gateway.access.reading import read_snapshot
from assay.portal.todo import todos_of
from governance.errors import WrongState
from governance.keys.services import access_token_create
from governance.people.models import Person
from governance.reviews.policies.selectors import review_policies_in_force
from registry.catalog import TASKS, code, codes_here, task_catalog
from registry.catalog.code import TaskCode
from registry.catalog.packages import Package
from registry.manifests import ManifestFile
from registry.releases.carrying import dossier_changes, renewal_obstacle
from registry.releases.checklist import checklist_build
from registry.releases.comparison.packages import packages_compared
from registry.releases.models import Release
from registry.releases.serving import release_servable, serving_verdicts
from registry.releases.voiding import stale_because
from tests.proofs import fresh_proof
from tests.unit.workers import company
from tests.unit.workers.releases import dossier_of, release
from tests.unit.workers.test_equivalence import OLD, Worker, deployed, measured, version
from workers.control.protocol import Software
from workers.deployments.alarms import code_differs
from workers.deployments.leases import leases_renew
from workers.deployments.models import Deployment
from workers.deployments.services import deployments_stop_unservable
from workers.deployments.software import code_differences, software_measure
from workers.deployments.worker_keys import worker_key_register
from workers.measurements.measuring import CODE
from workers.measurements.models import Measurement
from workers.placement.capacity import Capacity

pytestmark = pytest.mark.django_db(transaction=True)
TASK = "text-generation"


def package(number: str, **files: str) -> TaskCode:
    """The code of a task: one package with these files, each named by its digits."""
    listed = tuple(
        ManifestFile(f"mine/{name}.py", len(text), text * 64)
        for name, text in sorted(files.items())
    )
    return TaskCode((Package("mine", number, listed),))


APPROVED = package("0.1.0", runner="a", score="b")
EVIL = package("0.2.0", runner="e", more="c")


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the packages of the task that this process runs."""
    task = TASKS[TASK]
    engine = "tests.unit.workers.test_equivalence:Asked"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))

    def change(to: TaskCode | None) -> None:
        if to is None:
            monkeypatch.delitem(code.CODES, TASK)
        else:
            monkeypatch.setitem(code.CODES, TASK, to)

    change(APPROVED)
    return change


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("e1", OLD)
    yield made
    made.host.close()


def held(deployment: Deployment) -> Deployment:
    leases_renew()
    deployments_stop_unservable()
    deployment.refresh_from_db()
    return deployment


@pytest.mark.parametrize("present", [EVIL, None, code.NO_PACKAGES], ids=["other", "none", "own"])
def test_with_other_packages_nothing_serves_until_they_are_back(
    runs: Any, worker: Worker, present: TaskCode | None
) -> None:
    deployment = deployed(version())
    worker.start()
    assert worker.copy().state == "ready"
    runs(present)
    verdict = serving_verdicts([deployment.release])[deployment.release_id]
    assert verdict.refusal is not None
    assert (verdict.readable, verdict.final) == (True, False)
    assert "was approved with other code" in str(verdict.refusal)
    assert "the dossier names mine 0.1.0" in str(verdict.refusal)
    with pytest.raises(WrongState):
        release_servable(deployment.release)
    # The controller ends the lease and says so; the gateway refuses by itself.
    held(deployment)
    assert deployment.state == "serving"
    assert deployment.lease.servable_until <= timezone.now()
    assert "was approved with other code" in deployment.message
    assert "other code" in read_snapshot().deployments["docs"].obstacle
    # The worker lets go of it.
    worker.again()
    assert (worker.host.loaded(), worker.copy().state) == ({}, "failed")
    assert "was approved with other code" in worker.copy().message
    runs(APPROVED)
    held(deployment)
    assert deployment.lease.servable_until > timezone.now()
    worker.loop._attempts._failures.clear()
    worker.again()
    assert worker.copy().state == "ready"
    assert held(deployment).message == ""
    assert read_snapshot().deployments["docs"].obstacle == ""


def test_a_worker_loads_nothing_with_other_packages_than_the_plan_names(
    runs: Any, worker: Worker
) -> None:
    deployed(version())
    plan = worker.loop._control.current_plan(Deployment.objects.get().pk)
    assert (plan.code, plan.packages) == (APPROVED.digest, "mine 0.1.0")
    runs(EVIL)
    with pytest.raises(Exception, match=r"mine 0\.2\.0 \(code .*\) here, and the dossier names"):
        worker.host.load(plan)
    assert worker.host.loaded() == {}


def test_under_review_other_packages_void_and_approved_they_let_submit_again(runs: Any) -> None:
    of = version()
    waiting = release(of, state="in_review", name="waiting")
    approved = release(of, name="approved", hours=24 * 90)
    assert stale_because(waiting) == ""
    assert renewal_obstacle(approved) is not None
    runs(EVIL)
    assert "mine 0.2.0" in stale_because(waiting)
    assert renewal_obstacle(approved) is None


def test_a_renewal_shows_packages_and_files_that_changed(runs: Any) -> None:
    of = version()
    before = dossier_of(of)
    runs(EVIL)
    after = dossier_of(of)
    changes = {each.section: (each.before, each.after) for each in dossier_changes(before, after)}
    assert changes["software"] == ("mine 0.1.0", "mine 0.2.0")
    shown = packages_compared(after, before)
    assert [(row.name, row.change) for row in shown.versions.rows] == [("mine", "changed")]
    assert {row.path: row.change for row in shown.files.rows} == {
        "mine: mine/runner.py": "changed",
        "mine: mine/more.py": "added",
        "mine: mine/score.py": "removed",
    }
    assert shown.unlisted == []


def test_packages_with_many_files_are_named_by_their_digest(runs: Any) -> None:
    of = version()
    before = dossier_of(of)
    many = {f"file{number}": "d" for number in range(501)}
    runs(package("0.3.0", **many))
    after = dossier_of(of)
    (named,) = after["software"]["code"]["packages"]
    assert (named["file_count"], named["files"]) == (501, [])
    assert len(json.dumps(after["software"])) < 5_000
    shown = packages_compared(after, before)
    assert (shown.files.rows, shown.unlisted) == ([], ["mine"])
    assert packages_compared(after, None).unlisted == ["mine"]
    assert packages_compared(after, {}).unlisted == ["mine"]
    assert packages_compared(after, after).unlisted == []


def test_only_evaluations_with_the_packages_of_the_dossier_count(runs: Any) -> None:
    of = version()
    measured(of, {"a": "a"}, code=APPROVED.digest)
    policy = next(
        each.document for each in review_policies_in_force() if each.document.name == "limited"
    )

    def state() -> tuple[str, str]:
        entries = checklist_build(of, dossier_of(of), policy)
        (found,) = [each for each in entries if each.code == "evaluated"]
        return str(found.outcome), found.note

    assert state()[0] == "passed"
    runs(EVIL)
    outcome, note = state()
    assert outcome == "failed"
    assert "with other code of the task" in note
    measured(of, {"b": "b"}, code=EVIL.digest)
    assert state()[0] == "passed"


def test_processes_that_differ_are_named_everywhere(runs: Any) -> None:
    # The packages that are installed here do not differ.
    installed = {name: code for name, code in codes_here().items() if name != TASK}
    stated = {"digest": EVIL.digest, "packages": EVIL.title}
    worker_key_register(
        worker="e9",
        public_key="ab" * 32,
        engines=["own"],
        capacity=Capacity(10**9),
        software=Software({"own": OLD}, {**installed, TASK: stated}),
    )
    (difference,) = code_differences()
    assert (difference.process, difference.task) == ("e9", TASK)
    assert "e9 has mine 0.2.0" in code_differs()
    with pytest.raises(CheckFailed, match="e9 has mine"):
        check_task_code()
    software_measure()
    assert Measurement.objects.get(name="software").figures["code"] == {TASK: 1}
    # A controller without the package.
    Measurement.keep(f"{CODE}host:1", installed)
    assert [each.process for each in code_differences()] == ["e9", "the controller host:1"]
    admin = company.person("ada", "admin")
    token = access_token_create(
        person=Person.objects.get(pk=admin.person_id), name="t", proof=fresh_proof()
    )[1]
    answer = Client().get("/api/v1/software", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert [each["process"] for each in said["differences"]] == ["e9", "the controller host:1"]
    assert said["tasks"][TASK]["packages"] == "mine 0.1.0"
    worker_key_register(
        worker="e9", public_key="ab" * 32, engines=["own"], capacity=Capacity(10**9),
        software=Software(
            {"own": OLD}, {**installed, TASK: {"digest": APPROVED.digest, "packages": "mine"}}
        ),
    )  # fmt: skip
    assert [each.process for each in code_differences()] == ["the controller host:1"]


def test_the_department_is_asked_to_submit_it_again(runs: Any) -> None:
    deployment = deployed(version())
    lead = company.person("lea", "lead", "clinical")
    asked = f"Submit release {deployment.release_id} again"
    assert not [task for task in todos_of(lead) if task.title.startswith(asked)]
    runs(EVIL)
    held(deployment)
    assert [task for task in todos_of(lead) if task.title.startswith(asked)]


def test_a_dossier_whose_software_was_tampered_with_cannot_be_read(runs: Any) -> None:
    made = release(version())
    for software in ([], {"code": []}, {"code": {"packages": []}}, {"equivalence": {"rows": 1}}, 3):
        dossier = {**made.dossier, "software": software}
        Release.objects.filter(pk=made.pk).update(dossier=dossier)
        verdict = serving_verdicts([Release.objects.get(pk=made.pk)])[made.pk]
        assert verdict.refusal is not None, software


def test_the_rule_costs_a_fixed_number_of_queries_and_none_for_code(
    runs: Any, worker: Worker
) -> None:
    deployed(version())
    worker.start()
    read_snapshot()
    before = _queries(read_snapshot)
    runs(EVIL)
    assert _queries(read_snapshot) == before


def _queries(work: Any) -> int:
    with CaptureQueriesContext(connection) as captured:
        work()
    return len(captured)
