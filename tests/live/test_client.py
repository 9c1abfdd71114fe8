"""`assay-client`, built from the OpenAPI document, against a real server."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.live.clients import OFFLINE
from tests.proofs import fresh_proof

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.django_db(transaction=True)]
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "put", "patch", "delete", "head")


@pytest.fixture
def wheel() -> Path:
    built = subprocess.run(
        [ROOT / "tools" / "client.sh"], capture_output=True, text=True, timeout=500, check=False
    )
    if built.returncode and OFFLINE.search(built.stderr):
        pytest.skip(f"The package index cannot be reached: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr[-3000:]
    (found,) = (ROOT / ".cache" / "client").glob("*.whl")
    return found


def test_the_client_has_every_operation_and_typed_answers(
    wheel: Path,
    policy: object,
    redis: object,
    person: Callable[..., Person],
    department: Callable[..., object],
    live_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = json.loads((ROOT / "client" / "openapi.json").read_text())
    operations = {
        operation["operationId"]
        for path, methods in document["paths"].items()
        # Nodes alone call the others.
        if path.startswith("/api/")
        for method, operation in methods.items()
        if method in METHODS
    }
    modules = zipfile.ZipFile(wheel).namelist()
    assert operations <= {Path(module).stem for module in modules if "/api/" in module}
    assert "assay_client/py.typed" in modules

    monkeypatch.syspath_prepend(str(wheel))
    from assay_client import AuthenticatedClient
    from assay_client.api.models import model_get, models_get, models_post
    from assay_client.models import ModelAnswer, NewModelRequest, Problem

    department("clinical")
    _, token = access_token_create(person=person("Ada", "admin"), name="t", proof=fresh_proof())
    client = AuthenticatedClient(live_server.url, token=token)
    body = NewModelRequest(name="notes", department="clinical", task="embeddings")
    created = models_post.sync(client=client, body=body)
    assert isinstance(created, ModelAnswer)
    assert (created.name, created.created_at.tzinfo is not None) == ("notes", True)
    page = models_get.sync(client=client)
    assert [model.name for model in page.results] == ["notes"]
    refusal = model_get.sync(client=client, name="none")
    assert isinstance(refusal, Problem)
    assert refusal.status == 404
    assert "does not exist, or you may not see it" in refusal.detail
