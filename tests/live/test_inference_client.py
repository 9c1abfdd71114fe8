"""A client that is generated from the inference API's OpenAPI document."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from assay.api.inference_description import inference_description
from tests.live.clients import python_of

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
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
    python = python_of(ROOT / "locks" / "client.txt")
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
