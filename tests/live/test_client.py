"""Clients generated from the OpenAPI documents; `assay-client` against a real server."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.api.inference_description import inference_description
from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.live.clients import OFFLINE, environment
from tests.proofs import fresh_proof

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "put", "patch", "delete", "head")


# Media ranges of bodies, which the generator does not know.
RANGES = {f"{kind}/*": "application/octet-stream" for kind in ("audio", "image", "video")}
IMPORT_ALL = """
import importlib, inference_client, pkgutil
for module in pkgutil.walk_packages(inference_client.__path__, "inference_client."):
    importlib.import_module(module.name)
from inference_client.api.text_classification import classify
from inference_client.models import TextClassificationClassifyRequest
print(TextClassificationClassifyRequest(model="grades", input_="good").to_dict(), classify.__name__)
"""


def test_a_client_of_the_inference_api_is_generated_with_every_operation(tmp_path: Path) -> None:
    document = inference_description()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "generator.json").write_text(
        json.dumps({"post_hooks": [], "content_type_overrides": RANGES})
    )
    python = environment(ROOT / "locks" / "client.txt")
    made = subprocess.run(
        [python, "-m", "openapi_python_client", "generate", "--meta=none", "--fail-on-warning",
         "--path=openapi.json", "--config=generator.json", "--output-path=inference_client"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-3000:]
    names = {path.stem for path in (tmp_path / "inference_client" / "api").rglob("*.py")}
    for methods in document["paths"].values():
        for described in methods.values():
            assert described["operationId"] in names
    imported = subprocess.run(
        [python, "-c", IMPORT_ALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 0, imported.stderr[-3000:]
    assert "'model': 'grades', 'input': 'good'" in imported.stdout


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


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
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
