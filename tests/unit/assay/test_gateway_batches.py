"""`/v1/batches` through the official client: every line once, as an online request."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import openai
import pytest
from django.utils import timezone

from assay.gateway.inference import Inference
from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.policy.models import PolicyVersion
from registry.batches.models import Batch, BatchLine
from registry.files.models import StoredFile
from registry.media.store import media_put
from registry.versions.models import ModelVersion
from tests.unit.assay.batch_support import CHAT, content_of, create, ended, line, results
from tests.unit.assay.gateway_support import Behavior, Stage, say_hello, stage
from tests.unit.assay.test_gateway_media import picture
from tests.unit.assay.test_gateway_recall import recall as recall_version
from tests.unit.policy_support import install_rules
from tests.waiting import PATIENCE_S
from workers.deployments.models import Deployment, DeploymentState
from workers.wire import Done, Failed, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep


@pytest.fixture(autouse=True)
def data_dir(settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path


def revoke(token: str) -> None:
    ApiKey.objects.filter(public_id=token.split("_")[1]).update(revoked_at=timezone.now())


def test_a_batch_answers_every_line_once_and_bills_it_once(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    names = [f"q{number}" for number in range(12)]
    made = create(client, [line(name, name) for name in names], metadata={"run": "night"})
    assert (made.status, made.object, made.metadata) == ("validating", "batch", {"run": "night"})
    done = ended(client, made.id)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (12, 12, 0)
    assert (done.errors, done.error_file_id, done.completed_at is None) == (None, None, False)
    found = results(client, done.output_file_id)
    assert sorted(found) == sorted(names)
    for each in found.values():
        assert each["error"] is None
        assert each["response"]["status_code"] == 200
        assert each["response"]["body"]["choices"][0]["message"]["content"] == "Hello there"
    asked = [request.inputs["messages"][0]["content"] for request in stage.responders[0].requests]
    assert sorted(asked) == sorted(names)
    entries = stage.entries(12)
    ids = {each["response"]["request_id"] for each in found.values()}
    assert {entry.request_id for entry in entries if entry.ran} == ids
    assert {entry.part_of for entry in entries if entry.ran} == {made.id}
    assert not BatchLine.objects.exists()
    actions = AuditEvent.objects.filter(subject_type="batch").order_by("pk")
    assert [event.action.split(":")[1] for event in actions] == [
        "create", "start", "finalize", "complete",
    ]  # fmt: skip
    output = StoredFile.objects.get(pk=done.output_file_id)
    assert (output.purpose, output.department.slug) == ("batch_output", "engineering")
    page = client.batches.list(limit=1)
    assert [batch.id for batch in page.data] == [made.id]


def test_the_files_of_a_batch_expire_when_its_creation_says(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    expiry = {"anchor": "created_at", "seconds": 7200}
    made = create(client, [line("a")], output_expires_after=expiry)
    output = client.files.retrieve(ended(client, made.id).output_file_id)
    # The clock is read twice, in whole seconds.
    assert output.expires_at - output.created_at == pytest.approx(7200, abs=60)


def test_a_list_of_batches_goes_on_after_one(stage: Stage) -> None:
    stage.deployment(ready=False, behavior=None)
    client = stage.client(stage.key())
    made = [create(client, [line("a")]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=1)] == made[::-1]


def test_lines_that_fail_go_into_the_error_file(stage: Stage) -> None:
    def answer(request: InferenceRequest, reply: Any) -> None:
        if request.inputs["messages"][0]["content"] == "bad":
            reply(Failed("engine_error", "The model failed.", 500))
        else:
            say_hello(request, reply)

    stage.deployment(behavior=answer)
    client = stage.client(stage.key())
    wrong = line("wrong")
    wrong["body"]["temperature"] = "hot"
    made = create(client, [line("good"), line("bad", "bad"), wrong])
    done = ended(client, made.id)
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    assert list(results(client, done.output_file_id)) == ["good"]
    errors = results(client, done.error_file_id)
    assert errors["bad"]["response"]["status_code"] == 500
    assert errors["wrong"]["response"]["body"]["error"]["param"] == "temperature"
    assert Batch.objects.get().failures == {"engine_error": 1, "invalid_value": 1}


BAD_LINES: list[tuple[str, bytes]] = [
    ("invalid_json_line", b"{"),
    ("invalid_json_line", b"[1]"),
    ("invalid_json_line", b'{"a": NaN}'),
    ("invalid_json_line", b"[" * 100_000),
    ("invalid_custom_id", content_of([line("")])),
    ("invalid_custom_id", content_of([line("a\0b")])),
    ("invalid_custom_id", content_of([line("a" * 513)])),
    ("invalid_custom_id", content_of([line(7)])),  # type: ignore[arg-type]
    ("invalid_method", content_of([line("a", method="GET")])),
    ("invalid_url", content_of([line("a", url="/v1/embeddings")])),
    ("missing_required_parameter", content_of([line("a", body=[])])),
    ("missing_required_parameter", content_of([line("a", body={"model": 1})])),
    ("invalid_stream", content_of([line("a", body={"model": "writer", "stream": True})])),
    ("unknown_parameter", content_of([line("a", more=1)])),
    ("duplicate_custom_id", content_of([line("a"), line("b"), line("a")])),
    (
        "mismatched_model",
        content_of([line("a"), line("b", body={"model": "other", "messages": []})]),
    ),
    ("line_too_long", content_of([line("a", "x" * 2_000_000)])),
    ("empty_file", b"\n \n"),
]


def test_an_input_that_is_wrong_fails_with_line_numbers_before_anything_runs(
    stage: Stage,
) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    made = [create(client, data) for _, data in BAD_LINES]
    many = content_of(line(f"q{number}") for number in range(50_001))
    made.append(create(client, many))
    codes = [code for code, _ in BAD_LINES] + ["too_many_requests"]
    for code, batch in zip(codes, made, strict=True):
        fault = ended(client, batch.id, "failed").errors.data[0]
        assert (fault.code, bool(fault.message)) == (code, True)
    assert client.batches.retrieve(made[14].id).errors.data[0].line == 3  # type: ignore[union-attr,index]
    assert not stage.responders[0].requests


def test_a_key_without_the_deployment_gets_a_failed_batch(stage: Stage) -> None:
    stage.deployment(departments=("finance",))
    stage.deployment("vectors", task="embeddings", departments=("engineering",))
    client = stage.client(stage.key())
    hidden = create(client, [line("a")])
    assert ended(client, hidden.id, "failed").errors.data[0].code == "model_not_found"
    wrong = create(client, [line("a", body={"model": "vectors", "messages": []})])
    assert ended(client, wrong.id, "failed").errors.data[0].code == "wrong_endpoint"


def test_creating_is_bounded_and_another_departments_batches_do_not_exist(stage: Stage) -> None:
    stage.deployment(ready=False, behavior=None)
    client = stage.client(stage.key())
    made = create(client, [line("a")])
    other = stage.client(stage.key("finance"))
    for ask in (
        lambda: other.batches.retrieve(made.id),
        lambda: other.batches.cancel(made.id),
        lambda: other.batches.retrieve("batch_%00"),
        lambda: other.files.content(made.input_file_id),
        lambda: other.batches.create(
            input_file_id=made.input_file_id, endpoint=CHAT, completion_window="24h"
        ),
        lambda: other.batches.create(
            input_file_id="file-\0", endpoint=CHAT, completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert other.batches.list().data == []
    good = {"input_file_id": made.input_file_id, "endpoint": CHAT, "completion_window": "24h"}
    for wrong in (
        {"endpoint": "/v1/images/variations"},
        {"completion_window": "1h"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "\0"}},
        {"metadata": {str(number): "" for number in range(17)}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
        {"more": 1},
        {"input_file_id": 7},
    ):
        answer = stage.post("/v1/batches", client.api_key, json={**good, **wrong})
        assert (answer.status_code, bool(answer.json()["error"]["message"])) == (400, True), wrong
    with pytest.raises(openai.ConflictError) as used:
        client.files.delete(made.input_file_id)
    assert used.value.code == "file_in_use"
    client.batches.cancel(made.id)
    ended(client, made.id, "cancelled")
    assert client.files.delete(made.input_file_id).deleted


def test_a_key_for_some_deployments_reaches_only_what_it_made(stage: Stage) -> None:
    stage.deployment()
    made = create(stage.client(stage.key()), [line("a")])
    ended(stage.client(stage.key()), made.id)
    client = stage.client(stage.key(allowed_deployments=["writer"]))
    assert (client.batches.list().data, client.files.list().data) == ([], [])
    for ask in (
        lambda: client.batches.retrieve(made.id),
        lambda: client.batches.cancel(made.id),
        lambda: client.files.content(made.input_file_id),
        lambda: client.files.delete(made.input_file_id),
        lambda: client.batches.create(
            input_file_id=made.input_file_id, endpoint=CHAT, completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    own = create(client, [line("a")])
    assert ended(client, own.id).request_counts.completed == 1
    assert len(client.files.list().data) == 2


def test_a_line_that_breaks_the_gateway_fails_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment()
    infer = Inference.infer

    async def break_once(inference: Inference, call: Any, *more: Any) -> None:
        if not broken:
            broken.append(call.request_id)
            raise RuntimeError("secret")
        await infer(inference, call, *more)

    broken: list[str] = []
    monkeypatch.setattr(Inference, "infer", break_once)
    client = stage.client(stage.key())
    made = create(client, [line("a"), line("b")])
    done = ended(client, made.id)
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)
    (error,) = results(client, done.error_file_id).values()
    assert (error["response"]["status_code"], error["response"]["request_id"]) == (500, broken[0])
    assert "secret" not in str(error)


def test_a_batch_that_is_cancelled_keeps_what_has_run(stage: Stage, settings: Any) -> None:
    settings.BATCH_CONCURRENCY = 1
    may_end, began = threading.Event(), threading.Event()

    def slow(request: InferenceRequest, reply: Any) -> None:
        if request.inputs["messages"][0]["content"] == "second":
            began.set()
            may_end.wait(PATIENCE_S)
        say_hello(request, reply)

    stage.deployment(behavior=slow)
    client = stage.client(stage.key())
    made = create(client, [line("first"), line("second", "second"), line("third"), line("last")])
    assert began.wait(PATIENCE_S)
    answers: list[Any] = []
    twice = [
        threading.Thread(target=lambda: answers.append(client.batches.cancel(made.id).status))
        for _ in range(2)
    ]
    for thread in twice:
        thread.start()
    for thread in twice:
        thread.join()
    assert answers == ["cancelling", "cancelling"]
    may_end.set()
    done = ended(client, made.id, "cancelled")
    assert sorted(results(client, done.output_file_id)) == ["first", "second"]
    errors = results(client, done.error_file_id)
    assert {name: each["error"]["code"] for name, each in errors.items()} == {
        "third": "batch_cancelled",
        "last": "batch_cancelled",
    }
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)
    assert len(stage.responders[0].requests) == 2


def test_a_batch_that_is_over_its_time_expires_with_what_has_run(
    stage: Stage, settings: Any
) -> None:
    settings.BATCH_CONCURRENCY = 1

    def expire(request: InferenceRequest, reply: Any) -> None:
        Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        say_hello(request, reply)

    stage.deployment(behavior=expire)
    client = stage.client(stage.key())
    made = create(client, [line("first"), line("second")])
    done = ended(client, made.id, "expired")
    assert list(results(client, done.output_file_id)) == ["first"]
    assert results(client, done.error_file_id)["second"]["error"]["code"] == "batch_expired"
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)


def test_a_revoked_key_stops_its_batch(stage: Stage, settings: Any) -> None:
    settings.BATCH_CONCURRENCY = 1
    token = stage.key()

    def end(request: InferenceRequest, reply: Any) -> None:
        say_hello(request, reply)
        revoke(token)
        stage.redis.publish("assay:snapshot", "")

    stage.deployment(behavior=end)
    made = create(stage.client(token), [line(f"q{number}") for number in range(50)])
    client = stage.client(stage.key())
    done = ended(client, made.id, "failed")
    assert done.errors.data[0].code == "invalid_api_key"
    assert len(stage.responders[0].requests) < 50
    kept, lost = results(client, done.output_file_id), results(client, done.error_file_id)
    assert len(kept) + len(lost) == 50


def test_a_classification_and_the_stored_address_are_those_of_the_creation(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key()).with_options(
        default_headers={"Assay-Data-Classification": "confidential"}
    )
    made = create(client, [line("a")])
    ended(client, made.id)
    (entry,) = [each for each in stage.entries(1) if each.part_of == made.id]
    assert entry.decision["context"]["classification"] == "confidential"
    assert entry.client_address == "127.0.0.1"


def recall(stage: Stage) -> None:
    recall_version(stage, ModelVersion.objects.get())


def stop(stage: Stage) -> None:
    Deployment.objects.update(state=DeploymentState.STOPPED, stopped_at=timezone.now())


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (recall, "release_not_servable", "Release"),
        (stop, "model_not_found", "does not exist"),
    ],
)
def test_a_batch_ends_early_when_nothing_serves_its_lines_any_more(
    stage: Stage, settings: Any, end: Callable[[Stage], None], code: str, reason: str
) -> None:
    settings.BATCH_CONCURRENCY = 1

    def answer(request: InferenceRequest, reply: Any) -> None:
        # Counted before the answer, because the next request follows it at once.
        number = len(stage.responders[0].requests)
        say_hello(request, reply)
        if number == 2:
            end(stage)
            stage.notify()

    stage.deployment(behavior=answer)
    client = stage.client(stage.key())
    made = create(client, [line(f"q{number}") for number in range(40)])
    done = ended(client, made.id, "failed")
    (fault,) = done.errors.data
    assert fault.code == code
    assert fault.message.startswith("10 requests in a row were refused. ")
    assert reason in fault.message
    answers = results(client, done.output_file_id)
    assert 0 < len(answers) == done.request_counts.completed
    assert len(answers) + len(results(client, done.error_file_id)) == 40
    failures = Batch.objects.get().failures
    assert failures == {code: 10, "batch_failed": 30 - len(answers)}


def test_a_batch_and_its_outputs_are_as_confidential_as_the_input(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    declared = {"extra_headers": {"Assay-Data-Classification": "confidential"}}
    file = client.files.create(
        file=("input.jsonl", content_of([line("a")])), purpose="batch", **declared
    )
    made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    ended(client, made.id)
    assert Batch.objects.get().classification == "confidential"
    assert {found.classification for found in StoredFile.objects.all()} == {"confidential"}
    rules = [
        *PolicyVersion.objects.get().rules,
        {
            "id": "no-confidential-files",
            "effect": "forbid",
            "description": "confidential data stays out of files",
            "principal": {"kinds": ["key"]},
            "actions": ["file:create", "file:view"],
            "resource_types": ["file"],
            "conditions": [
                {"attribute": "classification", "operator": "eq", "value": "confidential"}
            ],
        },
    ]
    install_rules(rules)
    stage.notify()
    assert client.files.list().data == []
    with pytest.raises(openai.PermissionDeniedError, match="stays out of files"):
        client.files.create(file=("b", b"x"), purpose="batch", **declared)
    assert client.files.create(file=("b", b"x"), purpose="batch").id


def moderate(request: InferenceRequest, reply: Any) -> None:
    found = {"scores": {"violence": 0.9}, "flagged": ["violence"]}
    reply(Done("stop", 3, 0, results=[found], units=1))


def classify(request: InferenceRequest, reply: Any) -> None:
    reply(Done("stop", 3, 0, results=[[{"label": "good", "score": 0.9}]], units=1))


@pytest.mark.parametrize(
    ("path", "task", "behavior", "asked", "shown"),
    [
        (
            "/v1/completions",
            "text-generation",
            say_hello,
            {"prompt": "Hi"},
            lambda body: body["choices"][0]["text"] == "Hello there",
        ),
        (
            "/v1/responses",
            "text-generation",
            say_hello,
            {"input": "Hi", "store": False},
            lambda body: body["output"][0]["content"][0]["text"] == "Hello there",
        ),
        (
            "/v1/moderations",
            "moderation",
            moderate,
            {"input": "Hi"},
            lambda body: body["results"][0]["categories"]["violence"],
        ),
        (
            "/v1/classify",
            "text-classification",
            classify,
            {"input": "Hi"},
            lambda body: body["data"][0]["label"] == "good",
        ),
        (
            "/v1/messages",
            "text-generation",
            say_hello,
            {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
            lambda body: body["content"][0]["text"] == "Hello there",
        ),
    ],
)
def test_the_other_paths_run_in_batches(
    stage: Stage,
    path: str,
    task: str,
    behavior: Behavior,
    asked: dict[str, Any],
    shown: Callable[[Any], bool],
) -> None:
    stage.deployment("writer", task=task, behavior=behavior)
    client = stage.client(stage.key())
    made = create(client, [line("a", url=path, body={"model": "writer", **asked})], endpoint=path)
    done = ended(client, made.id)
    answer = results(client, done.output_file_id)["a"]["response"]
    assert (answer["status_code"], shown(answer["body"])) == (200, True)


def test_embeddings_run_in_batches(stage: Stage) -> None:
    def embed(request: InferenceRequest, reply: Any) -> None:
        reply(Done("stop", 3, 0, results=[[0.5, 0.25]], units=3))

    stage.deployment("vectors", task="embeddings", behavior=embed)
    client = stage.client(stage.key())
    body = {"model": "vectors", "input": "Hi"}
    made = create(client, [line("a", url="/v1/embeddings", body=body)], endpoint="/v1/embeddings")
    done = ended(client, made.id)
    answer = results(client, done.output_file_id)["a"]["response"]["body"]
    assert answer["data"][0]["embedding"] == [0.5, 0.25]


def test_a_path_with_the_deployment_names_the_model_of_a_batch(stage: Stage) -> None:
    stage.deployment("garments", task="image-classification", behavior=classify)
    stage.deployment("grades", task="text-classification", behavior=classify)
    client = stage.client(stage.key())
    image = base64.b64encode(picture()).decode()
    for deployment, task, text, shown in (
        ("garments", "image-classification", image, [{"label": "good", "score": 0.9}]),
        ("grades", "text-classification", "Hi", [[{"label": "good", "score": 0.9}]]),
    ):
        path = f"/v1/tasks/{task}/{deployment}"
        made = create(client, [line("a", url=path, body={"inputs": text})], endpoint=path)
        done = ended(client, made.id)
        answer = results(client, done.output_file_id)["a"]["response"]["body"]
        assert answer == shown
        assert client.batches.retrieve(made.id).model == deployment
    labels = {entry.endpoint for entry in stage.entries(2) if entry.ran}
    assert labels == {
        "/v1/tasks/image-classification/{model}",
        "/v1/tasks/text-classification/{model}",
    }
    wrong = "/v1/tasks/image-classification/grades"
    made = create(client, [line("a", url=wrong, body={"inputs": image})], endpoint=wrong)
    assert ended(client, made.id, "failed").errors.data[0].code == "wrong_endpoint"


def test_speech_of_a_batch_is_base64(stage: Stage) -> None:
    def speak(request: InferenceRequest, reply: Any) -> None:
        recording = media_put(b"RIFF", content_type="audio/wav", deployment_id=voice.pk)
        reply(Done("stop", 0, 0, results=[{**recording.to_json(), "details": {}}], units=1))

    voice = stage.deployment("voice", task="text-to-speech", behavior=speak)
    client = stage.client(stage.key())
    path = "/v1/audio/speech"
    body = {"model": "voice", "input": "Hi", "voice": "default", "response_format": "wav"}
    made = create(client, [line("a", url=path, body=body)], endpoint=path)
    answer = results(client, ended(client, made.id).output_file_id)["a"]["response"]["body"]
    assert answer["content_type"] == "audio/wav"
    assert base64.b64decode(answer["b64_json"]) == b"RIFF"


def test_errors_of_messages_keep_their_shape_in_a_batch(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    body = {"model": "writer", "messages": [], "max_tokens": 5}
    made = create(client, [line("a", url="/v1/messages", body=body)], endpoint="/v1/messages")
    answer = results(client, ended(client, made.id).error_file_id)["a"]["response"]["body"]
    assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/v1/nothing",
        "/v1/audio/transcriptions",
        "/v1/tasks/image-classification",
        "/v1/tasks/image-classification/nul\x00byte",
        "/v1/tasks/image-classification/line\nbreak",
        "/v1/tasks/image-classification/" + "a" * 600,
    ],
)
def test_a_path_that_takes_no_json_is_refused(stage: Stage, endpoint: str) -> None:
    client = stage.client(stage.key())
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, [line("a")], endpoint=endpoint)
    assert refused.value.param == "endpoint"
