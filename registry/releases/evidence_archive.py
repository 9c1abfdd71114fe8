"""The archive of an evidence pack: files, their manifest, and the signature of the manifest.

Pure: bytes in, bytes out. The same files give the same archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from governance.audit.attesting import Attestation
from registry.releases.evidence_verifier import FORMAT

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
# The earliest time that ZIP allows, for all files; the manifest states when the pack was made.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o100644 << 16


def readable_json(value: Any) -> bytes:
    """Return JSON that people can read too: indented, sorted."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


def manifest_bytes(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """Return the manifest: `about` with the path, SHA-256 and size of every file."""
    listed = [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(files.items())
    ]
    return readable_json({"format": FORMAT, **about, "files": listed})


def manifest_attestation(manifest: bytes, *, release_id: int) -> Attestation:
    """Return the signed content of a pack: its release and its manifest's digest."""
    digest = hashlib.sha256(manifest).hexdigest()
    return Attestation(kind="evidence", subject=f"release {release_id}", digest=digest)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a .zip with the files in the order of their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, _READABLE
            packed.writestr(entry, data)
    return buffer.getvalue()
