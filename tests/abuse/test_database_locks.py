"""A worker's database role holds whatever it can, and nothing that ends serving waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.pq import TransactionStatus

from assay.database_roles.hardening import harden
from assay.gateway.access.reading import read_snapshot
from governance.audit.alarms import alarms_check
from governance.audit.models import AuditAlarm, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import Subject, audit_record
from governance.audit.tree.merkle import leaf_hash
from governance.database.sessions import blocked_sentence
from governance.people.roles import another_admin_remains
from governance.principals import Principal
from governance.reviews.policies.lifecycle import review_policy_draft
from governance.reviews.policies.shipping import shipped_text
from registry.incidents.services import incident_open
from registry.releases.equivalence.models import SoftwareEnvironment
from registry.releases.equivalence.standing import fingerprint_of
from registry.releases.models import Release
from registry.releases.states import place_locked
from registry.uploads.services import upload_create
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius, version_recall
from tests.database_roles import acting_as
from tests.live.celery_worker import database_url, process_url
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import PATIENCE_S, wait_until
from workers.database_watch import SessionWatch, sessions_block, sessions_ended
from workers.deployments.leases import leases_renew
from workers.deployments.models import (
    Deployment,
    ReplicaState,
    ServingLease,
    ServingPeriod,
)
from workers.deployments.services import (
    deployment_create,
    deployment_stop,
    deployments_stop_unservable,
    replica_report,
    replicas_expire,
)
from workers.deployments.worker_keys import worker_key_register
from workers.jobs.models import Job, JobKind
from workers.jobs.services import job_claim, job_create
from workers.offers.models import WorkerRole, WorkerTasks
from workers.offers.services import KEPT, worker_tasks_expire
from workers.placement.assigning import placements_update

pytestmark = [pytest.mark.sweep, pytest.mark.django_db(transaction=True)]

Session = psycopg.Connection[Any]
MODES = (
    "ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE", "SHARE UPDATE EXCLUSIVE",
    "ROW EXCLUSIVE", "ROW SHARE", "ACCESS SHARE",
)  # fmt: skip
# The advisory locks that Assay once took.
ADVISORY = ("recall", "admins", "uploads", "job-claim", "policy", "review_policy", "placement")
NUMBERS = (0x41535341, 0x4153534C, 0x41535350, 0x41534558)


@dataclass
class World:
    """A deployment that serves, and a person who may end it."""

    admin: Principal
    deployments: list[Deployment]
    version: ModelVersion
    job: Job


@pytest.fixture
def world() -> World:
    admin = company.person("ada", "admin")
    company.person("grace", "admin")
    version = adapter()
    made = []
    for name in ("docs", "mail"):
        approved = release(version, name=name)
        one = deployment_create(actor=company.developer(), release_id=approved.pk)
        for state in (ReplicaState.LOADING, ReplicaState.READY):
            replica_report(
                deployment_id=one.pk, worker="e1", state=state, loaded_digest=version.digest
            )
        made.append(one)
    worker_key_register(worker="e1", public_key="ab" * 32)
    WorkerTasks.objects.create(
        worker="gone", role=WorkerRole.ENGINE, tasks={}, seen_at=timezone.now() - 2 * KEPT
    )
    job = job_create(
        actor=company.developer(),
        kind=JobKind.FINE_TUNE,
        department=company.department("clinical"),
        title="train",
        spec={},
    )
    return World(admin, made, version, job)


@contextmanager
def intruder() -> Iterator[Session]:
    """A session of the workers' role, whose limits it has lifted."""
    with psycopg.connect(process_url("worker"), autocommit=True) as session:
        session.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        session.execute("SET assay.departments = '*'")
        session.execute("BEGIN")
        yield session
        with suppress(psycopg.Error):
            session.execute("ROLLBACK")


def attempt(session: Session, statement: str, *values: Any) -> bool:
    """Return whether PostgreSQL let the session do it; what it holds then stays held."""
    try:
        with session.transaction():
            session.execute(statement, values)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ForeignKeyViolation):
        return False
    return True


def tables(session: Session) -> list[str]:
    return [
        name
        for (name,) in session.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = current_schema()::regnamespace ORDER BY 1"
        )
    ]


def locks_all_rows(session: Session, world: World) -> None:
    held = {name for name in tables(session) if attempt(session, f"TABLE {name} FOR UPDATE")}
    assert held == {
        "governance_budgethold", "governance_credentialuse", "registry_intakeprobe",
        "registry_softwareenvironment", "workers_deployment", "workers_job", "workers_jobline",
        "workers_replica", "workers_servingperiod", "workers_statedmodel", "workers_workerkey",
        "workers_workertasks",
    }  # fmt: skip


def locks_all_tables(session: Session, world: World) -> None:
    held = {
        name: next((m for m in MODES if attempt(session, f"LOCK TABLE {name} IN {m} MODE")), "")
        for name in tables(session)
    }
    # A role that may read a table can delay its alteration, but nothing else.
    stronger = {name for name, mode in held.items() if mode not in ("", "ACCESS SHARE")}
    assert stronger == {"workers_jobline"}


def takes_advisory_locks(session: Session, world: World) -> None:
    for name in ADVISORY:
        attempt(session, "SELECT pg_advisory_lock(hashtext(%s))", f"assay:{name}")
    for number in NUMBERS:
        attempt(session, "SELECT pg_advisory_lock(%s)", number)


def refers_to_events(session: Session, world: World) -> None:
    """A foreign key would lock the rows of events that are not sealed yet, against the sealer."""
    event = AuditEvent.objects.filter(sequence=None).order_by("-pk").values_list("pk", flat=True)[0]
    own = AuditEvent.objects.get(pk=ServingPeriod.objects.values_list("began_event_id")[:1])
    change = (
        "UPDATE workers_servingperiod SET serving_until = now(), ended_as = 'pending',"
        " ended_event_id = %s WHERE deployment_id = %s"
    )
    assert not attempt(session, change, event, world.deployments[0].pk)
    assert attempt(session, change, own.pk, int(own.subject_id))
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")


def refers_to_rows(session: Session, world: World) -> None:
    """Rows that refer to others lock those against deletion and FOR UPDATE."""
    for one in world.deployments:
        assert attempt(
            session,
            "INSERT INTO workers_replica (deployment_id, worker, state, loaded_digest, message,"
            " started_at, heartbeat_at, failures)"
            " VALUES (%s, 'x', 'failed', '', '', now(), now(), 0)",
            one.pk,
        )
    assert attempt(
        session,
        "INSERT INTO workers_jobevent (job_id, attempt, at, message, data)"
        " VALUES (%s, 1, now(), '', '{}')",
        world.job.pk,
    )
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")


def numbers_events_ahead(session: Session, world: World) -> None:
    """Whoever records an event under a number that comes next waits for this one's transaction."""
    last = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True)[0]
    job = {"actor_kind": "service", "actor_id": "compute-worker", "actor_name": "compute-worker",
           "department": "clinical", "action": "job:claim", "outcome": "allowed",
           "subject_type": "job", "subject_id": str(world.job.pk), "subject_name": "", "reason": "",
           "request_id": ""}  # fmt: skip
    now = datetime.now(UTC)
    body = {**job, "occurred_at": now.isoformat(), "policy_version": None, "data": {}}
    canonical = json.dumps(body).encode()
    row = {**job, "occurred_at": now, "delivery": "", "canonical": canonical,
           "leaf_hash": leaf_hash(canonical)}  # fmt: skip
    statement = "INSERT INTO governance_auditevent ({}) VALUES ({})"
    for more in ({"id": last + 1}, {"sequence": 0}):
        given = {**more, **row}
        wanted = statement.format(", ".join(given), ", ".join(["%s"] * len(given)))
        assert not attempt(session, wanted, *given.values())
    plain = statement.format(", ".join(row), ", ".join(["%s"] * len(row)))
    assert attempt(session, plain, *row.values())


def listens_and_floods(session: Session, world: World) -> None:
    session.execute("COMMIT")
    session.execute("LISTEN flood")
    session.execute("SELECT count(pg_notify('flood', repeat('x', 7000) || n)) FROM"
                    " generate_series(1, 500) n")  # fmt: skip
    session.execute("BEGIN")
    session.execute("SELECT count(*) FROM workers_job")


def keeps_a_snapshot(session: Session, world: World) -> None:
    session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    for name in tables(session):
        attempt(session, f"TABLE {name}")
    session.execute("DECLARE held CURSOR WITH HOLD FOR TABLE workers_job")


def compares_releases(session: Session, world: World) -> None:
    """A comparison names a release, which a foreign key would lock against its recall."""
    versions, _ = SoftwareEnvironment.objects.get_or_create(
        fingerprint=fingerprint_of({}), defaults={"engine": "own"}
    )
    for one in world.deployments:
        assert attempt(
            session,
            "INSERT INTO registry_equivalencecheck (release_id, environment_id, outcome, rows,"
            " differing, worker, checked_at) VALUES (%s, %s, 'passed', 1, '[]', 'x', now())",
            one.release_id,
            versions.pk,
        )
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")


ATTACKS: dict[str, Callable[[Session, World], None]] = {
    "all rows": locks_all_rows,
    "all tables": locks_all_tables,
    "advisory locks": takes_advisory_locks,
    "events of a period": refers_to_events,
    "rows that refer": refers_to_rows,
    "comparisons": compares_releases,
    "numbers of events": numbers_events_ahead,
    "notifications": listens_and_floods,
    "a snapshot": keeps_a_snapshot,
}


@pytest.fixture
def unhardened() -> Iterator[None]:
    """A server whose superuser has not revoked what every role may call."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proname ~ '^pg_.*advisory_'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"GRANT EXECUTE ON FUNCTION {name} TO PUBLIC")
    yield
    connection.ensure_connection()
    harden(connection.connection)


def seal(world: World) -> None:
    with transaction.atomic():
        audit_record(actor=world.admin, action="model:create", subject=Subject("model", "1", "m"))
    assert seal_once() > 0
    assert not AuditEvent.objects.filter(sequence=None).exists()


def renew(world: World) -> None:
    ServingLease.objects.update(servable_until=timezone.now())
    assert leases_renew() == len(world.deployments)


def recall(world: World) -> None:
    with acting_as("web"):
        radius = recall_radius(actor=world.admin, version_id=world.version.pk)
        version_recall(
            actor=world.admin,
            version_id=world.version.pk,
            reason="Unsafe.",
            confirm=radius.digest,
        )


def report(world: World) -> None:
    with acting_as("web"):
        incident_open(
            actor=world.admin,
            title="Wrong doses",
            happened="Ten times the dose.",
            severity="critical",
            versions=[world.version.pk],
        )
    assert set(Release.objects.values_list("state", flat=True)) == {"suspended"}


def draft(world: World) -> None:
    with acting_as("web"):
        review_policy_draft(actor=world.admin, text=shipped_text("limited"))


def upload(world: World) -> None:
    with acting_as("web"):
        upload_create(
            actor=company.developer(),
            kind="intake",
            department=company.department("clinical"),
            target="writer",
            filename="a.bin",
            size=10,
        )


def approve_and_leave(world: World) -> None:
    with acting_as("web"), transaction.atomic():
        place_locked(world.deployments[0].release_id)
        assert another_admin_remains(world.admin.person_id or 0)


def sweep(world: World) -> None:
    """Locked rows are left for later, and hold up nothing else."""
    placements_update()
    replicas_expire()
    deployments_stop_unservable()
    worker_tasks_expire()
    alarms_check()


def look(world: World) -> None:
    assert set(read_snapshot().deployments) == {"docs", "mail"}


# In this order: after a recall nothing can be reported or renewed.
CONTROL = (seal, renew, look, draft, upload, approve_and_leave, sweep, report, sweep, recall, seal)


def test_what_a_worker_may_insert_refers_to_rows_of_work_alone(db: object) -> None:
    """The foreign key of an insert locks the row that it names against `FOR UPDATE`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.conrelid::regclass::text, c.confrelid::regclass::text FROM pg_constraint c"
            " WHERE c.contype = 'f' AND has_any_column_privilege('assay_worker', c.conrelid,"
            " 'INSERT, UPDATE') AND EXISTS (SELECT FROM unnest(c.conkey) AS key WHERE"
            " has_column_privilege('assay_worker', c.conrelid, key, 'INSERT, UPDATE'))"
        )
        named = {f"{one} -> {other}" for one, other in cursor.fetchall()}
    assert named == {
        "registry_equivalencecheck -> registry_softwareenvironment",
        "workers_attemptlog -> workers_job",
        "workers_jobevent -> workers_job",
        "workers_replica -> workers_deployment",
        "workers_servingperiod -> workers_deployment",
        "workers_statedmodel -> workers_deployment",
    }


@pytest.mark.usefixtures("unhardened")
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_ends_serving_waits_for_nothing_that_a_worker_holds(world: World, attack: str) -> None:
    with intruder() as session:
        ATTACKS[attack](session, world)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '3s'")
        for operation in CONTROL:
            operation(world)
        # It held what it had all the time.
        assert session.info.transaction_status == TransactionStatus.INTRANS
        assert session.execute("SELECT 1").fetchone() == (1,)
    connection.close()


def claim(world: World) -> None:
    assert job_claim(job_id=world.job.pk, worker="w2") is not None


def stop(world: World) -> None:
    with acting_as("web"):
        deployment_stop(actor=world.admin, deployment_id=world.deployments[0].pk)


def report_replica(world: World) -> None:
    replica_report(
        deployment_id=world.deployments[1].pk,
        worker="x",
        state=ReplicaState.READY,
        loaded_digest=world.version.digest,
    )


def locks_the_line(session: Session, world: World) -> None:
    session.execute("LOCK TABLE workers_jobline IN EXCLUSIVE MODE")


def locks_few_and_waits(session: Session, world: World) -> None:
    session.execute("ROLLBACK")
    session.execute("SELECT pg_advisory_lock(1)")


def goes_on(
    world: World, attack: Callable[[Session, World], None], operation: Callable[[World], None]
) -> None:
    """Check that the watch ends who attacks, and no other, and that the operation is then done."""
    watch = SessionWatch()

    def work() -> None:
        try:
            for _ in range(100):
                try:
                    return operation(world)
                except OperationalError:  # No room in the table of locks, for now.
                    time.sleep(0.1)
        finally:
            connection.close()

    with intruder() as session, acting_as("controller"):
        watch.run()
        attack(session, world)
        with ThreadPoolExecutor(1) as threads:
            working = threads.submit(work)
            ended = 0
            for _ in range(200):
                ended += watch.run()
                if ended and working.done():
                    break
                time.sleep(0.1)
            working.result(PATIENCE_S)
        assert ended == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    event = AuditEvent.objects.get(action="database:session_end")
    assert (event.actor_id, event.subject_type) == ("controller", "session")
    assert "assay_worker (process " in sessions_ended()
    alarms_check()
    assert AuditAlarm.objects.filter(name="database_sessions_ended").exists()


def claim_at_last(world: World) -> None:
    """Claims pass over rows that another session holds, so that they do not wait."""
    wait_until(lambda: job_claim(job_id=world.job.pk, worker="w2") is not None)


HELD: dict[str, tuple[Callable[[Session, World], None], Callable[[World], None]]] = {
    "rows of deployments": (locks_all_rows, stop),
    "rows of jobs": (locks_all_rows, claim_at_last),
    "the line of jobs": (locks_the_line, claim),
    "another worker's copy": (refers_to_rows, report_replica),
    "an advisory lock": (locks_few_and_waits, claim),
}


@pytest.mark.usefixtures("unhardened")
@pytest.mark.parametrize("held", HELD)
def test_what_workers_share_goes_on_once_the_watch_has_ended_who_holds_it(
    world: World, held: str
) -> None:
    goes_on(world, *HELD[held])


def test_who_waits_says_for_whom(world: World) -> None:
    with intruder() as session, psycopg.connect(process_url("web")) as waiting:
        session.execute("SET application_name = 'celery@gpu1'")
        locks_all_rows(session, world)
        waiting.execute("SET assay.departments = '*'; SET application_name = 'assay-web'")

        def wait() -> None:
            with suppress(psycopg.errors.LockNotAvailable):
                waiting.execute("SET LOCAL lock_timeout = '20s'")
                waiting.execute("SELECT FROM workers_deployment FOR UPDATE")

        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(wait)
            while not (said := blocked_sentence()):
                time.sleep(0.1)
            assert said.startswith("assay_web (assay-web) waits for assay_worker (process ")
            assert f"process {session.info.backend_pid}, celery@gpu1" in said
            assert "transaction of " in said
            session.execute("ROLLBACK")
            asked.result(PATIENCE_S)
        waiting.rollback()
        assert blocked_sentence() == ""


def test_the_watch_leaves_alone_who_is_within_bounds(world: World) -> None:
    with psycopg.connect(process_url("worker")) as session, intruder() as other:
        session.execute("SET assay.departments = '*'")
        for one in (session, other):
            one.execute("SELECT * FROM workers_deployment FOR SHARE")
        watch = SessionWatch()
        assert [watch.run() for _ in range(8)] == [0] * 8
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert sessions_block() == sessions_ended() == ""


@pytest.mark.parametrize("process", ["web", "worker"])
def test_only_the_controller_sees_and_ends_sessions(process: str) -> None:
    with psycopg.connect(process_url(process), autocommit=True) as session:
        for call in ("assay_sessions()", "assay_session_end(1, now())"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {call}")


def test_the_controller_ends_no_session_but_of_a_process() -> None:
    with (
        psycopg.connect(process_url("controller"), autocommit=True) as session,
        psycopg.connect(database_url(), autocommit=True) as owner,
    ):
        call = "SELECT assay_session_end(pid, began_at) FROM assay_sessions() WHERE pid = %s"
        assert session.execute(call, [owner.info.backend_pid]).fetchone() == (False,)
        assert owner.execute("SELECT 1").fetchone() == (1,)


def test_a_superuser_takes_from_workers_what_holds_up_others() -> None:
    with psycopg.connect(process_url("worker"), autocommit=True) as session:
        for call in (
            "pg_advisory_lock(1)", "pg_try_advisory_xact_lock_shared(1)", "lo_create(0)",
            "pg_terminate_backend(1)", "pg_logical_emit_message(false, 'a', 'b')",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {call}")
        for change in (
            "SET temp_file_limit = -1",
            "ALTER ROLE assay_worker SET temp_file_limit = -1",
            "SET session_replication_role = replica",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(change)
        assert session.execute("SHOW temp_file_limit").fetchone() == ("2GB",)
