"""The job that checks a delivery: what it makes of the code in it, up to the row of the job."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from governance.people.models import Department, Person
from registry import store
from registry.intake.models import Intake
from registry.versions.models import Model
from tests.unit.registry.objects import safetensors
from workers.jobs.models import Job, JobKind, JobState
from workers.tasks.jobs import run

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]
PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
HUNGRY = "{{ 'x' * 2000000000 }}"


def checked(template: str) -> Job:
    """A finished job over a delivery with this chat template."""
    files = {
        "chat_template.jinja": template.encode(),
        "config.json": b'{"architectures": ["BertModel"]}',
        "model.safetensors": safetensors(),
    }
    department = Department.objects.create(slug="clinical", name="Clinical")
    person = Person.objects.create(email="dev@example.org", name="Dev")
    model = Model.objects.create(
        name="bert", department=department, task="embeddings", created_by=person
    )
    listed: list[dict[str, Any]] = [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    intake = Intake.objects.create(
        model=model, source="a supplier", license="MIT", files=listed, submitted_by=person
    )
    folder = store.quarantine_folder(intake.pk)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    job = Job.objects.create(
        kind=JobKind.INTAKE,
        department=department,
        created_by=person,
        title="Check",
        spec={"intake": intake.pk, "task": intake.model.task},
    )
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FINISHING, job.error
    return job


def test_code_that_exceeds_a_limit_rejects_the_delivery_with_the_reason() -> None:
    job = checked(HUNGRY)
    assert job.result is not None
    assert job.result["rejected"].startswith("The chat template of chat_template.jinja did not end")
    assert job.result["findings"][-1] == {
        "check": "code",
        "passed": False,
        "detail": job.result["rejected"],
    }


def test_code_that_keeps_to_them_is_delivered_with_its_digest_and_source() -> None:
    job = checked(PLAIN)
    assert job.result is not None
    (code,) = job.result["code"]
    assert (code["kind"], code["shown"]) == ("chat template", PLAIN)
    assert code["sha256"] == hashlib.sha256(PLAIN.encode()).hexdigest()
    assert "chat_template.jinja (not a known one)" in job.result["findings"][-1]["detail"]
