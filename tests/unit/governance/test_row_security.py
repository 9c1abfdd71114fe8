"""Access to the database without the services and the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, ProgrammingError, connection, transaction
from django.db.models import Model as DjangoModel
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from governance import rowsecurity
from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Department, Person
from governance.people.services import person_deactivate
from governance.permissions import VIEW_ACTIONS
from governance.policy.models import PolicyVersion
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal, PrincipalKind, service_principal
from governance.quotas.models import QuotaLimit
from governance.quotas.services import quota_reconcile
from governance.reviews.models import Decision, Review
from governance.usage.models import UsageRecord
from registry.datasets.models import Dataset, DatasetVersion
from registry.incidents.models import IncidentNote, IncidentSuspension, IncidentVersion
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from tests.proofs import vote_proof
from tests.unit.governance.row_security_world import OWNED, Estate, estates, names_of
from tests.unit.policy_support import install_rules
from workers.deployments.models import Deployment, ServingPeriod
from workers.jobs.models import Job

pytestmark = pytest.mark.sweep

# Whoever writes these does so past the scope.
APPEND_ONLY = {
    EmergencyAccess,
    IncidentNote,
    IncidentSuspension,
    IncidentVersion,
    ServingPeriod,
    UsageRecord,
}
# Tables with a department that everybody may read, each for the reason beside it.
OPEN_TABLES = {
    "registry_knowledgebase_departments": "whom a base is shared with, by ids; the base is guarded",
    "governance_auditevent": "refusals about another department are recorded there",
    "governance_auditname": "names in the log, found as the log is read: by the policy",
    "governance_roleassignment": "who is who is asked before anybody is known",
    "governance_groupmapping": "the administrators' alone; holds no department's data",
    "registry_release_departments": "the policies themselves read it",
}


@pytest.fixture
def world(
    policy: PolicyVersion, department: Callable[[str], Department], person: Callable[..., Person]
) -> dict[str, Estate]:
    """Three departments, each with one row of everything."""
    return estates(department, person)


@pytest.fixture
def member(world: dict[str, Estate], actor: Callable[..., Principal]) -> Principal:
    return actor("Mia", "lead@clinical")


def session() -> tuple[str, str]:
    """The database's own word on who asks and how far it sees."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('assay.departments', true)")
        found: tuple[str, str] = cursor.fetchone()
    return found


@contextmanager
def plain_owner() -> Iterator[None]:
    """Jobs belong to an ordinary role, no superuser, and it asks."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("CREATE ROLE assay_test_owner")
        cursor.execute("ALTER TABLE workers_job OWNER TO assay_test_owner")
        cursor.execute("SET LOCAL ROLE assay_test_owner")
        yield
        transaction.set_rollback(True)


@pytest.mark.parametrize("owned", OWNED, ids=lambda model: model._meta.model_name)
def test_with_the_services_passed_by_one_sees_ones_own_department_alone(
    world: dict[str, Estate], member: Principal, owned: type[DjangoModel]
) -> None:
    everything = {row.pk for estate in world.values() for row in estate.rows[owned]}
    own = {row.pk for row in world["clinical"].rows[owned]}

    with rowsecurity.scope(member):
        seen = set(owned._base_manager.values_list("pk", flat=True))

    assert own
    assert seen == own
    assert everything - own


@pytest.mark.parametrize("owned", OWNED, ids=lambda model: model._meta.model_name)
def test_with_the_services_passed_by_nothing_of_another_department_can_be_changed_or_deleted(
    world: dict[str, Estate], member: Principal, owned: type[DjangoModel]
) -> None:
    theirs = world["finance"].rows[owned][0]
    name = owned._meta.pk.name
    if owned in APPEND_ONLY:
        pytest.skip("append-only for everybody")

    rows = owned._base_manager.filter(pk=theirs.pk)
    for change in (
        lambda: rows.update(**{name: theirs.pk}),
        lambda: rows._raw_delete(rows.db),  # type: ignore[attr-defined]
    ):
        # Most tables take no DELETE from requests at all, and some no UPDATE of this column.
        with rowsecurity.scope(member):
            try:
                with transaction.atomic():
                    assert change() == 0
            except ProgrammingError as error:
                assert "permission denied" in str(error)  # noqa: PT017

    assert owned._base_manager.filter(pk=theirs.pk).exists()


def test_a_row_cannot_be_made_in_another_department(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs = world["finance"]
    with pytest.raises(ProgrammingError, match="row-level security"), rowsecurity.scope(member):
        Job.objects.create(
            kind="evaluate",
            department=theirs.department,
            title="t",
            spec={},
            created_by=theirs.person,
        )
    assert session() == ("postgres", "*")


def test_a_row_of_ones_own_cannot_be_moved_to_another_department(
    world: dict[str, Estate], member: Principal
) -> None:
    own, theirs = world["clinical"], world["finance"]
    with pytest.raises(ProgrammingError, match="row-level security"), rowsecurity.scope(member):
        Job.objects.filter(pk=own.rows[Job][0].pk).update(department=theirs.department)


def test_a_version_cannot_be_slipped_under_another_departments_model(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs = world["finance"].rows[Model][0]
    with pytest.raises(ProgrammingError, match="row-level security"), rowsecurity.scope(member):
        ModelVersion.objects.create(
            model=theirs,
            number=9,
            kind="base",
            digest="d" * 64,
            manifest={},
            size_bytes=1,
            created_by_id=member.person_id,
        )


def test_a_shared_model_is_seen_and_stays_its_owners(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs = world["finance"].rows[Model][0]
    Model.objects.filter(pk=theirs.pk).update(shared=True)

    with rowsecurity.scope(member):
        assert ModelVersion.objects.filter(model=theirs).exists()
        assert Model.objects.filter(pk=theirs.pk).update(description="mine now") == 0


@pytest.mark.parametrize("how", ["named", "organization"])
def test_a_release_that_is_for_my_department_is_seen_with_what_it_stands_on(
    world: dict[str, Estate], member: Principal, how: str
) -> None:
    theirs = world["finance"]
    release: Release = theirs.rows[Release][0]
    base: Model = world["engineering"].rows[Model][0]
    with connection.cursor() as cursor:
        # The version's row is what was registered; here it gets a base in a third department.
        cursor.execute(
            "UPDATE registry_modelversion SET kind = 'adapter', base_id = %s WHERE id = %s",
            [base.versions.get().pk, release.version_id],
        )
    if how == "named":
        release.departments.add(world["clinical"].department)
    else:
        Release.objects.filter(pk=release.pk).update(visibility="organization")

    with rowsecurity.scope(member):
        deployment = Deployment.objects.select_related(
            "release__version__model", "release__version__base__model"
        ).get(release=release)
        assert deployment.release.version.base is not None
        assert deployment.release.version.base.model.name == base.name
        assert Release.objects.filter(pk=release.pk).update(purpose="mine") == 0
        assert not Job.objects.filter(department=theirs.department).exists()
        assert not Review.objects.filter(department=theirs.department).exists()


def test_data_of_another_department_is_seen_where_a_version_of_mine_was_trained_on_it(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs: DatasetVersion = world["finance"].rows[DatasetVersion][0]
    mine: ModelVersion = world["clinical"].rows[ModelVersion][0]
    mine.dataset_version = theirs
    mine.save()

    with rowsecurity.scope(member):
        seen = ModelVersion.objects.get(pk=mine.pk)
        assert seen.dataset_version is not None
        assert seen.dataset_version.dataset.name == theirs.dataset.name


def test_a_person_sees_their_own_access_tokens_and_nobody_elses(
    world: dict[str, Estate], member: Principal
) -> None:
    mine = ApiKey.objects.create(**names_of("mine"), person_id=member.person_id)
    ApiKey.objects.create(**names_of("theirs"), person=world["finance"].person)

    with rowsecurity.scope(member):
        tokens = ApiKey.objects.filter(person__isnull=False)
        assert [key.pk for key in tokens] == [mine.pk]


def test_a_limit_on_the_organization_is_seen_by_all_and_set_by_none_of_them(
    world: dict[str, Estate], member: Principal
) -> None:
    limit = QuotaLimit.objects.create(kind="tokens_per_day", limit=5)

    with rowsecurity.scope(member):
        assert QuotaLimit.objects.filter(pk=limit.pk).exists()
        assert QuotaLimit.objects.filter(pk=limit.pk).update(limit=6) == 0


@pytest.mark.parametrize("role", ["admin", "operator", "auditor", "reviewer:compliance"])
def test_a_platform_role_sees_every_department(
    world: dict[str, Estate], actor: Callable[..., Principal], role: str
) -> None:
    with rowsecurity.scope(actor("Pia", role)):
        assert session() == ("assay_app", "*")
        assert {job.department.slug for job in Job.objects.all()} == set(world)


def test_the_platforms_own_process_sees_every_department(world: dict[str, Estate]) -> None:
    with rowsecurity.scope(service_principal("scim")):
        assert Job.objects.count() == len(world)


def test_a_key_sees_its_own_department(world: dict[str, Estate]) -> None:
    key = Principal(kind=PrincipalKind.KEY, id="1", name="k", department="finance", key_id=1)
    with rowsecurity.scope(key):
        assert {job.department.slug for job in Job.objects.all()} == {"finance"}


def test_somebody_without_any_role_sees_nothing(
    world: dict[str, Estate], actor: Callable[..., Principal]
) -> None:
    with rowsecurity.scope(actor("Nora")):
        assert not any(model._base_manager.exists() for model in OWNED)


def test_a_role_that_was_told_nothing_sees_nothing(world: dict[str, Estate]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE assay_app; SET LOCAL assay.departments = ''")
        seen = [model for model in OWNED if model._base_manager.exists()]
        cursor.execute("SET LOCAL ROLE NONE; SET LOCAL assay.departments = '*'")
    assert seen == []


def test_the_owner_of_a_table_is_bound_too(world: dict[str, Estate]) -> None:
    with plain_owner(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL assay.departments = ''")
        assert Job.objects.count() == 0
        cursor.execute("SET LOCAL assay.departments = '*'")
        assert Job.objects.count() == len(world)


def test_the_role_of_requests_owns_nothing_and_passes_nothing_by(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb"
            " FROM pg_roles WHERE rolname = 'assay_app'"
        )
        assert cursor.fetchone() == (False,) * 5
        cursor.execute("SELECT count(*) FROM pg_class WHERE relowner = 'assay_app'::regrole")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE governance_auditevent SET reason = ''",
        "DELETE FROM governance_auditevent",
        "TRUNCATE governance_auditevent",
        "INSERT INTO governance_auditcheckpoint DEFAULT VALUES",
        "INSERT INTO governance_auditsubtree VALUES (0, '')",
        "UPDATE governance_usagerecord SET total_ms = 0",
        "DELETE FROM governance_usagerecord",
        "DELETE FROM django_migrations",
        "ALTER TABLE workers_job DISABLE ROW LEVEL SECURITY",
        "DROP POLICY assay_read ON workers_job",
        "CREATE TABLE public.mine ()",
    ],
)
def test_the_role_of_requests_may_not(member: Principal, statement: str) -> None:
    with (
        pytest.raises(DatabaseError, match=r"permission denied|must be owner"),
        rowsecurity.scope(member),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


def test_the_audit_log_can_be_added_to_and_read(member: Principal) -> None:
    from governance.audit.services import Subject, audit_record

    with rowsecurity.scope(member):
        made = audit_record(actor=member, action="job:view", subject=Subject("job", "1", "one"))
        assert AuditEvent.objects.filter(pk=made.pk).exists()


def test_what_was_narrowed_is_wide_again_afterwards(member: Principal) -> None:
    before = session()
    with rowsecurity.scope(member):
        assert session()[0] == "assay_app"
    assert session() == before
    assert rowsecurity.current() is None


def test_what_was_narrowed_is_wide_again_after_an_error(member: Principal) -> None:
    before = session()
    with pytest.raises(ZeroDivisionError), rowsecurity.scope(member):
        _ = 1 // 0
    assert session() == before
    assert rowsecurity.current() is None


@pytest.mark.django_db(transaction=True)
def test_the_end_of_the_transaction_is_the_end_of_the_scope(
    world: dict[str, Estate], member: Principal
) -> None:
    before = session()
    active_policy()  # parses the rules, once for each process
    with CaptureQueriesContext(connection) as captured, rowsecurity.scope(member):
        assert session()[0] == "assay_app"
    assert session() == before
    said = [query["sql"].split()[0] for query in captured]
    # Transaction, the policy's number, the scope's one statement, and what was asked in it.
    assert said == ["BEGIN", "SELECT", "SELECT", "SELECT", "COMMIT"]


@pytest.mark.django_db(transaction=True)
def test_another_connection_is_not_narrowed_with_it(
    world: dict[str, Estate], member: Principal
) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    def elsewhere() -> tuple[Any, tuple[str, str]]:
        try:
            return rowsecurity.current(), session()
        finally:
            connection.close()

    with rowsecurity.scope(member), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, elsewhere).result() == (None, ("postgres", "*"))


def test_a_scope_within_a_scope_is_the_inner_actors(
    world: dict[str, Estate], member: Principal, actor: Callable[..., Principal]
) -> None:
    other = actor("Finn", "viewer@finance")
    with rowsecurity.scope(member):
        with rowsecurity.scope(other):
            assert {job.department.slug for job in Job.objects.all()} == {"finance"}
        assert {job.department.slug for job in Job.objects.all()} == {"clinical"}


def test_a_question_to_the_whole_platform_is_answered_and_the_scope_closes_again(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs = world["finance"].rows[Model][0].name
    with rowsecurity.scope(member):
        assert rowsecurity.exists_anywhere(Model, name=theirs)
        assert not rowsecurity.exists_anywhere(Model, name="nobodys")
        assert not Model.objects.filter(name=theirs).exists()


def test_every_table_with_a_department_is_guarded(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity")
        guarded = {name for (name,) in cursor.fetchall()}
    ours = [
        m
        for m in apps.get_models(include_auto_created=True)
        if m.__module__.split(".")[0] in {"governance", "registry", "workers", "assay"}
    ]
    with_department = {
        model._meta.db_table
        for model in ours
        for field in model._meta.get_fields()
        if field.name == "department" and field.concrete
    }
    assert with_department - guarded - OPEN_TABLES.keys() == set()
    assert {model._meta.db_table for model in OWNED} <= guarded


def test_what_a_rule_opens_beyond_departments_the_database_lets_through(
    world: dict[str, Estate], member: Principal
) -> None:
    def seen() -> set[str]:
        with rowsecurity.scope(member):
            rows = visible_to(member, VIEW_ACTIONS["job"], Job.objects.all(), resource_type="job")
            return {job.department.slug for job in rows}

    rule = {
        "id": "wide",
        "effect": "permit",
        "description": "wide",
        "principal": {"kinds": ["person"]},
        "actions": ["job:view"],
    }
    install_rules([rule])
    assert seen() == set(world)

    named = {"attribute": "department", "operator": "eq", "value": "finance"}
    install_rules([rule | {"conditions": [named]}])
    assert seen() == {"finance"}


def test_what_a_rule_opens_of_one_type_stays_closed_of_another(
    world: dict[str, Estate], member: Principal
) -> None:
    install_rules(
        [
            {
                "id": "wide",
                "effect": "permit",
                "description": "wide",
                "principal": {"member_roles": ["lead"]},
                "actions": ["dataset:view"],
                "conditions": [
                    {"attribute": "classification", "operator": "eq", "value": "public"}
                ],
            }
        ]
    )
    with rowsecurity.scope(member):
        assert Dataset.objects.count() == len(world)
        assert {job.department.slug for job in Job.objects.all()} == {"clinical"}


def test_a_vote_on_a_review_that_one_may_not_see_is_refused_by_the_database(
    world: dict[str, Estate], member: Principal
) -> None:
    theirs = world["finance"].rows[Review][0]
    with pytest.raises(DatabaseError), rowsecurity.scope(member):
        Decision.objects.create(
            review=theirs,
            submitter=theirs.opened_by,
            person_id=member.person_id,
            verdict="approve",
            specialty="compliance",
            reason="mine",
            digest="e" * 64,
            round=7,
            **vote_proof(),
        )


def test_counters_are_compared_with_every_departments_use_whoever_may_ask(
    world: dict[str, Estate], member: Principal, redis: Redis
) -> None:
    install_rules(
        [
            {
                "id": "wide",
                "effect": "permit",
                "description": "wide",
                "principal": {"kinds": ["person"]},
                "actions": ["quota:view"],
            }
        ]
    )
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"r-{slug}",
            occurred_at=timezone.now(),
            department=slug,
            key_public_id="k",
            deployment="d",
            version_digest="d",
            endpoint="e",
            prompt_tokens=5,
            outcome="ok",
        )
        for slug in world
    )

    without = quota_reconcile(actor=member, repair=False)
    with rowsecurity.scope(member):
        within = quota_reconcile(actor=member, repair=False)

    assert without.drifts
    assert within.drifts == without.drifts


def test_whoever_may_deactivate_a_colleague_ends_their_access_tokens_too(
    world: dict[str, Estate], member: Principal
) -> None:
    colleague = world["clinical"].person
    token = ApiKey.objects.create(**names_of("theirs"), person=colleague)
    install_rules(
        [
            {
                "id": "leads-part-with-people",
                "effect": "permit",
                "description": "leads deactivate colleagues",
                "principal": {"member_roles": ["lead"]},
                "actions": ["person:view", "person:deactivate"],
                "conditions": [{"attribute": "departments", "operator": "same_department"}],
            }
        ]
    )

    with rowsecurity.scope(member):
        person_deactivate(actor=member, person_id=colleague.pk, reason="left")
        assert not ApiKey.objects.filter(pk=token.pk).exists()

    token.refresh_from_db()
    assert token.revoked_at is not None
