"""A selection that was tampered with anywhere is found out, and so is a zip that is not ours."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.audit.checkpoint import Signer
from governance.audit.exports.selection import MAX_LINE_BYTES, Row
from governance.audit.exports.selection_csv import (
    PROOF,
    README,
    TABLE,
    cell,
    table_head,
    table_line,
)
from governance.audit.exports.services import export_file
from governance.audit.models import AuditCheckpoint
from governance.audit.personal import person_keys
from governance.audit.services import Subject, audit_record
from governance.audit.signing import audit_signer
from governance.audit.tree.bulk import Tree, levels_of, path_in
from governance.audit.tree.merkle import tree_root
from governance.principals import Principal
from governance.zips import zip_entries
from tests.unit.governance.exports_support import bytes_of, checked, made, seal, write
from tests.unit.governance.zip_files import FORGED

pytestmark = pytest.mark.django_db
# Enough that lines drawn from it, some bits of each, are a fair sample of a file's bits.
LINES_DRAWN = 30


@pytest.fixture
def auditor(actor: Callable[..., Principal], settings: Any, tmp_path: Path) -> Principal:
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return actor("Asha", "auditor")


@pytest.fixture
def lines(auditor: Principal) -> list[bytes]:
    """A selection of 120 events out of 420: each has a box, and the key of it."""
    write(300)
    write(120, actor=auditor, action="model:train")
    return bytes_of(made(auditor, action="model:train")).splitlines(keepends=True)


def verdict(content: bytes, folder: Path, **given: Any) -> Any:
    path = folder / "given.jsonl"
    path.write_bytes(content)
    return checked(path, **given)


@pytest.mark.sweep
def test_flipped_bits_of_thirty_lines_are_found_and_the_row_named(
    lines: list[bytes], tmp_path: Path
) -> None:
    drawn = random.Random(4)
    for number in drawn.sample(range(len(lines)), LINES_DRAWN):
        line = lines[number]
        for bit in drawn.sample(range(len(line) * 8), 16):
            changed = bytearray(line)
            changed[bit // 8] ^= 1 << bit % 8
            content = b"".join([*lines[:number], bytes(changed), *lines[number + 1 :]])
            report = verdict(content, tmp_path)
            assert not report.ok, (number, bit)
            if 0 < number < len(lines) - 1 and report.first_bad is not None:
                assert report.events == number - 1, (number, bit, report.message)


@pytest.mark.sweep
def test_every_bit_of_the_header_one_row_and_the_end_has_a_meaning(
    auditor: Principal, tmp_path: Path
) -> None:
    write(3, actor=auditor, action="model:train")
    whole = bytes_of(made(auditor, action="model:train", subject_id="1"))
    assert verdict(whole, tmp_path).ok
    assert len(whole.splitlines()) == 3

    for bit in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        report = verdict(bytes(changed), tmp_path)
        assert not report.ok, (bit, bytes(changed[bit // 8 - 20 : bit // 8 + 20]))


def test_rows_taken_out_put_in_exchanged_or_cut_off_are_found(
    lines: list[bytes], tmp_path: Path
) -> None:
    header, *rows, end = lines
    other = json.loads(rows[5])
    foreign = {**other, "canonical": other["canonical"].replace("model 5", "model 6")}
    dumped = json.dumps(foreign, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    cases = {
        "as exported": (lines, True, ""),
        "one out": ([header, *rows[:9], *rows[10:], end], False, "removed or inserted"),
        "twice": ([header, *rows[:3], rows[2], *rows[3:], end], False, "was inserted or exchanged"),
        "swapped": ([header, rows[1], rows[0], *rows[2:], end], False, "was inserted or exchanged"),
        "rewritten": ([header, *rows[:5], dumped, *rows[6:], end], False, "was changed"),
        "no end": (lines[:-1], False, "The end is cut off"),
        "half a row": ([header, rows[0][:-9]], False, "is cut off"),
        "nothing": ([], False, "not the header"),
        "header alone": ([header], False, "The end is cut off: 0 rows"),
        "more behind": ([*lines, rows[0]], False, "added after the signed end"),
        "a blank line": ([header, b"\n", *rows, end], False, ""),
    }
    for name, (parts, ok, words) in cases.items():
        report = verdict(b"".join(parts), tmp_path)
        assert report.ok is ok, (name, report.message)
        assert words in report.message, (name, report.message)


def test_a_key_that_is_withheld_or_not_the_boxes_own_is_found(
    lines: list[bytes], tmp_path: Path
) -> None:
    header, first, second, *rest = lines
    one, two = json.loads(first), json.loads(second)
    for keys, words in (
        ([], "rows or keys were removed"),
        (two["keys"], "does not open its box"),
        ([*one["keys"], *one["keys"]], "a key without a box"),
        ([{**one["keys"][0], "of": "person:999"}], "a key without a box"),
    ):
        row = json.dumps({**one, "keys": keys}, sort_keys=True, separators=(",", ":"))
        report = verdict(b"".join([header, row.encode() + b"\n", second, *rest]), tmp_path)
        assert not report.ok
        assert words in report.message, report.message


def test_a_log_of_ones_own_does_not_pass_for_this_one(lines: list[bytes], tmp_path: Path) -> None:
    stranger = Signer("assay.example/audit", bytes(32)).public_key
    report = verdict(b"".join(lines), tmp_path, public_keys=stranger)
    assert not report.ok
    assert "other public keys" in report.message


def test_a_checkpoint_kept_outside_is_compared(lines: list[bytes], tmp_path: Path) -> None:
    head = AuditCheckpoint.objects.get(
        tree_size=int(json.loads(lines[0])["checkpoint"].split("\n")[1])
    )
    rewritten = audit_signer().sign(head.tree_size, bytes(32))
    whole = b"".join(lines)

    assert verdict(whole, tmp_path, checkpoints=[head.note]).ok
    report = verdict(whole, tmp_path, checkpoints=[rewritten])
    assert "The log was rewritten" in report.message
    smaller = audit_signer().sign(head.tree_size - 1, bytes(32))
    assert "assay audit consistent" in verdict(whole, tmp_path, checkpoints=[smaller]).message


def test_what_is_no_selection_is_said_to_be_none_within_bounds(tmp_path: Path, policy: Any) -> None:
    for content in (
        b"\n", b"7\n", b"[]\n", b"{}\n", b"[" * 100_000 + b"\n", b'"' + b"x" * MAX_LINE_BYTES,
        b"\x00" * (MAX_LINE_BYTES + 10), b'{"format":"assay-audit-selection/1"}\n', b"\xff\xfe\n",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
    ):  # fmt: skip
        report = verdict(content, tmp_path)
        assert not report.ok
        assert report.message


def test_paths_made_together_are_those_of_rfc_6962() -> None:
    from governance.audit.tree.merkle import inclusion_proof, roots_of, verify_inclusion

    leaves = [bytes([i % 256, i // 256] * 16) for i in range(901)]
    for size in (1, 2, 3, 255, 256, 257, 512, 513, 901):
        tiles = [tree_root(leaves[at : min(at + 256, size)]) for at in range(0, size, 256)]
        tree, root = Tree(size, tiles), tree_root(leaves[:size])
        assert tree.root == root
        for index in {0, 1, size // 2, max(0, size - 2), size - 1} & set(range(size)):
            tile = index // 256
            stored = b"".join(leaves[tile * 256 : min(tile * 256 + 256, size)])
            path = tree.tile(tile, stored).path(index)
            assert path == inclusion_proof(roots_of(leaves[:size]), size, index)
            assert verify_inclusion(leaves[index], index, size, path, root)
    assert path_in(levels_of([b"x" * 32]), 0) == []
    with pytest.raises(ValueError, match="do not give its root"):
        Tree(2, [bytes(32)]).tile(0, bytes(64))
    with pytest.raises(ValueError, match="tiles do not make"):
        Tree(257, [bytes(32)])


FORMULAS = (
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "=HYPERLINK(\"http://x\")",
    "=cmd|' /C calc'!A0", '"=1',
)  # fmt: skip


def test_no_cell_is_taken_for_a_formula(auditor: Principal, tmp_path: Path) -> None:
    for text in FORMULAS:
        subject = Subject("model", text[:80], text)
        audit_record(actor=auditor, action="model:train", subject=subject, reason=text)
    audit_record(
        actor=auditor,
        action="model:train",
        subject=Subject("model", "x", 'a"b,c\r\nd;e'),
        data={"=key": "=value"},
    )
    seal()
    path = export_file(made(auditor, "csv", action="model:train"))
    assert checked(path).ok

    with zipfile.ZipFile(path) as archive:
        table = archive.read(TABLE)
    assert table.startswith(b"\xef\xbb\xbf")
    read = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"), newline="")))
    assert len(read) == len(FORMULAS) + 1
    for row in read:
        for value in row.values():
            assert not value.lstrip(" ").startswith(tuple("=+-@\t\r\n＝＋－＠")), value
    assert read[-1]["subject_name"] == 'a"b,c\r\nd;e'
    assert {row["actor_name"] for row in read} == {"Asha"}
    assert cell(-5) == "-5"
    assert cell(None) == ""
    # Half of Europe separates cells by semicolons or tabs; a text must not begin a cell there.
    for text in ("a;=1+1", "a\t=1+1", 'a; "=1+1"', "a;;@x", 'a;""-1', "a\r\n+1", "a;＝1"):
        for part in re.split(r"[;\t\r\n]", cell(text)):
            assert not part.lstrip(' "').startswith(tuple("=+-@＝＋－＠")), text
    for harmless in ("a;b", "x = y; z", "a-b", '{"a":-1,"b":"c;d"}', "2026-01-01;12:00"):
        assert cell(harmless) == harmless


def test_somebody_erased_is_named_by_number_and_the_event_stands(
    auditor: Principal, actor: Callable[..., Principal]
) -> None:
    from django.db import connection

    gone = actor("Gail Gone")
    write(2, actor=gone, action="model:train")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE governance_auditpersonkey SET key = NULL, erased_at = now() "
            "WHERE person_id = %s",
            [gone.person_id],
        )
    assert gone.person_id not in person_keys([gone.person_id or 0])
    path = export_file(made(auditor, "csv", action="model:train"))

    with zipfile.ZipFile(path) as archive:
        table, proof = archive.read(TABLE).decode(), archive.read(PROOF).decode()
    assert table.count(f'"erased person {gone.person_id}"') == 2
    assert "Gail" not in table + proof
    assert checked(path).ok


@pytest.fixture
def archive(auditor: Principal) -> dict[str, bytes]:
    """Return the content of a zip of 40 events."""
    write(40, actor=auditor, action="model:train")
    with zipfile.ZipFile(export_file(made(auditor, "csv", action="model:train"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: dict[str, bytes], **how: Any) -> Path:
    with zipfile.ZipFile(path, "w", how.pop("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_table_that_says_anything_else_than_the_proofs_is_found(
    archive: dict[str, bytes], tmp_path: Path
) -> None:
    table, path = archive[TABLE], tmp_path / "given.zip"
    assert checked(packed(path, archive)).ok
    drawn = random.Random(7)
    for at in drawn.sample(range(len(table)), 60):
        changed = table[:at] + bytes([table[at] ^ 1 << drawn.randrange(8)]) + table[at + 1 :]
        assert not checked(packed(path, {**archive, TABLE: changed})).ok, at
    named = table.replace(b'"model 7"', b'"model 9"')
    report = checked(packed(path, {**archive, TABLE: named}))
    assert report.first_bad is not None
    assert f"changed in {TABLE}" in report.message
    for changes, words in (
        ({TABLE: table + b'"x"\r\n'}, "lines without a proof"),
        ({TABLE: table[:-40]}, f"changed in {TABLE}"),
        ({TABLE: b""}, "does not begin as exported"),
        ({README: archive[README] + b"Trust me."}, "README.txt is not as exported"),
        ({PROOF: archive[PROOF][:-1]}, "is cut off"),
    ):
        assert words in checked(packed(path, {**archive, **changes})).message


def _with_more(whole: bytes, name: str) -> bytes:
    """Return the zip with bytes after the compressed data of a file, which it counts as packed."""
    file = io.BytesIO(whole)
    entry = next(each for each in zip_entries(file, most=3) if each.name == name)
    more = b"PK\x03\x04 of another archive"
    end = entry.start + entry.packed
    made = bytearray(whole[:end] + more + whole[end:])
    packed = struct.pack("<L", entry.packed + len(more))
    made[entry.header + 18 : entry.header + 22] = packed
    at = made.index(b"PK\x01\x02")
    while at >= 0:
        (offset,) = struct.unpack_from("<L", made, at + 42)
        if offset == entry.header:
            made[at + 20 : at + 24] = packed
        elif offset > entry.header:
            made[at + 42 : at + 46] = struct.pack("<L", offset + len(more))
        at = made.find(b"PK\x01\x02", at + 1)
    end = made.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<L", made, end + 16)
    made[end + 16 : end + 20] = struct.pack("<L", start + len(more))
    return bytes(made)


def test_a_hostile_zip_is_refused_before_it_costs_anything(
    archive: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "given.zip"
    bomb = b"\x00" * (64 * 1024**2)
    whole = packed(path, archive).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    many = {f"{number}.txt": b"" for number in range(5000)}
    hostile = [
        packed(path, {**archive, "more.txt": b"x"}).read_bytes(),
        packed(path, {TABLE: b"", PROOF: archive[PROOF]}).read_bytes(),
        packed(path, {"../../evil": b"", PROOF: b"", README: b""}).read_bytes(),
        packed(path, {**archive, PROOF: bomb}).read_bytes(),
        packed(path, {**archive, TABLE: archive[TABLE] + bomb}).read_bytes(),
        packed(path, {**archive, README: bomb}).read_bytes(),
        packed(path, archive, compression=zipfile.ZIP_LZMA).read_bytes(),
        packed(path, many).read_bytes(),
        whole[:end] + whole[end:].replace(b"\x03\x00\x03\x00", b"\xff\xff\xff\xff", 1),
        whole[:end] + whole[end : end + 12] + struct.pack("<I", 2**31) + whole[end + 16 :],
        whole[:end] + b"PK\x06\x07" + bytes(16) + whole[end:],
        # One more than where the list of files begins: its first file begins before the zip does.
        whole[: end + 16] + struct.pack("<I", whole.index(b"PK\x01\x02") + 1) + whole[end + 20 :],
        whole[: len(whole) // 2], b"PK\x05\x06" + bytes(18), b"PK", b"PK\x03\x04" + bytes(100),
    ]  # fmt: skip
    for number, content in enumerate(hostile):
        path.write_bytes(content)
        report = checked(path)
        assert not report.ok, number
        assert report.message, number
    for forged in FORGED.values():
        path.write_bytes(forged())
        assert not checked(path).ok
    for name in (PROOF, TABLE):
        path.write_bytes(_with_more(whole, name))
        assert "has bytes after its data" in checked(path).message
    drawn = random.Random(9)
    for _ in range(200):
        at = drawn.randrange(len(whole))
        path.write_bytes(
            whole[:at] + bytes([whole[at] ^ 1 << drawn.randrange(8)]) + whole[at + 1 :]
        )
        checked(path)


def test_a_row_of_the_table_has_a_cell_for_every_column() -> None:
    row = Row(7, {"action": "a:b", "data": {"n": 1}, "policy_version": 3}, bytes(32))
    head, line = (
        next(csv.reader([text.decode("utf-8-sig")])) for text in (table_head(), table_line(row))
    )
    cells = dict(zip(head, line, strict=True))
    assert cells["sequence"] == "7"
    assert cells["data"] == '{"n":1}'
    assert cells["policy_version"] == "3"
    assert cells["leaf_hash"] == "0" * 64


def test_a_zip_whose_names_are_no_text_is_damaged(tmp_path: Path) -> None:
    path, packed = tmp_path / "export.zip", io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name in ("évents.csv", "proof.jsonl", "README.txt"):
            made.writestr(name, "")
    path.write_bytes(packed.getvalue().replace("é".encode(), b"\xff\xff"))
    report = checked(path)
    assert not report.ok
    assert "damaged" in report.message
