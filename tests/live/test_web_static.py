"""The portal's assets as a browser gets them: small, named by their content, kept for a year."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.web_process import web

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

ASSET = re.compile(r'(?:href|src)="(/static/[^"]+)"')
FINGERPRINT = re.compile(r"\.[0-9a-f]{12}\.")
AGE = re.compile("max-age=([0-9]+), public, immutable")
YEAR_S = 365 * 24 * 3600


def test_assets_are_compressed_fingerprinted_and_kept(policy: Any, tmp_path: Path) -> None:
    with web(tmp_path) as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        page = client.get("/sign-in")
        assets = {path: client.get(path) for path in set(ASSET.findall(page.text))}
        documented = client.get("/api/docs/")

    assert len(assets) >= 5
    for path, answer in assets.items():
        assert answer.status_code == 200, path
        assert FINGERPRINT.search(path), path
        kept = AGE.fullmatch(answer.headers["cache-control"])
        assert kept, path
        assert int(kept[1]) >= YEAR_S, path
    scripts = [answer for path, answer in assets.items() if path.endswith((".js", ".css"))]
    assert {answer.headers["content-encoding"] for answer in scripts} == {"gzip"}
    sent = sum(answer.num_bytes_downloaded for answer in scripts)
    assert sent * 3 < sum(len(answer.content) for answer in scripts)
    assert documented.status_code == 200
