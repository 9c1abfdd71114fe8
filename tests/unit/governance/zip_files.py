"""Zip archives byte by byte, sound and forged, and a reader that reads them from the beginning."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

GOOD, EVIL = b"approved " * 40, b"forged!! " * 40


@dataclass
class Part:
    """One entry. `local` and `central` change what the headers say, by the field's name."""

    name: bytes = b"model.bin"
    content: bytes = GOOD
    method: int = 8
    flags: int = 0
    descriptor: str = ""
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)
    after_data: bytes = b""
    before: bytes = b""


def deflated(content: bytes) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return pack.compress(content) + pack.flush()


def local(part: Part, *, packed: bytes | None = None) -> bytes:
    """Return a local header with its data, and its descriptor if it has one."""
    data = packed if packed is not None else _data(part)
    said = {
        "signature": b"PK\x03\x04",
        "flags": part.flags | (8 if part.descriptor else 0),
        "method": part.method,
        "crc": zlib.crc32(part.content),
        "packed": len(data),
        "size": len(part.content),
        "name": part.name,
        "extra": b"",
    }
    if part.descriptor:
        said |= {"crc": 0, "packed": 0, "size": 0}
    said |= part.local
    header = struct.pack(
        "<4s5H3L2H",
        said["signature"], 20, said["flags"], said["method"], 0, 33, said["crc"], said["packed"],
        said["size"], len(said["name"]), len(said["extra"]),
    )  # fmt: skip
    after = b""
    if part.descriptor:
        numbers = (zlib.crc32(part.content), len(data), len(part.content))
        after = b"PK\x07\x08" + struct.pack("<LLL", *numbers)
        if part.descriptor == "bare":
            after = after[4:]
        elif part.descriptor == "wide":
            after = b"PK\x07\x08" + struct.pack("<LQQ", *numbers)
        elif part.descriptor == "forged":
            after = b"PK\x07\x08" + struct.pack("<LLL", 1, 2, 3)
    return part.before + header + said["name"] + said["extra"] + data + part.after_data + after


def _data(part: Part) -> bytes:
    return deflated(part.content) if part.method == 8 else part.content


def central(part: Part, offset: int) -> bytes:
    data = _data(part)
    said = {
        "made_by": 3 << 8 | 20,
        "flags": part.flags | (8 if part.descriptor else 0),
        "method": part.method,
        "crc": zlib.crc32(part.content),
        "packed": len(data),
        "size": len(part.content),
        "name": part.name,
        "extra": b"",
        "comment": b"",
        "disk": 0,
        "mode": 0o100644,
        "offset": offset + len(part.before),
    } | part.central
    head = struct.pack(
        "<4s6H3L5H2L",
        b"PK\x01\x02", said["made_by"], 20, said["flags"], said["method"], 0, 33, said["crc"],
        said["packed"], said["size"], len(said["name"]), len(said["extra"]), len(said["comment"]),
        said["disk"], 0, said["mode"] << 16, said["offset"],
    )  # fmt: skip
    return head + said["name"] + said["extra"] + said["comment"]


def zipped(
    *parts: Part,
    prefix: bytes = b"",
    suffix: bytes = b"",
    before_directory: bytes = b"",
    after_directory: bytes = b"",
    comment: bytes = b"",
    end: dict[str, int] | None = None,
    start_of_all: int = 0,
) -> bytes:
    """Return an archive of these entries; offsets count from the end of `prefix` where
    `start_of_all` says so."""
    body, directory = prefix, b""
    for part in parts:
        directory += central(part, len(body) - start_of_all)
        body += local(part)
    body += before_directory
    said = {
        "disk": 0, "here": len(parts), "count": len(parts), "size": len(directory),
        "start": len(body) - start_of_all,
    } | (end or {})  # fmt: skip
    tail = struct.pack(
        "<4s4H2LH",
        b"PK\x05\x06", said["disk"], 0, said["here"], said["count"], said["size"], said["start"],
        len(comment),
    )  # fmt: skip
    return body + directory + after_directory + tail + comment + suffix


def from_the_beginning(data: bytes) -> list[tuple[str, bytes]]:
    """Read an archive as `jar` and other programs do that get it as a stream."""
    files: list[tuple[str, bytes]] = []
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":
        _, _, flags, method, _, _, _, packed, size, name_length, extra = struct.unpack_from(
            "<4s5H3L2H", data, at
        )
        at += 30
        name, fields = data[at : at + name_length], data[at + name_length :][:extra]
        at += name_length + extra
        if 0xFFFFFFFF in (packed, size) and fields[:2] == b"\x01\x00":
            size, packed = struct.unpack_from("<QQ", fields, 4)
        if method == 8:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            content = inflate.decompress(data[at:])
            at = len(data) - len(inflate.unused_data)
        else:
            content = data[at : at + size]
            at += size
        if flags & 8:
            signed = data[at : at + 4] == b"PK\x07\x08"
            at += 4 if signed else 0
            wide = data[at + 12 : at + 14] != b"PK"
            at += 20 if wide else 12
        files.append((name.decode("utf-8", "replace"), content))
    return files


def by_its_directory(data: bytes) -> dict[str, bytes]:
    """Read an archive as Python and `unzip` do."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def _extra(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


OTHER = Part(b"model.bin", EVIL)
README = Part(b"README.txt", b"read me")
_HEADER = len(local(Part()))

# By what is wrong; each holds `model.bin` with GOOD for a reader that uses the directory.
FORGED: dict[str, Callable[[], bytes]] = {
    "an archive before it": lambda: zipped(
        Part(), prefix=local(OTHER), start_of_all=len(local(OTHER))
    ),
    "an entry before the first": lambda: zipped(Part(), prefix=local(OTHER)),
    "a program before it": lambda: zipped(Part(), prefix=b"MZ" + bytes(98)),
    "an entry between two": lambda: zipped(README, Part(before=local(OTHER))),
    "an entry after the last": lambda: zipped(Part(), before_directory=local(OTHER)),
    "bytes after the directory": lambda: zipped(Part(), after_directory=b"x" * 8),
    "an archive after it": lambda: zipped(Part()) + zipped(OTHER)[:-1],
    "bytes after the end": lambda: zipped(Part(), suffix=b"\0"),
    "an end within the comment": lambda: zipped(
        OTHER, comment=b"x" + zipped(Part(), prefix=b"")
    ),
    "a comment longer than stated": lambda: zipped(Part(), comment=b"hello", suffix=b"!"),
    "another name in the local header": lambda: zipped(Part(local={"name": b"model.bim"})),
    "a longer name in the local header": lambda: zipped(Part(local={"name": b"a/model.bin"})),
    "another method in the local header": lambda: zipped(Part(method=0, local={"method": 8})),
    "another size in the local header": lambda: zipped(Part(local={"size": 7})),
    "another packed size in the local header": lambda: zipped(Part(method=0, local={"packed": 7})),
    "another checksum in the local header": lambda: zipped(Part(local={"crc": 7})),
    "other flags in the local header": lambda: zipped(Part(local={"flags": 0x800})),
    "no local header": lambda: zipped(Part(local={"signature": b"PK\x03\x05"})),
    "two entries on one": lambda: zipped(
        Part(), README, end={}
    ).replace(central(README, _HEADER), central(Part(b"README.txt"), 0)),
    "entries that overlap": lambda: zipped(
        Part(method=0, content=local(OTHER)), Part(central={"offset": 30 + 9})
    ),
    "bytes after the compressed data": lambda: zipped(
        Part(
            after_data=local(OTHER),
            local={"packed": len(deflated(GOOD)) + len(local(OTHER))},
            central={"packed": len(deflated(GOOD)) + len(local(OTHER))},
        )
    ),
    "a gap before the descriptor": lambda: zipped(Part(descriptor="signed", after_data=b"gap")),
    "a forged descriptor": lambda: zipped(Part(descriptor="forged")),
    "no end of a stored entry": lambda: zipped(Part(method=0, descriptor="signed")),
    "two names": lambda: zipped(
        Part(central={"extra": _extra(0x7075, b"\1" + bytes(4) + b"evil.bin")})
    ),
    "a second name in the local header": lambda: zipped(
        Part(local={"extra": _extra(0x7075, b"\1" + bytes(4) + b"evil.bin")})
    ),
    "sizes of 64 bits that nothing asks for": lambda: zipped(
        Part(central={"extra": _extra(1, struct.pack("<Q", 5))})
    ),
    "a damaged extra field": lambda: zipped(Part(central={"extra": b"\1\0\xff"})),
    "an extra field twice": lambda: zipped(Part(central={"extra": _extra(9, b"a") * 2})),
    "another disk": lambda: zipped(Part(central={"disk": 1})),
    "the end of another disk": lambda: zipped(Part(), end={"disk": 1}),
    "fewer entries than there are": lambda: zipped(README, Part(), end={"here": 1, "count": 1}),
    "more entries than there are": lambda: zipped(Part(), end={"here": 2, "count": 2}),
    "two counts": lambda: zipped(Part(), end={"here": 2}),
    "a directory elsewhere": lambda: zipped(Part(), end={"start": 5}),
    "a locator without its record": lambda: zipped(
        Part(central={"comment": b"PK\x06\x07" + bytes(16)})
    ),
    "a patch": lambda: zipped(Part(flags=0x20)),
    "strong encryption": lambda: zipped(Part(flags=0x40)),
    "hidden headers": lambda: zipped(Part(flags=0x2000)),
    "a folder with content": lambda: zipped(Part(b"model.bin/")),
    "stored data of another size": lambda: zipped(
        Part(method=0, local={"size": 3}, central={"size": 3})
    ),
    "a name that is not the UTF-8 that it claims": lambda: zipped(Part(b"\xff.bin", flags=0x800)),
}  # fmt: skip
