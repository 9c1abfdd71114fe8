"""Zip archives that all programs read alike.

Some programs read an archive by the directory at its end, as Python and `unzip` do, others from the
beginning, as `jar` does. Bytes before, between or after the entries, or differing descriptions of
one entry, let an archive show other files to the second kind. This module accepts an archive only
if its entries fill it from the first byte to the directory, and the directory to the end.
Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

STORED, DEFLATED = 0, 8
CHUNK = 1024 * 1024
# A directory has 46 bytes for each entry, with its name and extra fields.
MAX_ENTRY_BYTES = 1_024
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_WIDE = 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _UTF_8 = 0x1, 0x8, 0x800
# Two bits of the compression level, a data descriptor, and UTF-8. Other flags change the format.
_FLAGS = 0x6 | _DESCRIPTOR | _UTF_8
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
# Signature, checksum and two sizes; the signature is optional, and the sizes may be 64 bits wide.
_DESCRIPTORS = {16: "<4sLLL", 24: "<4sLQQ", 12: "<LLL", 20: "<LQQ"}


class ZipRefused(Exception):
    """File that is not a zip archive, is damaged, or could be read differently by two programs."""


class ZipTooMany(ZipRefused):
    """Archive with more entries than are accepted."""

    def __init__(self, entries: int) -> None:
        super().__init__(f"it has {entries:,} entries")
        self.entries = entries


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder. `start` is the offset of its data, `header` that of its local header.

    `mode` is the Unix mode, or 0. A `plain` entry has no data descriptor, no comment and no extra
    field except for 64-bit sizes.
    """

    name: str
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    header: int
    start: int
    encrypted: bool
    plain: bool

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def zip_entries(file: BinaryIO, *, most: int) -> list[Entry]:
    """Return the entries, in the order of the directory.

    Raises:
        ZipTooMany: there are more than `most`.
        ZipRefused: the message says why.
    """
    end = file.seek(0, io.SEEK_END)
    count, size, start = _directory(file, end)
    if count > most:
        raise ZipTooMany(count)
    if size > max(1, count) * MAX_ENTRY_BYTES:
        raise ZipRefused("its directory is longer than its entries need")
    records = list(_central(_read(file, start, size), count))
    order = sorted(range(count), key=lambda at: records[at].offset)
    if (records[order[0]].offset if order else start) != 0:
        raise ZipRefused("there are bytes before its first entry")
    ends = [*(records[at].offset for at in order[1:]), start]
    entries = {at: _entry(file, records[at], end) for at, end in zip(order, ends, strict=False)}
    return [entries[at] for at in range(count)]


def zip_unpacked(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """Yield the content of an entry in pieces of at most `CHUNK` bytes.

    Raises:
        ZipRefused: at the end, if size or checksum differ, or bytes follow the data.
    """
    name = repr(entry.name[:120])
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    at, end, size, crc = entry.start, entry.start + entry.packed, 0, 0
    while at < end:
        data = _read(file, at, min(CHUNK, end - at))
        at += len(data)
        try:
            for part in [data] if inflate is None else _inflated(inflate, data):
                size += len(part)
                crc = zlib.crc32(part, crc)
                yield part
        except zlib.error as error:
            raise ZipRefused(f"its entry {name} is damaged: {error}") from error
        if inflate is not None and inflate.unused_data:
            raise ZipRefused(f"its entry {name} has bytes after its data")
    ended = inflate is None or inflate.eof
    if not ended or (size, crc) != (entry.size, entry.crc):
        raise ZipRefused(f"its entry {name} does not have the stated size and checksum")


def _inflated(inflate: Any, data: bytes) -> Iterator[bytes]:
    while part := inflate.decompress(data, CHUNK):
        yield part
        data = inflate.unconsumed_tail


@dataclass(frozen=True, slots=True)
class _Record:
    """An entry as the directory describes it."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int
    plain: bool

    @property
    def label(self) -> str:
        return repr(self.name[:120].decode("utf-8", "replace"))


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    if at < 0:
        raise ZipRefused("it points before its beginning")
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise ZipRefused("it is cut off")
    return data


def _directory(file: BinaryIO, end: int) -> tuple[int, int, int]:
    """Return the number of entries, and size and start of the directory."""
    tail = _read(file, max(0, end - _END.size - 0xFFFF), min(end, _END.size + 0xFFFF))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ZipRefused("it is not a zip archive, or is cut off")
    _, *disks, here, count, size, start, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise ZipRefused("there are bytes after its directory")
    place = end - len(tail) + at
    narrow = (here, count, size, start)
    locator = tail[max(0, at - _LOCATOR.size) : at]
    if locator[:4] == b"PK\x06\x07":
        _, disk, place_64, number = _LOCATOR.unpack(locator)
        if place_64 != place - _LOCATOR.size - _END_64.size or disk or number > 1:
            raise ZipRefused("its directory is described in two places")
        record = _END_64.unpack(_read(file, place_64, _END_64.size))
        wide = record[6:]
        limits = (0xFFFF, 0xFFFF, _WIDE, _WIDE)
        if (
            record[:2] != (b"PK\x06\x06", _END_64.size - 12)
            or record[4:6] != (0, 0)
            or any(
                number not in (true, limit)
                for number, true, limit in zip(narrow, wide, limits, strict=True)
            )
        ):
            raise ZipRefused("its directory is described in two ways")
        (here, count, size, start), place = wide, place_64
        disks = [0 if each == 0xFFFF else each for each in disks]
    if any(disks) or here != count:
        raise ZipRefused("it is one part of several")
    if start + size != place:
        raise ZipRefused("there are bytes before its entries or around its directory")
    return count, size, start


def _central(data: bytes, count: int) -> Iterator[_Record]:
    at = 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\x01\x02":
            raise ZipRefused("its directory is damaged")
        (_, made_by, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, attributes,
         offset) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        at += _CENTRAL.size
        name, extra, comment = (
            data[at + sum(lengths[:each]) : at + sum(lengths[: each + 1])] for each in range(3)
        )
        at += sum(lengths)
        if at > len(data):
            raise ZipRefused("its directory is damaged")
        fields = _extra(extra, name)
        size, packed, offset = _widened(fields, (size, packed, offset))
        mode = attributes >> 16 if made_by >> 8 in (3, 19) else 0
        plain = not comment and not fields.keys() - {_ZIP64}
        if disk:
            raise ZipRefused("it is one part of several")
        yield _Record(name, flags, method, crc, packed, size, mode, offset, plain)
    if at != len(data):
        raise ZipRefused("its directory contains more than entries")


def _extra(data: bytes, name: bytes) -> dict[int, bytes]:
    """Return the extra fields of an entry by their number."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise ZipRefused("an extra field of an entry is damaged")
        kind, length = struct.unpack_from("<HH", data, at)
        value = data[at + 4 : at + 4 + length]
        at += 4 + length
        if at > len(data) or kind in fields:
            raise ZipRefused("an extra field of an entry is damaged, or is there twice")
        fields[kind] = value
    if fields.get(_UNICODE_PATH, b"?" * 5 + name)[5:] != name:
        raise ZipRefused(f"its entry {name[:120].decode('utf-8', 'replace')!r} has two names")
    return fields


def _widened(fields: dict[int, bytes], narrow: Sequence[int]) -> list[int]:
    """Return the numbers; those over 32 bits come from the ZIP64 extra field.

    The field should have only these; some programs write all of them there, however small.
    """
    value = fields.get(_ZIP64, b"")
    numbers = struct.unpack(f"<{len(value) // 8}Q", value) if len(value) % 8 == 0 else ()
    if not value:
        return list(narrow)
    wide = [at for at, number in enumerate(narrow) if number == _WIDE]
    places = wide if len(numbers) == len(wide) else list(range(len(numbers)))
    wide_numbers = dict(zip(places, numbers, strict=True))
    if not numbers or not set(wide) <= wide_numbers.keys() <= set(range(len(narrow))):
        raise ZipRefused("the sizes of an entry are damaged")
    if any(narrow[at] not in (number, _WIDE) for at, number in wide_numbers.items()):
        raise ZipRefused("the sizes of an entry are described in two ways")
    return [wide_numbers.get(at, number) for at, number in enumerate(narrow)]


def _entry(file: BinaryIO, one: _Record, after: int) -> Entry:
    """Return an entry whose local header agrees with the directory. It ends at offset `after`."""
    header = _LOCAL.unpack(_read(file, one.offset, _LOCAL.size))
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
    rest = _read(file, one.offset + _LOCAL.size, name_length + extra_length)
    fields = _extra(rest[name_length:], one.name)
    size, packed = _widened(fields, (size, packed))
    described = bool(one.flags & _DESCRIPTOR)
    same = (rest[:name_length], flags, method) == (one.name, one.flags, one.method)
    facts = ((crc, one.crc), (packed, one.packed), (size, one.size))
    if (
        signature != b"PK\x03\x04"
        or not same
        or any(local not in ((0, true) if described else (true,)) for local, true in facts)
    ):
        raise ZipRefused(f"its entry {one.label} is described in two ways")
    start = one.offset + _LOCAL.size + name_length + extra_length
    left = after - start - one.packed
    if described:
        _check_descriptor(file, one, start, left)
    elif left:
        raise ZipRefused(f"there are bytes after its entry {one.label}, or entries overlap")
    if one.flags & ~(_FLAGS | _ENCRYPTED):
        raise ZipRefused(f"its entry {one.label} has flags that are not known here")
    if one.method == STORED and one.packed != one.size:
        raise ZipRefused(f"its entry {one.label} is described in two ways")
    if one.name.endswith(b"/") and one.size:
        raise ZipRefused(f"its entry {one.label} is a folder with content")
    return Entry(
        name=_decoded(one),
        method=one.method,
        crc=one.crc,
        packed=one.packed,
        size=one.size,
        mode=one.mode,
        header=one.offset,
        start=start,
        encrypted=bool(one.flags & _ENCRYPTED),
        plain=one.plain and not described and not fields.keys() - {_ZIP64},
    )


def _check_descriptor(file: BinaryIO, one: _Record, start: int, left: int) -> None:
    """Raise ZipRefused unless the descriptor after an entry's data agrees with the directory."""
    if left not in _DESCRIPTORS:
        raise ZipRefused(f"there are bytes after its entry {one.label}, or entries overlap")
    if one.method == STORED and one.size:
        # A program that reads from the beginning cannot find the end of such an entry.
        raise ZipRefused(
            f"the local header of its entry {one.label}, which is not compressed, has no size"
        )
    data = _read(file, start + one.packed, left)
    *signature, crc, packed, size = struct.unpack(_DESCRIPTORS[left], data)
    if (signature or [b"PK\x07\x08"]) != [b"PK\x07\x08"] or (crc, packed, size) != (
        one.crc,
        one.packed,
        one.size,
    ):
        raise ZipRefused(f"its entry {one.label} is described in two ways")


def _decoded(one: _Record) -> str:
    """Return the name: UTF-8, which some programs do not flag, or DOS code page 437."""
    try:
        return one.name.decode("utf-8")
    except UnicodeDecodeError:
        if one.flags & _UTF_8:
            raise ZipRefused(f"its entry {one.label} has a name that is not UTF-8") from None
        return one.name.decode("cp437")
