"""Everything somebody may do to an export or, owning the database, to the live log: all of it is
found, and the first bad row named."""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from governance.audit.checkpoint import parse
from governance.audit.exports.log import export_lines
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.selectors import verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.audit.tree.merkle import Frontier, leaf_hash, tree_root
from governance.audit.verify import (
    VerificationReport,
    _Bad,
    _Run,
    event_line,
    verify_export,
    verify_file,
)
from governance.people.models import Person
from governance.principals import Principal, PrincipalKind, RequestContext, service_principal

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
ROOT = Path(__file__).resolve().parents[3]
# The same for all the processes of a run; set it to repeat one.
SEED = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)
BATCHES = (700, 1, 255, 600, 500)
SMALL = (3, 253, 300)
ROWS = 24
# The rows whose every bit is flipped, in parts that run side by side.
PARTS = 2


@pytest.fixture(autouse=True)
def published(settings: Any, tmp_path: Path) -> Path:
    settings.AUDIT_SIGNING_KEY = "01" * 32
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return settings.AUDIT_PUBLISH_DIR


@pytest.fixture(autouse=True)
def _say_the_seed() -> None:
    sys.stdout.write(f"seed {SEED}\n")  # Shown with a failure.


def people(count: int) -> list[Principal]:
    made = [Person.objects.create(name=f"Zoë {i}", email=f"z{i}@example.org") for i in range(count)]
    return [
        Principal(PrincipalKind.PERSON, str(one.pk), one.name, person_id=one.pk) for one in made
    ]


def grow(batches: Iterable[int]) -> None:
    """Record and seal events of every kind: of people, with boxes, and of services; delivered."""
    actors = [*people(3), service_principal("gateway")]
    for batch in batches:
        start = AuditEvent.objects.count()
        with transaction.atomic():
            audit_record_many(
                AuditEntry(
                    actor=actors[i % len(actors)],
                    action="release:approve" if i % 3 else "model:use",
                    subject=Subject("release", str(i), f'Größe "{i}"\\ 日本'),
                    outcome="denied" if i % 7 == 0 else "allowed",
                    reason="because\n\x1f" if i % 5 == 0 else "",
                    department="clinical" if i % 2 else "",
                    data={"number": i, "list": [None, True, 1.5, "é"]},
                    policy_version=i % 4 or None,
                    context=RequestContext(request_id=f"r-{i}", client_address="192.0.2.1"),
                    delivery=f"r-{i}" if i % 11 == 0 else "",
                )
                for i in range(start, start + batch)
            )
        assert seal_once() == batch


@pytest.fixture
def export() -> list[str]:
    """A log of some thousand events, sealed in several batches, as lines."""
    grow(BATCHES)
    lines = list(export_lines())
    assert len(lines) == sum(BATCHES) + 1
    return lines


@pytest.fixture
def live() -> None:
    """A smaller one in the database, its guards off, as its owner can take them off; the second
    place holds its checkpoint and tiles."""
    grow(SMALL)
    tables = ("auditevent", "auditcheckpoint", "auditsubtree", "auditpersonkey")
    run("SET CONSTRAINTS ALL IMMEDIATE")
    for table in tables:
        run(f"ALTER TABLE governance_{table} DISABLE TRIGGER USER")
    assert verify_live().ok


def run(sql: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def named(check: Callable[..., bytes], line: str, row: int, size: int) -> int | None:
    """The row that the check of row `row` finds bad; None when it finds it good."""
    try:
        check(line, row, size)
    except _Bad as bad:
        return bad.sequence
    return None


def found_bad(report: VerificationReport, row: int) -> bool:
    return not report.ok and report.first_bad == row and f"Row {row} " in report.message


# An export


@pytest.mark.parametrize("part", range(PARTS))
def test_every_bit_of_some_rows_is_found_by_the_check_of_a_row(
    export: list[str], part: int
) -> None:
    rows = random.Random(SEED).sample(range(sum(BATCHES)), ROWS)[part::PARTS]
    size, flips = sum(BATCHES), 0
    # The check of one row, called directly to spare a thousand good rows before each bad one.
    check = _Run(None)._leaf
    for row in rows:
        line = export[row + 1].encode()
        assert check(export[row + 1], row, size)
        for bit in range(len(line) * 8):
            # As it is read from a file: a new line ends the row.
            damaged = flipped(line, bit).partition(b"\n")[0].decode("utf-8", "replace")
            if named(check, damaged, row, size) != row:
                pytest.fail(f"bit {bit} of row {row} may be flipped")
        flips += len(line) * 8
    sys.stdout.write(f"{flips} bits of {len(rows)} rows\n")
    assert flips > len(rows) * 8 * 300


def test_a_bit_of_each_of_some_rows_is_found_from_the_start_of_the_file(
    export: list[str], tmp_path: Path
) -> None:
    draw, path = random.Random(SEED), tmp_path / "export.jsonl"
    raw = [f"{line}\n".encode() for line in export]
    for row in draw.sample(range(sum(BATCHES)), ROWS):
        bit = draw.randrange(len(raw[row + 1]) * 8)
        path.write_bytes(b"".join([*raw[: row + 1], flipped(raw[row + 1], bit), *raw[row + 2 :]]))
        report = verify_file(path, public_keys=audit_public_keys())
        assert found_bad(report, row), (row, bit, report)


def test_rows_taken_out_put_in_exchanged_and_cut_off_are_named(export: list[str]) -> None:
    draw, size = random.Random(SEED), sum(BATCHES)

    def check(first: int, head: list[str], *rest: list[str]) -> None:
        lines = [*head, *(line for part in rest for line in part)]
        report = verify_export(lines, public_keys=audit_public_keys())
        assert (report.ok, report.first_bad) == (False, first), report
        assert report.events == first

    for row in draw.sample(range(size - 1), 12):
        before, after = export[: row + 1], export[row + 1 :]
        other = draw.choice(after[1:])
        check(row, before, after[1:])  # Taken out.
        check(row, before, [other], after)  # Another one of it put in before,
        check(row + 1, before, after[:1], after)  # or itself twice.
        check(row, before, [event_line(row, "{}", leaf_hash(b"{}"))[:-1]], after)
        place = after.index(other)
        check(row, before, [other], after[1:place], after[:1], after[place + 1 :])  # Exchanged.
        check(row, before)  # Cut off.


def rewritten(export: list[str], row: int, text: str) -> list[str]:
    """All of it made anew from `row` on, with valid hashes, root and signature."""
    texts = [json.loads(line)["canonical"] for line in export[1:]]
    texts[row] = text
    leaves = [leaf_hash(text.encode()) for text in texts]
    header = json.loads(export[0])
    header["checkpoint"] = audit_signer().sign(len(leaves), tree_root(leaves))
    first = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    lines = zip(range(len(texts)), texts, leaves, strict=True)
    return [first, *(event_line(*line) for line in lines)]


def test_a_whole_rewrite_with_valid_hashes_and_signature_is_found_by_what_was_kept_outside(
    export: list[str], published: Path
) -> None:
    keys, draw = audit_public_keys(), random.Random(SEED)
    heads = [head.note for head in AuditCheckpoint.objects.order_by("tree_size")]
    for row in draw.sample(range(sum(BATCHES)), 10):
        forged = rewritten(export, row, '{"v":2}')
        assert verify_export(forged, public_keys=keys).ok  # In itself it is flawless.
        report = verify_export(forged, public_keys=keys, checkpoints=heads[-1:])
        assert not report.ok
        assert "The log was rewritten" in report.message
        # With tiles the row is named; with all the checkpoints, the batch.
        assert found_bad(verify_export(forged, public_keys=keys, tiles=published), row)
        sizes = [0, *(parse(note).size for note in heads)]
        first = max(size for size in sizes if size <= row)
        last = min(size for size in sizes if size > row) - 1
        report = verify_export(forged, public_keys=keys, checkpoints=heads)
        assert f"a row between {first} and {last} was replaced" in report.message


def test_the_command_line_finds_it_offline_and_names_the_row(
    export: list[str], published: Path, tmp_path: Path
) -> None:
    key = audit_public_keys()
    kept = tmp_path / "kept"
    kept.write_text(AuditCheckpoint.objects.latest("tree_size").note)
    forged = rewritten(export, 1234, '{"v":2}')
    deleted = [*export[:778], *export[779:]]
    bit = [*export[:1001], export[1001].replace("1.5", "1.4"), *export[1002:]]
    for lines, options, code, said in (
        (
            export,
            ["--checkpoint", kept, "--tiles", published],
            0,
            "All 2,056 events match the signed",
        ),
        (deleted, [], 1, "Row 777 is missing"),
        (bit, [], 1, "Row 1000 was changed"),
        (forged, [], 0, "All 2,056 events match the signed"),
        (forged, ["--checkpoint", kept], 1, "The log was rewritten"),
        (forged, ["--tiles", published], 1, "Row 1234 was replaced"),
        (export[:2000], ["--checkpoint", kept], 1, "row 1999 is missing"),
    ):
        path = tmp_path / "export.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines))
        words = ["audit", "verify", path, "--key", key, *options]
        done = offline(*map(str, words))
        assert done.returncode == code, done
        assert said in " ".join((done.stdout + done.stderr).split()), done


def offline(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line where there is no database and no setting."""
    return subprocess.run(
        [sys.executable, "-c", "from assay.cli.main import main; main()", *words],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=False,
    )


# The live log


def changes_of(event: AuditEvent) -> dict[str, object]:
    """Another value for each column that repeats what is sealed, whichever columns there are."""
    changes: dict[str, object] = {}
    for field in AuditEvent._meta.concrete_fields:
        value = getattr(event, field.name)
        if field.name in ("id", "sequence", "canonical", "leaf_hash"):
            continue
        if hasattr(value, "tzinfo"):
            changes[field.name] = value + timedelta(microseconds=1)
        elif isinstance(value, str):
            changes[field.name] = value[:-1] + "?" if value else "x"
        else:
            changes[field.name] = (value or 0) + 1
    return changes


@pytest.mark.usefixtures("live")
def test_every_column_of_a_row_is_found() -> None:
    draw = random.Random(SEED)
    for row in draw.sample(range(sum(SMALL)), 3):
        event = AuditEvent.objects.get(sequence=row)
        changes = changes_of(event)
        assert len(changes) >= 14
        for name, value in changes.items():
            AuditEvent.objects.filter(pk=event.pk).update(**{name: value})
            report = verify_live()
            assert found_bad(report, row), (name, report)
            assert f"column {name}" in report.message
            AuditEvent.objects.filter(pk=event.pk).update(**{name: getattr(event, name)})
    assert verify_live().ok


@pytest.mark.usefixtures("live")
def test_any_bit_of_the_sealed_bytes_and_of_the_leaf_hash_is_found() -> None:
    draw = random.Random(SEED)
    for row in draw.sample(range(sum(SMALL)), 25):
        event = AuditEvent.objects.get(sequence=row)
        for name in ("canonical", "leaf_hash"):
            whole = bytes(getattr(event, name))
            bit = draw.randrange(len(whole) * 8)
            AuditEvent.objects.filter(pk=event.pk).update(**{name: flipped(whole, bit)})
            assert found_bad(verify_live(), row), (name, row, bit)
            AuditEvent.objects.filter(pk=event.pk).update(**{name: whole})
    assert verify_live().ok


def take_out(row: int) -> int:
    AuditEvent.objects.filter(sequence=row).delete()
    return row


def put_in(row: int) -> int:
    """A row of one's own in the middle; those after it move on."""
    move = "UPDATE governance_auditevent SET sequence = sequence + %s WHERE sequence >= %s"
    run(move, 10_000, row)
    run(move, -9_999, row + 10_000)
    return append(row)


def put_at_the_end(row: int) -> int:
    return append(sum(SMALL))


def append(row: int) -> int:
    event = AuditEvent.objects.exclude(sequence=None).latest("id")
    event.pk, event.sequence, event.delivery = None, row, ""
    event.save(force_insert=True)
    return row


def exchange(row: int) -> int:
    other = row + 7
    for before, after in ((row, 99_999), (other, row), (99_999, other)):
        run("UPDATE governance_auditevent SET sequence = %s WHERE sequence = %s", after, before)
    return row


def cut_off(row: int) -> int:
    """The end, with the checkpoints over it."""
    AuditEvent.objects.filter(sequence__gte=SMALL[0]).delete()
    AuditCheckpoint.objects.filter(tree_size__gt=SMALL[0]).delete()
    run("DELETE FROM governance_auditsubtree")
    return SMALL[0]


def rewrite(row: int) -> int:
    """The row, and everything that follows from it, made anew and signed with the log's own key."""
    event = AuditEvent.objects.get(sequence=row)
    body = json.loads(bytes(event.canonical))
    body["subject_id"] = event.subject_id = "another"
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    event.canonical, event.leaf_hash = text, leaf_hash(text)
    event.save()
    leaves = [bytes(leaf) for leaf in AuditEvent.objects.order_by("sequence").values_list(
        "leaf_hash", flat=True
    )]  # fmt: skip
    for head in AuditCheckpoint.objects.all():
        tree = Frontier()
        tree.extend(leaves[: head.tree_size])
        head.root_hash, head.frontier = tree.root(), tree.to_bytes()
        head.note = audit_signer().sign(tree.size, tree.root())
        head.save()
    for index in range(len(leaves) // 256):
        root = tree_root(leaves[index * 256 : index * 256 + 256])
        run("UPDATE governance_auditsubtree SET root_hash = %s WHERE index = %s", root, index)
    return row


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("attack", [take_out, put_in, put_at_the_end, exchange, cut_off, rewrite])
@pytest.mark.parametrize("row", [5, 400])
def test_what_the_owner_of_the_database_does_to_rows_is_found(
    attack: Callable[[int], int], row: int
) -> None:
    first = attack(row)
    report = verify_live()
    assert (report.ok, report.first_bad) == (False, first), report


@pytest.mark.usefixtures("live")
def test_a_rewrite_of_database_and_second_place_is_found_by_a_checkpoint_kept_elsewhere(
    settings: Any, tmp_path: Path
) -> None:
    kept = [head.note for head in AuditCheckpoint.objects.order_by("tree_size")]
    rewrite(400)
    settings.AUDIT_PUBLISH_DIR = tmp_path / "rewritten too"
    AuditCheckpoint.objects.update(published_at=None)
    seal_once()
    assert verify_live().ok  # Nothing here contradicts it,
    lines, keys = list(export_lines()), audit_public_keys()
    assert verify_export(lines, public_keys=keys, checkpoints=kept[:2]).ok  # nor what is older.
    report = verify_export(lines, public_keys=keys, checkpoints=kept)
    assert not report.ok
    assert "a row between 256 and 555 was replaced" in report.message


BESIDE = {
    "a root": "UPDATE governance_auditcheckpoint SET root_hash = sha256('x') WHERE tree_size = 256",
    "a frontier": "UPDATE governance_auditcheckpoint"
    " SET frontier = set_bit(frontier, 9, 1 - get_bit(frontier, 9)) WHERE tree_size = 556",
    "a note": "UPDATE governance_auditcheckpoint SET note = replace(note, 'assay', 'essay')"
    " WHERE tree_size = 3",
    "a note of another size": "UPDATE governance_auditcheckpoint SET note ="
    " (SELECT note FROM governance_auditcheckpoint WHERE tree_size = 3) WHERE tree_size = 256",
    "a size": "UPDATE governance_auditcheckpoint SET tree_size = 255 WHERE tree_size = 256",
    "a subtree": "UPDATE governance_auditsubtree SET root_hash = sha256('x') WHERE index = 1",
    "no subtree": "DELETE FROM governance_auditsubtree WHERE index = 0",
}


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("change", BESIDE)
def test_a_change_of_checkpoints_or_subtrees_is_found(change: str) -> None:
    run(BESIDE[change])
    report = verify_live()
    assert not report.ok
    assert "was changed" in report.message, report


@pytest.mark.usefixtures("live")
def test_exchanged_and_overwritten_keys_of_people_are_found_and_show_nobody_elses_name() -> None:
    first, second = Person.objects.filter(name__startswith="Zoë").order_by("pk")[:2]
    run(
        "UPDATE governance_auditpersonkey AS a SET key = b.key FROM governance_auditpersonkey AS b"
        " WHERE a.person_id IN (%s, %s) AND b.person_id IN (%s, %s) AND a.person_id <> b.person_id",
        first.pk, second.pk, first.pk, second.pk,
    )  # fmt: skip
    report = verify_live()
    assert found_bad(report, 0), report
    assert f"the key of person {first.pk} does not open" in report.message
