"""The evidence pack of a release: one signed archive that is checked without this platform."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.attesting import attest
from governance.audit.outside.witnessing import cosigned_note
from governance.audit.services import audit_record
from governance.audit.signing import audit_public_keys
from governance.errors import WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import Review
from governance.rowsecurity import lifted
from registry.canonical import canonical_json, json_digest
from registry.releases import evidence_verifier
from registry.releases.dossier import version_evaluations
from registry.releases.evidence_archive import (
    MANIFEST,
    SIGNATURE,
    archive,
    manifest_attestation,
    manifest_bytes,
    readable_json,
)
from registry.releases.evidence_documents import (
    Names,
    decisions_document,
    emergencies_document,
    evaluations_document,
    readme,
    threads_document,
)
from registry.releases.evidence_events import Record, events_document, release_record
from registry.releases.evidence_html import dossier_page
from registry.releases.exports.pdf import dossier_pdf
from registry.releases.exports.people import named_sections
from registry.releases.exports.services import FORMATS
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.states import release_locked
from registry.resources import release_resource, release_subject


@dataclass(frozen=True, slots=True)
class EvidencePack:
    """The archive, its file name, and the digest of the signed manifest."""

    name: str
    content: bytes
    manifest_digest: str


def release_evidence(
    *, actor: Principal, release_id: int, deployments: Sequence[int] = ()
) -> EvidencePack:
    """Pack the dossier, its decisions, and proofs that the audit log contains them.

    Args:
        deployments: IDs of deployments that served the release, whose events are included.

    Raises:
        NotFound, NotPermitted: the policy refuses.
        TooLarge: there are more events than a pack holds.
        WrongState: its last event is not sealed yet (try again), or the stored rows
            contradict its dossier's digest or the log.
    """
    with transaction.atomic():
        release = release_get(actor=actor, id=release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_EVIDENCE, resource=release_resource(release)
        )
        with lifted():
            pack = _packed(release, actor, deployments)
        audit_record(
            actor=actor,
            action=Action.RELEASE_EVIDENCE,
            subject=release_subject(release),
            department=release.department.slug,
            data={"manifest": pack.manifest_digest},
            decision=decision,
        )
    return pack


def _packed(release: Release, actor: Principal, deployments: Sequence[int]) -> EvidencePack:
    # The lock prevents decisions while it is packed, so that rows and log agree.
    release_locked(release.pk)
    reviews = list(
        Review.objects.select_for_update(of=("self",))
        .filter(subject_type="release", subject_id=str(release.pk))
        .order_by("pk")
    )
    release.refresh_from_db()
    if json_digest(release.dossier) != release.dossier_digest:
        raise WrongState(
            f"The dossier of release {release.pk} does not have the digest that it was decided "
            "under; no evidence was packed.",
            hint="`assay audit verify` shows whether the log is intact.",
        )
    evaluations = version_evaluations(release.version)
    emergencies = list(release.emergency_accesses.order_by("pk"))
    record = release_record(
        release_id=release.pk,
        department=release.department.slug,
        reviews=[review.pk for review in reviews],
        version_id=release.version_id,
        evaluations=[each.pk for each in evaluations],
        deployments=deployments,
        emergencies=[emergency.pk for emergency in emergencies],
    )
    names = Names(record)
    now = timezone.now().isoformat(timespec="seconds")
    decisions = decisions_document(release, reviews, record, names)
    for review, document in zip(reviews, decisions["reviews"], strict=True):
        document["threads"] = threads_document(review, record, names)
    decisions["emergency_access"] = emergencies_document(emergencies, names)
    evaluated = evaluations_document(evaluations, names)
    sections = named_sections(release.dossier, names.by_id)
    origin = {"made_at": now, "made_by": actor.name}
    files = {
        "README.txt": readme(release, left_out=record.left_out, **origin),
        "dossier.json": canonical_json(release.dossier),
        "dossier.html": dossier_page(release, decisions, record, sections, **origin),
        "dossier.pdf": dossier_pdf(
            release.dossier,
            sections,
            digest=release.dossier_digest,
            frozen_at=release.created_at,
        ),
        "mlbom.cdx.json": FORMATS["cyclonedx"].make(release),
        "model.spdx.json": FORMATS["spdx"].make(release),
        "decisions.json": readable_json(decisions),
        "evaluations.json": readable_json(evaluated),
        "events.json": readable_json(events_document(record, release.department.slug)),
        "checkpoint.txt": cosigned_note(record.checkpoint).encode(),
        "public-keys.txt": audit_public_keys().encode() + b"\n",
        "verify.py": Path(evidence_verifier.__file__).read_bytes(),
    }
    return _signed(release, actor, record, files, now)


def _signed(
    release: Release, actor: Principal, record: Record, files: dict[str, bytes], made_at: str
) -> EvidencePack:
    manifest = manifest_bytes(
        files,
        {
            "log": settings.AUDIT_LOG_NAME,
            "release": {
                "id": release.pk,
                "state": release.state,
                "version": str(release.version),
                "deployment_name": release.deployment_name,
                "environment": release.environment,
                "department": release.department.slug,
            },
            "dossier": release.dossier_digest,
            "made_at": made_at,
            "made_by": {"kind": str(actor.kind), "id": actor.id, "name": actor.name},
            "checkpoint": {
                "size": record.checkpoint.tree_size,
                "root": bytes(record.checkpoint.root_hash).hex(),
            },
            "events_left_out": record.left_out,
        },
    )
    files[MANIFEST] = manifest
    files[SIGNATURE] = attest(manifest_attestation(manifest, release_id=release.pk)).encode()
    return EvidencePack(
        name=f"assay-release-{release.pk}-evidence.zip",
        content=archive(files),
        manifest_digest=hashlib.sha256(manifest).hexdigest(),
    )
