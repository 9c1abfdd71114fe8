"""Intake of files: quarantine, checks, a second person's signature, a trusted base version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.models import Department, Person
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal, background, service_principal
from registry.catalog import get_task
from registry.catalog.hosted import HostedDescription
from registry.intake import quarantine
from registry.intake.checks import Limits
from registry.intake.models import REASON_MAX, SOURCE_MAX, Intake, IntakeProbe, IntakeState
from registry.intake.states import INTAKE_STATES
from registry.manifests import Manifest
from registry.resources import (
    acting_person,
    department_resource,
    intake_resource,
    intake_subject,
)
from registry.storage import store
from registry.validation import checked_text
from registry.versions.hosted import check_description, check_hosted_task, hosted_settings
from registry.versions.model_code import checked_code
from registry.versions.models import LICENSE_MAX, Model, ModelVersion, VersionKind
from registry.versions.services import version_register
from registry.versions.weights import QUANTIZATION, VIRTUAL_TOKENS, checked_quantization

CONTROLLER = service_principal("controller")
VIRTUAL_TOKENS_MAX = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


def intake_allow(*, actor: Principal) -> Person:
    """Return the acting person, who may deliver files into at least one department.

    Raises:
        NotPermitted: the policy denies it for all departments, or the actor is not a person.
    """
    person = acting_person(actor)
    for department in Department.objects.order_by("slug"):
        resource = department_resource("intake", department)
        try:
            authorize(actor=actor, action=Action.INTAKE_CREATE, resource=resource)
        except (NotFound, NotPermitted):
            continue
        return person
    raise NotPermitted(
        f"{actor.name} may not deliver files into any department.",
        hint="Ask the lead of your department for the role of a developer.",
    )


def intake_submit(
    *,
    actor: Principal,
    model: Model,
    source: str,
    license: str,
    files: Sequence[quarantine.DeliveredFile],
    keep_gguf: bool = False,
    base: ModelVersion | None = None,
    expected_digest: str = "",
) -> Intake:
    """Write a delivery into quarantine and check every file by name and content.

    With `keep_gguf` the version keeps the delivered GGUF; otherwise it is converted to safetensors.
    With `base` the delivery is an adapter on it. Checked files with a digest other than
    `expected_digest` are rejected.

    Returns:
        An intake that is `quarantined`, for a job to convert; or `rejected`, with the reason, if a
        check failed. A rejected delivery stays on record without its bytes.

    Raises:
        InvalidInput: the delivery has no files, a field is malformed, or providers are not called
            for the model's task.
        NotFound, NotPermitted: the policy denies it.
        TooLarge: more bytes than ASSAY_INTAKE_MAX_BYTES, or more than 512 files.
        QuotaExceeded, Unavailable: too many deliveries are being checked.
    """
    resource = department_resource("intake", model.department)
    authorize(actor=actor, action=Action.INTAKE_CREATE, resource=resource)
    person = acting_person(actor)
    source = checked_text(source, field="source", limit=SOURCE_MAX)
    license = checked_text(license, field="license", limit=LICENSE_MAX)
    if expected_digest and not _SHA256.fullmatch(expected_digest):
        raise InvalidInput(
            "The expected digest is not 64 hexadecimal digits.",
            fields={"digest": ["64 hexadecimal digits, as an index or a version's page states."]},
        )
    limits = Limits(max_bytes=settings.INTAKE_MAX_BYTES, adapter=base is not None)
    with (
        quarantine.quarantined(files, limits, owner=str(person.pk)) as delivery,
        transaction.atomic(),
    ):
        # Authorize again, because writing may have taken long.
        decision = authorize(actor=actor, action=Action.INTAKE_CREATE, resource=resource)
        refusals = delivery.refusals
        if keep_gguf and not refusals and not _holds_gguf(delivery):
            raise InvalidInput(
                "The delivery has no GGUF file to keep as delivered.",
                fields={"keep_gguf": ["Only for a delivery of one GGUF file."]},
            )
        if not refusals and delivery.describes_hosted:
            check_hosted_task(get_task(model.task))
        reason = " ".join(refusals)[:1000]
        intake = Intake.objects.create(
            model=model,
            source=source,
            license=license,
            files=delivery.files,
            findings=[finding.to_json() for finding in delivery.findings],
            reason=reason,
            keep_gguf=keep_gguf,
            base=base,
            expected_digest=expected_digest,
            state=IntakeState.REJECTED if refusals else IntakeState.QUARANTINED,
            decided_at=timezone.now() if refusals else None,
            submitted_by=person,
        )
        audit_record(
            actor=actor,
            action=Action.INTAKE_CREATE,
            subject=intake_subject(intake),
            outcome="denied" if refusals else "allowed",
            reason=reason,
            department=model.department.slug,
            data={
                "source": source,
                "license": license,
                "files": delivery.files,
                **({"keep_gguf": True} if keep_gguf else {}),
                **({"base": base.digest} if base else {}),
                **({"expected_digest": expected_digest} if expected_digest else {}),
            },
            decision=decision,
        )
        if not refusals:
            quarantine.keep(delivery, intake.pk)
    return intake


def intake_checked(
    *,
    intake_id: int,
    manifest: Manifest,
    findings: Sequence[Mapping[str, Any]],
    job_id: UUID,
    code: Sequence[Mapping[str, Any]] = (),
    quantization: str = "",
    virtual_tokens: int = 0,
    hosted: Mapping[str, Any] | None = None,
) -> Intake:
    """Record the results of a delivery's checking job. From now on it awaits a signature; with the
    description of a `hosted` model, the call of its provider.

    Only for the control plane. Idempotent on `job_id`. `code` has the chat templates and tokenizer
    patterns that came with the model, in the form of `registry.versions.model_code.Code`.
    `virtual_tokens` is the length of a soft prompt.

    Raises:
        WrongState: the intake is not waiting for checks, or the store lacks the converted files.
        InvalidInput: a description is not that of the manifest.
    """
    to = IntakeState.PROBING if hosted else IntakeState.AWAITING_SIGN_OFF
    with transaction.atomic():
        intake = INTAKE_STATES.locked(intake_id)
        checked = (IntakeState.PROBING, IntakeState.AWAITING_SIGN_OFF)
        if intake.state in checked and intake.job_id == job_id:
            return intake
        INTAKE_STATES.set_state(intake, to)
        if not store.has_version(manifest.digest):
            raise WrongState(
                f"The artifact store does not hold the converted files of intake {intake_id}."
            )
        intake.manifest = manifest.to_json()
        intake.digest = manifest.digest
        intake.findings = [dict(finding) for finding in findings]
        intake.code = checked_code(code)
        intake.quantization = checked_quantization(quantization if intake.keep_gguf else "")
        if not 0 <= virtual_tokens <= VIRTUAL_TOKENS_MAX:
            raise InvalidInput(f"A soft prompt has at most {VIRTUAL_TOKENS_MAX} tokens.")
        intake.virtual_tokens = virtual_tokens
        if intake.describes_hosted != bool(hosted):
            raise InvalidInput("Only the description of a hosted model is taken in as such.")
        if hosted:
            description = HostedDescription.read(hosted)
            check_description(description, manifest)
            check_hosted_task(get_task(intake.model.task), description)
            intake.hosted = hosted_settings(description)
            IntakeProbe.objects.create(intake=intake)
        intake.job_id = job_id
        intake.save()
        with background(f"job-{job_id}", CONTROLLER):
            audit_record(
                actor=CONTROLLER,
                action="intake:check",
                subject=intake_subject(intake),
                department=intake.model.department.slug,
                data={
                    "digest": intake.digest,
                    "job": str(job_id),
                    "code": [each["sha256"] for each in intake.code],
                },
            )
    return intake


def intake_digest_fault(*, intake_id: int, manifest: Manifest) -> str:
    """Return why a delivery with this manifest is rejected; empty if it matches its intake."""
    intake = Intake.objects.select_related("base").get(pk=intake_id)
    if manifest.base_digest != (intake.base.digest if intake.base else None):
        return "The worker's manifest names another base than the delivery."
    if intake.expected_digest in ("", manifest.digest):
        return ""
    return (
        f"The files have the digest {manifest.digest}; {intake.expected_digest} was expected. "
        "They are different files, or a different release of Assay converted them."
    )


def intake_reject(
    *, intake_id: int, findings: Sequence[Mapping[str, Any]], reason: str, job_id: UUID
) -> Intake:
    """Record that the checking job rejected a delivery. Only for the control plane; idempotent."""
    with transaction.atomic():
        intake = INTAKE_STATES.locked(intake_id)
        if intake.state == IntakeState.REJECTED:
            return intake
        intake.job_id = job_id
        intake.findings = [dict(finding) for finding in findings] or intake.findings
        reject(intake, reason)
        with background(f"job-{job_id}", CONTROLLER):
            audit_record(
                actor=CONTROLLER,
                action="intake:check",
                subject=intake_subject(intake),
                outcome="denied",
                reason=intake.reason,
                department=intake.model.department.slug,
                data={"job": str(job_id)},
            )
    return intake


def intake_sign_off(*, actor: Principal, intake_id: int, accept: bool, reason: str = "") -> Intake:
    """Record a second person's decision: the delivery becomes a trusted version, or is rejected.

    Raises:
        NotPermitted: the actor submitted the delivery, or has no fresh second factor.
        WrongState: the intake does not await a signature.
        Unavailable: MLflow does not answer; nothing changed.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX, required=not accept)
    with transaction.atomic():
        intake = INTAKE_STATES.locked(intake_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.INTAKE_SIGN_OFF,
            resource=intake_resource(intake),
            doing=f"signing off intake {intake.pk}",
        )
        person = acting_person(actor)
        if person.pk in with_sign_in_admins({intake.submitted_by_id}):
            raise NotPermitted(
                f"{actor.name} submitted intake {intake.pk}, or set up the account that did, and "
                "may not sign it off.",
                code="separation_of_duties",
                hint="Ask an operator or a security reviewer who did not submit it.",
                attempt=Attempt(
                    actor=actor,
                    action=Action.INTAKE_SIGN_OFF,
                    subject=intake_subject(intake),
                    department=intake.model.department.slug,
                    decision=decision,
                ),
            )
        intake.signed_by = person
        if accept:
            _trust(intake, actor)
        elif intake.state in (IntakeState.PROBING, IntakeState.AWAITING_SIGN_OFF):
            reject(intake, reason)
        else:
            raise WrongState(
                f"Intake {intake.pk} is {intake.get_state_display().lower()}; "
                "only an intake that awaits a signature can be rejected."
            )
        audit_record(
            actor=actor,
            action=Action.INTAKE_SIGN_OFF,
            subject=intake_subject(intake),
            reason=reason,
            department=intake.model.department.slug,
            data={
                "digest": intake.digest,
                "accepted": accept,
                "version": intake.version_id,
                **proof_facts(actor.proof),
            },
            decision=decision,
        )
    return intake


def reject(intake: Intake, reason: str) -> None:
    """Reject a locked intake and delete its files at the commit. The caller records the event.

    Raises:
        WrongState: it is decided already.
    """
    INTAKE_STATES.set_state(intake, IntakeState.REJECTED)
    intake.reason = reason[:1000]
    intake.decided_at = timezone.now()
    intake.save()
    transaction.on_commit(lambda: quarantine.discard(intake.pk))


def _holds_gguf(delivery: quarantine.Delivery) -> bool:
    return any(file["name"].lower().endswith(".gguf") for file in delivery.files)


def _trust(intake: Intake, actor: Principal) -> None:
    INTAKE_STATES.set_state(intake, IntakeState.TRUSTED)
    if intake.job_id is None:
        raise WrongState(f"Intake {intake.pk} was never checked; it cannot be signed off.")
    intake.version = version_register(
        actor=actor,
        model=intake.model,
        kind=_kind(intake),
        manifest=Manifest.from_json(intake.manifest),
        base=intake.base,
        dataset_version=None,
        parameters=version_parameters(intake),
        metrics={},
        history=[],
        license=intake.license,
        code=intake.code,
        card=_card(intake),
        job_id=intake.job_id,
        created_by=intake.submitted_by,
    )
    intake.decided_at = timezone.now()
    intake.save()
    transaction.on_commit(lambda: quarantine.discard(intake.pk))


def _kind(intake: Intake) -> VersionKind:
    if intake.hosted:
        return VersionKind.HOSTED
    return VersionKind.BASE if intake.base is None else VersionKind.ADAPTER


def version_parameters(intake: Intake) -> dict[str, Any]:
    """Return the parameters of the version created from an intake."""
    if intake.hosted:
        return dict(intake.hosted)
    return {
        "source": intake.source,
        **({QUANTIZATION: intake.quantization} if intake.quantization else {}),
        **({VIRTUAL_TOKENS: intake.virtual_tokens} if intake.virtual_tokens else {}),
    }


def _card(intake: Intake) -> str:
    """Return the first model card of an intake's version, in Markdown."""
    file_rows = "\n".join(
        f"| {file['name']} | {file['size']} | `{file['sha256']}` |" for file in intake.files
    )
    return (
        f"# {intake.model.name}\n\n{intake.model.description}\n\n"
        f"Taken in from {intake.source} under {intake.license} "
        f"by person {intake.submitted_by_id}.\n\n"
        f"{_base_line(intake)}"
        f"| delivered file | bytes | SHA-256 |\n|---|---|---|\n{file_rows}\n"
    )


def _base_line(intake: Intake) -> str:
    return "" if intake.base is None else f"Base: {intake.base} (`{intake.base.digest[:12]}`)\n\n"
