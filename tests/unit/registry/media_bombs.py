"""Files of few bytes that make a decoder work for minutes, or unpack to gigabytes."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image

from tests.unit.registry.media_files import animated, picture, saved


def _segments(data: bytes) -> list[bytes]:
    """The parts of a JPEG, each with its marker; those of scans with their data."""
    at, found = 2, []
    while data[at + 1] != 0xD9:
        end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[at + 1] == 0xDA:
            while data[end] != 0xFF or data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                end += 1
        found.append(data[at:end])
        at = end
    return found


def many_scans(scans: int, size: tuple[int, int] = (8000, 5000)) -> bytes:
    """A progressive JPEG whose scans are empty; each goes over all pixels, and looks for a marker
    at each block."""
    data = saved(Image.new("RGB", size), "JPEG", progressive=True, subsampling=0)
    parts = _segments(data)
    head = b"".join(each for each in parts if each[1] != 0xDA)
    restart = b"\xff\xdd\x00\x04\x00\x01"
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x00"
    body = scan + b"\x01" + (scan + b"\x10") * (scans - 1)
    return b"\xff\xd8" + head + restart + body + b"\xff\xd9"


def many_markers(count: int) -> bytes:
    data = picture(form="JPEG")
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def arithmetic() -> bytes:
    """A JPEG that states another way of compression, which takes ten times as long."""
    return picture(form="JPEG").replace(b"\xff\xc0", b"\xff\xc9")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def many_notes(count: int) -> bytes:
    """A PNG with notes that unpack to a megabyte each, as Pillow allows for each one."""
    note = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000))
    data = picture()
    return data[:33] + note * count + data[33:]


def many_chunks(count: int, kind: bytes = b"tEXt") -> bytes:
    data = picture()
    return data[:33] + chunk(kind, b"a\0") * count + data[33:]


def growing(frames: int, size: int) -> bytes:
    """A GIF whose first frame is small, and the later ones are not."""
    data = bytearray(animated("GIF"))
    for _ in range(frames):
        image = saved(Image.new("L", (size, size)), "GIF")
        at = image.index(b"\x2c")
        end = len(data) - 1
        data[end:end] = image[at:-1]
    return bytes(data)


def tiny_blocks(count: int) -> bytes:
    """A GIF with blocks of one byte."""
    data = saved(Image.new("L", (16, 16)), "GIF")
    return data[:-2] + b"\x01\x00" * count + b"\x00;"


def comments(count: int) -> bytes:
    data = saved(Image.new("L", (16, 16)), "GIF")
    at = data.index(b"\x2c")
    return data[:at] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * count + b"\x00" + data[at:]


def many_frames(count: int) -> bytes:
    """A WebP that repeats a frame."""
    data = animated("WEBP")
    at = data.index(b"ANMF")
    length = 8 + struct.unpack("<I", data[at + 4 : at + 8])[0]
    body = data[12:] + data[at : at + length] * count
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def marker_less(count: int) -> bytes:
    """A JPEG of fill bytes, between which a search for a marker could go back and forth."""
    return b"\xff\xd8" + b"\xff" * count


def wav_chunks(count: int) -> bytes:
    body = b"WAVE" + b"junk\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))
