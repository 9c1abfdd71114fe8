"""Fingerprints of row inputs, by which duplicates and leaks are counted."""

from __future__ import annotations

import hashlib


def input_fingerprint(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ only in letter case and white space."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "replace")).digest()[
        :16
    ]
