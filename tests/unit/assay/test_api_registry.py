"""Models, deliveries and data through the API."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from governance.people.models import Department, Person
from registry.intake.models import Intake
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.registry import objects
from tests.unit.registry.media_files import archive, picture
from tests.unit.registry.media_tasks import PICTURES, register
from workers.jobs.models import Job

pytestmark = pytest.mark.usefixtures("policy", "redis")


@pytest.fixture
def dev(person: Callable[..., Person]) -> Api:
    return Api(person("Devi", "developer@clinical"))


def make_model(api: Api, name: str = "encoder", task: str = "embeddings") -> Any:
    return api.post("models", {"name": name, "department": "clinical", "task": task})


def file(name: str, content: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def test_the_catalog_states_what_each_task_takes(dev: Api) -> None:
    tasks = {task["name"]: task for task in dev.get("tasks").body}

    assert set(tasks) >= {"text-generation", "text-classification", "embeddings"}
    assert tasks["text-classification"]["row_schema"]["properties"].keys() == {"text", "label"}
    assert tasks["embeddings"]["recipes"] == []


def test_a_model_is_made_once(dev: Api) -> None:
    made = make_model(dev)

    assert made.status_code == 201
    assert made.body["created_by"]["name"] == "Devi"
    assert dev.get("models/encoder").body == made.body
    problem_of(make_model(dev), 409, "already_exists")


def test_a_model_in_another_department_is_refused(dev: Api, department: Any) -> None:
    department("finance")

    answer = dev.post("models", {"name": "x", "department": "finance", "task": "embeddings"})

    problem_of(answer, 404)


def test_a_delivery_goes_into_quarantine_and_its_checks_are_queued(dev: Api) -> None:
    make_model(dev)

    answer = dev.upload(
        "intakes",
        {
            "model": "encoder",
            "source": "a supplier",
            "license": "Apache-2.0",
            "files": [
                file("config.json", b'{"model_type": "bert"}'),
                file("model.safetensors", objects.safetensors()),
            ],
        },
    )

    assert answer.status_code == 201, answer.content
    assert answer.body["state"] == "checking"
    assert [each["name"] for each in answer.body["files"]] == ["config.json", "model.safetensors"]
    assert dev.get(f"jobs/{answer.body['job']}").body["kind"] == "intake"


@pytest.mark.parametrize(("keep", "status"), [("true", 201), ("false", 201), ("maybe", 400)])
def test_a_form_says_by_a_word_whether_a_gguf_is_kept(dev: Api, keep: str, status: int) -> None:
    make_model(dev, "chat", task="text-generation")
    fields = {
        "model": "chat",
        "source": "a supplier",
        "license": "Apache-2.0",
        "keep_gguf": keep,
        "files": [file("chat.gguf", objects.gguf())],
    }

    answer = dev.upload("intakes", fields)

    assert answer.status_code == status, answer.content
    if status == 201:
        assert answer.body["keep_gguf"] is (keep == "true")


def test_only_tasks_that_generate_text_are_served_from_a_gguf(dev: Api) -> None:
    make_model(dev)
    fields = {
        "model": "encoder",
        "source": "a supplier",
        "license": "Apache-2.0",
        "keep_gguf": "true",
        "files": [file("chat.gguf", objects.gguf())],
    }

    problem = problem_of(dev.upload("intakes", fields), 422)

    assert "not served from a GGUF" in problem["detail"]


def test_a_pickle_is_rejected_with_the_reason_and_makes_no_job(dev: Api) -> None:
    make_model(dev)

    answer = dev.upload(
        "intakes",
        {
            "model": "encoder",
            "source": "a supplier",
            "license": "Apache-2.0",
            "files": [file("model.pth", pickle.dumps({"weights": [1.0]}))],
        },
    )

    assert (answer.status_code, answer.body["state"]) == (201, "rejected")
    assert answer.body["reason"]
    assert (answer.body["job"], Job.objects.count()) == (None, 0)


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (400, {"files": "not a file"}),
        (422, {"files": []}),
        (400, {"source": "s\x00"}),
        (400, {"license": "l" * 500}),
        (404, {"model": "nothing"}),
        (400, {"extra": "e"}),
    ],
)
def test_a_malformed_delivery_is_refused_and_leaves_nothing(
    dev: Api, status: int, changes: dict[str, Any]
) -> None:
    make_model(dev)
    fields = {"model": "encoder", "source": "s", "license": "l", "files": io.BytesIO(b"{}")}

    answer = dev.upload("intakes", {**fields, **changes})

    problem_of(answer, status)
    assert not Intake.objects.exists()


def test_data_is_added_with_columns_named_anew(dev: Api) -> None:
    dev.post(
        "datasets",
        {
            "name": "reviews",
            "department": "clinical",
            "task": "text-classification",
            "classification": "internal",
            "license": "CC0",
        },
    )
    rows = b"review\tsentiment\ngood\tpositive\nbad\tnegative\n"
    columns = '{"text": "review", "label": "sentiment"}'

    added = dev.upload(
        "datasets/reviews/versions", {"file": file("r.tsv", rows), "columns": columns}
    )

    assert added.status_code == 201, added.content
    assert (added.body["number"], added.body["rows"]) == (1, 2)
    assert dev.get("datasets/reviews/versions").body["results"][0]["digest"] == added.body["digest"]
    assert dev.get("datasets/reviews").body["classification"] == "internal"
    for wrong in ("{", "[]", '{"text": 7}'):
        answer = dev.upload(
            "datasets/reviews/versions", {"file": file("r.tsv", rows), "columns": wrong}
        )
        assert problem_of(answer, 422)["errors"][0]["field"] == "columns"


def test_an_archive_of_images_is_added_and_a_bad_one_names_its_entry(
    dev: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    dev.post(
        "datasets",
        {
            "name": "photos",
            "department": "clinical",
            "task": PICTURES.name,
            "classification": "internal",
            "license": "CC0",
        },
    )

    def send(**files: bytes) -> Any:
        content = archive({f"cat/{name}.png": data for name, data in files.items()})
        return dev.upload("datasets/photos/versions", {"file": file("photos.zip", content)})

    problem = problem_of(send(a=picture(1), b=b"GIF89a nonsense"), 422, "media_rejected")
    assert "entry 'cat/b.png' is not a readable GIF image" in problem["detail"]
    assert problem["errors"][0]["field"] == "file"
    added = send(a=picture(1), b=picture(2))
    assert added.status_code == 201, added.content
    assert (added.body["rows"], added.body["profile"]["media"]["image"]["files"]) == (2, 2)


def test_a_version_shows_where_it_comes_from_and_how_it_was_measured(
    dev: Api, person: Callable[..., Person], department: Callable[..., Department]
) -> None:
    maker, clinical = person("Maker"), department("clinical")
    base = objects.version(objects.model(maker, clinical, "encoder", "embeddings"), maker)
    data = objects.data(maker, clinical, "test", [{"text": "good", "label": "positive"}])
    model = objects.model(maker, clinical)
    version = objects.version(model, maker, "full", base, dataset_version=data)
    dev.post(
        "gates",
        {
            "model": "sentiment",
            "dataset": "test",
            "metric": "accuracy",
            "comparator": ">=",
            "threshold": 0.9,
        },
    )
    measured = objects.evaluation(version, data, maker)

    shown = dev.get(f"versions/{version.pk}").body

    assert shown["manifest"] == version.manifest
    assert shown["base"] == {"id": base.pk, "name": str(base), "digest": base.digest}
    assert [each["id"] for each in shown["evaluations"]] == [measured.pk]
    assert shown["evaluations"][0]["gates"][0]["passed"] is False
    assert [gate["threshold"] for gate in shown["gates"]] == [0.9]
    assert {"from": f"version:{base.pk}", "to": f"version:{version.pk}"} in shown["lineage"][
        "edges"
    ]
    detail = dev.get(f"evaluations/{measured.pk}").body
    assert detail["details"] == measured.details
    listed = dev.get("evaluations", version=str(version.pk)).body["results"]
    assert [each["id"] for each in listed] == [measured.pk]


def test_a_wrong_hyperparameter_is_named(
    dev: Api, person: Callable[..., Person], department: Callable[..., Department]
) -> None:
    maker, clinical = person("Maker"), department("clinical")
    base = objects.version(objects.model(maker, clinical, "encoder", "embeddings"), maker)
    data = objects.data(maker, clinical, "train", [{"text": "good", "label": "positive"}])
    objects.model(maker, clinical)
    wanted = {
        "model": "sentiment",
        "base_version": base.pk,
        "method": "full",
        "dataset_version": data.pk,
        "hyperparameters": {"epocs": 3},
    }

    refused = problem_of(dev.post("fine-tunes", wanted), 400)

    assert refused["errors"][0]["field"] == "hyperparameters.epocs"
    assert not Job.objects.exists()


def test_a_job_is_canceled_once(
    dev: Api, person: Callable[..., Person], department: Callable[..., Department]
) -> None:
    make_model(dev)
    made = dev.upload(
        "intakes",
        {
            "model": "encoder",
            "source": "s",
            "license": "l",
            "files": [
                file("config.json", b'{"model_type": "bert"}'),
                file("model.safetensors", objects.safetensors()),
            ],
        },
    ).body
    lead = Api(person("Lea", "lead@clinical"))

    canceled = lead.post(f"jobs/{made['job']}/cancel")
    assert canceled.status_code == 200, canceled.content
    assert canceled.body["state"] == "canceled"
    problem_of(lead.post(f"jobs/{made['job']}/cancel"), 409, "wrong_state")
