"""A small company's story as rows, made by ORM so that every state of the portal's pages exists."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.credentials.models import Credential
from governance.keys.models import ApiKey
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.policy.services import policy_bootstrap
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.reviews.policies.selectors import review_policy_in_force
from governance.reviews.policies.shipping import review_policies_bootstrap
from governance.usage.models import UsageRecord
from registry.batches.models import Batch, BatchLine
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.intake.models import Intake
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from tests.approvals import software_of
from tests.proofs import vote_proof
from workers.deployments.models import Deployment, Replica
from workers.jobs.models import Job, JobEvent

PASSWORD = "correct horse battery staple"
PEOPLE = {
    "ada": ("Ada Admin", [("admin", None, "")]),
    "omar": ("Omar Operator", [("operator", None, "")]),
    "asha": ("Asha Auditor", [("auditor", None, "")]),
    "carla": ("Carla Compliance", [("reviewer", None, "compliance")]),
    "milo": ("Milo Model-Risk", [("reviewer", None, "model-risk")]),
    "clara": ("Clara Clinical", [("lead", "clinical", "")]),
    "enzo": ("Enzo Engineering", [("lead", "engineering", "")]),
    "devi": ("Devi Developer", [("developer", "engineering", "")]),
    "vera": ("Vera Viewer", [("viewer", "engineering", "")]),
    "fay": ("Fay Finance", [("lead", "finance", "")]),
}
CARD = """# Docstring writer

Writes one-line docstrings for **Python functions**.

## Limitations

- Not evaluated on async functions.
- <script>alert(1)</script> is shown, never run.

| set | chrF |
|---|---|
| held-out | 31.2 |
"""


def copied(row: Any, **changes: Any) -> Any:
    """Save another row that differs in `changes`, and return it."""
    row = type(row).objects.get(pk=row.pk)
    row.pk, row._state.adding = None, True
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()
    return row


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(name: str) -> dict[str, Any]:
    """Three files, of which the weights differ by `name`."""
    files = [
        {"path": "adapter_config.json", "size": 812, "sha256": sha("config")},
        {"path": "adapter_model.safetensors", "size": 9_812_400, "sha256": sha(name)},
        {"path": "README.md", "size": 2_100, "sha256": sha("card")},
    ]
    return {"files": files, "base": None}


@dataclass
class Company:
    """Everyone and everything, by short names."""

    people: dict[str, Person] = field(default_factory=dict)
    departments: dict[str, Department] = field(default_factory=dict)
    things: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        for shelf in ("people", "things"):
            if name in self.__dict__.get(shelf, {}):
                return self.__dict__[shelf][name]
        raise AttributeError(name)


def found_company() -> Company:
    """Departments, people and the policy; nothing has happened yet."""
    policy_bootstrap()
    review_policies_bootstrap()
    company = Company()
    for slug in ("clinical", "engineering", "finance"):
        company.departments[slug] = Department.objects.create(slug=slug, name=slug.title())
    for handle, (name, roles) in PEOPLE.items():
        person = Person(email=f"{handle}@assay.example", name=name)
        person.set_unusable_password()
        person.save()
        for role, slug, specialty in roles:
            RoleAssignment.objects.create(
                person=person,
                role=role,
                specialty=specialty,
                department=company.departments[slug] if slug else None,
            )
        company.people[handle] = person
    return company


def add_models(company: Company) -> None:
    """A shared base, an adapter line with two versions, a classifier, data, gates, evaluations."""
    engineering, clinical = company.departments["engineering"], company.departments["clinical"]
    things, enzo, clara = company.things, company.enzo, company.clara

    def model(name: str, department: Department, task: str, by: Person, **more: Any) -> Model:
        made = {"name": name, "department": department, "task": task, "created_by": by}
        return Model.objects.create(**made, **more)

    def version(owner: Model, number: int, kind: str, by: Person, **more: Any) -> ModelVersion:
        label = f"{owner.name}-{number}"
        return ModelVersion.objects.create(
            model=owner, number=number, kind=kind, digest=sha(label), manifest=manifest(label),
            size_bytes=9_815_312, license="Apache-2.0", created_by=by, **more,
        )  # fmt: skip

    def data(name: str, department: Department, task: str, by: Person, rows: int) -> DatasetVersion:
        dataset = Dataset.objects.create(
            name=name, department=department, task=task, classification="internal",
            license="PSF-2.0", created_by=by, description=f"Rows for {name}",
        )  # fmt: skip
        return DatasetVersion.objects.create(
            dataset=dataset, number=1, digest=sha(name), rows=rows, size_bytes=rows * 300,
            schema={}, profile={"duplicates": 3, "labels": {"positive": 20, "negative": 9}},
            created_by=by,
        )  # fmt: skip

    base_model = model("smollm2-135m", engineering, "text-generation", enzo, shared=True)
    writer = model("docstring-writer", engineering, "text-generation", enzo, description="One line")
    sentiment = model("review-sentiment", clinical, "text-classification", clara)
    train = data("docstrings-train", engineering, "text-generation", enzo, 3200)
    held_out = data("docstrings-test", engineering, "text-generation", enzo, 400)
    base = version(base_model, 1, "base", enzo)
    parameters = {"learning_rate": 2e-4, "lora_rank": 8, "epochs": 2}
    first = version(writer, 1, "adapter", enzo, base=base, dataset_version=train, card="# Old card")
    second = version(
        writer, 2, "adapter", company.devi, base=base, dataset_version=train, card=CARD,
        parameters=parameters, metrics={"loss": 1.312, "perplexity": 9.84}, job_id=uuid.uuid4(),
    )  # fmt: skip
    things.update(base=base, first=first, second=second, writer=writer, base_model=base_model)
    things.update(sentiment=sentiment, train=train, held_out=held_out)
    gate = Gate.objects.create(
        model=writer, dataset=held_out.dataset, metric="perplexity", comparator="<=",
        threshold=12.0, why="A reader must not stumble.", created_by=enzo,
    )  # fmt: skip
    strict = Gate.objects.create(
        model=writer, dataset=held_out.dataset, metric="chrf", comparator=">=", threshold=35.0,
        created_by=enzo,
    )  # fmt: skip
    for which, perplexity, chrf in ((first, 11.2, 28.4), (second, 9.61, 31.2)):
        evaluation = evaluate(which, held_out, {"perplexity": perplexity, "chrf": chrf}, enzo)
        for each, value, passed in ((gate, perplexity, True), (strict, chrf, False)):
            GateResult.objects.create(
                evaluation=evaluation, gate=each, threshold=each.threshold, value=value,
                passed=passed,
            )  # fmt: skip


def evaluate(
    version: ModelVersion, data: DatasetVersion, metrics: dict[str, float], by: Person
) -> Evaluation:
    """Measured beside the untuned base, with everything that is drawn."""
    labels = ["negative", "neutral", "positive"]
    details = {
        "confusion_matrix": {
            "labels": labels,
            "matrix": [[61, 9, 12], [14, 22, 19], [6, 8, 149]],
        },
        "per_class": {
            label: {"f1": score, "support": support}
            for label, score, support in zip(labels, (0.75, 0.47, 0.87), (82, 55, 163), strict=True)
        },
        "samples": [
            {
                "input": "def add(a, b):\n    return a + b",
                "expected": "Return the sum of two numbers.",
                "baseline": "This function, add, which takes two arguments, is a function that",
                "output": "Return the sum of a and b.",
            }
        ],
    }
    return Evaluation.objects.create(
        version=version, dataset_version=data, metrics=metrics,
        baseline={"perplexity": 19.7, "chrf": 14.1}, baseline_name="untuned_base",
        details=details, intervals=intervals_around(metrics), slices=slices_of(metrics),
        sample_size=400, digest=sha(str(version.pk)), job_id=uuid.uuid4(),
        created_by=by, started_at=timezone.now(),
    )  # fmt: skip


def intervals_around(metrics: dict[str, float]) -> dict[str, Any]:
    """Five in a hundred to either side of the metrics; the baseline has perplexity's alone."""
    return {
        "metrics": {
            name: {"low": value * 0.95, "high": value * 1.05, "n": 48, "method": "bootstrap"}
            for name, value in metrics.items()
        },
        "baseline": {"perplexity": {"low": 18.0, "high": 21.5, "n": 48, "method": "bootstrap"}},
    }


def slices_of(metrics: dict[str, float]) -> list[dict[str, Any]]:
    """Perplexity of short and of long functions."""
    parts = (("long, over 80 characters", 20, 1.4), ("short, up to 80 characters", 28, 0.8))
    return [
        {
            "by": "input length", "name": name, "n": n, "metric": "perplexity", "baseline": 19.7,
            "value": metrics["perplexity"] * factor, "method": "bootstrap",
            "low": metrics["perplexity"] * factor * 0.9,
            "high": metrics["perplexity"] * factor * 1.1,
        }
        for name, n, factor in parts
    ]  # fmt: skip


def add_jobs(company: Company, now: datetime) -> None:
    """One running with a curve and a log, one done, one failed."""
    engineering = company.departments["engineering"]
    common = {"department": engineering, "created_by": company.devi, "spec": {"method": "lora"}}
    running = Job.objects.create(
        kind="fine_tune", state="running", title="Adapt docstring-writer by LoRA", attempt=1,
        fence=1, worker="compute@host-1", lease_until=now + timedelta(seconds=25),
        started_at=now - timedelta(minutes=2),
        progress={"step": 120, "total": 320, "phase": "training"},
        **common,
    )  # fmt: skip
    done = Job.objects.create(
        id=company.second.job_id, kind="fine_tune", state="succeeded",
        title="Adapt docstring-writer",
        started_at=now - timedelta(hours=3), finished_at=now - timedelta(hours=2, minutes=54),
        progress={"step": 320, "total": 320}, **common,
    )  # fmt: skip
    failed = Job.objects.create(
        kind="evaluate", state="failed", title="Evaluate review-sentiment v1",
        error="The dataset has no column label.", started_at=now - timedelta(hours=5),
        finished_at=now - timedelta(hours=5), **common,
    )  # fmt: skip
    for job, points in ((running, 24), (done, 64)):
        lines = [JobEvent(job=job, attempt=1, message="Verified the base: 8 files.")]
        for index in range(points):
            loss = 1.1 + 2.2 / (1 + index * 0.35) + (index * 7 % 5) * 0.02
            values = {"loss": round(loss, 4), "learning_rate": 2e-4}
            if index % 8 == 7:
                values["validation_loss"] = round(loss + 0.12, 4)
            lines.append(JobEvent(
                job=job, attempt=1, step=index * 5, data=values,
                message=f"step {index * 5}: loss {loss:.3f}" if index % 4 == 0 else "",
            ))  # fmt: skip
        JobEvent.objects.bulk_create(lines)
    company.things.update(running=running, done=done, failed=failed)


def add_batches(company: Company, now: datetime) -> None:
    """One that runs, one that is completed, one whose input is not valid."""
    common = {
        "department": company.departments["engineering"], "sender": company.key.public_id,
        "key_name": company.key.name, "client_address": "192.0.2.7", "classification": "internal",
        "endpoint": "/v1/chat/completions", "input_file": "file-" + "1" * 32,
        "expires_at": now + timedelta(hours=23), "model": "docstring-writer",
    }  # fmt: skip
    running = Batch.objects.create(
        id="batch_" + "a" * 32, state="in_progress", total=1200, completed=431, failed=2,
        cost_micro=1_204_000, metadata={"run": "nightly"},
        reached={"in_progress": int(now.timestamp())}, **common,
    )  # fmt: skip
    BatchLine.objects.create(
        batch=running, number=1, custom_id="q1", offset=0, size=10, state="done", status=500,
        error="engine_error", body="{}",
    )  # fmt: skip
    Batch.objects.create(
        id="batch_" + "b" * 32, state="completed", total=40, completed=39, failed=1,
        failures={"invalid_value": 1}, output_file="file-" + "2" * 32,
        error_file="file-" + "3" * 32, ended_at=now, **common,
    )  # fmt: skip
    Batch.objects.create(
        id="batch_" + "c" * 32, state="failed", ended_at=now, **{**common, "model": ""},
        errors=[{"code": "invalid_json_line", "line": 7, "message": "The line is not valid JSON.",
                 "param": None}],
    )  # fmt: skip
    company.things.update(batch=running)


def add_releases(company: Company, now: datetime) -> None:
    """Version 1 serves; version 2 is in review, in its second round."""
    engineering = company.departments["engineering"]

    def release(version: ModelVersion, **more: Any) -> Release:
        made = Release.objects.create(
            version=version, department=engineering, environment="production",
            deployment_name="docstring-writer", purpose="Docstrings in the editor, as suggestions.",
            risk_answers={
                "intended_purpose": "Docstrings in the editor.",
                "affected_people": "Our own developers.",
                "vulnerable_groups": False,
                "eu_ai_act_role": "deployer",
                "annex_iii": "none",
                "data_classification": "internal",
                "personal_data": False,
                "special_categories": False,
                "autonomy": "suggests",
                "interacts_with_people": False,
                "generates_content": True,
                "general_purpose_model": False,
                "notes": "The tech lead reads every suggestion that is kept.",
            },
            dossier={
                "version": version.digest, "policy_version": 1,
                "software": software_of(version.model.task),
            },
            submitted_by=company.enzo, dossier_digest=sha(f"dossier {version.pk}"), **more,
        )  # fmt: skip
        made.departments.add(engineering)
        return made

    live = release(
        company.first, state="approved", approved_at=now - timedelta(days=20),
        expires_at=now + timedelta(days=160),
    )  # fmt: skip
    waiting = release(company.second, tier="high", state="in_review")
    for each, state, rounds in ((live, "approved", 1), (waiting, "open", 2)):
        review = Review.objects.create(
            subject_type="release", subject_id=str(each.pk),
            subject_name=f"{each.version} → production",
            department=engineering, tier=each.tier, digest=each.dossier_digest,
            required_approvals={"compliance": 1, "model-risk": 1, "security": 1}, policy_version=1,
            opened_by=company.enzo, due_at=now + timedelta(hours=26),
            excluded_people=[company.enzo.pk, company.devi.pk],
            # Under a policy, new accounts wait before they vote.
            review_policy=review_policy_in_force(each.tier) if state == "approved" else None,
        )  # fmt: skip
        add_conversation(company, review, rounds)
        if state == "approved":
            Review.objects.filter(pk=review.pk).update(
                state=state, closed_at=now - timedelta(days=20)
            )
        company.things[f"review_{state}"] = review
    deployment = Deployment.objects.create(
        name="docstring-writer", release=live, department=engineering, state="serving",
        created_by=company.enzo,
    )  # fmt: skip
    Replica.objects.create(
        deployment=deployment, worker="engine@host-1", state="ready", heartbeat_at=now,
        loaded_digest=company.first.digest, load_seconds=1.4,
    )  # fmt: skip
    company.things.update(live=live, waiting=waiting, deployment=deployment)


def add_conversation(company: Company, review: Review, rounds: int) -> None:
    """A checklist partly met; changes requested, answered, one approval."""
    items = (
        ("digest", "Digest verified in the store", True, "satisfied"),
        ("license", "License recorded", True, "satisfied"),
        ("gates", "All gates passed", True, "failed"),
        ("purpose", "Purpose is stated and acceptable", False, "satisfied"),
        ("oversight", "Human oversight is named", False, "open"),
    )
    for code, title, automatic, state in items:
        attested = company.milo if state == "satisfied" and not automatic else None
        ChecklistItem.objects.create(
            review=review, code=code, title=title, automatic=automatic, state=state,
            why="A reviewer cannot approve what is not known.", attested_by=attested,
            attested_at=timezone.now() if attested else None,
            note="chrF is 31.2, below 35." if state == "failed" else "",
        )  # fmt: skip

    def say(person: Person, verdict: str, reason: str, rounds: int, specialty: str = "") -> None:
        Decision.objects.create(
            review=review, submitter=review.opened_by, person=person, verdict=verdict,
            reason=reason, digest=review.digest, round=rounds, specialty=specialty,
            **(vote_proof() if specialty else {}),
        )  # fmt: skip

    if rounds == 2:
        say(company.carla, "request_changes", "Who oversees it, by name?", 1, "compliance")
        review.round = 2
        review.save()
        say(company.enzo, "comment", "The tech lead of each team; named in the answers now.", 2)
    say(company.milo, "approve", "Perplexity halved against the base.", rounds, "model-risk")
    if rounds == 1:
        say(company.carla, "approve", "Fine for suggestions.", rounds, "compliance")


def add_rest(company: Company, now: datetime) -> None:
    """Deliveries in each state, keys, usage, events."""
    findings = [
        {"check": "formats", "passed": True, "detail": "1 safetensors, 4 JSON, 2 text files."},
        {"check": "no_code", "passed": True, "detail": "Nothing that could run."},
    ]
    bad = [
        {"check": "formats", "passed": False, "detail": "model.pth is a pickle: it can run code."}
    ]
    files = [{"name": "model.safetensors", "size": 269_060_552, "sha256": sha("weights")}]

    def intake(state: str, found: list[dict[str, Any]], **more: Any) -> Intake:
        return Intake.objects.create(
            model=company.base_model, state=state, source="https://models.example/smollm2",
            license="Apache-2.0", files=files, findings=found, submitted_by=company.enzo, **more,
        )  # fmt: skip

    intake(
        "trusted",
        findings,
        version=company.base,
        signed_by=company.omar,
        digest=company.base.digest,
    )
    company.things["pickle"] = intake(
        "rejected", bad, reason="model.pth is a pickle; it can run code."
    )
    company.things["signable"] = intake("awaiting_sign_off", findings, digest=sha("intake"))
    company.things["key"] = ApiKey.objects.create(
        public_id="k7f3a9q2", secret_hmac=b"0" * 32, pepper_version=1, name="editor plug-in",
        department=company.departments["engineering"], scopes=["deployment:invoke"],
        created_by=company.enzo, expires_at=now + timedelta(days=80),
    )  # fmt: skip
    company.things["credential"] = Credential.objects.create(
        department=company.departments["engineering"], name="openai", kind="header",
        hosts=["api.openai.com"], sealed=b"sealed", sealed_to="0" * 16, created_by=company.enzo,
    )  # fmt: skip
    add_batches(company, now)
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"req_{index}", occurred_at=now - timedelta(hours=index * 5),
            department="engineering", key_public_id="k7f3a9q2", deployment="docstring-writer",
            version_digest=company.first.digest, endpoint="/v1/chat/completions",
            prompt_tokens=60 + index % 17, completion_tokens=20 + index * 3 % 40, total_ms=420,
            outcome="ok" if index % 9 else "canceled",
        )
        for index in range(40)
    )  # fmt: skip
    enzo = principal_for_person(company.enzo)
    subject = Subject("release", str(company.waiting.pk), "docstring-writer v2 → production")
    audit_record(actor=enzo, action="release:submit", subject=subject, department="engineering")
    company.things["event"] = audit_record(
        actor=enzo, action="release:decide", subject=subject, outcome="denied",
        reason="Enzo Engineering requested this release; another person must decide.",
        department="engineering",
    )  # fmt: skip


def tell_story() -> Company:
    """The company with its whole story."""
    company = found_company()
    now = timezone.now()
    add_models(company)
    add_jobs(company, now)
    add_releases(company, now)
    add_rest(company, now)
    return company


def reported() -> datetime:
    """The time of a report that no test outlives: on a busy machine the first page of a process
    takes longer than a worker or node may be silent.
    """
    return timezone.now() + timedelta(minutes=10)


def as_of_now(company: Company) -> Company:
    """The company, whose worker and engine report; the story may be minutes old."""
    Replica.objects.filter(deployment=company.deployment).update(heartbeat_at=reported())
    company.running.lease_until = reported()
    Job.objects.filter(pk=company.running.pk).update(lease_until=company.running.lease_until)
    return company
