"""Job requests: refused before work is queued, or queued."""

from __future__ import annotations

from typing import Any

import pytest

from governance.errors import InvalidInput, NotFound, WrongState
from governance.schemas import parsed
from registry.evaluations.models import Gate
from registry.intake.models import IntakeState
from registry.versions.models import VersionState
from tests.unit.workers import company
from workers.jobs.leases import job_claim
from workers.jobs.models import Job
from workers.jobs.orders import order_make
from workers.jobs.requests import evaluate_request, fine_tune_request, intake_request
from workers.jobs.schemas import JobChanges
from workers.jobs.sweeping import job_sweep
from workers.run.order import FineTuneWork

pytestmark = pytest.mark.django_db
CLASSIFY = "text-classification"


def fine_tune(**changes: Any) -> Job:
    encoder = company.model("minilm", "embeddings", "platform", shared=True)
    asked: dict[str, Any] = {
        "actor": company.developer(),
        "model": company.model("sentiment", CLASSIFY),
        "method": "full",
        "hyperparameters": {"epochs": 2},
    }
    asked |= changes
    if "base_version" not in asked:
        asked["base_version"] = company.version(encoder)
    if "dataset_version" not in asked:
        asked["dataset_version"] = company.data("reviews", CLASSIFY)
    return fine_tune_request(**asked)


def test_a_classifier_may_be_tuned_from_a_shared_encoder_of_another_department() -> None:
    job = fine_tune()
    assert (job.kind, job.state, job.department.slug) == ("fine_tune", "queued", "clinical")
    assert job.spec["hyperparameters"]["epochs"] == 2
    assert job.spec["hyperparameters"]["learning_rate"] == 2e-4
    assert job.spec["dataset_digest"]


@pytest.mark.parametrize(
    ("task", "base_task"),
    [
        (CLASSIFY, "embeddings"),
        ("token-classification", "embeddings"),
        ("image-classification", "image-classification"),
        ("audio-classification", "audio-classification"),
    ],
)
def test_a_classifier_may_be_tuned_by_lora_into_an_adapter_of_its_base(
    task: str, base_task: str
) -> None:
    base = company.version(company.model("seen", base_task, "platform", shared=True))
    chosen: dict[str, Any] = {
        "model": company.model("sorter", task),
        "base_version": base,
        "dataset_version": company.data("rows", task),
        "method": "lora",
    }
    with pytest.raises(InvalidInput) as refused:
        fine_tune(**chosen, hyperparameters={"lora_rank": 257})
    assert refused.value.fields == {"hyperparameters.lora_rank": ["Must be at most 256."]}
    job = fine_tune(**chosen, hyperparameters={"lora_rank": 4})
    assert (job.spec["hyperparameters"]["lora_rank"], job.spec["method"]) == (4, "lora")
    claim = job_claim(job_id=job.pk, worker="w")
    assert claim is not None
    work = order_make(claim).work
    assert isinstance(work, FineTuneWork)
    assert (work.method, work.base_digest) == ("lora", base.digest)


@pytest.mark.parametrize("values", [[], {"a": "x" * 40_000}, dict.fromkeys(map(str, range(65)))])
def test_hyperparameters_are_an_object_within_bounds(values: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(JobChanges, {"hyperparameters": values})
    assert list(refused.value.fields) == ["hyperparameters"]


def test_unknown_and_wrong_hyperparameters_are_named_field_by_field() -> None:
    with pytest.raises(InvalidInput, match="do not fit Text classification") as refused:
        fine_tune(hyperparameters={"epochs": 0, "learning_rat": 1})
    assert refused.value.fields == {
        "hyperparameters.epochs": ["Must be at least 1."],
        "hyperparameters.learning_rat": ["This field is unknown."],
    }
    assert not Job.objects.exists()


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="has no method 'qlora'; it has: full, lora"):
        fine_tune(method="qlora")


def test_a_base_of_another_task_or_kind_is_refused() -> None:
    generator = company.model("smol", "text-generation")
    base = company.version(generator)
    with pytest.raises(InvalidInput, match="is of task text-generation"):
        fine_tune(base_version=base)
    adapter = company.version(generator, "adapter", base=base)
    with pytest.raises(InvalidInput, match="is of kind adapter"):
        fine_tune(
            model=company.model("docs", "text-generation"),
            base_version=adapter,
            method="lora",
            dataset_version=company.data("pairs", "text-generation"),
        )


def test_a_recalled_base_is_refused() -> None:
    base = company.version(company.model("old", "embeddings"))
    base.state = "recalled"
    base.save()
    with pytest.raises(WrongState, match="is recalled; it cannot be adapted"):
        fine_tune(base_version=base)


def test_bases_and_data_of_other_departments_do_not_exist_for_one() -> None:
    hidden = company.version(company.model("secret", "embeddings", "finance"))
    with pytest.raises(NotFound):
        fine_tune(base_version=hidden)
    with pytest.raises(NotFound):
        fine_tune(dataset_version=company.data("ledger", CLASSIFY, "finance"))


def test_data_of_another_task_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is data for embeddings"):
        fine_tune(dataset_version=company.data("texts", "embeddings"))


def test_a_method_takes_only_rows_of_its_kind() -> None:
    model = company.model("docs", "text-generation")
    given: dict[str, Any] = {
        "model": model,
        "base_version": company.version(company.model("smol", "text-generation")),
        "hyperparameters": {},
    }
    data = company.data("conversations", "text-generation")
    with pytest.raises(InvalidInput, match="rows of preference pairs are needed"):
        fine_tune(**given, method="dpo", dataset_version=data)
    pairs = company.data("pairs", "text-generation")
    pairs.dataset.row_kind = "preferences"
    pairs.dataset.save()
    with pytest.raises(InvalidInput, match="holds rows of preference pairs"):
        fine_tune(**given, method="lora", dataset_version=pairs)
    assert fine_tune(**given, method="dpo", dataset_version=pairs).state == "queued"
    with pytest.raises(InvalidInput, match="holds rows of preference pairs"):
        evaluate_request(
            actor=company.developer(), version=company.version(model), dataset_version=pairs
        )


def test_restricted_data_may_not_go_into_a_model_that_is_shared() -> None:
    restricted = company.data("patients", CLASSIFY, classification="restricted")
    with pytest.raises(InvalidInput, match="is restricted"):
        fine_tune(model=company.model("open", CLASSIFY, shared=True), dataset_version=restricted)
    assert fine_tune(dataset_version=restricted).state == "queued"


def test_a_model_is_not_trained_on_the_data_that_carries_its_gates() -> None:
    tested = company.data("held-out", CLASSIFY)
    model = company.model("sentiment", CLASSIFY)
    gate = Gate.objects.create(
        model=company.model("other", CLASSIFY),
        dataset=tested.dataset,
        metric="accuracy",
        comparator=">=",
        threshold=0.8,
        created_by=tested.created_by,
    )
    # Test data of another model is told on the form, and no more.
    assert fine_tune(dataset_version=tested).state == "queued"
    gate.pk, gate.model = None, model
    gate.save()
    with pytest.raises(InvalidInput, match="sentiment is tested on held-out, by its gates"):
        fine_tune(dataset_version=tested)


def test_an_evaluation_names_version_and_data_by_digest() -> None:
    tuned = company.version(
        company.model("sentiment", CLASSIFY),
        "full",
        base=company.version(company.model("minilm", "embeddings")),
    )
    held_out = company.data("held-out", CLASSIFY)
    job = evaluate_request(actor=company.developer(), version=tuned, dataset_version=held_out)
    assert job.spec["version_digest"] == tuned.digest
    assert job.spec["dataset_digest"] == held_out.digest


@pytest.mark.parametrize(("asked", "kept"), [(None, None), (1, 1), (10**6, None)])
def test_an_evaluation_measures_all_rows_unless_fewer_are_requested(
    asked: int | None, kept: int | None
) -> None:
    tuned = company.version(company.model("sentiment", CLASSIFY))
    held_out = company.data("held-out", CLASSIFY)
    held_out.rows = 20
    actor = company.developer()
    job = evaluate_request(actor=actor, version=tuned, dataset_version=held_out, max_rows=asked)
    assert job.spec["max_rows"] == kept
    with pytest.raises(InvalidInput, match="at least one row"):
        evaluate_request(actor=actor, version=tuned, dataset_version=held_out, max_rows=0)


def test_a_task_without_an_evaluator_is_not_evaluated() -> None:
    base = company.version(company.model("minilm", "embeddings"))
    with pytest.raises(InvalidInput, match="which is not evaluated"):
        evaluate_request(
            actor=company.developer(),
            version=base,
            dataset_version=company.data("texts", "embeddings"),
        )


def test_the_newest_trusted_version_of_the_judging_task_is_named_with_its_digest() -> None:
    speech, hearing = "text-to-speech", "automatic-speech-recognition"
    voice = company.version(company.model("voice", speech))
    texts = company.data("texts", speech)

    def evaluate() -> Any:
        return evaluate_request(actor=company.developer(), version=voice, dataset_version=texts)

    with pytest.raises(WrongState, match="Deliver one first"):
        evaluate()
    older = company.version(company.model("small-ear", hearing))
    newer = company.version(company.model("large-ear", hearing))
    spec = evaluate().spec
    assert (spec["judge"], spec["judge_name"]) == (newer.pk, str(newer))
    assert spec["judge_digest"] == newer.digest
    newer.state = VersionState.RECALLED
    newer.save()
    assert evaluate().spec["judge"] == older.pk


class Upload:
    """A delivered file, as an upload handler gives it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.size, self._content = name, len(content), content

    def chunks(self) -> Any:
        yield self._content


def test_a_pickle_is_rejected_at_once_and_makes_no_job() -> None:
    intake, job = intake_request(
        actor=company.developer(),
        model=company.model("net", "embeddings"),
        source="https://example.org",
        license="Apache-2.0",
        files=[Upload("net.pth", b"\x80\x02}q\x00.")],
    )
    assert (intake.state, job) == (IntakeState.REJECTED, None)
    assert intake.reason
    assert not Job.objects.exists()


def test_a_delivery_whose_job_is_canceled_is_rejected_with_the_reason() -> None:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    files = [Upload("model.safetensors", weights), Upload("config.json", b'{"model_type": "bert"}')]
    intake, job = intake_request(
        actor=company.developer(),
        model=company.model("net", "embeddings"),
        source="https://example.org",
        license="Apache-2.0",
        files=files,
    )
    assert job is not None, intake.reason
    assert (intake.state, intake.job_id) == (IntakeState.CHECKING, job.pk)
    Job.objects.filter(pk=job.pk).update(state="canceled")
    job_sweep()
    intake.refresh_from_db()
    assert (intake.state, intake.reason) == ("rejected", "The job that checks it is canceled.")
