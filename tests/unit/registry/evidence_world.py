"""A release that was decided on, its pack, and a forger who has the log's key."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.audit.attesting import attest
from governance.audit.sealer import seal_once
from governance.people.models import Person
from registry.releases.evidence import EvidencePack, release_evidence
from registry.releases.evidence_archive import (
    MANIFEST,
    SIGNATURE,
    manifest_attestation,
    manifest_bytes,
)
from registry.releases.evidence_verifier import check
from registry.releases.models import Release
from registry.releases.services import release_answer
from tests.proofs import proven
from tests.unit.registry.office import Office
from tests.worlds import copied

Files = dict[str, bytes]


def decided(office: Office, answered_by: Person | None = None) -> Release:
    """Changes were requested and answered with a new dossier; then it was approved."""
    release = office.submit()
    office.decide(release, office.risk, "request_changes")
    release = release_answer(
        actor=proven(answered_by or office.submitter),
        release_id=release.pk,
        message="The head of the pharmacy oversees it.",
        risk_answers={**release.risk_answers, "notes": "Overseen by the head of the pharmacy."},
    )
    return office.approve(release)


def packed(office: Office, release: Release, **more: Any) -> EvidencePack:
    seal_once()
    return release_evidence(actor=proven(office.compliance), release_id=release.pk, **more)


def files_of(pack: EvidencePack) -> Files:
    with zipfile.ZipFile(io.BytesIO(pack.content)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def forged(files: Files, **changes: Callable[[Any], Any]) -> Files:
    """The pack with some of its JSON changed, and signed again by who holds the log's key.

    `changes` are by the file's name without what follows its first dot; each gets the decoded
    JSON and returns what is to stand in its place, or None when it changed it in place.
    """
    made = dict(files)
    about = json.loads(made.pop(MANIFEST))
    del made[SIGNATURE]
    del about["files"], about["format"]
    for name in list(made):
        if name.endswith(".json") and (change := changes.pop(name.partition(".")[0], None)):
            value = json.loads(made[name])
            value = change(value) or value
            made[name] = json.dumps(
                value, sort_keys=True, separators=(",", ":"), ensure_ascii=False
            ).encode()
    if (change := changes.pop("manifest", None)) is not None:
        about = change(about) or about
    assert not changes
    manifest = manifest_bytes(made, about)
    made[MANIFEST] = manifest
    made[SIGNATURE] = attest(
        manifest_attestation(manifest, release_id=about["release"]["id"])
    ).encode()
    return made


def faults(files: Files, key: str = "") -> dict[str, str]:
    """Return the failures, by the check that found them."""
    return {title: found for ok, title, found in check(files, key) if not ok}


def decisions_in(told: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told["reviews"][0]["decisions"]
    return found


def set_in(name: str, value: Any, place: int = -1) -> Callable[[Any], None]:
    return lambda told: decisions_in(told)[place].update({name: value})


@pytest.fixture
def office(office_built: Office, db: None, settings: Any, tmp_path: Path) -> Office:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return copied(office_built)


@pytest.fixture
def release(office: Office) -> Release:
    return decided(office)


_kept: Files = {}


@pytest.fixture
def files(request: pytest.FixtureRequest, office_built: Office) -> Files:
    """The pack of a release that was approved in its second round. It needs no database any more,
    so it is made once."""
    if not _kept:
        office: Office = request.getfixturevalue("office")
        _kept.update(files_of(packed(office, decided(office))))
    return dict(_kept)
