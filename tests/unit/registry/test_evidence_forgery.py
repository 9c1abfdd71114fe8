"""Every change to an evidence pack is found, and every pack that says what the log does not."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier
from governance.audit.models import AuditCheckpoint, AuditCosignature
from governance.audit.sealer import seal_once
from governance.audit.services import audit_record
from governance.audit.signing import audit_public_keys, audit_signer
from governance.people.models import Person
from governance.reviews.states import review_subject
from registry.releases.evidence import release_evidence
from registry.releases.evidence_archive import SIGNATURE, archive
from registry.releases.evidence_events import events_document, release_record
from registry.releases.evidence_verifier import Fault, canonical, check, leaf_hash, load
from registry.releases.models import Release
from registry.releases.selectors import release_review
from registry.releases.services import release_withdraw
from tests.proofs import proven
from tests.unit.governance.witness_server import WitnessServer
from tests.unit.governance.zip_files import EVIL, FORGED, GOOD, Part, zipped
from tests.unit.registry.evidence_world import (
    Files,
    decided,
    decisions_in,
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


def test_any_changed_byte_of_any_file_is_found(files: Files) -> None:
    chosen = random.Random(8032)
    for name, data in files.items():
        for place in {0, len(data) - 1, *(chosen.randrange(len(data)) for _ in range(6))}:
            damaged = bytearray(data)
            damaged[place] ^= 1 << chosen.randrange(8)
            found = faults({**files, name: bytes(damaged)})
            assert found, (name, place)


@pytest.mark.parametrize("name", ["manifest.json", "decisions.json", "events.json"])
def test_a_member_that_stands_twice_is_found(files: Files, name: str) -> None:
    """This reader would take the last value, and another one the first."""
    text = files[name].decode()
    again = {**files, name: ('{"more": 1, "more": 2, ' + text[1:]).encode()}
    assert "names a member twice" in " ".join(faults(again).values())


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


def test_a_damaged_archive_is_refused(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    for content in (b"", b"PK", archive(files)[:-30], archive(files)[500:]):
        path.write_bytes(content)
        with pytest.raises((Fault, OSError)):
            load(str(path))


@pytest.mark.parametrize("what", FORGED)
def test_an_archive_in_which_another_program_may_find_other_files_is_refused(
    what: str, tmp_path: Path
) -> None:
    (tmp_path / "pack.zip").write_bytes(FORGED[what]())
    with pytest.raises(Fault):
        load(str(tmp_path / "pack.zip"))


@pytest.mark.parametrize(
    "parts",
    [
        [Part(local={"extra": b"UT\5\0\3abcd"})],
        [Part(central={"extra": b"UT\5\0\3abcd"})],
        [Part(central={"comment": b"hello"})],
        [Part(descriptor="signed")],
        [Part(), Part()],
        [Part(), Part(b"MODEL.bin")],
        [Part(b"/model.bin")],
        [Part(b"../model.bin")],
        [Part(b"a\\model.bin")],
        [Part(b"C:model.bin")],
        [Part("é.bin".encode(), flags=0x800)],
        [Part(b"model/", content=b"", method=0)],
        [Part(flags=1)],
        [Part(central={"mode": 0o120777})],
        [Part(method=0, local={"method": 12}, central={"method": 12})],
    ],
)
def test_a_pack_has_one_form_alone(parts: list[Part], tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(zipped(Part(), Part(b"README.txt", method=0)))
    assert load(str(path)) == {"model.bin": GOOD, "README.txt": GOOD}
    for content in (zipped(*parts), zipped(Part(b"first"), *parts)):
        path.write_bytes(content)
        with pytest.raises(Fault):
            load(str(path))
    path.write_bytes(zipped(Part(), comment=b"hello"))
    with pytest.raises(Fault, match="does not end as"):
        load(str(path))


def test_every_byte_of_a_pack_counts(files: Files, tmp_path: Path) -> None:
    """A byte more, less or changed is found by reading the archive, or changes a file."""
    path, whole = tmp_path / "pack.zip", archive({"README.txt": files["README.txt"]})
    path.write_bytes(whole)
    told = load(str(path))
    directory = whole.rindex(b"PK\1\2")
    # The writer's version and the mode; and the same text may be compressed in several ways.
    free = {directory + at for at in (4, 5, 38, 39, 40, 41)} | {*range(40, directory)}
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for content in (whole[:at] + whole[at + 1 :], whole[:at] + b"\0" + whole[at:], changed):
            path.write_bytes(content)
            if content == whole or (content is changed and at in free):
                continue
            try:
                assert load(str(path)) != told, at
            except (Fault, OSError):
                continue
    for content in (b"\0" + whole, whole + b"\0", whole + whole):
        path.write_bytes(content)
        with pytest.raises(Fault):
            load(str(path))


def test_a_folder_with_a_link_is_no_pack(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "pack", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "model.bin").write_bytes(EVIL)
    (folder / "README.txt").write_bytes(b"read me")
    assert load(str(folder)) == {"README.txt": b"read me"}
    for target in (elsewhere, elsewhere / "model.bin", tmp_path / "nothing"):
        (folder / "model").symlink_to(target)
        with pytest.raises(Fault, match="model is not a file"):
            load(str(folder))
        (folder / "model").unlink()


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
    files = files_of(release_evidence(actor=proven(office.operator), release_id=release.pk))
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
    """Another spelling of the same number is another checkpoint, or none, to other readers."""
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


@pytest.mark.parametrize(
    "change",
    [
        set_in("verdict", "approve", 0),
        set_in("verdict", "reject"),
        set_in("reason", "Because not."),
        set_in("specialty", "security"),
        set_in("round", 1),
        set_in("digest", "0" * 64),
        set_in("at", "2026-01-01T00:00:00.000000+00:00"),
        set_in("person", {"id": 1, "name": "Milo"}),
        set_in("event", 0),
        set_in("event", 10**9),
        lambda told: decisions_in(told).pop(),
        lambda told: decisions_in(told).append(decisions_in(told)[0]),
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
        decisions_in(told)[-1]["person"]["name"] = "Somebody"

    assert "another decision" in faults(forged(files, decisions=rename))["Decisions"]


def _another_policy(told: Any) -> None:
    told["reviews"][-1]["review_policy"]["text"] += "# Anybody approves."


def _consistently(told: Any) -> None:
    policy = told["reviews"][-1]["review_policy"]
    policy["text"] = "approvals: []"
    policy["digest"] = hashlib.sha256(policy["text"].encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_another_policy, "has another digest"),
        (_consistently, "no review was held under"),
        (lambda told: told["reviews"][-1].update(review_policy=None), "no review was held under"),
    ],
)
def test_another_review_policy_than_the_dossier_names_is_found(
    files: Files, change: Callable[[Any], Any], said: str
) -> None:
    assert said in faults(forged(files, decisions=change))["Review policy"]


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
    submitter = proven(office.submitter)
    release_withdraw(actor=submitter, release_id=first.pk, reason="Once more.")
    second = office.submit()
    assert second.dossier_digest == first.dossier_digest
    office.attest(second)
    office.decide(second, office.compliance)
    office.decide(second, person("Rita", "reviewer:model-risk"))
    seal_once()
    theirs, files = (
        files_of(release_evidence(actor=proven(office.operator), release_id=each.pk))
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
        actor=proven(voter),
        action="release:decide",
        subject=review_subject(review),
        reason="Mine is good.",
        data={
            "verdict": "approve",
            "specialty": "compliance",
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
        said = {name: vote["data"][name] for name in ("verdict", "specialty", "digest", "round")}
        decisions_in(told).append(
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
