"""The program espeak-ng for demos of speech: the machine's own, or Debian's, unpacked.

espeak-ng is under the GPL. It runs as a separate program and is not part of Assay.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from assay_demo.data.debian import fetch_debian
from assay_demo.data.materials import DEFAULT_FOLDER, MaterialsUnavailable, Say

_SECONDS = 30
_WAV_HEADER_BYTES = 44


def program_path(folder: Path = DEFAULT_FOLDER) -> Path:
    """Return the path of the machine's own program, or of `espeak_ng`'s unpacked one."""
    installed = shutil.which("espeak-ng")
    return Path(installed) if installed else folder / "espeak_ng_program" / "espeak-ng"


def espeak_ng(folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Return the path of the program.

    Raises:
        MaterialsUnavailable: the machine lacks it, and Debian's (amd64) cannot be fetched or run.
    """
    program = program_path(folder)
    if program.is_file():
        return program
    target = program.parent
    binary = fetch_debian("espeak_ng", folder, progress) / "espeak-ng"
    data = fetch_debian("espeak_ng_data", folder, progress)
    (target / "lib").mkdir(parents=True, exist_ok=True)
    for package in ("espeak_ng_library", "sonic"):
        for library in fetch_debian(package, folder, progress).glob("*.so.*"):
            # `libsonic.so.0.2.0` is loaded as `libsonic.so.0`.
            name, _, version = library.name.partition(".so.")
            shutil.copyfile(library, target / "lib" / f"{name}.so.{version.partition('.')[0]}")
    # The program is linked to libpcaudio, which needs PulseAudio, and servers rarely have that. It
    # is called only to play speech. The demo writes speech to files, so any library can replace it.
    shutil.copyfile(target / "lib" / "libsonic.so.0", target / "lib" / "libpcaudio.so.0")
    if not (target / "lib" / "espeak-ng-data").is_dir():
        shutil.copytree(data, target / "lib" / "espeak-ng-data")
    shutil.copyfile(binary, target / "espeak-ng.bin")
    (target / "espeak-ng.bin").chmod(0o755)
    where = shlex.quote(str((target / "lib").resolve()))
    start = shlex.quote(str((target / "espeak-ng.bin").resolve()))
    written = target / "espeak-ng.part"
    written.write_text(
        f'#!/bin/sh\nLD_LIBRARY_PATH={where} exec {start} --path={where} "$@"\n', encoding="utf-8"
    )
    written.chmod(0o755)
    # A file under the program's own name is a working program.
    if len(run(written, ["--stdout", "yes"])) < _WAV_HEADER_BYTES:
        raise MaterialsUnavailable("Debian's espeak-ng does not run on this machine.")
    written.rename(program)
    return program


def run(program: Path, arguments: Sequence[str]) -> bytes:
    """Return the output of the program. Raises MaterialsUnavailable when it fails."""
    try:
        return subprocess.run(
            [str(program), *arguments], capture_output=True, timeout=_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise MaterialsUnavailable(f"espeak-ng failed: {error}") from error
