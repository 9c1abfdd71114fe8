"""Real rows, real files and real little weights for the tests of the registry."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.utils import timezone

from governance.people.models import Department, Person
from registry import store
from registry.catalog import get_row_kind
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.parsing import parse_dataset
from registry.evaluations.models import Evaluation
from registry.evaluations.services import evaluation_record
from registry.intake.models import Intake, IntakeState
from registry.manifests import Manifest, build_manifest
from registry.versions.models import Model, ModelVersion

CLASSIFY = "text-classification"


class Upload:
    """A file as Django's upload handlers give it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name: str | None = name
        self.size: int | None = len(content)
        self._content = content

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), 1000):
            yield self._content[start : start + 1000]


def safetensors(header: Any = None, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    """A safetensors file by hand; `header` and its stated `length` may be wrong on purpose."""
    if header is None:
        header = {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf(
    *, version: int = 3, tensors: int = 1, keys: int = 1, offset: int = 0, data: bytes = b"\0" * 16
) -> bytes:
    """A GGUF file with one F32 tensor of four numbers; counts may be wrong on purpose."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys)
    head += gguf_string("general.architecture") + struct.pack("<I", 8) + gguf_string("llama")
    head += gguf_string("weight") + struct.pack("<IQIQ", 1, 4, 0, offset)
    return head + b"\0" * (-len(head) % 32) + data


def delivery(**changes: bytes) -> list[Upload]:
    """A delivery that passes every check; `changes` replaces or adds files by name."""
    files = {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors": safetensors(),
        **{name.replace("__", "."): content for name, content in changes.items()},
    }
    return [Upload(name, content) for name, content in files.items()]


def lora_files(byte: bytes = b"\1") -> dict[str, bytes]:
    """The files of an adapter that passes every check, with weights of this byte."""
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    weights = {"q_proj.lora_A.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    return {
        "adapter_config.json": json.dumps(settings).encode(),
        "adapter_model.safetensors": safetensors(weights, byte * 16),
    }


def model(
    owner: Person,
    department: Department,
    name: str = "sentiment",
    task: str = CLASSIFY,
    shared: bool = False,
) -> Model:
    return Model.objects.create(
        name=name, department=department, task=task, shared=shared, created_by=owner
    )


def stored(files: dict[str, bytes], base_digest: str | None = None) -> Manifest:
    """`files` in the artifact store, under the manifest's digest."""
    with tempfile.TemporaryDirectory(dir=settings.DATA_DIR.parent) as scratch:
        for name, content in files.items():
            (Path(scratch) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).write_bytes(content)
        manifest = build_manifest(Path(scratch), base_digest=base_digest)
        store.adopt(Path(scratch), manifest)
    return manifest


def version(
    of: Model,
    creator: Person,
    kind: str = "base",
    base: ModelVersion | None = None,
    *,
    files: dict[str, bytes] | None = None,
    **fields: Any,
) -> ModelVersion:
    files = files or {"model.safetensors": f"{of.name} {kind} {uuid4()}".encode()}
    manifest = stored(files, base.digest if base is not None and kind != "full" else None)
    return ModelVersion.objects.create(
        model=of,
        number=of.versions.count() + 1,
        kind=kind,
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        job_id=uuid4(),
        created_by=creator,
        **{"license": "Apache-2.0", "card": "# A card", **fields},
    )


def taken_in(base: ModelVersion, submitter: Person, signer: Person) -> Intake:
    """The signed intake of a base version."""
    return Intake.objects.create(
        model=base.model,
        state=IntakeState.TRUSTED,
        source="a supplier",
        license=base.license,
        version=base,
        digest=base.digest,
        submitted_by=submitter,
        signed_by=signer,
        decided_at=timezone.now(),
    )


def data(
    owner: Person,
    department: Department,
    name: str,
    rows: list[dict[str, Any]],
    task: str = CLASSIFY,
) -> DatasetVersion:
    """The first version of a new dataset, with its file in the store."""
    dataset = Dataset.objects.create(
        name=name,
        department=department,
        task=task,
        classification="internal",
        license="CC0",
        created_by=owner,
    )
    scratch = Path(tempfile.mkdtemp(dir=settings.DATA_DIR.parent))
    source, target = scratch / "rows", scratch / "data.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parsed = parse_dataset(
        source=source,
        name="rows.jsonl",
        target=target,
        row_kind=get_row_kind(task, ""),
        columns=None,
    )
    store.file_put(target, parsed.digest)
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=1,
        digest=parsed.digest,
        rows=parsed.rows,
        size_bytes=parsed.size_bytes,
        schema={},
        profile=parsed.profile,
        created_by=owner,
    )


def evaluation(of: ModelVersion, on: DatasetVersion, by: Person, **fields: Any) -> Evaluation:
    """An evaluation that started a minute from now, so that gates set until now count."""
    return evaluation_record(
        **{
            "job_id": uuid4(),
            "version": of,
            "dataset_version": on,
            "metrics": {"accuracy": 0.8, "macro_f1": 0.7},
            "baseline": {"accuracy": 0.65, "macro_f1": 0.26},
            "baseline_name": "majority class",
            "details": {"confusion": [[8, 2], [2, 8]]},
            "sample_size": on.rows,
            "started_at": timezone.now() + timedelta(minutes=1),
            "created_by": by,
            **fields,
        }
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
