"""A POST that starts work, sent twice under one key, starts it once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone

from assay.api.idempotency import key_lock
from assay.models import IdempotencyRecord
from governance.people.models import Person
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.workers import company
from workers.jobs.models import Job

pytestmark = pytest.mark.usefixtures("policy", "redis")


@pytest.fixture
def dev(person: Callable[..., Person]) -> Api:
    return Api(person("Devi", "developer@clinical"))


@pytest.fixture
def wanted(policy: object) -> dict[str, Any]:
    """A fine-tune that may be asked for."""
    base = company.version(company.model("minilm", "embeddings", shared=True))
    model = company.model("sentiment", "text-classification")
    data = company.data("reviews", "text-classification")
    return {
        "model": model.name,
        "base_version": base.pk,
        "method": "full",
        "dataset_version": data.pk,
    }


def test_the_first_answer_is_repeated_and_the_work_is_started_once(
    dev: Api, wanted: dict[str, Any]
) -> None:
    first = dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})
    second = dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.body == second.body
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert Job.objects.count() == 1


def test_without_a_key_the_work_is_started_each_time(dev: Api, wanted: dict[str, Any]) -> None:
    dev.post("fine-tunes", wanted)
    dev.post("fine-tunes", wanted)

    assert Job.objects.count() == 2


def test_the_same_key_with_another_body_is_a_conflict(dev: Api, wanted: dict[str, Any]) -> None:
    dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})
    other = wanted | {"hyperparameters": {}}

    answer = dev.post("fine-tunes", other, **{"idempotency-key": "k1"})

    problem_of(answer, 409, "idempotency_conflict")
    assert Job.objects.count() == 1


def test_another_caller_may_use_the_same_key(
    dev: Api, wanted: dict[str, Any], person: Callable[..., Person]
) -> None:
    dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})
    other = Api(person("Lea", "lead@clinical"))

    assert other.post("fine-tunes", wanted, **{"idempotency-key": "k1"}).status_code == 201
    assert Job.objects.count() == 2


def test_a_refused_request_is_not_remembered(dev: Api, wanted: dict[str, Any]) -> None:
    wrong = dev.post("fine-tunes", wanted | {"method": "magic"}, **{"idempotency-key": "k1"})
    problem_of(wrong, 400)

    assert dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"}).status_code == 201


def test_a_fault_of_ours_is_not_remembered_and_leaves_nothing(
    dev: Api, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("assay.api.idempotency._keep", broken)
        failed = dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})
    problem_of(failed, 500)
    assert (Job.objects.count(), IdempotencyRecord.objects.count()) == (0, 0)

    assert dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"}).status_code == 201


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "ü"])
def test_a_malformed_key_is_refused(dev: Api, wanted: dict[str, Any], key: str) -> None:
    problem_of(dev.post("fine-tunes", wanted, **{"idempotency-key": key}), 400, "invalid_input")
    assert Job.objects.count() == 0


def test_records_older_than_a_day_are_cleared_and_their_keys_free(
    dev: Api, wanted: dict[str, Any]
) -> None:
    dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})
    IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))

    answer = dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})

    assert "Idempotency-Replayed" not in answer.headers
    assert IdempotencyRecord.objects.count() == 1
    assert Job.objects.count() == 2


def test_a_duplicate_while_the_first_is_under_way_is_told_to_wait(
    dev: Api, wanted: dict[str, Any], settings: Any
) -> None:
    caller = f"person:{Person.objects.get(name='Devi').pk}"
    parameters = connection.get_connection_params()
    known = {name: parameters[name] for name in ("dbname", "user", "host") if name in parameters}
    with psycopg.connect(**known) as other:
        # Another process is in the midst of the first request.
        name = key_lock(caller, "k1")
        other.execute("INSERT INTO governance_namedlock (name) VALUES (%s)", [name])

        answer = dev.post("fine-tunes", wanted, **{"idempotency-key": "k1"})

        problem_of(answer, 409, "idempotency_in_progress")
        assert answer.headers["Retry-After"] == "1"
        assert Job.objects.count() == 0


def test_uploads_are_told_apart_by_file_name_and_content(person: Callable[..., Person]) -> None:
    lead = Api(person("Lea", "lead@clinical"))
    lead.post(
        "datasets",
        {
            "name": "reviews",
            "department": "clinical",
            "task": "text-classification",
            "classification": "internal",
            "license": "CC0",
        },
    )

    def send(name: str, text: str) -> Any:
        file = SimpleUploadedFile(name, text.encode())
        return lead.upload("datasets/reviews/versions", {"file": file}, **{"idempotency-key": "u"})

    rows = "text\tlabel\ngood\tpositive\nbad\tnegative\n"
    first = send("a.tsv", rows)
    assert first.status_code == 201, first.content
    assert send("a.tsv", rows).headers["Idempotency-Replayed"] == "true"
    problem_of(send("b.tsv", rows), 409, "idempotency_conflict")
    problem_of(send("a.tsv", rows + "fine\tneutral\n"), 409, "idempotency_conflict")
    # Of the same size.
    problem_of(send("a.tsv", rows.replace("bad", "sad")), 409, "idempotency_conflict")
