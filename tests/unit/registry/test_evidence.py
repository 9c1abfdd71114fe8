"""The evidence pack of a release: what is in it, and for whom."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries

from governance.audit.checkpoint import Signer
from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.errors import NotFound, NotPermitted, TooLarge, WrongState
from governance.people.erasure import person_erase
from governance.people.models import Person
from governance.people.services import person_deactivate
from governance.principals import Principal, service_principal
from governance.reviews.models import Decision
from registry.canonical import json_digest
from registry.releases import evidence_events
from registry.releases.evidence import release_evidence
from registry.releases.evidence_archive import archive
from registry.releases.models import Release
from registry.releases.services import release_decide, release_withdraw
from registry.versions.models import ModelVersion
from tests.proofs import proven
from tests.unit.registry.evidence_world import (
    Files,
    faults,
    files,
    files_of,
    forged,
    office,
    packed,
    release,
    set_in,
)
from tests.unit.registry.office import Office

__all__ = ["files", "office", "release"]

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


def test_a_pack_holds_together_and_says_what_was_decided(files: Files) -> None:
    assert faults(files) == {}
    assert faults(files, audit_public_keys()) == {}
    told = json.loads(files["decisions.json"])
    (review,) = told["reviews"]
    assert [
        (each["round"], each["person"]["name"], each["verdict"], each["specialty"])
        for each in review["decisions"]
    ] == [
        (1, "Milo", "request_changes", "model-risk"),
        (2, "Devi", "comment", ""),
        (2, "Carla", "approve", "compliance"),
        (2, "Milo", "approve", "model-risk"),
    ]
    assert told["submitted_by"]["name"] == "Devi"
    first, *_, last = review["decisions"]
    assert first["digest"] != last["digest"] == told["dossier"] == review["digest"]
    assert json_digest(json.loads(files["dossier.json"])) == told["dossier"]
    subjects = {
        json.loads(each["canonical"])["subject_type"]
        for each in json.loads(files["events.json"])["events"]
    }
    assert subjects == {"release", "review", "evaluation"}


def test_it_verifies_with_python_alone(office: Office, release: Release, tmp_path: Path) -> None:
    """No site packages, nothing of this repository: unpacked, and as the archive."""
    pack = packed(office, release)
    archived, folder = tmp_path / "pack.zip", tmp_path / "folder"
    archived.write_bytes(pack.content)
    with zipfile.ZipFile(archived) as opened:
        opened.extractall(folder)

    def verify(*arguments: str) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "verify.py", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.stderr == ""
        return ran.returncode, ran.stdout

    code, out = verify()
    assert (code, out.count("ok  "), out.count("FAIL")) == (0, 13, 0)
    assert "the key in the pack" in out
    code, out = verify(str(archived), "--key", audit_public_keys())
    assert code == 0
    assert "the key in the pack" not in out
    other = Signer(audit_signer().name, bytes(range(32))).public_key
    code, out = verify("--key", other)
    assert (code, "no valid signature" in out) == (1, True)
    (folder / "more.txt").write_text("more")
    code, out = verify()
    assert (code, "more.txt is not of the pack" in out) == (1, True)
    code, out = verify(str(tmp_path / "nothing.zip"))
    assert (code, "Do not rely on this pack" in out) == (1, True)


def test_the_verifier_is_written_for_python_3_8(files: Files) -> None:
    ast.parse(files["verify.py"], feature_version=(3, 8))


def test_the_same_files_give_the_same_archive(files: Files) -> None:
    assert archive(files) == archive(dict(reversed(files.items())))
    with zipfile.ZipFile(io.BytesIO(archive(files))) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.namelist() == sorted(files)


def test_a_release_in_review_has_one_too(office: Office) -> None:
    release = office.submit()
    files = files_of(packed(office, release))
    assert faults(files) == {}
    release_withdraw(actor=proven(office.submitter), release_id=release.pk, reason="Not now.")
    files = files_of(packed(office, release))
    assert faults(files) == {}
    assert json.loads(files["manifest.json"])["release"]["state"] == "withdrawn"


def test_what_is_not_sealed_yet_is_not_packed(office: Office) -> None:
    release = office.submit()
    seal_once()
    office.decide(release, office.risk, "comment")
    with pytest.raises(WrongState, match="not sealed in the log yet") as refused:
        release_evidence(actor=proven(office.compliance), release_id=release.pk)
    assert refused.value.retry_after == 1
    assert faults(files_of(packed(office, release))) == {}


def test_taking_it_is_on_record_and_does_not_delay_the_next(office: Office) -> None:
    release = office.submit()
    pack = packed(office, release)
    again = release_evidence(actor=proven(office.operator), release_id=release.pk)
    taken = AuditEvent.objects.filter(action="release:evidence").order_by("id")
    said = [json.loads(bytes(each.canonical)) for each in taken]
    assert [each["data"]["manifest"] for each in said] == [
        pack.manifest_digest,
        again.manifest_digest,
    ]
    assert {each["department"] for each in said} == {"clinical"}
    seal_once()
    files = files_of(packed(office, release))
    assert faults(files) == {}
    assert b"release:evidence" in files["events.json"]


def test_those_who_may_not_have_it_do_not_get_it(
    office: Office, person: Callable[..., Person]
) -> None:
    release = office.submit()
    seal_once()
    for allowed in (("auditor",), ("lead@clinical",), ("admin",), ("reviewer:security",)):
        actor = proven(person(f"Yes {allowed[0]}", *allowed))
        assert release_evidence(actor=actor, release_id=release.pk).content
    for refused, error in (
        (("lead@finance",), NotFound),
        (("developer@finance",), NotFound),
        ((), NotFound),
        (("developer@clinical",), NotPermitted),
        (("viewer@clinical",), NotPermitted),
    ):
        actor = proven(person(f"No {' '.join(refused)}", *refused))
        with pytest.raises(error):
            release_evidence(actor=actor, release_id=release.pk)
    with pytest.raises(NotFound):
        release_evidence(actor=proven(office.operator), release_id=10**9)


def test_who_was_erased_is_a_number_and_the_rest_still_verifies(
    office: Office, release: Release, actor: Callable[..., Principal]
) -> None:
    admin = actor("Ada", "admin")
    for gone in (office.risk, office.trainer, office.operator):
        person_deactivate(actor=admin, person_id=gone.pk, reason="Left.")
        person_erase(actor=admin, person_id=gone.pk, reason="Asked for it.")
    files = files_of(packed(office, release))
    assert faults(files) == {}
    told = json.loads(files["decisions.json"])
    names = [each["person"]["name"] for each in told["reviews"][0]["decisions"]]
    erased = f"erased person {office.risk.pk}"
    assert names == [erased, "Devi", "Carla", erased]
    assert f"<td>{office.trainer.pk}</td><td>erased person".encode() in files["dossier.html"]
    for name, data in files.items():
        assert b"Milo" not in data, name
        assert b"Tara" not in data, name
        assert b"Otto" not in data, name


def test_the_events_of_where_it_serves_are_in_it_and_bounded(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = office.submit()
    where = Subject("deployment", "41", "review-sentiment")
    audit_record_many(
        AuditEntry(service_principal("controller"), action, subject, outcome=outcome)
        for action, subject, outcome in (
            ("deployment:create", where, "allowed"),
            ("deployment:invoke", where, "denied"),
            ("deployment:serve", where, "allowed"),
            ("deployment:stop", Subject("deployment", "42", "other"), "allowed"),
            ("release:decide", Subject("release", str(release.pk), "r"), "denied"),
        )
    )

    def actions(files: Files) -> list[str]:
        return [
            json.loads(each["canonical"])["action"]
            for each in json.loads(files["events.json"])["events"]
        ]

    files = files_of(packed(office, release, deployments=[41]))
    assert faults(files) == {}
    assert actions(files)[-3:] == ["deployment:create", "deployment:serve", "release:decide"]
    monkeypatch.setattr(evidence_events, "MAX_OTHERS", 2)
    files = files_of(packed(office, release, deployments=[41]))
    assert faults(files) == {}
    assert "deployment:create" not in actions(files)
    assert json.loads(files["manifest.json"])["events_left_out"] == 1
    assert b"1 older refusals and events" in files["README.txt"]
    monkeypatch.setattr(evidence_events, "MAX_EVENTS", 2)
    with pytest.raises(TooLarge, match="more than 2 audit events"):
        packed(office, release)


def test_what_another_department_was_refused_is_in_no_pack(
    office: Office, release: Release, actor: Callable[..., Principal]
) -> None:
    """The version may be another department's, which shares it."""
    curious, version = actor("Fritz", "developer@finance"), str(release.version_id)
    audit_record_many(
        AuditEntry(
            actor=curious,
            action="version:recall",
            subject=Subject("version", version, "sentiment v1"),
            outcome="denied",
            reason=f"Fritz may not ({department}).",
            department=department,
        )
        for department in ("finance", "clinical")
    )
    told = json.loads(files_of(packed(office, release))["events.json"])["events"]
    of = [json.loads(each["canonical"]) for each in told]
    assert [each["department"] for each in of if each["subject_type"] == "version"] == ["clinical"]


def test_what_another_department_did_is_in_the_pack_and_stays_under_its_keys(
    office: Office, release: Release, actor: Callable[..., Principal]
) -> None:
    fritz, version = actor("Fritz", "developer@finance"), str(release.version_id)
    audit_record_many(
        [
            AuditEntry(
                actor=fritz,
                action="version:register",
                subject=Subject("version", version, "sentiment v1"),
                department="finance",
            )
        ]
    )
    files = files_of(packed(office, release))
    assert faults(files) == {}
    told = json.loads(files["events.json"])["events"]
    (theirs,) = (each for each in told if json.loads(each["canonical"])["department"] == "finance")
    assert json.loads(theirs["canonical"])["personal"]
    assert theirs["disclosures"] == []


def test_taking_packs_crowds_out_no_pack(
    office: Office, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may take one could else take it so often that nobody gets one any more."""
    audit_record_many(
        AuditEntry(
            actor=service_principal("nobody"),
            action="release:evidence",
            subject=Subject("release", str(release.pk), "the release"),
        )
        for _ in range(40)
    )
    monkeypatch.setattr(evidence_events, "MAX_EVENTS", 30)
    monkeypatch.setattr(evidence_events, "MAX_TAKEN", 5)
    files = files_of(packed(office, release))
    assert faults(files) == {}
    actions = [
        json.loads(each["canonical"])["action"]
        for each in json.loads(files["events.json"])["events"]
    ]
    assert actions.count("release:evidence") == 5
    assert json.loads(files["manifest.json"])["events_left_out"] == 35


def test_rows_that_contradict_the_log_are_not_packed(office: Office, release: Release) -> None:
    packed(office, release)

    def refused(why: str) -> None:
        with pytest.raises(WrongState, match=why):
            packed(office, release)

    vote = Decision.objects.filter(verdict="approve").latest("pk")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_decision DISABLE TRIGGER USER")
    Decision.objects.filter(pk=vote.pk).update(verdict="reject")
    refused("not those in the audit log")
    Decision.objects.filter(pk=vote.pk).update(verdict="approve", person=office.operator)
    refused("not those in the audit log")
    Decision.objects.filter(pk=vote.pk).delete()
    refused("not those in the audit log")
    Release.objects.filter(pk=release.pk).update(dossier={**release.dossier, "purpose": "Other."})
    refused("does not have the digest")


def test_a_reason_longer_than_the_log_holds_is_whole(office: Office) -> None:
    release = office.submit()
    actor = proven(office.compliance)
    reason = "Because of this. " * 200
    release_decide(
        actor=actor,
        release_id=release.pk,
        verdict="comment",
        reason=reason,
        digest=release.dossier_digest,
    )
    files = files_of(packed(office, release))
    assert faults(files) == {}
    said = json.loads(files["decisions.json"])["reviews"][0]["decisions"][0]["reason"]
    assert said == reason.strip()
    found = faults(forged(files, decisions=set_in("reason", f"{reason[:1500]} and not.")))
    assert "another reason" in found["Decisions"]


def test_a_page_to_read_escapes_what_people_wrote(office: Office) -> None:
    ModelVersion.objects.filter(pk=office.tuned.pk).update(card="<script>alert(1)</script>")
    office.tuned.refresh_from_db()
    release = office.submit(purpose="<img src=x onerror=alert(2)>")
    page = files_of(packed(office, release))["dossier.html"].decode()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_it_costs_few_queries(
    office: Office, release: Release, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    packed(office, release)
    seal_once()
    with django_assert_max_num_queries(60):
        release_evidence(actor=proven(office.operator), release_id=release.pk)


# --- The bill of materials ------------------------------------------------------------------------


@pytest.mark.parametrize("forgery", [{"proof_method": "webauthn"}, {"proved_at": None}])
def test_a_pack_says_by_what_and_when_each_voter_proved_who_they_are(
    office: Office, release: Release, forgery: dict[str, str | None]
) -> None:
    files = files_of(packed(office, release))
    assert faults(files) == {}
    vote = json.loads(files["decisions.json"])["reviews"][0]["decisions"][-1]
    kept = Decision.objects.filter(verdict="approve").latest("pk")
    assert vote["proof_method"] == kept.proof_method == "totp"
    assert vote["proved_at"][:19] == str(kept.proved_at.isoformat())[:19]
    ((name, value),) = forgery.items()
    assert "Decisions" in faults(forged(files, decisions=set_in(name, value)))
