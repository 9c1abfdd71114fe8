"""A zip archive is accepted only if a program that reads it from the beginning finds the same."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable

import pytest

from governance.zips import ZipRefused, ZipTooMany, zip_entries, zip_unpacked
from tests.unit.governance.zip_files import (
    EVIL,
    FORGED,
    GOOD,
    README,
    Part,
    by_its_directory,
    from_the_beginning,
    zipped,
)


class Stream(io.RawIOBase):
    """A target that cannot seek, so that a writer needs data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def unpacked(data: bytes) -> dict[str, bytes]:
    file = io.BytesIO(data)
    return {each.name: b"".join(zip_unpacked(file, each)) for each in zip_entries(file, most=9)}


def streamed() -> bytes:
    target = Stream()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.bin", GOOD)
        archive.writestr("README.txt", b"read me")
    return bytes(target.data)


def wide() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("model.bin", "w", force_zip64=True) as entry:
            entry.write(GOOD)
        archive.writestr("README.txt", b"read me")
    return target.getvalue()


def with_directory_of_64_bits() -> bytes:
    """As Java writes it where it is told to use 64 bits always."""
    data = zipped(Part(), README)
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<H2L", data, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


@pytest.mark.parametrize(
    "made",
    [
        lambda: zipped(Part(), README),
        lambda: zipped(Part(method=0), README),
        lambda: zipped(Part(descriptor="signed"), README),
        lambda: zipped(Part(descriptor="bare"), README),
        lambda: zipped(Part(descriptor="wide"), README),
        lambda: zipped(Part(), README, comment=b"3f8a91c0de commit"),
        lambda: zipped(
            Part(central={"extra": b"UT\5\0\3abcd"}, local={"extra": b"UT\5\0\3abcd"}), README
        ),
        streamed,
        wide,
        with_directory_of_64_bits,
    ],
)
def test_archives_of_common_programs_are_read(made: Callable[[], bytes]) -> None:
    data = made()
    assert unpacked(data) == {"model.bin": GOOD, "README.txt": b"read me"}
    assert unpacked(data) == by_its_directory(data) == dict(from_the_beginning(data))


def test_large_content_is_unpacked_in_pieces() -> None:
    content = random.Random(1).randbytes(300_000) + b"\0" * 9_000_000
    for method in (0, 8):
        file = io.BytesIO(zipped(Part(content=content, method=method)))
        (entry,) = zip_entries(file, most=1)
        pieces = list(zip_unpacked(file, entry))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= 1024 * 1024


@pytest.mark.parametrize("what", FORGED)
def test_an_archive_that_two_programs_read_differently_is_refused(what: str) -> None:
    with pytest.raises(ZipRefused) as refused:
        unpacked(FORGED[what]())
    assert str(refused.value)


def test_some_forgeries_do_show_other_content_to_other_programs() -> None:
    """Without this, the test above would say nothing."""
    for what in ("an archive before it", "an entry before the first", "an entry between two"):
        data = FORGED[what]()
        assert by_its_directory(data)["model.bin"] == GOOD
        assert ("model.bin", EVIL) in from_the_beginning(data)


def test_changed_bytes_are_refused_or_change_nothing_for_one_program_alone() -> None:
    drawn = random.Random(5)
    originals = [zipped(Part(), README), zipped(Part(descriptor="signed"), README), wide()]
    accepted = 0
    for _ in range(6_000):
        data = bytearray(drawn.choice(originals))
        for _ in range(drawn.choice((1, 1, 2))):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        try:
            found = unpacked(bytes(data))
        except ZipRefused:
            continue
        accepted += 1
        streamed_files = from_the_beginning(bytes(data))
        assert list(found.values()) == [content for _, content in streamed_files]
    # Times, versions and attributes may differ.
    assert accepted > 100


def test_an_archive_of_too_many_entries_is_not_read() -> None:
    with pytest.raises(ZipTooMany) as refused:
        zip_entries(io.BytesIO(zipped(Part(), README, end={"here": 9_999, "count": 9_999})), most=5)
    assert refused.value.entries == 9_999


def test_other_files_are_no_archives() -> None:
    for data in (b"", b"PK", b"PK\x05\x06" + b"\xff" * 18, b"\0" * 100, zipped(Part())[:-1]):
        with pytest.raises(ZipRefused):
            zip_entries(io.BytesIO(data), most=5)
