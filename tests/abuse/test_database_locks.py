"""A worker's database role holds whatever it can, and nothing that ends serving waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.utils import timezone
from psycopg.pq import TransactionStatus

from assay.database_roles.hardening import harden
from assay.gateway.snapshot import read_snapshot
from governance.audit.alarms import alarms_check
from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import Subject, audit_record
from governance.audit.tree.merkle import leaf_hash
from governance.people.roles import another_admin_remains
from governance.principals import Principal
from governance.reviews.policies.lifecycle import review_policy_draft
from governance.reviews.policies.shipping import shipped_text
from registry.incidents.services import incident_open
from registry.releases.models import Release
from registry.releases.states import place_locked
from registry.uploads.services import upload_create
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius, version_recall
from tests.database_roles import acting_as
from tests.live.celery_worker import database_url
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.leases import leases_renew
from workers.deployments.models import (
    Deployment,
    ReplicaState,
    ServingLease,
    ServingPeriod,
)
from workers.deployments.services import (
    deployment_create,
    deployments_stop_unservable,
    replica_report,
    replicas_expire,
    worker_key_register,
)
from workers.jobs.models import Job, JobKind
from workers.jobs.services import job_create
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
    """What serves, and who may end it."""

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
    with psycopg.connect(database_url("worker"), autocommit=True) as session:
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
        "governance_budgethold", "workers_deployment", "workers_job", "workers_jobline",
        "workers_replica", "workers_servingperiod", "workers_workerkey",
    }  # fmt: skip


def locks_all_tables(session: Session, world: World) -> None:
    held = {
        name: next((m for m in MODES if attempt(session, f"LOCK TABLE {name} IN {m} MODE")), "")
        for name in tables(session)
    }
    # Who may read a table can keep it from being altered, and nothing else.
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


ATTACKS: dict[str, Callable[[Session, World], None]] = {
    "all rows": locks_all_rows,
    "all tables": locks_all_tables,
    "advisory locks": takes_advisory_locks,
    "events of a period": refers_to_events,
    "rows that refer": refers_to_rows,
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
            filename="a.bin",
            size=10,
        )


def approve_and_leave(world: World) -> None:
    with acting_as("web"), transaction.atomic():
        place_locked(world.deployments[0].release_id)
        assert another_admin_remains(world.admin.person_id or 0)


def sweep(world: World) -> None:
    """What is locked is left for later, and holds up nothing else."""
    placements_update()
    replicas_expire()
    deployments_stop_unservable()
    alarms_check()


def look(world: World) -> None:
    assert set(read_snapshot().deployments) == {"docs", "mail"}


# In this order: after a recall nothing can be reported or renewed.
CONTROL = (seal, renew, look, draft, upload, approve_and_leave, sweep, report, sweep, recall, seal)


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
