"""Intake's call of a hosted model's provider, before a second person signs.

An egress worker calls the provider and writes the result; the control plane decides on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError

from governance.audit.services import audit_record
from governance.errors import WrongState
from governance.principals import background, service_principal
from governance.usage.units import Unit
from registry.catalog.hosted import HostedDescription, ProbeResult
from registry.intake.checks import Finding
from registry.intake.models import Intake, IntakeProbe, IntakeState
from registry.intake.services import reject
from registry.intake.states import INTAKE_STATES
from registry.resources import intake_subject

# Time for one call. Later, another worker may take it.
WITHIN = timedelta(minutes=2)
# An unreachable provider is called again after 1, 2, 4, … minutes, so for about two hours.
TRIES_MAX = 8
# Decisions in one round of the controller.
_AT_ONCE = 5
_CONTROLLER = service_principal("controller")


@transaction.atomic
def intake_probes_due(*, worker: str) -> list[IntakeProbe]:
    """Return the call that `worker` must make now, if any. No other worker gets it before `WITHIN`
    is over, in which a worker can make only one call: the provider may be slow."""
    now = timezone.now()
    due = list(
        IntakeProbe.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("intake__model__department")
        .filter(result__isnull=True, due_at__lte=now, tries__lt=TRIES_MAX)
        .filter(intake__state=IntakeState.PROBING)
        .order_by("due_at")[:1]
    )
    for probe in due:
        probe.worker, probe.due_at, probe.tries = worker, now + WITHIN, probe.tries + 1
        probe.save(update_fields=["worker", "due_at", "tries"])
    return due


def intake_probe_of(*, worker: str, intake_id: int) -> IntakeProbe | None:
    """Return the call that `worker` is making for an intake; None if it has no such call."""
    return (
        IntakeProbe.objects.select_related("intake__model__department")
        .filter(pk=intake_id, worker=worker, result__isnull=True, due_at__gt=timezone.now())
        .filter(intake__state=IntakeState.PROBING)
        .first()
    )


@transaction.atomic
def intake_probe_report(*, worker: str, intake_id: int, result: ProbeResult) -> None:
    """Record the result of a call. Repeating a report changes nothing.

    Raises:
        WrongState: `worker` does not have this call, or its time is over.
    """
    probe = IntakeProbe.objects.select_for_update().filter(pk=intake_id, worker=worker).first()
    reported = result.model_dump(mode="json")
    if probe is not None and probe.result == reported:
        return
    if probe is None or probe.result is not None or probe.due_at <= timezone.now():
        raise WrongState(
            f"Worker {worker} does not call the provider of intake {intake_id} any more; the "
            "result was not recorded.",
            hint="Request the next call.",
        )
    probe.result = reported
    probe.save(update_fields=["result"])


def intakes_probe() -> int:
    """Decide on reported calls; return how many. Only for the control plane.

    A last call whose worker did not report it counts as failed.
    """
    lost = ProbeResult(reached=False, error="The egress worker did not report the last call.")
    IntakeProbe.objects.filter(
        result__isnull=True, due_at__lte=timezone.now(), tries__gte=TRIES_MAX
    ).update(result=lost.model_dump(mode="json"))
    reported = list(
        IntakeProbe.objects.filter(result__isnull=False, intake__state=IntakeState.PROBING)
        .order_by("pk")
        .values_list("pk", flat=True)[:_AT_ONCE]
    )
    for intake_id in reported:
        intake_probed(intake_id=intake_id)
    return len(reported)


@transaction.atomic
def intake_probed(*, intake_id: int) -> Intake:
    """Decide on the reported call of an intake's provider. Only for the control plane; idempotent.

    If the model answered as described, the intake awaits a signature. If the model answered under
    another name, or did not answer `TRIES_MAX` calls, the intake is rejected. Otherwise the
    provider is called again later.
    """
    intake = INTAKE_STATES.locked(intake_id)
    probe = IntakeProbe.objects.select_for_update().filter(pk=intake_id).first()
    if intake.state != IntakeState.PROBING or probe is None or probe.result is None:
        return intake
    result = _read(probe.result)
    findings = probe_findings(HostedDescription.read(intake.hosted), result)
    others = [each for each in intake.findings if each["check"] not in CHECKS]
    intake.findings = [*others, *(finding.to_json() for finding in findings)]
    fault = next((finding.detail for finding in findings if not finding.passed), "")
    again = not result.reached and probe.tries < TRIES_MAX
    if again:
        probe.due_at = timezone.now() + timedelta(minutes=2 ** (probe.tries - 1))
        probe.result, probe.worker = None, ""
        probe.save(update_fields=["due_at", "result", "worker"])
        intake.save(update_fields=["findings"])
    elif fault:
        reject(intake, fault)
    else:
        INTAKE_STATES.save_state(intake, IntakeState.AWAITING_SIGN_OFF, ["findings"])
    with background(f"intake-{intake.pk}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action="intake:probe",
            subject=intake_subject(intake),
            outcome="denied" if fault else "allowed",
            reason=fault[:1000],
            department=intake.model.department.slug,
            data={"digest": intake.digest, "try": probe.tries, "result": result.model_dump()},
        )
    return intake


def _read(reported: Any) -> ProbeResult:
    try:
        return ProbeResult.model_validate(reported)
    except ValidationError:
        return ProbeResult(reached=False, error="The worker's report cannot be read.")


CHECKS = ("provider", "answering model", "list of models")


def probe_findings(description: HostedDescription, result: ProbeResult) -> list[Finding]:
    """Return the findings of a call, for the person who signs."""
    if not result.reached:
        detail = f"{description.host} did not answer as {description.model}: {result.error}"
        return [Finding("provider", False, detail)]
    return list(_answered(description, result))


def _answered(description: HostedDescription, result: ProbeResult) -> Iterator[Finding]:
    counted = "It stated no number of tokens, so costs will be estimates."
    if description.rules.unit is not Unit.TOKENS:
        counted = f"Its use is metered in {description.rules.unit.plural}."
    elif result.prompt_tokens is not None and result.completion_tokens is not None:
        counted = f"It counted {result.prompt_tokens} + {result.completion_tokens} tokens."
    yield Finding(
        "provider",
        True,
        f"{description.host} answered a fixed request in {result.latency_ms:,} ms. {counted}",
    )
    if result.model and result.model not in description.names:
        yield Finding(
            "answering model",
            False,
            f"The answer states the model {result.model}, which the description does not name. "
            "Correct its model, or add the name to answers_as.",
        )
    elif description.fingerprint and result.fingerprint != description.fingerprint:
        stated = f"the fingerprint {result.fingerprint}" if result.fingerprint else "no fingerprint"
        yield Finding(
            "answering model",
            False,
            f"The answer states {stated}; the description requires {description.fingerprint}.",
        )
    elif not result.model:
        yield Finding(
            "answering model",
            True,
            "The answer states no model, so Assay cannot notice if the provider changes it.",
        )
    else:
        fingerprint = f", fingerprint {result.fingerprint}" if result.fingerprint else ""
        yield Finding("answering model", True, f"The answer states {result.model}{fingerprint}.")
    if result.listed is not None:
        listed = "names" if result.listed else "does not name"
        yield Finding("list of models", True, f"The provider's list {listed} {description.model}.")
