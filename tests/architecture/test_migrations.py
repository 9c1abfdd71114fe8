"""Migrations since the previous release keep it running; its database migrates with its data."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ModelState, ProjectState

from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from tests.migration_rules import LARGE, Release, faults
from tests.schema import TEMPLATE
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.upgrades import (
    copied_database,
    last_migrations,
    migrate_to,
    migrate_to_head,
    previous_release,
    released_database,
    rows,
    shape,
)
from workers.deployments.models import Deployment
from workers.deployments.services import deployment_create
from workers.jobs.services import job_claim, job_create

LOADER = MigrationLoader(None)
# Before the first release, today's commit takes its place: nothing has been added since.
PREVIOUS = previous_release() or "HEAD"
# Tables that the upgrade is tried with rows in.
FILLED = {
    "governance_auditcheckpoint",
    "governance_auditevent",
    "governance_decision",
    "governance_department",
    "governance_person",
    "governance_policyversion",
    "governance_review",
    "governance_reviewpolicy",
    "governance_roleassignment",
    "registry_model",
    "registry_modelversion",
    "registry_release",
    "workers_deployment",
    "workers_job",
}
REASON = "The table is empty in every installation."


def migrations_since(last: dict[str, str]) -> list[tuple[str, str]]:
    """Return our migrations after those of the previous release, each after its dependencies."""
    graph = LOADER.graph
    old = {key for named in last.items() for key in graph.forwards_plan(named)}
    plan = dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf))
    return [key for key in plan if key[0] in last and key not in old]


def test_migrations_since_the_previous_release_keep_it_running() -> None:
    last = last_migrations(PREVIOUS)
    state, release = LOADER.project_state(list(last.items())), Release()
    sentences = []
    for key in migrations_since(last):
        migration = LOADER.graph.nodes[key]
        sentences += [f"{'.'.join(key)}: {fault}" for fault in faults(migration, state, release)]
    assert sentences == [], "Expand now, contract in a later release; see docs/how-to/upgrade.md."


def test_a_history_without_the_previous_release_fails_loudly() -> None:
    with pytest.raises(RuntimeError, match="git fetch --unshallow"):
        last_migrations("0" * 40)


def test_large_tables_are_models() -> None:
    known = {"{}.{}".format(*key) for key in LOADER.project_state().models}
    assert known >= LARGE


def start() -> ProjectState:
    """Two tables of the previous release."""
    fields: list[tuple[str, Any]] = [
        ("id", models.BigAutoField(primary_key=True)),
        ("title", models.CharField(max_length=50)),
        ("size", models.IntegerField(null=True)),
        ("kept", models.IntegerField(db_default=1)),
    ]
    state = ProjectState()
    for name in ("Job", "Note"):
        state.add_model(ModelState("workers", name, list(fields)))
    return state


def judged(*operations: Any, **attributes: str) -> list[str]:
    kind = type("Migration", (migrations.Migration,), {"operations": operations, **attributes})
    return list(faults(kind("0099_test", "workers"), start(), Release()))


def altered(name: str, new: Any) -> migrations.AlterField:
    return migrations.AlterField("note", name, new)


BREAKING: tuple[Any, ...] = (
    migrations.RemoveField("note", "title"),
    migrations.DeleteModel("Note"),
    migrations.RenameField("note", "title", "name"),
    migrations.RenameModel("Note", "Remark"),
    migrations.AlterModelTable("note", "remarks"),
    migrations.AddField("note", "rank", models.IntegerField()),
    migrations.AddField("note", "rank", models.IntegerField(default=0)),
    altered("title", models.CharField(max_length=20)),
    altered("title", models.CharField(max_length=50, unique=True)),
    altered("size", models.IntegerField()),
    altered("size", models.SmallIntegerField(null=True)),
    altered("kept", models.IntegerField()),
    migrations.AddIndex("job", models.Index(fields=["title"], name="titles")),
    migrations.AddConstraint("note", models.UniqueConstraint(fields=["title"], name="one")),
    migrations.AddConstraint(
        "note", models.CheckConstraint(name="sizes", condition=models.Q(size__gt=0))
    ),
    migrations.RunSQL("ALTER TABLE x DROP COLUMN y", "SELECT 1"),
    migrations.RunSQL([("ALTER TABLE x ALTER COLUMN y TYPE int", None)], "SELECT 1"),
    migrations.RunSQL("ALTER TABLE x\nRENAME TO z", "SELECT 1"),
    migrations.RunSQL("CREATE INDEX titles ON x (y)", "SELECT 1"),
    migrations.RunPython(lambda _apps, _editor: None),
    migrations.SeparateDatabaseAndState([migrations.RemoveField("note", "title")], []),
)
HARMLESS: tuple[Any, ...] = (
    migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True))]),
    migrations.AddField("note", "rank", models.IntegerField(null=True)),
    migrations.AddField("note", "rank", models.IntegerField(db_default=0)),
    altered("title", models.CharField(max_length=80, choices=[("a", "b")])),
    altered("title", models.TextField()),
    altered("kept", models.BigIntegerField(db_default=2)),
    AddIndexConcurrently("job", models.Index(fields=["title"], name="titles")),
    migrations.AddIndex("note", models.Index(fields=["title"], name="titles")),
    migrations.RunSQL("CREATE INDEX CONCURRENTLY titles ON x (y)", "SELECT 1"),
    migrations.RunPython(lambda _apps, _editor: None, migrations.RunPython.noop),
)


@pytest.mark.parametrize("operation", BREAKING, ids=lambda each: each.describe()[:40])
def test_what_breaks_the_previous_release_is_refused_unless_the_migration_says_why(
    operation: Any,
) -> None:
    assert len(judged(operation)) == 1
    assert judged(operation, needs_downtime=REASON) == []
    assert judged(operation, needs_downtime="because") != []


@pytest.mark.parametrize("operation", HARMLESS, ids=lambda each: each.describe()[:40])
def test_what_only_adds_is_permitted(operation: Any) -> None:
    assert judged(operation) == []
    assert judged(operation, needs_downtime=REASON) != []


def test_what_the_same_release_has_made_may_be_changed() -> None:
    assert not judged(
        migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True))]),
        migrations.AddField("tag", "name", models.CharField(max_length=9)),
        migrations.AddConstraint("tag", models.UniqueConstraint(fields=["name"], name="one")),
        migrations.RenameField("tag", "name", "word"),
        migrations.AddField("note", "rank", models.IntegerField(null=True)),
        migrations.AddConstraint(
            "note", models.CheckConstraint(name="ranks", condition=models.Q(rank__gt=0))
        ),
        migrations.RemoveConstraint("note", "ranks"),
        migrations.AlterField("note", "rank", models.CharField(max_length=3, null=True)),
        migrations.RemoveField("note", "rank"),
        migrations.DeleteModel("Tag"),
    )


@pytest.mark.sweep
@pytest.mark.skipif("ASSAY_TEST_POSTGRES" not in os.environ, reason="needs the tests' own server")
def test_a_database_of_the_previous_release_migrates_with_its_data(
    django_db_setup: None, django_db_blocker: Any
) -> None:
    with django_db_blocker.unblock(), copied_database(TEMPLATE):
        company.developer()
        deployment = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
        job = job_create(
            actor=company.developer(),
            kind="evaluate",
            department=company.department("clinical"),
            title="Evaluate",
            spec={},
        )
        seal_once()
        migrate_to(last_migrations(PREVIOUS))
        shape_left = shape()
        columns, before = rows()
        assert {name for name, held in before.items() if held} >= FILLED
        migrate_to_head()
        assert rows(columns)[1] == before
        # The code of this release goes on with them.
        assert job_claim(job_id=job.pk, worker="w1") is not None
        assert Deployment.objects.get().release.dossier == deployment.release.dossier
        assert AuditEvent.objects.filter(sequence__isnull=False).exists()
    if PREVIOUS != "HEAD":
        with django_db_blocker.unblock(), released_database(PREVIOUS):
            assert shape() == shape_left
