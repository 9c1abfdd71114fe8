"""Witnesses: what they cosign, what they refuse, and what a bad one costs."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from governance.audit.alarms import alarms_check
from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier
from governance.audit.cosignature import Quorum, Witness
from governance.audit.exports.log import export_lines
from governance.audit.models import AuditAlarm, AuditCheckpoint, AuditCosignature, AuditKeeper
from governance.audit.outside import witness
from governance.audit.outside.publishing import publish_pending
from governance.audit.sealer import seal_once
from governance.audit.selectors import latest_checkpoint, verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.audit.tree import tiles
from governance.audit.tree.merkle import tree_root
from governance.audit.verify import verify_export
from governance.principals import service_principal
from tests.unit.governance.witness_server import WitnessServer

pytestmark = pytest.mark.sweep


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return settings.AUDIT_PUBLISH_DIR


@pytest.fixture
def named(settings):
    """Starts witnesses of this log, and names them in the settings."""
    started = []

    def start(*names, how=""):
        servers = [WitnessServer(name, audit_signer().public_key, how=how) for name in names]
        started.extend(server.__enter__() for server in servers)
        settings.AUDIT_WITNESSES = [server.setting for server in started]
        return servers

    yield start
    for server in started:
        server.__exit__()


def record(count, name="m"):
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), name))
            for i in range(count)
        )


def alarms():
    alarms_check()
    return {row.name: row for row in AuditAlarm.objects.all()}


@pytest.mark.django_db
def test_every_published_checkpoint_carries_the_cosignatures_of_the_witnesses(named, folder):
    one, two = named("witness.example/one", "witness.example/two")
    for count in (1, 6, 250, 1, 300):
        record(count)
        seal_once()
    note = tiles.published_checkpoint(folder)
    assert note.startswith(latest_checkpoint().note)
    for server in (one, two):
        assert server.seen[audit_signer().name].size == 558
        assert Witness.from_text(server.vkey).find(note) is not None
        assert len(server.requests) == 5
    assert AuditCosignature.objects.count() == 10
    # Whoever knows nothing of witnesses passes over their lines.
    assert Verifier.from_text(audit_public_keys()).open(note).size == 558
    assert verify_live().ok
    assert not {"witness_behind", "witness_contradicted"} & alarms().keys()


@pytest.mark.django_db
def test_a_witness_that_knows_more_than_we_remember_says_where_to_go_on(named):
    (server,) = named("witness.example/one")
    record(5)
    seal_once()
    AuditKeeper.objects.all().delete()
    record(6)
    seal_once()
    assert [body.split("\n")[0] for body in server.requests] == ["old 0", "old 0", "old 5"]
    assert AuditCosignature.objects.filter(checkpoint__tree_size=11).exists()


@pytest.mark.django_db
def test_a_witness_that_was_away_cosigns_the_published_head_later(named, folder):
    (server,) = named("witness.example/one", how="out of order")
    record(3)
    assert seal_once() == 3
    assert latest_checkpoint().published_at is not None
    assert tiles.published_checkpoint(folder) == latest_checkpoint().note
    server.how = ""
    # It failed just now, so it is left alone for a while.
    assert publish_pending()
    assert len(server.requests) == 1
    AuditKeeper.objects.update(tried_at="2026-01-01T00:00Z")
    assert publish_pending()
    assert Witness.from_text(server.vkey).find(tiles.published_checkpoint(folder))


def forget():
    """As the owner of the tables, who begins another history."""
    with connection.cursor() as cursor:
        # Or what is still to be checked keeps a table from being changed.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("auditcosignature", "auditcheckpoint", "auditsubtree", "auditevent"):
            cursor.execute(f"ALTER TABLE governance_{table} DISABLE TRIGGER USER")
            cursor.execute(f"DELETE FROM governance_{table}")  # noqa: S608
            cursor.execute(f"ALTER TABLE governance_{table} ENABLE TRIGGER USER")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("events", "says"),
    [
        (9, "5 events that are not the beginning of the 9"),
        (5, "another root over 5 events"),
        (3, "it has cosigned 5 events, the database has sealed 3"),
    ],
)
@pytest.mark.parametrize("remembered", [True, False])
def test_a_witness_refuses_a_history_that_is_not_the_one_it_cosigned(
    named, settings, tmp_path, events, says, remembered
):
    (server,) = named("witness.example/one")
    record(5)
    seal_once()
    honest = server.seen[audit_signer().name]

    # The owner of everything rewrites the log, signs it, and shows it at an empty place.
    forget()
    if not remembered:
        AuditKeeper.objects.all().delete()
    settings.AUDIT_PUBLISH_DIR = tmp_path / "elsewhere"
    record(events, name="forged")
    assert seal_once() == events
    assert server.seen[audit_signer().name] == honest
    assert not AuditCosignature.objects.exists()
    alarm = alarms()["witness_contradicted"]
    assert alarm.critical
    assert says in alarm.message
    # It costs an alarm, and nothing waits for it.
    assert not AuditCheckpoint.objects.filter(published_at=None).exists()


BAD = [
    ("floods", "more than"),
    ("another key", "without a valid cosignature"),
    ("another note", "without a valid cosignature"),
    ("the future", "without a valid cosignature"),
    ("no time", "without a valid cosignature"),
    ("long ago", "without a valid cosignature"),
    ("nothing", "without a valid cosignature"),
    ("no size", "status 409"),
    ("a huge size", "status 409"),
    ("out of order", "status 500"),
    ("redirects", "status 307"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("how", "says"), BAD)
def test_a_bad_witness_costs_an_alarm_and_nothing_else(named, settings, folder, how, says):
    (good,) = named("witness.example/good")
    named("witness.example/bad", how=how)
    record(3)
    record(1)
    assert seal_once(batch=3) == 3
    assert seal_once() == 1
    assert latest_checkpoint().published_at is not None
    assert [one.witness for one in AuditCosignature.objects.all()] == [
        str(Witness.from_text(good.vkey))
    ] * 2
    assert len(tiles.published_checkpoint(folder).splitlines()) == 6
    settings.AUDIT_WITNESS_ALARM_S = 0
    alarm = alarms()["witness_behind"]
    assert "witness.example/bad" in alarm.message
    assert "witness.example/good" not in alarm.message
    assert says in alarm.message


def test_a_witness_that_hangs_holds_up_nobody_longer_than_the_limit():
    log = Signer("assay.example/audit", bytes(32))
    note = log.sign(1, bytes(32))
    with (
        WitnessServer("witness.example/bad", how="hangs") as bad,
        WitnessServer("witness.example/good", log.public_key) as good,
    ):
        ends = witness.endpoints([bad.setting, good.setting])
        requests = [witness.CosignRequest(end, 0, [], note) for end in ends]
        # On a busy machine, the healthy witness may need longer.
        for limit_s in (0.5, 5, 50):
            good.seen.clear()
            answers = witness.ask(requests, limit_s=limit_s)
            assert answers[0] == witness.Answer(0, f"did not answer within {limit_s} s")
            if answers[1].status == 200:
                break
        assert bad.asked.is_set()
    assert answers[1].status == 200


def test_a_witness_that_is_not_there_is_said_not_to_be():
    with WitnessServer("witness.example/one") as server:
        end = witness.endpoints([server.setting])[0]
    (answer,) = witness.ask([witness.CosignRequest(end, 0, [], "")])
    assert answer.status == 0
    assert "cannot be asked" in answer.text


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "nonsense https://w.example",
        f"{Signer('log.example', bytes(32)).public_key} https://w.example",  # a log's key
        "w+00000000+BAAA https://w.example",
    ],
)
@pytest.mark.django_db
def test_what_is_no_witness_is_named(settings, text):
    settings.AUDIT_WITNESSES = [text]
    record(1)
    with pytest.raises(ImproperlyConfigured, match="ASSAY_AUDIT_WITNESSES"):
        seal_once()


def test_a_key_that_is_damaged_or_named_twice_is_refused():
    vkey = WitnessServer("witness.example/one").vkey
    assert Witness.from_text(vkey).name == "witness.example/one"
    for at, to in ((len("witness.example/one+"), "x"), (-2, "A"), (0, "W")):
        changed = f"{vkey[:at]}{to}{vkey[at:][1:]}"
        assert changed != vkey
        with pytest.raises(BadCheckpoint):
            Witness.from_text(changed)
    with pytest.raises(BadCheckpoint, match="twice"):
        Quorum.of([vkey, vkey], 1)
    for needed in (0, 2):
        with pytest.raises(BadCheckpoint, match="cannot be required"):
            Quorum.of([vkey], needed)


def test_a_real_checkpoint_with_the_cosignature_of_a_real_witness_is_read():
    """Published by a Certificate Transparency log, with the lines of signers unknown here."""
    note = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
"""  # noqa: E501
    log = (
        "arche2025h1.staging.ct.transparency.dev+ba2f06c0"
        "+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
    )
    remora = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert Verifier.from_text(log).open(note).size == 1432088532
    size, (cosigned,) = Quorum.of([remora]).require([note])
    assert (size, cosigned.witness) == (1432088532, "remora.n621.de+da77ade7")
    assert cosigned.cosigned_at.isoformat() == "2026-05-23T21:50:24+00:00"
    with pytest.raises(BadCheckpoint):
        Quorum.of([remora]).require([note.replace("1432088532", "1432088533")])


def test_every_bit_of_a_cosignature_counts():
    server = WitnessServer("witness.example/one")
    note = audit_signer().sign(3, tree_root([bytes(32)] * 3))
    line = server.cosign(note, at=1_700_000_000)
    found = Witness.from_text(server.vkey).find(note + line)
    assert found.cosigned_at.timestamp() == 1_700_000_000
    assert found.line == line.rstrip("\n")
    whole = (note + line).encode()
    changed = bytearray(whole)
    ours = range(whole.index(b"\n\n"), len(note.encode()))
    for place in range(len(whole) - 1):
        if place in ours:
            continue  # The log's own signature, which is the log's to check.
        changed[place] ^= 1
        text = changed.decode("utf-8", "replace")
        assert Witness.from_text(server.vkey).find(text) is None, place
        changed[place] ^= 1


@pytest.mark.django_db
def test_verifying_can_require_witnesses(named):
    one, two = named("witness.example/one", "witness.example/two")
    record(4)
    seal_once()
    lines = list(export_lines())
    stranger = WitnessServer("witness.example/stranger")
    plain = json.loads(lines[0])["checkpoint"]
    cosigned = plain + one.cosign(plain)
    keys = audit_public_keys()

    def verify(notes, *required, needed=None):
        quorum = Quorum.of([server.vkey for server in required], needed)
        return verify_export(lines, public_keys=keys, checkpoints=notes, quorum=quorum)

    report = verify([cosigned], one)
    assert report.ok
    assert "cosigned the first 4: witness.example/one" in report.message
    assert verify([cosigned], one, two, stranger, needed=1).ok
    for notes, required, needed in (
        ([], [one], None),
        ([cosigned], [two], None),
        ([cosigned], [one, two], 2),
        ([cosigned, plain + two.cosign(plain)], [one, two], 2),  # never the same checkpoint
    ):
        report = verify(notes, *required, needed=needed)
        assert not report.ok
        assert "A checkpoint needs cosignatures of" in report.message
    assert verify([plain + one.cosign(plain) + two.cosign(plain)], one, two).ok
