"""A hosted model comes in as a description, whose provider is called before a person signs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.errors import InvalidInput, Unavailable, WrongState
from governance.people.models import Department, Person
from governance.principals import Principal
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from registry.intake.models import Intake, IntakeProbe, IntakeState
from registry.intake.probes import (
    TRIES_MAX,
    intake_probe_report,
    intake_probed,
    intake_probes_due,
    intakes_probe,
)
from registry.intake.services import (
    intake_checked,
    intake_sign_off,
    intake_submit,
    version_parameters,
)
from registry.manifests import ManifestMismatch
from registry.versions.hosted import hosted_of, hosted_served
from registry.versions.models import Model, ModelVersion
from tests.unit.audit_support import bodies, recorded
from tests.unit.registry.hosted_world import (
    GENERATE,
    answered,
    described,
    description,
    file_of,
    hosted_version,
    unreached,
)
from tests.unit.registry.objects import Upload, model, stored, version

pytestmark = pytest.mark.django_db


@pytest.fixture
def developer(actor: Callable[..., Principal]) -> Principal:
    return actor("Devi", "developer@clinical")


@pytest.fixture
def operator(actor: Callable[..., Principal]) -> Principal:
    return actor("Otto", "operator")


@pytest.fixture
def gpt(developer: Principal, department: Callable[[str], Department]) -> Model:
    owner = Person.objects.get(name=developer.name)
    return model(owner, department("clinical"), "gpt", GENERATE)


def submit(who: Principal, of: Model, *files: Upload) -> Intake:
    files = files or (Upload(HOSTED_FILE, file_of()),)
    return intake_submit(
        actor=who, model=of, source="Example AI", license="proprietary", files=files
    )


def checked(who: Principal, of: Model, **changes: Any) -> Intake:
    """An intake whose checking job reported the description."""
    intake = submit(who, of, Upload(HOSTED_FILE, file_of(**changes)))
    content = description(**changes)
    return intake_checked(
        intake_id=intake.pk,
        manifest=stored({HOSTED_FILE: content.canonical()}),
        findings=[{"check": "weights", "passed": True, "detail": "A description."}],
        job_id=uuid4(),
        hosted=content.model_dump(mode="json"),
    )


def reported(intake: Intake, **changes: Any) -> Intake:
    """The intake after an egress worker called the provider and the controller decided."""
    (probe,) = intake_probes_due(worker="egress@a")
    intake_probe_report(worker="egress@a", intake_id=probe.pk, result=answered(**changes))
    intakes_probe()
    return Intake.objects.get(pk=intake.pk)


def test_a_description_alone_passes_the_checks(developer: Principal, gpt: Model) -> None:
    intake = submit(developer, gpt)
    assert (intake.state, intake.describes_hosted) == (IntakeState.QUARANTINED, True)
    layout = next(each for each in intake.findings if each["check"] == "weights")
    assert layout["detail"] == "The description of gpt-4o-2024-08-06 at api.example.com."


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({HOSTED_FILE: file_of(), "config.json": b"{}"}, "next to other files"),
        ({HOSTED_FILE: b"{}"}, "The description is invalid"),
        ({HOSTED_FILE: file_of(base_url="ftp://x")}, "base_url"),
        ({HOSTED_FILE: file_of(secret="sk-1")}, "secret"),
        ({HOSTED_FILE: file_of(shutdown_on="2020-01-01")}, "ended gpt-4o-2024-08-06 on 2020-01-01"),
        ({HOSTED_FILE: b"[" * 40_000}, "cannot be read"),
    ],
)
def test_another_delivery_with_a_description_is_rejected_with_the_reason(
    developer: Principal, gpt: Model, files: dict[str, bytes], reason: str
) -> None:
    intake = submit(developer, gpt, *(Upload(name, content) for name, content in files.items()))
    assert intake.state == IntakeState.REJECTED
    assert reason in intake.reason


def test_only_the_description_of_the_manifest_is_taken_in(developer: Principal, gpt: Model) -> None:
    intake = submit(developer, gpt)
    other = stored({HOSTED_FILE: description(region="us").canonical()})
    for hosted in (described(), {**described(), "region": 1}, None):
        with pytest.raises(InvalidInput), transaction.atomic():
            intake_checked(
                intake_id=intake.pk, manifest=other, findings=[], job_id=uuid4(), hosted=hosted
            )
    intake.refresh_from_db()
    assert intake.state == IntakeState.QUARANTINED


def test_a_person_signs_only_after_the_provider_answered(
    developer: Principal, operator: Principal, gpt: Model
) -> None:
    intake = checked(developer, gpt)
    assert intake.state == IntakeState.PROBING
    with pytest.raises(WrongState, match="calling the provider"):
        intake_sign_off(actor=operator, intake_id=intake.pk, accept=True)
    intake = reported(intake)
    assert intake.state == IntakeState.AWAITING_SIGN_OFF
    details = {each["check"]: each["detail"] for each in intake.findings}
    assert details == {
        "weights": "A description.",
        "provider": "api.example.com answered a fixed request in 812 ms. It counted 14 + 3 tokens.",
        "answering model": "The answer states gpt-4o-2024-08-06, fingerprint fp_1.",
        "list of models": "The provider's list names gpt-4o-2024-08-06.",
    }
    assert recorded(action="intake:probe").outcome == "allowed"
    intake_probed(intake_id=intake.pk)
    assert len(bodies(action="intake:probe")) == 1


def test_the_description_becomes_the_parameters_of_the_version(
    developer: Principal, operator: Principal, gpt: Model, settings: Any
) -> None:
    intake = reported(checked(developer, gpt))
    assert version_parameters(intake) == description().model_dump(mode="json")
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"
    with pytest.raises(Unavailable):
        intake_sign_off(actor=operator, intake_id=intake.pk, accept=True)
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize(
    ("changes", "answer", "reason"),
    [
        ({}, {"model": "gpt-5"}, "states the model gpt-5, which the description does not name"),
        ({"fingerprint": "fp_2"}, {}, "states the fingerprint fp_1"),
        ({"fingerprint": "fp_2"}, {"fingerprint": ""}, "states no fingerprint"),
    ],
)
def test_a_provider_that_answers_as_another_model_is_rejected(
    developer: Principal, gpt: Model, changes: Any, answer: Any, reason: str
) -> None:
    intake = reported(checked(developer, gpt, **changes), **answer)
    assert intake.state == IntakeState.REJECTED
    assert reason in intake.reason
    assert recorded(action="intake:probe").outcome == "denied"


def test_a_named_other_answer_and_a_silent_one_are_accepted(
    developer: Principal, gpt: Model
) -> None:
    named = reported(checked(developer, gpt, answers_as=["gpt-5"]), model="gpt-5", listed=False)
    assert named.state == IntakeState.AWAITING_SIGN_OFF
    silent = reported(checked(developer, gpt), model="", fingerprint="", prompt_tokens=None)
    details = " ".join(each["detail"] for each in silent.findings)
    assert "states no model" in details
    assert "stated no number of tokens" in details


def test_an_unreachable_provider_is_called_again_later_and_rejected_in_the_end(
    developer: Principal, gpt: Model
) -> None:
    intake = checked(developer, gpt)
    for turn in range(1, TRIES_MAX + 1):
        (probe,) = intake_probes_due(worker="egress@a")
        intake_probe_report(worker="egress@a", intake_id=probe.pk, result=unreached())
        before = timezone.now()
        intakes_probe()
        intake.refresh_from_db()
        assert "refused the credential" in intake.findings[-1]["detail"]
        if turn < TRIES_MAX:
            assert intake.state == IntakeState.PROBING
            assert intake_probes_due(worker="egress@b") == []
            due = IntakeProbe.objects.get().due_at
            assert due >= before + timedelta(minutes=2 ** (turn - 1))
            IntakeProbe.objects.update(due_at=timezone.now())
    assert intake.state == IntakeState.REJECTED
    assert len([each for each in intake.findings if each["check"] == "provider"]) == 1


def test_two_workers_do_not_call_the_same_provider_and_a_late_report_changes_nothing(
    developer: Principal, gpt: Model
) -> None:
    intake = checked(developer, gpt)
    assert [probe.pk for probe in intake_probes_due(worker="egress@a")] == [intake.pk]
    assert intake_probes_due(worker="egress@b") == []
    with pytest.raises(WrongState, match="does not call the provider"):
        intake_probe_report(worker="egress@b", intake_id=intake.pk, result=answered())
    IntakeProbe.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(WrongState, match="any more"):
        intake_probe_report(worker="egress@a", intake_id=intake.pk, result=answered())
    assert [probe.tries for probe in intake_probes_due(worker="egress@b")] == [2]
    intake_probe_report(worker="egress@b", intake_id=intake.pk, result=answered())
    intake_probe_report(worker="egress@b", intake_id=intake.pk, result=answered())
    with pytest.raises(WrongState):
        intake_probe_report(worker="egress@b", intake_id=intake.pk, result=unreached())


def test_a_worker_gets_one_call_at_a_time(developer: Principal, gpt: Model) -> None:
    first, second = checked(developer, gpt), checked(developer, gpt)
    turns = [intake_probes_due(worker="egress@a") for _ in range(3)]
    assert [[probe.pk for probe in turn] for turn in turns] == [[first.pk], [second.pk], []]


def test_calls_that_no_worker_reports_come_to_an_end(developer: Principal, gpt: Model) -> None:
    intake = checked(developer, gpt)
    for _ in range(TRIES_MAX):
        assert len(intake_probes_due(worker="egress@a")) == 1
        intakes_probe()
        IntakeProbe.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert intake_probes_due(worker="egress@a") == []
    intakes_probe()
    intake.refresh_from_db()
    assert intake.state == IntakeState.REJECTED
    assert "did not report the last call" in intake.reason


def test_a_report_that_cannot_be_read_counts_as_a_failed_call(
    developer: Principal, gpt: Model
) -> None:
    intake = checked(developer, gpt)
    IntakeProbe.objects.update(result={"reached": "yes"}, tries=1)
    intakes_probe()
    intake.refresh_from_db()
    assert intake.state == IntakeState.PROBING
    assert "cannot be read" in intake.findings[-1]["detail"]
    with pytest.raises(IntegrityError, match="probe_result_is_short"), transaction.atomic():
        IntakeProbe.objects.update(result={"error": "x" * 9_000})


def test_a_description_under_call_can_be_rejected_by_a_person(
    developer: Principal, operator: Principal, gpt: Model
) -> None:
    intake = checked(developer, gpt)
    intake = intake_sign_off(actor=operator, intake_id=intake.pk, accept=False, reason="No terms.")
    assert intake.state == IntakeState.REJECTED
    assert intake_probes_due(worker="egress@a") == []


def test_a_changed_row_is_no_description(gpt: Model) -> None:
    owner = Person.objects.get(name="Devi")
    made = hosted_version(gpt, owner)
    assert hosted_of(version(gpt, owner, "prompt", made)) == hosted_of(made)
    assert hosted_of(version(gpt, owner)) is None
    made.parameters = {**made.parameters, "base_url": "https://elsewhere.example.com"}
    with pytest.raises(ManifestMismatch, match="does not match the digest"):
        hosted_of(made)
    made.parameters = {}
    assert hosted_served(made) is None


def test_equal_descriptions_have_one_digest_and_any_change_another() -> None:
    same = HostedDescription.read(json.dumps(described(), indent=4).encode())
    assert same.canonical() == description().canonical()
    changes = ({"model": "gpt-4o"}, {"region": "us"}, {"prices": {}}, {"cleared_for": "internal"})
    for change in changes:
        assert description(**change).canonical() != same.canonical()


@pytest.mark.parametrize(
    "path",
    [
        "/v1?",
        "/v1?key=1",
        "/v1#",
        "/v1\r\nhost: x",
        "/v 1",
        "/\u202e1v",
        "/\u00e9",
        "\n.evil.example",
    ],
)
def test_a_url_reads_the_same_to_people_and_programs(path: str) -> None:
    with pytest.raises(InvalidInput, match="base_url"):
        description(base_url=f"https://api.example.com{path}")


def test_the_url_of_the_terms_has_no_hidden_character() -> None:
    with pytest.raises(InvalidInput, match=r"terms\.url"):
        description(terms={**described()["terms"], "url": "https://example.com/\u202efdp"})
