"""Uploads in parts through the web process itself, over connections that die."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.uploads import files
from registry.uploads.models import Upload
from registry.versions.models import Model
from tests.live.web_process import web
from tests.proofs import fresh_proof
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
DATA = bytes(range(256)) * 40_000
PART = 4 * 1024 * 1024


def test_a_connection_that_dies_loses_its_part_alone(
    policy: object, redis: object, person: Callable[..., Person], department: Callable[..., object],
    tmp_path: Path,
) -> None:  # fmt: skip
    department("clinical")
    devi = person("Devi", "developer@clinical")
    clinical = devi.role_assignments.get().department
    assert clinical is not None
    Model.objects.create(
        name="sentiment", department=clinical, task="text-classification", created_by=devi
    )
    _, token = access_token_create(person=devi, name="cli", proof=fresh_proof())
    # With the tests' folder of data, so that this process sees what the other one wrote.
    with (
        web(tmp_path) as (url, _),
        httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60
        ) as client,
    ):
        made = client.post(
            "/api/v1/uploads",
            json={
                "kind": "intake", "target": "sentiment", "filename": "model.safetensors",
                "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest(),
            },
        )  # fmt: skip
        assert made.status_code == 201, made.text
        place = made.headers["location"]

        def part(offset: int) -> httpx.Response:
            return client.patch(
                place,
                content=DATA[offset : offset + PART],
                headers={
                    "content-type": "application/offset+octet-stream",
                    "upload-offset": str(offset),
                },
            )

        assert part(0).headers["upload-offset"] == str(PART)
        # Half of the next part, and the connection is gone.
        head = (
            f"PATCH {place} HTTP/1.1\r\nHost: assay\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: {PART}\r\n"
            f"Content-Length: {PART}\r\n\r\n"
        )
        where = urlsplit(url)
        with socket.create_connection((where.hostname, where.port), timeout=30) as spoken:
            spoken.sendall(head.encode() + DATA[PART : PART + PART // 2])
        asked = client.head(place)
        assert (asked.status_code, asked.headers["upload-offset"]) == (200, str(PART))
        too_large = client.patch(
            place,
            content=bytes(18 * 1024 * 1024),
            headers={
                "content-type": "application/offset+octet-stream",
                "upload-offset": str(PART),
            },
        )
        assert too_large.status_code == 413
        offset = PART
        while offset < len(DATA):
            offset = int(part(offset).headers["upload-offset"])
        whole = client.get(place).json()
        assert whole["completed_at"] is not None
        assert Upload.objects.get(pk=whole["id"]).received == len(DATA)
        assert client.delete(place).status_code == 204
        wait_until(lambda: not files.upload_file(whole["id"]).exists())
        assert client.head(place).status_code == 404
