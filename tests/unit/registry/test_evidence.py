"""The evidence pack of a release: what is in it, for whom, and that every change to it is found."""

from __future__ import annotations

import ast
import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier
from governance.audit.models import AuditCheckpoint, AuditCosignature, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.errors import NotFound, NotPermitted, TooLarge, WrongState
from governance.people.erasure import person_erase
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.people.services import person_deactivate
from governance.principals import Principal, service_principal
from governance.reviews.models import Decision, Review
from governance.reviews.states import review_subject
from registry.canonical import json_digest
from registry.releases import evidence_events, evidence_mlbom
from registry.releases.evidence import release_evidence
from registry.releases.evidence_archive import SIGNATURE, archive
from registry.releases.evidence_events import events_document, release_record
from registry.releases.evidence_mlbom import mlbom
from registry.releases.evidence_verifier import Fault, canonical, check, leaf_hash, load
from registry.releases.models import Release
from registry.releases.selectors import release_review
from registry.releases.services import release_decide, release_withdraw
from registry.versions.models import ModelVersion
from tests.unit.governance.witness_server import WitnessServer
from tests.unit.registry.evidence_world import Files, decided, faults, files_of, forged, packed
from tests.unit.registry.objects import stored
from tests.unit.registry.test_releases import Office

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


@pytest.fixture
def office(
    policy: None,
    person: Callable[..., Person],
    department: Callable[[str], Department],
    settings: Any,
    tmp_path: Path,
) -> Office:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return Office(person, department)


@pytest.fixture
def release(office: Office) -> Release:
    return decided(office)


_kept: Files = {}


@pytest.fixture
def files(request: pytest.FixtureRequest) -> Files:
    """The pack of a release that was approved in its second round. It needs no database any more,
    so it is made once."""
    if not _kept:
        office: Office = request.getfixturevalue("office")
        _kept.update(files_of(packed(office, decided(office))))
    return dict(_kept)


def test_a_pack_holds_together_and_says_what_was_decided(files: Files) -> None:
    assert faults(files) == {}
    assert faults(files, audit_public_keys()) == {}
    told = json.loads(files["decisions.json"])
    (review,) = told["reviews"]
    assert [
        (each["round"], each["person"]["name"], each["verdict"], each["speciality"])
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
    assert (code, out.count("ok  "), out.count("FAIL")) == (0, 10, 0)
    assert "the pack brings along" in out
    code, out = verify(str(archived), "--key", audit_public_keys())
    assert code == 0
    assert "brings along" not in out
    other = Signer(audit_signer().name, bytes(range(32))).public_key
    code, out = verify("--key", other)
    assert (code, "no valid signature" in out) == (1, True)
    (folder / "more.txt").write_text("more")
    code, out = verify()
    assert (code, "more.txt is not of the pack" in out) == (1, True)
    code, out = verify(str(tmp_path / "nothing.zip"))
    assert (code, "Do not rely on it" in out) == (1, True)


def test_the_verifier_is_written_for_python_3_8(files: Files) -> None:
    ast.parse(files["verify.py"], feature_version=(3, 8))


def test_the_same_files_give_the_same_archive(files: Files) -> None:
    assert archive(files) == archive(dict(reversed(files.items())))
    with zipfile.ZipFile(io.BytesIO(archive(files))) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.namelist() == sorted(files)


def test_any_changed_byte_of_any_file_is_found(files: Files) -> None:
    chosen = random.Random(8032)
    for name, data in files.items():
        for place in {0, len(data) - 1, *(chosen.randrange(len(data)) for _ in range(6))}:
            damaged = bytearray(data)
            damaged[place] ^= 1 << chosen.randrange(8)
            found = faults({**files, name: bytes(damaged)})
            assert found, (name, place)


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.pop("decisions.json"),
        lambda files: files.pop("README.txt"),
        lambda files: files.update({"more.txt": b"more"}),
        lambda files: files.update({"../../etc/cron.d/more": b"more"}),
        lambda files: files.update({"Decisions.json": files.pop("decisions.json")}),
        lambda files: files.pop("manifest.json"),
        lambda files: files.pop("manifest.sig"),
        lambda files: files.pop("public-keys.txt"),
    ],
)
def test_a_file_that_is_gone_new_or_renamed_is_found(
    files: Files, change: Callable[[Files], Any]
) -> None:
    change(files)
    assert faults(files, audit_public_keys()) or faults(files)
    if "public-keys.txt" in files:
        assert faults(files)


def test_an_archive_with_a_name_twice_or_damaged_is_refused(files: Files, tmp_path: Path) -> None:
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("dossier.html", b"another")
    with pytest.raises(Fault, match=r"dossier\.html stands in it twice"):
        load(str(twice))
    for content in (b"", b"PK", archive(files)[:-30], archive(files)[500:]):
        twice.write_bytes(content)
        with pytest.raises((Fault, OSError)):
            load(str(twice))


def test_a_pack_that_would_fill_the_memory_is_not_read(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.releases.evidence_verifier.MAX_BYTES", 10_000)
    (tmp_path / "pack.zip").write_bytes(archive({"README.txt": b"\0" * 20_000}))
    with pytest.raises(Fault, match="more than 10000 bytes"):
        load(str(tmp_path / "pack.zip"))


def test_a_signature_of_another_key_or_another_pack_is_refused(
    office: Office, files: Files
) -> None:
    thief = Signer(audit_signer().name, bytes(range(32)))
    text = files[SIGNATURE].decode().split("\n\n")[0] + "\n"
    stolen = {**files, SIGNATURE: thief.sign_text(text).encode()}
    assert "no valid signature" in faults(stolen)["Signature"]
    # With a key of the thief's own in the pack it is of one piece again, but nobody else's.
    stolen["public-keys.txt"] = thief.public_key.encode()
    assert "Signature" in faults(stolen, audit_public_keys())
    assert "Checkpoint" in faults(stolen)
    other = files_of(packed(office, office.submit(deployment_name="other")))
    swapped = {**files, SIGNATURE: other[SIGNATURE]}
    assert "another manifest" in faults(swapped)["Signature"]


def test_a_pack_and_a_checkpoint_are_never_taken_for_each_other(files: Files) -> None:
    verifier = Verifier.from_text(audit_public_keys())
    with pytest.raises(BadCheckpoint):
        verifier.open(files[SIGNATURE].decode())
    assert verifier.open(files["checkpoint.txt"].decode()).size > 0
    found = faults({**files, SIGNATURE: files["checkpoint.txt"]})
    assert "/evidence" in found["Signature"]
    assert "Checkpoint" in faults({**files, "checkpoint.txt": files[SIGNATURE]})


def test_keys_that_were_retired_still_verify(
    office: Office, release: Release, settings: Any
) -> None:
    seal_once()
    before = audit_signer().public_key
    settings.AUDIT_SIGNING_KEY, settings.AUDIT_RETIRED_KEYS = "07" * 32, (before,)
    files = files_of(
        release_evidence(actor=principal_for_person(office.operator), release_id=release.pk)
    )
    assert faults(files, audit_public_keys()) == {}
    assert faults(files, before).keys() == {"Signature"}
    assert faults(files, audit_signer().public_key).keys() >= {"Checkpoint"}
    files = files_of(packed(office, release))
    assert faults(files, audit_signer().public_key) == {}


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_an_archive_that_is_damaged_anywhere_is_said_to_be(packing: int, tmp_path: Path) -> None:
    draw, path, packed = random.Random(packing), tmp_path / "pack.zip", io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as made:
        made.writestr("é.json", "{}" * 300)
    for _ in range(300):
        damaged = bytearray(packed.getvalue())
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        with suppress(Fault, OSError):
            load(str(path))


def test_a_size_is_written_in_one_way_alone(files: Files) -> None:
    """What reads as the same number here is another checkpoint, or none, to other readers."""
    name, size, root, *_ = files["checkpoint.txt"].decode().split("\n")
    for spelled in (f"+{size}", f"0{size}", f" {size}", f"{size} ", f"{size[:1]}_{size[1:]}"):
        signed = audit_signer().sign_text(f"{name}\n{spelled}\n{root}\n")
        assert "Checkpoint" in faults(forged({**files, "checkpoint.txt": signed.encode()})), spelled


def test_a_cosigned_checkpoint_is_preferred_and_its_witness_can_be_asked_for(
    office: Office, release: Release
) -> None:
    one, other = WitnessServer("witness.example/one"), WitnessServer("witness.example/other")
    seal_once()
    head = AuditCheckpoint.objects.latest("tree_size")
    AuditCosignature.objects.create(
        checkpoint=head,
        witness=one.name,
        line=one.cosign(head.note).rstrip("\n"),
        cosigned_at=timezone.now(),
    )
    packed(office, office.submit(deployment_name="other"))
    files = files_of(packed(office, release))
    assert AuditCheckpoint.objects.latest("tree_size").tree_size > head.tree_size
    assert files["checkpoint.txt"].decode().startswith(head.note)
    assert faults(files) == {}
    rows = check(files, audit_public_keys(), (one.vkey,))
    assert all(ok for ok, _, _ in rows)
    assert any("witness.example/one signed the root" in found for _, _, found in rows)
    for witness in (other.vkey, one.vkey.replace("/one", "/two"), audit_public_keys(), "x"):
        assert not all(ok for ok, _, _ in check(files, "", (one.vkey, witness)))
    files["checkpoint.txt"] = files["checkpoint.txt"].replace(b"one ", b"two ")
    assert not all(ok for ok, _, _ in check(forged(files), "", (one.vkey,)))


# --- Whoever has the log's key and signs the pack again -------------------------------------------


def _decisions(told: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told["reviews"][0]["decisions"]
    return found


def _set(name: str, value: Any, place: int = -1) -> Callable[[Any], None]:
    return lambda told: _decisions(told)[place].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        _set("verdict", "approve", 0),
        _set("verdict", "reject"),
        _set("reason", "Because not."),
        _set("speciality", "security"),
        _set("round", 1),
        _set("digest", "0" * 64),
        _set("at", "2026-01-01T00:00:00.000000+00:00"),
        _set("person", {"id": 1, "name": "Milo"}),
        _set("event", 0),
        _set("event", 10**9),
        lambda told: _decisions(told).pop(),
        lambda told: _decisions(told).append(_decisions(told)[0]),
        lambda told: told.update(reviews=[]),
        lambda told: told["reviews"][0].update(id=999),
        lambda told: told.pop("reviews"),
        lambda told: ["nothing"],
    ],
)
def test_a_decision_that_the_log_does_not_hold_is_found(
    files: Files, change: Callable[[Any], Any]
) -> None:
    assert faults(forged(files, decisions=change)).keys() & {"Decisions", "Separation of duties"}


def test_a_decision_by_another_name_is_found(files: Files) -> None:
    def rename(told: Any) -> None:
        _decisions(told)[-1]["person"]["name"] = "Somebody"

    assert "another decision" in faults(forged(files, decisions=rename))["Decisions"]


def _without_event(action: str) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        kept = [e for e in told["events"] if json.loads(e["canonical"])["action"] != action]
        assert len(kept) < len(told["events"])
        told["events"] = kept

    return change


def _rewritten(name: str, value: Any) -> Callable[[Any], None]:
    """The newest event of a decision says something else, with a leaf hash that fits."""

    def change(told: Any) -> None:
        for each in reversed(told["events"]):
            body = json.loads(each["canonical"])
            if body["action"] == "release:decide":
                body["data"][name] = value
                each["canonical"] = canonical(body).decode()
                each["leaf_hash"] = leaf_hash(canonical(body)).hex()
                return

    return change


def _key(value: str) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        told["events"][-1]["disclosures"][0]["key"] = value

    return change


@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        (_without_event("release:decide"), "Decisions"),
        (_without_event("release:approved"), "Dossier"),
        (_rewritten("verdict", "reject"), "Events"),
        (lambda told: told["events"].reverse(), "Events"),
        (lambda told: told["events"].append(told["events"][-1]), "Events"),
        (lambda told: told["events"][0].update(sequence=10**6), "Events"),
        (lambda told: told["events"][0].update(sequence=-1), "Events"),
        (lambda told: told["events"][0]["path"].pop(), "Events"),
        (lambda told: told["events"][0]["path"].append("00" * 32), "Events"),
        (lambda told: told["events"][3].update(canonical="{}"), "Events"),
        (_key("11" * 32), "Names"),
        (_key("11"), "Names"),
    ],
)
def test_an_event_that_was_changed_or_left_out_is_found(
    files: Files, change: Callable[[Any], Any], found_by: str
) -> None:
    assert found_by in faults(forged(files, events=change))


@pytest.mark.parametrize(
    ("name", "change", "found_by"),
    [
        ("dossier", lambda d: d.update(purpose="Sort people."), "Dossier"),
        ("evaluations", lambda d: d["evaluations"][0]["metrics"].update(accuracy=1.0), "Model"),
        ("evaluations", lambda d: d["evaluations"].clear(), "Model"),
        ("mlbom", lambda d: d["metadata"]["component"]["components"].clear(), "Model"),
        ("manifest", lambda d: d["release"].update(state="withdrawn"), "Dossier"),
        ("manifest", lambda d: d["release"].update(version="sentiment v2"), "Dossier"),
        ("manifest", lambda d: d["release"].update(environment="staging"), "Dossier"),
        ("manifest", lambda d: d["checkpoint"].update(size=1), "Checkpoint"),
        ("manifest", lambda d: d.update(log="another"), "Signature"),
    ],
)
def test_what_contradicts_the_log_is_found_though_it_was_signed(
    files: Files, name: str, change: Callable[[Any], Any], found_by: str
) -> None:
    assert found_by in faults(forged(files, **{name: change}))


def test_the_dossier_of_another_release_is_found(office: Office, files: Files) -> None:
    other = office.submit(deployment_name="other", purpose="Sort something else.")
    theirs = files_of(packed(office, other))
    assert faults(theirs) == {}

    def named(about: Any) -> None:
        about["dossier"] = other.dossier_digest

    swapped = {**files, "dossier.json": theirs["dossier.json"]}
    found = faults(forged(swapped, manifest=named))
    assert "another dossier" in found["Dossier"]
    assert "Approval" in found


def test_votes_on_the_same_dossier_of_another_release_do_not_count(
    office: Office, person: Callable[..., Person]
) -> None:
    """One that was withdrawn and asked for again has the same dossier, and needs votes anew."""
    first = office.submit()
    office.approve(first)
    submitter = principal_for_person(office.submitter)
    release_withdraw(actor=submitter, release_id=first.pk, reason="Once more.")
    second = office.submit()
    assert second.dossier_digest == first.dossier_digest
    office.attest(second)
    office.decide(second, office.compliance)
    office.decide(second, person("Rita", "reviewer:model-risk"))
    seal_once()
    theirs, files = (
        files_of(release_evidence(actor=principal_for_person(office.operator), release_id=each.pk))
        for each in (first, second)
    )
    assert theirs["checkpoint.txt"] == files["checkpoint.txt"]
    assert faults(files) == {}
    lost = str(office.compliance.pk)

    def one_vote_less(told: Any) -> None:
        told["reviews"][0]["decisions"] = [
            each for each in told["reviews"][0]["decisions"] if str(each["person"]["id"]) != lost
        ]

    def with_theirs(told: Any) -> None:
        own = {each["sequence"]: each for each in told["events"]}
        gone = [
            at
            for at, each in own.items()
            if json.loads(each["canonical"])["action"] == "release:decide"
            and json.loads(each["canonical"])["actor_id"] == lost
        ]
        for at in gone:
            del own[at]
        for each in json.loads(theirs["events.json"])["events"]:
            own.setdefault(each["sequence"], each)
        told["events"] = [own[at] for at in sorted(own)]

    found = faults(forged(files, decisions=one_vote_less, events=with_theirs))
    assert found == {"Approval": "fewer than 1 approved this dossier for compliance"}


@pytest.mark.parametrize("when", ["submitted it", "answered the reviewers"])
def test_a_vote_on_ones_own_work_is_found_though_the_log_holds_it(
    office: Office, person: Callable[..., Person], when: str
) -> None:
    """No service takes such a vote; here somebody wrote it into the log, and packs it by hand."""
    voter = office.submitter
    if when == "answered the reviewers":
        voter = person("Ann", "developer@clinical")
    release = decided(office, answered_by=voter)
    files = files_of(packed(office, release))
    review = release_review(release)
    assert review is not None
    event = audit_record(
        actor=principal_for_person(voter),
        action="release:decide",
        subject=review_subject(review),
        reason="Mine is good.",
        data={
            "verdict": "approve",
            "speciality": "compliance",
            "digest": review.digest,
            "round": review.round,
            "subject": f"release {release.pk}",
        },
    )
    seal_once()
    event.refresh_from_db()
    record = release_record(
        release_id=release.pk,
        department="clinical",
        reviews=[review.pk],
        version_id=0,
        evaluations=[],
        deployments=[],
    )
    head = record.checkpoint

    def with_vote(told: Any) -> None:
        vote = json.loads(bytes(event.canonical))
        said = {name: vote["data"][name] for name in ("verdict", "speciality", "digest", "round")}
        _decisions(told).append(
            {
                **said,
                "event": event.sequence,
                "person": {"id": voter.pk, "name": voter.name},
                "reason": vote["reason"],
                "at": vote["occurred_at"],
            }
        )

    def under(about: Any) -> None:
        about["checkpoint"] = {"size": head.tree_size, "root": bytes(head.root_hash).hex()}

    files["checkpoint.txt"] = head.note.encode()
    made = forged(files, decisions=with_vote, events=lambda _: events_document(record, "clinical"))
    found = faults(forged(made, manifest=under))
    assert found == {"Separation of duties": f"person {voter.pk} decided on their own work"}


def test_files_that_do_not_make_the_version_are_found(office: Office, files: Files) -> None:
    def change(dossier: Any) -> None:
        dossier["identity"]["files"][0]["sha256"] = "0" * 64

    found = faults(forged(files, dossier=change))
    assert "do not give the digest of the version" in found["Model"]


# --- What is in it, and for whom ------------------------------------------------------------------


def test_a_release_in_review_has_one_too(office: Office) -> None:
    release = office.submit()
    files = files_of(packed(office, release))
    assert faults(files) == {}
    release_withdraw(
        actor=principal_for_person(office.submitter), release_id=release.pk, reason="Not now."
    )
    files = files_of(packed(office, release))
    assert faults(files) == {}
    assert json.loads(files["manifest.json"])["release"]["state"] == "withdrawn"


def test_what_is_not_sealed_yet_is_not_packed(office: Office) -> None:
    release = office.submit()
    seal_once()
    office.decide(release, office.risk, "comment")
    with pytest.raises(WrongState, match="not sealed in the log yet") as refused:
        release_evidence(actor=principal_for_person(office.compliance), release_id=release.pk)
    assert refused.value.retry_after == 1
    assert faults(files_of(packed(office, release))) == {}


def test_taking_it_is_on_record_and_does_not_delay_the_next(office: Office) -> None:
    release = office.submit()
    pack = packed(office, release)
    again = release_evidence(actor=principal_for_person(office.operator), release_id=release.pk)
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
        actor = principal_for_person(person(f"Yes {allowed[0]}", *allowed))
        assert release_evidence(actor=actor, release_id=release.pk).content
    for refused, error in (
        (("lead@finance",), NotFound),
        (("developer@finance",), NotFound),
        ((), NotFound),
        (("developer@clinical",), NotPermitted),
        (("viewer@clinical",), NotPermitted),
    ):
        actor = principal_for_person(person(f"No {' '.join(refused)}", *refused))
        with pytest.raises(error):
            release_evidence(actor=actor, release_id=release.pk)
    with pytest.raises(NotFound):
        release_evidence(actor=principal_for_person(office.operator), release_id=10**9)


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
    refused("not those that the audit log holds")
    Decision.objects.filter(pk=vote.pk).update(verdict="approve", person=office.operator)
    refused("not those that the audit log holds")
    Decision.objects.filter(pk=vote.pk).delete()
    refused("not those that the audit log holds")
    Release.objects.filter(pk=release.pk).update(dossier={**release.dossier, "purpose": "Other."})
    refused("does not have the digest")


def test_a_reason_longer_than_the_log_holds_is_whole(office: Office) -> None:
    release = office.submit()
    actor = principal_for_person(office.compliance)
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
    found = faults(forged(files, decisions=_set("reason", f"{reason[:1500]} and not.")))
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
        release_evidence(actor=principal_for_person(office.operator), release_id=release.pk)


# --- The bill of materials ------------------------------------------------------------------------


def test_the_bill_of_materials_names_files_data_base_and_results(
    office: Office, release: Release
) -> None:
    bill = json.loads(mlbom(release))
    model = bill["metadata"]["component"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (model["type"], model["name"]) == ("machine-learning-model", "sentiment")
    assert model["hashes"] == [{"alg": "SHA-256", "content": office.tuned.digest}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {each["name"]: each["hashes"][0]["content"] for each in model["components"]} == {
        file["path"]: file["sha256"] for file in office.tuned.manifest["files"]
    }
    (base,) = model["pedigree"]["ancestors"]
    assert (base["name"], base["hashes"][0]["content"]) == ("minilm", office.base.digest)
    assert {each["name"] for each in bill["components"]} == {"train", "test"}
    card = model["modelCard"]
    assert {each["ref"] for each in card["modelParameters"]["datasets"]} == {
        each["bom-ref"] for each in bill["components"]
    }
    assert card["modelParameters"]["task"] == "text-classification"
    assert {
        (each["type"], each["value"]) for each in card["quantitativeAnalysis"]["performanceMetrics"]
    } == {("accuracy", "0.8"), ("macro_f1", "0.7")}
    assert card["considerations"]["technicalLimitations"] == [
        "Overseen by the head of the pharmacy."
    ]
    assert mlbom(release) == mlbom(Release.objects.get(pk=release.pk))


def test_the_architecture_is_read_from_the_files_that_the_manifest_names(office: Office) -> None:
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    manifest = stored({"config.json": json.dumps(config).encode(), "model.safetensors": b"x"})
    ModelVersion.objects.filter(pk=office.base.pk).update(
        digest=manifest.digest, manifest=manifest.to_json()
    )
    release = Release.objects.get(pk=office.submit().pk)
    card = json.loads(mlbom(release))["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["architectureFamily"] == "bert"
    assert card["modelParameters"]["modelArchitecture"] == "BertForSequenceClassification"


def test_a_version_of_many_files_has_a_bill_that_the_schema_takes_whole(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stored({f"part-{n}.safetensors": b"%d" % n for n in range(150)})
    ModelVersion.objects.filter(pk=office.tuned.pk).update(
        digest=manifest.digest, manifest=manifest.to_json()
    )
    office.tuned.refresh_from_db()
    release = office.submit()
    bill = mlbom(release)
    assert len(json.loads(bill)["metadata"]["component"]["components"]) == 150
    monkeypatch.setattr(evidence_mlbom, "CHECKED_ITEMS", 1000)
    assert mlbom(release) == bill


def test_a_bill_that_is_no_cyclonedx_is_not_given_out(office: Office) -> None:
    release = office.submit()
    release.dossier["identity"]["files"][0]["sha256"] = "no digest"
    with pytest.raises(RuntimeError, match="is no CycloneDX"):
        mlbom(release)


@pytest.mark.parametrize("licence", ["", "Company licence (2026)", "MIT"])
def test_any_licence_text_makes_a_valid_bill(office: Office, licence: str) -> None:
    ModelVersion.objects.filter(pk=office.tuned.pk).update(licence=licence)
    office.tuned.refresh_from_db()
    release = office.submit()
    model = json.loads(mlbom(release))["metadata"]["component"]
    kind = "id" if licence == "MIT" else "name"
    expected = [{"license": {kind: licence}}] if licence else None
    assert model.get("licenses") == expected


def test_a_base_without_data_and_results_has_one_too(office: Office) -> None:
    release = office.submit(version=office.base, tier="minimal", deployment_name="base")
    assert "pedigree" not in json.loads(mlbom(release))["metadata"]["component"]
    assert Review.objects.filter(subject_id=str(release.pk)).exists()
    assert faults(files_of(packed(office, release))) == {}
