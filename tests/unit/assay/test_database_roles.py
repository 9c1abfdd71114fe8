"""One database role per process: what each may write, and what a compromised one may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction
from django.utils import timezone

from assay.database_roles.privileges import OWNER, ROLES, TABLES
from governance.audit.models import AuditEvent
from governance.audit.services import Subject, audit_record
from governance.audit.tree.merkle import leaf_hash
from governance.people.models import Person, RoleAssignment
from governance.policy.models import PolicyVersion
from governance.principals import service_principal
from governance.reviews.models import Decision, Review
from governance.rowsecurity import ROLE as REQUESTS
from registry.releases.models import Release
from tests.database_roles import acting_as
from tests.live.celery_worker import database_url
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_jobs_chains import chained, succeed
from workers.deployments.models import Deployment, DeploymentState, ReplicaState, ServingPeriod
from workers.deployments.services import deployment_create, replica_report
from workers.deployments.worker_keys import worker_key_register
from workers.jobs.chains import Step, chain_of, chains_advance
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.services import (
    Report,
    job_claim,
    job_create,
    job_deliver,
    job_fail,
    job_heartbeat,
    job_report,
)

pytestmark = pytest.mark.django_db

WORKER = service_principal("compute-worker")
# Tables of decisions that bind others. Only people write them, in the web process.
OF_PEOPLE = (
    "governance_apikey",
    "governance_decision",
    "governance_person",
    "governance_policyversion",
    "governance_reviewpolicy",
    "governance_roleassignment",
    "mfa_authenticator",
)
SEALING = ("governance_auditcheckpoint", "governance_auditsubtree", "governance_auditcosignature")


def refused(change: Callable[[], Any]) -> str:
    """Return the database's refusal."""
    with (
        pytest.raises(ProgrammingError) as told,
        transaction.atomic(),
    ):
        change()
    assert isinstance(told.value.__cause__, psycopg.errors.InsufficientPrivilege)
    return str(told.value)


def writers(table: str) -> set[str]:
    """The roles that may insert into a table, update or delete it, or any of its columns."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.rolname FROM pg_roles r JOIN pg_class c ON c.oid = %s::regclass"
            " WHERE r.rolname LIKE 'assay\\_%%' AND r.oid <> c.relowner AND ("
            "  has_table_privilege(r.oid, c.oid, 'DELETE, TRUNCATE, TRIGGER, REFERENCES')"
            "  OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE'))",
            [table],
        )
        return {name for (name,) in cursor.fetchall()}


def test_every_table_declares_the_privileges_of_each_process() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm')"
            " AND relnamespace = current_schema()::regnamespace AND NOT relispartition"
        )
        assert {name for (name,) in cursor.fetchall()} == TABLES.keys()


@pytest.mark.parametrize("table", OF_PEOPLE)
def test_only_web_writes_what_binds_others(table: str) -> None:
    allowed = {REQUESTS, ROLES["web"].name}
    if table == "governance_apikey":
        # The controller writes one column: the last use of a key, from the usage stream.
        allowed |= {ROLES["controller"].name}
    assert writers(table) <= allowed
    assert ROLES["web"].name in writers(table)


@pytest.mark.parametrize("table", SEALING)
def test_only_the_controller_seals(table: str) -> None:
    assert writers(table) == {ROLES["controller"].name}


def test_no_role_of_a_process_is_bound_by_less_than_the_tables_owner() -> None:
    names = [role.name for role in ROLES.values()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s) AND NOT (rolsuper"
            " OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolinherit)",
            [names],
        )
        assert cursor.fetchone() == (len(ROLES),)
        cursor.execute(
            "SELECT member::regrole::text, roleid::regrole::text FROM pg_auth_members"
            " WHERE member::regrole::text = ANY (%s)",
            [names],
        )
        assert cursor.fetchall() == [(ROLES["web"].name, REQUESTS)]


@pytest.mark.parametrize("process", ROLES)
def test_each_role_connects_within_its_bounds_and_becomes_no_other(process: str) -> None:
    role = ROLES[process]
    with psycopg.connect(database_url(role.name), autocommit=True) as session:
        shown = session.execute("SHOW statement_timeout").fetchone()
        limit = session.execute(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user"
        ).fetchone()
        assert shown == (role.statement_timeout.replace("60s", "1min"),)
        assert limit == (role.connections,)
        others = {OWNER, "postgres", *(other.name for other in ROLES.values())} - {role.name}
        for other in others if process == "web" else others | {REQUESTS}:
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.DataError)):
                session.execute(f"SET ROLE {other}")
        for change in (
            "CREATE TABLE mine (id int)",
            "ALTER TABLE governance_decision DISABLE TRIGGER ALL",
            "SET session_replication_role = replica",
            "CREATE TEMPORARY TABLE mine (id int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(change)


def test_applying_the_roles_takes_back_what_was_granted_by_hand() -> None:
    with connection.cursor() as cursor:
        cursor.execute("GRANT INSERT ON governance_decision TO assay_worker")
        cursor.execute("GRANT UPDATE (email) ON governance_person TO PUBLIC")
        assert "assay_worker" in writers("governance_decision")
        call_command("apply_database_roles", "--connections", "worker=7")
        assert "assay_worker" not in writers("governance_decision")
        assert "assay_worker" not in writers("governance_person")
        cursor.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'assay_worker'")
        assert cursor.fetchone() == (7,)


@pytest.mark.parametrize("limit", ["worker", "worker=many", "beat=3"])
def test_a_connection_limit_of_no_process_is_refused(limit: str) -> None:
    with pytest.raises(CommandError, match="web, controller, worker"):
        call_command("apply_database_roles", "--connections", limit)


def test_a_role_that_is_a_superuser_is_refused() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE assay_worker SUPERUSER")
    with pytest.raises(CommandError, match="assay_worker is a superuser"):
        call_command("apply_database_roles")


def test_a_password_is_stored_as_a_verifier(settings: Any) -> None:
    settings.DATABASE_ROLE_PASSWORDS = {"worker": "of the worker"}
    call_command("apply_database_roles")
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'assay_worker'")
        assert cursor.fetchone()[0].startswith("SCRAM-SHA-256$")


@pytest.fixture
def open_release() -> Review:
    """The review of a release, approved by one vote, whose votes a worker would like to add to."""
    release(adapter())
    return Review.objects.get()


def test_a_compromised_worker_casts_no_vote_and_grants_no_role(open_release: Review) -> None:
    first = Decision.objects.get()
    reviewer = Person.objects.create(email="mallory@example.org", name="Mallory")
    policy = PolicyVersion.objects.get()
    attacks: dict[str, Callable[[], Any]] = {
        "a vote": lambda: Decision.objects.create(
            review_id=open_release.pk,
            submitter_id=first.submitter_id,
            person_id=reviewer.pk,
            verdict="approve",
            specialty="security",
            reason="Looks good",
            digest=open_release.digest,
            round=first.round,
            proof_method=first.proof_method,
            proved_at=timezone.now(),
        ),
        "a vote that is changed": lambda: Decision.objects.update(verdict="approve"),
        "an approved review": lambda: Review.objects.update(state="approved"),
        "a role": lambda: RoleAssignment.objects.create(person_id=reviewer.pk, role="admin"),
        "a policy": lambda: PolicyVersion.objects.filter(pk=policy.pk).update(state="active"),
        "a password": lambda: Person.objects.filter(pk=reviewer.pk).update(password="known"),
        "the passwords": lambda: list(Person.objects.values_list("password")),
        "an approved release": lambda: Release.objects.update(state="approved"),
        "what others recorded": lambda: list(AuditEvent.objects.values_list("canonical")),
        "a seal": lambda: AuditEvent.objects.update(sequence=1),
    }
    with acting_as("worker"):
        for change in attacks.values():
            assert "permission denied" in refused(change)


def job() -> Job:
    return job_create(
        actor=company.developer(),
        kind=JobKind.FINE_TUNE,
        department=company.department("clinical"),
        title="train",
        spec={},
    )


MANIFEST = {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}


def test_a_worker_runs_a_job_under_its_role() -> None:
    done, broken = job(), job()
    with acting_as("worker"):
        claim = job_claim(job_id=done.pk, worker="w1")
        assert claim is not None
        assert job_heartbeat(claim).alive
        job_report(claim, reports=[Report(message="on it", step=1, total=2)], phase="training")
        assert (
            job_deliver(claim, {"metrics": {}, "parameters": {}, "manifest": MANIFEST})
            is JobState.FINISHING
        )
        second = job_claim(job_id=broken.pk, worker="w1")
        assert second is not None
        assert job_fail(second, "no room", retry=True) is JobState.QUEUED
    events = AuditEvent.objects.filter(actor_id=WORKER.id).order_by("pk")
    assert [event.action for event in events] == [
        "job:claim", "job:deliver", "job:claim", "job:requeue",
    ]  # fmt: skip


def test_the_controller_starts_what_follows_a_fine_tune_under_its_role() -> None:
    first = chained(Step(company.data("held-out", "text-classification")))
    succeed(first)
    with acting_as("controller"):
        assert chains_advance() == 1
    assert [link.state for link in chain_of(first)[1]] == ["started"]


def test_a_worker_changes_no_request_and_finishes_no_job() -> None:
    waiting, over = job(), job()
    Job.objects.filter(pk=over.pk).update(state=JobState.FINISHING)
    with acting_as("worker"):
        for change in (
            lambda: Job.objects.filter(pk=waiting.pk).update(spec={"base": 1}),
            lambda: Job.objects.filter(pk=waiting.pk).update(created_by=1),
            lambda: Job.objects.filter(pk=waiting.pk).update(state=JobState.SUCCEEDED),
            lambda: Job.objects.filter(pk=over.pk).update(result={"manifest": {}}),
            lambda: Job.objects.filter(pk=waiting.pk).delete(),
        ):
            refused(change)


def test_an_engine_worker_reports_under_its_role_and_stops_nothing() -> None:
    made = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
    digest = made.release.version.digest
    with acting_as("worker"):
        for state in (ReplicaState.LOADING, ReplicaState.READY):
            replica_report(deployment_id=made.pk, worker="e1", state=state, loaded_digest=digest)
        event = AuditEvent(pk=ServingPeriod.objects.values_list("began_event_id", flat=True).get())
        for change in (
            lambda: Deployment.objects.update(state=DeploymentState.STOPPED),
            lambda: Deployment.objects.update(release=1),
            lambda: ServingPeriod.objects.create(
                deployment=made, digest="0" * 64, serving_from=timezone.now(), began_event=event
            ),
            lambda: ServingPeriod.objects.update(
                serving_until=timezone.now() + timedelta(days=30),
                ended_as="stopped",
                ended_event=event,
            ),
        ):
            refused(change)
    made.refresh_from_db()
    assert made.state == DeploymentState.SERVING


def test_an_engine_worker_registers_its_key_and_records_no_other() -> None:
    with acting_as("worker"):
        worker_key_register(worker="e1", public_key="ab" * 32)
        refused(
            lambda: audit_record(
                actor=service_principal("engine-worker"),
                action="worker:register",
                subject=Subject("worker", "e1", "e1"),
                data={"public_key": "cd" * 32},
            )
        )
    assert AuditEvent.objects.get(action="worker:register").subject_id == "e1"


def forge(**changes: Any) -> None:
    """Insert an event as a worker would whose code is somebody else's."""
    given = {
        "actor_kind": "service",
        "actor_id": "compute-worker",
        "actor_name": "compute-worker",
        "department": "clinical",
        "action": "job:claim",
        "outcome": "allowed",
        "subject_type": "job",
        "subject_id": "",
        "subject_name": "train",
        "reason": "",
        "request_id": "",
        **changes,
    }
    columns = given.pop("columns", {})
    hashed = given.pop("hashed", None)
    moment = given.pop("at", datetime.now(UTC))
    personal = given.pop("personal", None)
    first = given.pop("first", b"")
    body = {**given, "occurred_at": moment.isoformat(), "policy_version": None, "data": {}}
    if personal is not None:
        body["personal"] = personal
    canonical = json.dumps(body).encode()
    if first:
        canonical = b"{" + first + b", " + canonical[1:]
    row = {
        **given,
        "delivery": "",
        "occurred_at": moment,
        "canonical": canonical,
        "leaf_hash": leaf_hash(canonical if hashed is None else hashed),
        **columns,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO governance_auditevent ({', '.join(row)})"  # noqa: S608 (our own names)
            f" VALUES ({', '.join(['%s'] * len(row))})",
            list(row.values()),
        )


FORGERIES: dict[str, dict[str, Any]] = {
    "a person": {"actor_kind": "person", "actor_id": "1", "actor_name": "Ada"},
    "the controller": {"actor_id": "controller", "actor_name": "controller"},
    "a vote": {"action": "review:approve", "subject_type": "review", "subject_id": "1"},
    "a role": {"action": "role:grant", "subject_type": "person", "subject_id": "1"},
    "the end of a job": {"action": "job:finish"},
    "no such job": {"subject_id": "3f1c2c7e-0000-4000-8000-000000000000"},
    "another department": {"department": "finance"},
    "no department": {"department": ""},
    "another time": {"at": datetime.now(UTC) - timedelta(days=1)},
    "a box of a person": {"personal": [{"of": "person:1", "box": "AAAA"}]},
    "columns that differ": {"columns": {"actor_id": "controller"}},
    "canonical bytes that differ": {
        "actor_kind": "person", "columns": {"actor_kind": "service"},
    },
    "a hash of other bytes": {"hashed": b"something else"},
    "a key twice": {"first": b'"actor_id": "controller"'},
    "a key twice, once escaped": {"first": b'"\\u0061ctor_id": "controller"'},
    "a key twice, further down": {"first": b'"more": [{"a": {"b": 1, "b": 2}}]'},
    "no object": {"first": b'"actor_id": "controller"]'},
    "half a character": {"first": b'"more": "\\ud800"'},
    "a megabyte": {"first": b'"more": "' + b"x" * 2**20 + b'"'},
    "a number of its own": {"columns": {"id": 2**40}},
    "a seal": {"columns": {"sequence": 0}},
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_compromised_worker_records_no_event_but_of_its_own_work(forgery: str) -> None:
    subject = {"subject_id": str(job().pk)}
    company.department("finance")
    with acting_as("worker"):
        forge(**subject)
        refused(lambda: forge(**{**subject, **FORGERIES[forgery]}))


def test_the_controller_casts_no_vote_and_changes_no_person(open_release: Review) -> None:
    first = Decision.objects.get()
    first.pk = None
    with acting_as("controller"):
        for change in (
            lambda: first.save(force_insert=True),
            lambda: RoleAssignment.objects.update(role="admin"),
            lambda: Person.objects.update(is_active=True),
            lambda: PolicyVersion.objects.update(state="active"),
        ):
            refused(change)


def test_web_records_events_and_seals_none(open_release: Review) -> None:
    with acting_as("web"):
        audit_record(actor=WORKER, action="job:claim", subject=Subject("job", "1", "train"))
        for change in (
            lambda: AuditEvent.objects.update(sequence=1),
            lambda: AuditEvent.objects.all()._raw_delete(AuditEvent.objects.db),
        ):
            refused(change)
