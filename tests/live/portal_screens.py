"""List the portal's screens, and give the test company long names, classes or many rows."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from django.utils import timezone

from governance.people.models import Department, Person, RoleAssignment
from governance.request_log.models import LogMode
from governance.request_log.schemas import RequestLogSettings
from governance.request_log.services import request_log_set
from governance.request_log.writing import Entry, entries_write
from governance.usage.models import UsageRecord
from registry.datasets.models import Dataset, DatasetVersion
from registry.versions.models import ModelVersion
from tests.proofs import proven
from tests.unit.assay.portal_data import Company, evaluate, manifest, sha
from tests.unit.registry.hosted_world import hosted_version
from workers.deployments.models import Replica
from workers.jobs.models import Job

WIDTHS = (1280, 800, 390)
ROWS = 10_000
# Without a space or a hyphen, a line cannot break.
UNBROKEN = "evaluation_of_the_clinical_summaries_2026"


class Screen(NamedTuple):
    """A page as one person sees it."""

    name: str
    person: Person
    path: str


def lengthen(company: Company) -> None:
    """Give the company's people, departments and objects long names."""
    for slug, department in company.departments.items():
        department.name = f"{slug.title()} and Interdisciplinary Research Administration"
        department.save(update_fields=["name"])
    for person in company.people.values():
        person.name = f"{person.name} van Wijngaarden-Oberstleutnant"
        person.save(update_fields=["name"])
    for each in (company.writer, company.train.dataset, company.held_out.dataset):
        each.name = f"{each.name}-of-{UNBROKEN}"
        each.save(update_fields=["name"])
    for each in (company.live, company.waiting):
        each.deployment_name = company.writer.name
        each.save(update_fields=["deployment_name"])
    company.deployment.name = company.writer.name
    company.deployment.save(update_fields=["name"])
    Replica.objects.update(worker=f"engine@{UNBROKEN}.{UNBROKEN}.example")
    Job.objects.update(worker=f"compute@{UNBROKEN}.example", title=f"Adapt {company.writer.name}")
    company.key.name = f"The editor plug-in of {UNBROKEN}"
    company.key.save(update_fields=["name"])


def add_classifier(company: Company) -> None:
    """Add an evaluated version that sorts into classes with long names."""
    clara, labels = company.clara, [f"{UNBROKEN}_{number}" for number in range(6)]
    version = ModelVersion.objects.create(
        model=company.sentiment, number=1, kind="base", digest=sha("sentiment"),
        manifest=manifest("sentiment"), size_bytes=1, license="Apache-2.0", created_by=clara,
        parameters={UNBROKEN: UNBROKEN * 2},
    )  # fmt: skip
    dataset = Dataset.objects.create(
        name=f"letters-of-{UNBROKEN}", department=company.departments["clinical"],
        task="text-classification", classification="internal", license="MIT", created_by=clara,
    )  # fmt: skip
    data = DatasetVersion.objects.create(
        dataset=dataset, number=1, digest=sha("letters"), rows=600, size_bytes=60_000, schema={},
        profile={}, created_by=clara,
    )  # fmt: skip
    evaluation = evaluate(version, data, {"perplexity": 9.6, "chrf": 31.2}, clara)
    classes = {label: {"f1": 0.8, "support": 100} for label in labels}
    matrix = {"labels": labels, "matrix": [[100] * len(labels)] * len(labels)}
    evaluation.details |= {"confusion_matrix": matrix, "per_class": classes}
    evaluation.save(update_fields=["details"])
    company.things["classifier"] = version


def add_hosted(company: Company) -> None:
    """Add a hosted version, and a request that it answered after another target had failed."""
    company.things["hosted"] = hosted_version(company.writer, company.enzo)
    now = timezone.now()
    shared = {
        "occurred_at": now - timedelta(hours=1), "department": "engineering", "admit_ms": 12,
        "key_public_id": "k7f3a9q2", "deployment": "docstring-writer", "settle_ms": 3,
        "endpoint": "/v1/chat/completions", "streamed": True, "policy_version": 4,
    }  # fmt: skip
    UsageRecord(
        **shared, request_id="req_hosted.failed", release=company.live.pk, outcome="failed",
        version_digest=company.first.digest, total_ms=340,
    ).save()  # fmt: skip
    record = UsageRecord(
        **shared, request_id="req_hosted", release=company.waiting.pk, outcome="ok", retry_ms=331,
        version_digest=company.hosted.digest, queue_ms=9, connect_ms=84, first_token_ms=790,
        total_ms=2_410, prompt_tokens=512, completion_tokens=140, cost_micro=4_830,
    )  # fmt: skip
    record.save()
    department = company.departments["engineering"]
    log = RequestLogSettings(mode=LogMode.FULL, datasets=True)
    request_log_set(actor=proven(company.enzo), department=department, log=log)
    prompt = {"messages": [{"role": "user", "content": "Write a docstring for `def add(a, b)`."}]}
    choice = {"index": 0, "text": "Return the sum of `a` and `b`.", "tool_calls": []}
    content = {
        "prompt": {"inputs": prompt, "options": {"max_tokens": 200}},
        "answer": {"outcome": "ok", "choices": [choice], "finish_reason": "stop"},
    }
    at = record.occurred_at.timestamp()
    entries_write([Entry("engineering", record.request_id, at, content, user="ide-7")], {})


def crowd(company: Company) -> None:
    """Add ten thousand jobs and as many requests."""
    now, engineering = timezone.now(), company.departments["engineering"]
    Job.objects.bulk_create(
        Job(
            kind="evaluate", state="succeeded", title=f"Evaluate docstring-writer v{number}",
            department=engineering, created_by=company.devi, spec={}, started_at=now,
            finished_at=now,
        )
        for number in range(ROWS)
    )  # fmt: skip
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"many_{number}", occurred_at=now - timedelta(minutes=number),
            department="engineering", key_public_id=f"key{number % 50}", outcome="ok",
            deployment=f"deployment-{number % 300}", endpoint="/v1/chat/completions",
            prompt_tokens=60, completion_tokens=20, total_ms=420,
        )
        for number in range(ROWS)
    )  # fmt: skip


def screens_of(company: Company) -> list[Screen]:
    """Return the main screens, each with the person who uses it most."""
    ada, carla, enzo = company.ada, company.carla, company.enzo
    model, version, review = company.writer.name, company.second.pk, company.review_open.pk
    data = company.train.dataset.name
    paths: tuple[tuple[Person, str, str], ...] = (
        (ada, "overview of an administrator", "/"),
        (enzo, "overview of a lead", "/"),
        (enzo, "tasks", "/tasks"),
        (enzo, "models", "/models"),
        (enzo, "model", f"/models/{model}"),
        (enzo, "fine-tune", f"/models/{model}/fine-tune"),
        (enzo, "gate", f"/models/{model}/gates"),
        (enzo, "compare versions", f"/models/{model}/compare"),
        (enzo, "version", f"/versions/{version}"),
        (company.clara, "classifier", f"/versions/{company.classifier.pk}"),
        (enzo, "hosted version", f"/versions/{company.hosted.pk}"),
        (enzo, "readiness", f"/versions/{version}/readiness"),
        (enzo, "request release", f"/versions/{version}/release"),
        (enzo, "evaluate", f"/versions/{version}/evaluate"),
        (enzo, "release", f"/releases/{company.waiting.pk}"),
        (enzo, "deploying", f"/releases/{company.waiting.pk}/deploy"),
        (enzo, "release drafts", "/release-drafts"),
        (enzo, "intakes", "/intakes"),
        (enzo, "intake", f"/intakes/{company.signable.pk}"),
        (enzo, "new intake", "/intakes/new"),
        (enzo, "connect a hosted model", "/intakes/hosted"),
        (enzo, "task catalog", "/catalog"),
        (enzo, "task", "/catalog/text-generation"),
        (enzo, "datasets", "/datasets"),
        (enzo, "dataset", f"/datasets/{data}"),
        (enzo, "jobs", "/jobs"),
        (enzo, "running job", f"/jobs/{company.running.pk}"),
        (enzo, "failed job", f"/jobs/{company.failed.pk}"),
        (enzo, "schedules", "/schedules"),
        (carla, "reviews", "/reviews"),
        *(
            (carla, f"review, {tab}", f"/reviews/{review}?tab={tab}")
            for tab in ("checklist", "changed", "evidence", "card", "dossier", "audit")
        ),
        (enzo, "review of the requester", f"/reviews/{review}"),
        (carla, "absences", "/reviews/absences"),
        (enzo, "emergency access", "/emergency-access"),
        (enzo, "incidents", "/incidents"),
        (enzo, "deployments", "/deployments"),
        (enzo, "deployment", f"/deployments/{company.deployment.pk}"),
        (enzo, "targets", f"/deployments/{company.deployment.pk}/targets"),
        (enzo, "served", "/served"),
        (enzo, "batches", "/batches"),
        (enzo, "batch", f"/batches/{company.batch.pk}"),
        (enzo, "playground", "/playground"),
        (enzo, "keys", "/keys"),
        (enzo, "key", f"/keys/{company.key.pk}"),
        (enzo, "credentials", "/credentials"),
        (enzo, "new credential", "/credentials/new"),
        (enzo, "credential", f"/credentials/{company.credential.pk}"),
        (enzo, "usage", "/usage"),
        (enzo, "requests", "/requests"),
        (enzo, "request", "/requests/req_hosted"),
        (enzo, "export requests", "/requests/export"),
        (enzo, "request log", "/departments/engineering/request-log"),
        (ada, "budgets", "/budgets"),
        (ada, "policy", "/policy"),
        (ada, "policy versions", "/policy/versions"),
        (ada, "who can", "/policy/who"),
        (ada, "review policies", "/review-policies"),
        (ada, "audit log", "/audit"),
        (ada, "event", f"/audit/{company.event.pk}"),
        (ada, "checkpoints", "/audit/checkpoints"),
        (ada, "people", "/people"),
        (ada, "person", f"/people/{company.devi.pk}"),
        (ada, "departments", "/departments"),
        (ada, "department", "/departments/engineering"),
        (ada, "nodes", "/nodes"),
        (ada, "health", "/health"),
        (ada, "data retention", "/retention"),
        (enzo, "account", "/account"),
        (enzo, "search", "/search?q=writer"),
        (enzo, "refusal", "/people"),
        (enzo, "not found", "/releases/999999"),
    )
    return [Screen(name, person, path) for person, name, path in paths]


def empty_screens() -> list[Screen]:
    """Return the lists, as the lead of a new department sees them."""
    department = Department.objects.create(slug="newcomers", name="Newcomers")
    nora = Person.objects.create(name="Nora Newcomer", email="nora@assay.example")
    RoleAssignment.objects.create(person=nora, role="lead", department=department)
    paths = (
        "/", "/tasks", "/models", "/intakes", "/datasets", "/jobs", "/schedules", "/reviews",
        "/incidents", "/emergency-access", "/deployments", "/batches", "/playground", "/keys",
        "/credentials", "/usage", "/budgets", "/audit", "/knowledge", "/feedback",
        "/release-drafts", "/departments", "/requests",
    )  # fmt: skip
    return [Screen(path.strip("/") or "overview", nora, path) for path in paths]


def crowded_screens(company: Company) -> list[Screen]:
    """Return the lists that have ten thousand rows after `crowd`."""
    paths = ("/", "/jobs", "/usage?by=deployment", "/usage?by=key", "/requests")
    return [Screen(path.strip("/?") or "overview", company.enzo, path) for path in paths]
