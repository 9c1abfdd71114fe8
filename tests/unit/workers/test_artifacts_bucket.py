"""Deliveries and datasets lie in a bucket, are read from it, and move to a folder and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.people.models import Department
from governance.principals import Principal
from registry import store
from registry.datasets.preview import dataset_media_open
from registry.datasets.services import dataset_create, dataset_version_add
from registry.knowledge.selectors import stored_text
from tests.unit.registry.knowledge_world import LEAVE, base, document
from tests.unit.registry.media_files import archive, picture
from tests.unit.registry.media_tasks import PICTURES, register
from tests.unit.registry.objects import Upload, sha256
from tests.unit.registry.test_store_bucket import bucket, bucket_backend, server, source
from tests.unit.workers import company
from workers.artifacts.copying import store_copy
from workers.artifacts.inspection import store_contents, store_faults

__all__ = ["bucket", "server"]  # Fixtures.
pytestmark = pytest.mark.django_db
CAT, DOG = picture(1), picture(2, form="JPEG")


def test_data_and_documents_are_stored_in_a_bucket_and_copied_to_a_folder(
    bucket: str,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(monkeypatch)
    lead, clinical = actor("Lena", "lead@clinical"), department("clinical")
    made = dataset_create(
        actor=lead,
        name="pictures",
        department=clinical,
        task=PICTURES.name,
        classification="internal",
        license="CC0-1.0",
    )
    files = archive({"cat/a.png": CAT, "dog/b.jpg": DOG})
    version = dataset_version_add(actor=lead, dataset=made, file=Upload("data.zip", files))
    embedding = company.version(company.model("tiny", "embeddings"))
    text = document(lead, base(lead, clinical, embedding)).text_sha256
    assert stored_text(text).encode() == LEAVE.strip()
    opened = dataset_media_open(actor=lead, id=version.pk, sha256=sha256(CAT), small=True)
    assert opened.content_type == "image/jpeg"
    assert list(store_faults()) == []
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []
    store.files_fetch([sha256(DOG), "0" * 64])
    assert (tmp_path / "cache" / "files" / sha256(DOG)[:2] / sha256(DOG)).exists()
    bucket_backend().remove(f"files/{sha256(CAT)[:2]}/{sha256(CAT)}")
    (lost,) = store_faults(hashes=False)
    assert (lost.kind, lost.owners) == ("missing", (f"dataset version {version.pk} ({version})",))
    bucket_backend().write(f"files/{sha256(CAT)[:2]}/{sha256(CAT)}", source(CAT))
    held = store_contents()
    assert held.missing == held.unneeded_objects == 0
    folder = (tmp_path / "folder").as_uri()
    assert store_copy(source=store.store_url(), target=folder).failed == []
    settings.STORE_URL = folder
    assert list(store_faults()) == []
    assert store_contents().objects == held.objects
