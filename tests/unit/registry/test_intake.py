"""A delivery waits in quarantine until it is checked and a second person signs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from governance.audit.models import AuditEvent
from governance.errors import (
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    Unavailable,
    WrongState,
)
from governance.people.models import Department, Person
from governance.principals import Principal
from registry.intake.models import Intake, IntakeState
from registry.intake.selectors import intakes_visible_to
from registry.intake.services import (
    intake_checked,
    intake_reject,
    intake_sign_off,
    intake_submit,
    version_parameters,
)
from registry.intake.states import INTAKE_STATES
from registry.storage import store
from registry.versions.models import Model, ModelVersion
from registry.versions.weights import checked_quantization
from tests.unit.audit_support import bodies, recorded
from tests.unit.registry.objects import Upload, delivery, gguf, model, sha256, stored

pytestmark = pytest.mark.django_db


@pytest.fixture
def developer(actor: Callable[..., Principal]) -> Principal:
    return actor("Devi", "developer@clinical")


@pytest.fixture
def minilm(developer: Principal, department: Callable[[str], Department]) -> Model:
    owner = Person.objects.get(name=developer.name)
    return model(owner, department("clinical"), "minilm", "embeddings")


def submit(who: Principal, of: Model, files: list[Upload]) -> Intake:
    return intake_submit(
        actor=who, model=of, source="a supplier", license="Apache-2.0", files=files
    )


def checked(who: Principal, of: Model) -> Intake:
    intake = submit(who, of, delivery())
    return intake_checked(
        intake_id=intake.pk, manifest=stored({"a.json": b"{}"}), findings=[], job_id=uuid4()
    )


def left_in_quarantine() -> list[str]:
    folder = store.quarantine_folder(0).parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_good_delivery_waits_in_quarantine_for_its_job(
    developer: Principal, minilm: Model
) -> None:
    intake = submit(developer, minilm, delivery(**{"pooling/config__json": b"{}"}))
    assert intake.state == IntakeState.QUARANTINED
    folder = store.quarantine_folder(intake.pk)
    assert (folder / "pooling" / "config.json").read_bytes() == b"{}"
    assert {"name": "pooling/config.json", "size": 2, "sha256": sha256(b"{}")} in intake.files
    assert all(finding["passed"] for finding in intake.findings)
    assert not folder.is_relative_to(url2pathname(urlsplit(store.store_url()).path))


def test_a_pickle_is_rejected_on_record_with_the_reason_and_its_bytes_are_gone(
    developer: Principal, minilm: Model
) -> None:
    before = left_in_quarantine()
    intake = submit(developer, minilm, [Upload("weights.pth", pickle.dumps({"a": 1}))])
    assert intake.state == IntakeState.REJECTED
    assert intake.reason.startswith("weights.pth is a Python pickle: loading it can run code.")
    assert left_in_quarantine() == before
    event = recorded(action="intake:create")
    assert (event.outcome, event.reason) == ("denied", intake.reason)
    assert json.loads(bytes(event.canonical))["data"]["files"] == intake.files


@pytest.mark.parametrize(
    "names", [["../escape.json"], ["/etc/passwd"], ["a.json", "A.JSON"], ["a\nb.json"], [""]]
)
def test_an_unsafe_or_repeated_name_is_rejected_and_never_written(
    developer: Principal, minilm: Model, names: list[str]
) -> None:
    before = left_in_quarantine()
    intake = submit(developer, minilm, [Upload(name, b"{}") for name in names])
    assert intake.state == IntakeState.REJECTED
    assert left_in_quarantine() == before


def test_a_delivery_that_is_too_large_leaves_nothing(
    developer: Principal, minilm: Model, settings: Any
) -> None:
    before = left_in_quarantine()
    with pytest.raises(TooLarge, match="513 files"):
        submit(developer, minilm, [Upload(f"{n}.json", b"{}") for n in range(513)])
    settings.INTAKE_MAX_BYTES = 3
    with pytest.raises(TooLarge, match="larger than 3 bytes"):
        submit(developer, minilm, [Upload("a.json", b"{}"), Upload("b.json", b"{}")])
    with pytest.raises(InvalidInput, match="holds no file"):
        submit(developer, minilm, [])
    assert left_in_quarantine() == before
    assert not Intake.objects.exists()


def test_a_file_that_is_also_a_folder_is_refused(developer: Principal, minilm: Model) -> None:
    with pytest.raises(InvalidInput, match="a file and of a folder"):
        submit(developer, minilm, [Upload("a", b"{}"), Upload("a/b", b"{}")])


class Unread(Upload):
    """A file that must not be read."""

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("It was read.")


def test_a_delivery_that_cannot_be_written_is_refused_before_it_is_copied(
    developer: Principal, minilm: Model
) -> None:
    with pytest.raises(InvalidInput, match="a is the name of a file and of a folder"):
        submit(developer, minilm, [Unread("a", b"{}"), Unread("a/b/c", b"{}")])
    long = submit(developer, minilm, [Unread("é" * 128 + ".json", b"{}")])
    assert (long.state, "over 255 bytes" in long.reason) == (IntakeState.REJECTED, True)


def test_only_the_models_department_submits_and_sees(
    developer: Principal, minilm: Model, actor: Callable[..., Principal]
) -> None:
    submit(developer, minilm, delivery())
    stranger = actor("Fritz", "developer@finance")
    with pytest.raises(NotFound):
        submit(stranger, minilm, delivery())
    with pytest.raises(NotPermitted):
        submit(actor("Vera", "viewer@clinical"), minilm, delivery())
    assert not intakes_visible_to(stranger).exists()
    assert intakes_visible_to(actor("Audra", "auditor")).count() == 1


def test_a_checked_delivery_awaits_a_signature_and_reporting_it_twice_is_harmless(
    developer: Principal, minilm: Model
) -> None:
    intake = submit(developer, minilm, delivery())
    manifest, job = stored({"a.json": b"{}"}), uuid4()
    for _ in range(2):
        done = intake_checked(intake_id=intake.pk, manifest=manifest, findings=[], job_id=job)
        assert (done.state, done.digest) == (IntakeState.AWAITING_SIGN_OFF, manifest.digest)
    assert AuditEvent.objects.filter(action="intake:check").count() == 1
    with pytest.raises(WrongState):
        intake_checked(intake_id=intake.pk, manifest=manifest, findings=[], job_id=uuid4())


def test_a_delivery_that_the_job_refused_is_rejected_and_its_bytes_go(
    developer: Principal, minilm: Model, django_capture_on_commit_callbacks: Any
) -> None:
    intake = submit(developer, minilm, delivery())
    with django_capture_on_commit_callbacks(execute=True):
        intake_reject(intake_id=intake.pk, findings=[], reason="Too odd.", job_id=uuid4())
    intake.refresh_from_db()
    assert (intake.state, intake.reason) == (IntakeState.REJECTED, "Too odd.")
    assert not store.quarantine_folder(intake.pk).exists()


def test_who_submitted_it_may_not_sign_it_off(
    minilm: Model, actor: Callable[..., Principal]
) -> None:
    both = actor("Otto", "operator", "developer@clinical")
    intake = checked(both, minilm)
    with pytest.raises(NotPermitted, match="Otto submitted intake") as refused:
        intake_sign_off(actor=both, intake_id=intake.pk, accept=True)
    assert refused.value.code == "separation_of_duties"
    assert refused.value.attempt is not None
    assert refused.value.attempt.action == "intake:sign_off"
    with pytest.raises(IntegrityError), transaction.atomic():
        Intake.objects.filter(pk=intake.pk).update(signed_by=both.person_id)


def test_who_has_no_role_for_it_may_not_sign_it_off(
    developer: Principal, minilm: Model, actor: Callable[..., Principal]
) -> None:
    intake = checked(developer, minilm)
    with pytest.raises(NotPermitted):
        intake_sign_off(actor=actor("Lea", "lead@clinical"), intake_id=intake.pk, accept=True)
    with pytest.raises(NotFound):
        intake_sign_off(actor=actor("Fritz", "lead@finance"), intake_id=intake.pk, accept=True)
    with pytest.raises(NotFound):
        intake_sign_off(actor=actor("Oda", "operator"), intake_id=10**6, accept=True)


def test_a_second_person_may_refuse_it_with_a_reason_once(
    developer: Principal, minilm: Model, actor: Callable[..., Principal]
) -> None:
    intake = checked(developer, minilm)
    operator = actor("Otto", "operator")
    with pytest.raises(InvalidInput, match="The reason is empty"):
        intake_sign_off(actor=operator, intake_id=intake.pk, accept=False)
    refused = intake_sign_off(
        actor=operator, intake_id=intake.pk, accept=False, reason="Unknown supplier."
    )
    assert (refused.state, refused.signed_by_id) == (IntakeState.REJECTED, operator.person_id)
    for accept in (True, False):
        with pytest.raises(WrongState, match="is rejected"):
            intake_sign_off(actor=operator, intake_id=intake.pk, accept=accept, reason="Hm.")


def test_signing_while_mlflow_is_away_changes_nothing(
    developer: Principal, minilm: Model, actor: Callable[..., Principal], settings: Any
) -> None:
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"
    intake = checked(developer, minilm)
    with pytest.raises(Unavailable):
        intake_sign_off(actor=actor("Otto", "operator"), intake_id=intake.pk, accept=True)
    intake.refresh_from_db()
    assert (intake.state, intake.signed_by) == (IntakeState.AWAITING_SIGN_OFF, None)
    assert not ModelVersion.objects.exists()


def test_a_gguf_that_is_kept_states_its_quantization(
    developer: Principal, department: Callable[[str], Department]
) -> None:
    owner = Person.objects.get(name=developer.name)
    chat = model(owner, department("clinical"), "chat", "text-generation")
    intake = intake_submit(
        actor=developer,
        model=chat,
        source="a supplier",
        license="Apache-2.0",
        files=[Upload("chat.gguf", gguf())],
        keep_gguf=True,
    )
    assert bodies(action="intake:create")[0]["data"]["keep_gguf"] is True
    INTAKE_STATES.set_state(intake, IntakeState.CHECKING)
    intake.save()
    made = stored({"model.gguf": gguf(), "config.json": b"{}"})
    intake = intake_checked(
        intake_id=intake.pk, manifest=made, findings=[], job_id=uuid4(), quantization="Q4_K"
    )
    assert (intake.digest, intake.quantization) == (made.digest, "Q4_K")
    with pytest.raises(InvalidInput, match="not the name of a quantization"):
        checked_quantization("<b>")


def test_only_a_gguf_can_be_kept_as_it_is(developer: Principal, minilm: Model) -> None:
    with pytest.raises(InvalidInput, match="has no GGUF"):
        intake_submit(
            actor=developer,
            model=minilm,
            source="a supplier",
            license="MIT",
            files=delivery(),
            keep_gguf=True,
        )
    assert not Intake.objects.exists()


def test_the_length_of_a_soft_prompt_is_noted(developer: Principal, minilm: Model) -> None:
    intake = submit(developer, minilm, delivery())
    INTAKE_STATES.set_state(intake, IntakeState.CHECKING)
    intake.save()
    made = stored({"a.json": b"{}"})
    given = {"intake_id": intake.pk, "manifest": made, "findings": [], "job_id": uuid4()}
    with pytest.raises(InvalidInput, match="at most 256 tokens"):
        intake_checked(**given, virtual_tokens=10**9)
    intake = intake_checked(**given, virtual_tokens=7)
    assert version_parameters(intake) == {"source": "a supplier", "virtual_tokens": 7}
