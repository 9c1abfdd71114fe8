"""Real data from Debian's archive: packages fetched by hash and unpacked, never installed."""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from assay_demo.data.materials import DEFAULT_FOLDER, DOWNLOAD_TIMEOUT_S, MaterialsUnavailable, Say

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One package. The files of `folder` are extracted; with `subfolders`, also all files below
    it."""

    name: str
    version: str
    sha256: str
    folder: str
    subfolders: bool = False


_LIBRARIES = "usr/lib/x86_64-linux-gnu"
PACKAGES = {
    "espeak_ng": DebianPackage(
        name="espeak-ng",
        version="1.52.0+dfsg-5",
        sha256="b64da7b5e21b3540a5cfe5a2fd5c650f6f366ffccb9b810eb337ea4677435d31",
        folder="usr/bin",
    ),
    "espeak_ng_data": DebianPackage(
        name="espeak-ng-data",
        version="1.52.0+dfsg-5",
        sha256="7c239b30e419897313b5b8c98123cf3ec871cfedbf43bbb956b985a492e37f19",
        folder=f"{_LIBRARIES}/espeak-ng-data",
        subfolders=True,
    ),
    "espeak_ng_library": DebianPackage(
        name="libespeak-ng1",
        version="1.52.0+dfsg-5",
        sha256="845886095f5be3ba7680c8e15de068f76d67600275cbd7b6f6c7d00e53c05b34",
        folder=_LIBRARIES,
    ),
    "fashion_mnist": DebianPackage(
        name="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        folder="usr/share/datasets/fashion-mnist",
    ),
    "librivox": DebianPackage(
        name="pocketsphinx-testdata",
        version="0.8+5prealpha+1-15",
        sha256="eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
        folder="usr/share/pocketsphinx/test/data/librivox",
    ),
    "sonic": DebianPackage(
        name="libsonic0",
        version="0.2.0-13+b1",
        sha256="07a1d67546465f07638be05f0931d79e0d6bb1a7831e1f67ac6611d1ba297009",
        folder=_LIBRARIES,
    ),
    # Debian's next security update replaces this version; then it must be pinned again.
    "python_faq": DebianPackage(
        name="python3.13-doc",
        version="3.13.5-2+deb13u5",
        sha256="a8a924637eeb25e666df5bbf7660ae09eb280be9effa39f9f6929e7a452bf65c",
        folder="usr/share/doc/python3.13/html/faq",
    ),
}


def fetch_debian(name: str, folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Return the folder with a package's files; download them if missing.

    Args:
        name: A key of `PACKAGES`.
        folder: The cache, which runs share.
        progress: Receives one line per step.

    Raises:
        MaterialsUnavailable: `apt-get` cannot fetch the package, or its bytes differ from the
        pinned ones.
    """
    package, target = PACKAGES[name], folder / name
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            if progress is not None:
                progress(f"downloading {package.name} {package.version}")
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                data = _download(package, Path(scratch))
                unpacked = Path(scratch) / "unpacked"
                _unpack(package, data, unpacked)
                unpacked.rename(target)
    return target


def _download(package: DebianPackage, scratch: Path) -> bytes:
    command = shutil.which("apt-get")
    if command is None:
        raise MaterialsUnavailable(
            f"{package.name} comes from Debian and needs apt-get, which is missing."
        )
    done = subprocess.run(
        [command, "download", "--quiet", f"{package.name}={package.version}"],
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_TIMEOUT_S,
        check=False,
        cwd=scratch,
    )
    file = next(iter(scratch.glob("*.deb")), None)
    if done.returncode or file is None:
        reason = (done.stderr.strip().splitlines() or ["apt-get printed no reason"])[-1]
        raise MaterialsUnavailable(f"{package.name} could not be fetched: {reason}")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise MaterialsUnavailable(f"The bytes of {package.name} differ from the pinned ones.")
    return data


def _unpack(package: DebianPackage, data: bytes, target: Path) -> None:
    """Write the regular files of the package's folder. The caller has verified `data`."""
    target.mkdir()
    for name, content in _members(data):
        if name != "data.tar.xz":
            continue
        with tarfile.open(fileobj=BytesIO(lzma.decompress(content))) as archive:
            for member in archive:
                path = _target_path(package, member)
                stream = archive.extractfile(member) if path is not None else None
                if path is not None and stream is not None:
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    (target / path).write_bytes(stream.read())
    if not any(target.iterdir()):
        raise MaterialsUnavailable(f"{package.name} has no files in {package.folder}.")


def _target_path(package: DebianPackage, member: tarfile.TarInfo) -> Path | None:
    """Return the path of a regular file below the package's folder; None for other members."""
    path, folder = Path(member.name), Path(package.folder)
    if not member.isfile() or not path.is_relative_to(folder) or ".." in path.parts:
        return None
    below = path.relative_to(folder)
    return below if package.subfolders or len(below.parts) == 1 else None


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an `ar` archive, the format of Debian packages."""
    if not data.startswith(_MAGIC):
        raise MaterialsUnavailable("The file is not a Debian package.")
    at = len(_MAGIC)
    while at + _HEADER_BYTES <= len(data):
        name = data[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(data[at + 48 : at + 58])
        start = at + _HEADER_BYTES
        yield name, data[start : start + size]
        at = start + size + size % 2
