"""Lists: as many queries for thirty rows as for one, and each row in full."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.exports.models import AuditExport
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.search.models import AuditFilter
from governance.credentials.models import Credential
from governance.keys.models import ApiKey
from governance.people.models import (
    Department,
    DirectoryGroup,
    GroupMapping,
    Person,
    RoleAssignment,
)
from governance.quotas.models import QuotaLimit
from governance.reviews.absences.models import Absence
from governance.reviews.models import Review
from governance.reviews.policies.document import text_digest
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.shipping import shipped_text
from governance.usage.models import UsageRecord
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.incidents.models import Incident, IncidentVersion
from registry.intake.models import Intake
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from tests.unit.assay.api_support import Api
from workers.deployments.models import Deployment, Replica
from workers.jobs.models import Job, JobEvent
from workers.schedules.models import Schedule

pytestmark = pytest.mark.sweep

DIGEST = "0" * 64
# Queries of a list of any length: the key, the caller's roles, the policy, and the rows.
QUERIES = {
    "departments": 4,
    "people": 6,
    "groups": 4,
    "group-mappings": 4,
    "credentials": 4,
    "keys": 4,
    "quotas": 4,
    "models": 4,
    "models/line/versions": 5,
    "incidents": 5,
    "emergency-access": 4,
    "intakes": 4,
    "datasets": 4,
    "datasets/line/versions": 5,
    "gates": 4,
    "evaluations": 5,
    "jobs": 4,
    "schedules": 4,
    "releases": 5,
    # With those who are assigned.
    "reviews": 5,
    "absences": 4,
    "review-policies": 4,
    "deployments": 7,
    "usage": 4,
    # And the ids along one index, which departments these can be of, and the keys of people.
    "audit/events": 6,
    "audit/checkpoints": 5,
    "audit/exports": 4,
    # With the policy: who may read the whole log sees shared ones.
    "audit/filters": 4,
}
# Around each: the scope of row security, which here is a savepoint and its end, and setting it and
# putting it back. Outside of a test's transaction the end puts it back.
SCOPE = 4


class World:
    """Rows to list, each with its own department and person."""

    def __init__(self) -> None:
        self.count = 0

    def department(self) -> Department:
        self.count += 1
        slug = f"dep{self.count}"
        return Department.objects.create(slug=slug, name=slug)

    def person(self) -> Person:
        self.count += 1
        return Person.objects.create(email=f"p{self.count}@example.org", name=f"P{self.count}")

    def model(self, name: str = "") -> Model:
        self.count += 1
        return Model.objects.create(
            name=name or f"model-{self.count}",
            department=self.department(),
            task="text-classification",
            created_by=self.person(),
        )

    def version(self, model: Model | None = None, base: ModelVersion | None = None) -> ModelVersion:
        self.count += 1
        return ModelVersion.objects.create(
            model=model or self.model(),
            number=self.count,
            kind="full" if base else "base",
            base=base,
            dataset_version=self.dataset_version() if base else None,
            digest=DIGEST,
            manifest={},
            size_bytes=1,
            created_by=self.person(),
        )

    def dataset(self, name: str = "") -> Dataset:
        self.count += 1
        return Dataset.objects.create(
            name=name or f"data-{self.count}",
            department=self.department(),
            task="text-classification",
            classification="public",
            license="CC0",
            created_by=self.person(),
        )

    def dataset_version(self, dataset: Dataset | None = None) -> DatasetVersion:
        self.count += 1
        return DatasetVersion.objects.create(
            dataset=dataset or self.dataset(),
            number=self.count,
            digest=DIGEST,
            rows=1,
            size_bytes=1,
            schema={},
            created_by=self.person(),
        )

    def gate(self) -> Gate:
        return Gate.objects.create(
            model=self.model(),
            dataset=self.dataset(),
            metric="accuracy",
            comparator=">=",
            threshold=0.5,
            created_by=self.person(),
        )

    def release(self) -> Release:
        self.count += 1
        made = Release.objects.create(
            version=self.version(),
            department=self.department(),
            environment="staging",
            deployment_name=f"name-{self.count}",
            purpose="p",
            dossier={},
            dossier_digest=DIGEST,
            submitted_by=self.person(),
        )
        made.departments.set([self.department(), self.department()])
        return made


def fill_people(world: World, _number: int) -> None:
    RoleAssignment.objects.create(
        person=world.person(), role="developer", department=world.department()
    )


def fill_groups(world: World, number: int) -> None:
    DirectoryGroup.objects.create(name=f"group {number}").members.add(world.person())


def fill_mappings(world: World, number: int) -> None:
    GroupMapping.objects.create(
        group=f"group {number}",
        role="lead",
        department=world.department(),
        created_by=world.person(),
    )


def fill_keys(world: World, number: int) -> None:
    ApiKey.objects.create(
        public_id=f"k{number}",
        secret_hmac=b"",
        pepper_version=1,
        name="k",
        department=world.department(),
        created_by=world.person(),
        expires_at=timezone.now() + timedelta(days=1),
    )


def fill_credentials(world: World, number: int) -> None:
    Credential.objects.create(
        department=world.department(),
        name=f"c{number}",
        kind="header",
        hosts=["api.example.com"],
        sealed=b"sealed",
        created_by=world.person(),
    )


def fill_quotas(world: World, _number: int) -> None:
    QuotaLimit.objects.create(department=world.department(), kind="tokens_per_day", limit=1)


def fill_versions(world: World, _number: int) -> None:
    line = Model.objects.filter(name="line").first() or world.model("line")
    world.version(line, base=world.version())


def fill_intakes(world: World, _number: int) -> None:
    Intake.objects.create(
        model=world.model(),
        source="s",
        license="l",
        submitted_by=world.person(),
        signed_by=world.person(),
    )


def fill_incidents(world: World, _number: int) -> None:
    made = Incident.objects.create(
        title="t",
        happened="h",
        severity="low",
        aware_at=timezone.now(),
        department=world.department(),
        reporter=world.person(),
    )
    IncidentVersion.objects.create(incident=made, version=world.version(), added_by=world.person())


def fill_emergency_access(world: World, _number: int) -> None:
    release, now = world.release(), timezone.now()
    EmergencyAccess.objects.create(
        release=release,
        department=release.department,
        dossier_digest=DIGEST,
        reason="r",
        hours=1,
        excluded_people=[],
        asked_by=world.person(),
        asked_at=now,
        state="reviewed",
        confirmed_by=world.person(),
        confirmed_at=now,
        ends_at=now,
        ended_at=now,
        ended_by=world.person(),
        due_at=now,
        reviewed_by=world.person(),
        reviewed_at=now,
        verdict="justified",
        lessons="l",
    )


def fill_dataset_versions(world: World, _number: int) -> None:
    line = Dataset.objects.filter(name="line").first() or world.dataset("line")
    world.dataset_version(line)


def fill_evaluations(world: World, _number: int) -> None:
    made = Evaluation.objects.create(
        version=world.version(),
        dataset_version=world.dataset_version(),
        metrics={},
        sample_size=1,
        digest=DIGEST,
        job_id=uuid4(),
        created_by=world.person(),
        started_at=timezone.now(),
    )
    GateResult.objects.create(
        evaluation=made, gate=world.gate(), threshold=0.5, value=None, passed=False
    )


def fill_jobs(world: World, _number: int) -> None:
    Job.objects.create(
        kind="evaluate",
        department=world.department(),
        title="t",
        spec={},
        created_by=world.person(),
    )


def fill_schedules(world: World, number: int) -> None:
    Schedule.objects.create(
        name=f"s{number}",
        department=world.department(),
        owner=world.person(),
        kind="evaluate",
        title="t",
        request={},
        cron="0 2 * * *",
        next_due_at=timezone.now(),
    )


def fill_reviews(world: World, number: int) -> None:
    Review.objects.create(
        subject_type="release",
        subject_id=str(number),
        subject_name="r",
        department=world.department(),
        digest=DIGEST,
        required_approvals={"compliance": 1},
        policy_version=1,
        opened_by=world.person(),
        due_at=timezone.now(),
    )


def fill_absences(world: World, _number: int) -> None:
    now, away = timezone.now(), world.person()
    Absence.objects.create(
        person=away, deputy=world.person(), specialty="privacy", set_by=away,
        starts_at=now, ends_at=now + timedelta(days=1),
    )  # fmt: skip


def fill_review_policies(world: World, number: int) -> None:
    made = ReviewPolicy(name="tidal", version=number + 1, text=shipped_text("limited"), digest="")
    made.created_by, made.digest = world.person(), text_digest(made.text)
    made.save()


def fill_deployments(world: World, _number: int) -> None:
    release = world.release()
    made = Deployment.objects.create(
        name=release.deployment_name,
        release=release,
        department=release.department,
        created_by=world.person(),
    )
    for worker in ("a", "b"):
        Replica.objects.create(
            deployment=made, worker=worker, state="ready", heartbeat_at=timezone.now()
        )


def fill_usage(_world: World, number: int) -> None:
    UsageRecord.objects.create(
        request_id=f"r{number}", occurred_at=timezone.now(), department="clinical", outcome="ok"
    )


def fill_audit(_world: World, _number: int) -> None:
    AuditEvent.objects.create(
        occurred_at=timezone.now(),
        actor_kind="person",
        action="a:b",
        outcome="allowed",
        canonical=b"{}",
        leaf_hash=bytes(32),
    )


def fill_checkpoints(_world: World, number: int) -> None:
    AuditCheckpoint.objects.create(
        tree_size=number + 1, root_hash=bytes(32), frontier=b"", note="n"
    )


def fill_exports(_world: World, _number: int) -> None:
    ada = Person.objects.get(name="Ada")
    AuditExport.objects.create(person=ada, filters={"action": "a:b"}, format="jsonl")


def fill_filters(_world: World, number: int) -> None:
    ada = Person.objects.get(name="Ada")
    AuditFilter.objects.create(person=ada, name=f"f{number}", parameters={"who": "x"})


FILL: dict[str, Callable[[World, int], object]] = {
    "departments": lambda world, _: world.department(),
    "people": fill_people,
    "groups": fill_groups,
    "group-mappings": fill_mappings,
    "credentials": fill_credentials,
    "keys": fill_keys,
    "quotas": fill_quotas,
    "models": lambda world, _: world.model(),
    "models/line/versions": fill_versions,
    "incidents": fill_incidents,
    "emergency-access": fill_emergency_access,
    "intakes": fill_intakes,
    "datasets": lambda world, _: world.dataset(),
    "datasets/line/versions": fill_dataset_versions,
    "gates": lambda world, _: world.gate(),
    "evaluations": fill_evaluations,
    "jobs": fill_jobs,
    "schedules": fill_schedules,
    "releases": lambda world, _: world.release(),
    "reviews": fill_reviews,
    "absences": fill_absences,
    "review-policies": fill_review_policies,
    "deployments": fill_deployments,
    "usage": fill_usage,
    "audit/events": fill_audit,
    "audit/checkpoints": fill_checkpoints,
    "audit/exports": fill_exports,
    "audit/filters": fill_filters,
}


@pytest.mark.parametrize("path", FILL)
def test_a_list_of_thirty_costs_no_more_queries_than_one_of_one(
    path: str, policy: object, person: Callable[..., Person]
) -> None:
    api, world = Api(person("Ada", "admin")), World()
    api.get("departments")  # Writes the key's last use, and parses the policy's rules.
    counts, lengths = [], []

    for number in range(30):
        FILL[path](world, number)
        if number in {0, 29}:
            with CaptureQueriesContext(
                connection,
            ) as captured:
                answer: Any = api.get(path, page_size="100")
            assert answer.status_code == 200, answer.content
            counts.append(len(captured))
            lengths.append(len(answer.body["results"]))

    assert lengths[1] - lengths[0] >= 29
    assert counts == [QUERIES[path] + SCOPE] * 2, [q["sql"][:150] for q in captured]


def test_a_jobs_events_come_in_order_and_go_on_from_where_one_was(
    policy: object, person: Callable[..., Person]
) -> None:
    api, world = Api(person("Ada", "admin")), World()
    fill_jobs(world, 0)
    job = Job.objects.get()
    for step in range(5):
        JobEvent.objects.create(job=job, attempt=1, step=step, data={"loss": 1.0 - step / 10})

    first = api.get(f"jobs/{job.pk}/events", limit="3").body
    rest = api.get(f"jobs/{job.pk}/events", after=str(first["last"])).body
    none = api.get(f"jobs/{job.pk}/events", after=str(rest["last"])).body

    assert [event["step"] for event in first["results"] + rest["results"]] == [0, 1, 2, 3, 4]
    assert first["results"][1]["data"] == {"loss": 0.9}
    assert (none["results"], none["last"], none["state"]) == ([], rest["last"], "queued")


@pytest.mark.parametrize("path", ["models/line", "versions/{version}", "jobs/{job}", "intakes/1"])
def test_another_departments_objects_do_not_exist(
    path: str, policy: object, person: Callable[..., Person]
) -> None:
    world = World()
    version = world.version(world.model("line"))
    fill_jobs(world, 0)
    path = path.format(version=version.pk, job=Job.objects.get().pk)
    outsider = Api(person("Olaf", "viewer@elsewhere"))

    assert outsider.get(path).status_code == 404
    assert outsider.get("models").body["results"] == []
    assert outsider.get("models/line/versions").status_code == 404
