"""Garbage collection and checks while access is denied, and by two controllers at once."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import urllib3
from botocore.awsrequest import AWSResponse
from django.db import connections

from governance.principals import service_principal
from registry.storage import store
from registry.storage.backend import StoreUnavailable, file_key, record_key
from registry.versions.models import ModelVersion
from tests.unit.audit_support import bodies
from tests.unit.registry.test_store_bucket import bucket, bucket_backend, server
from tests.unit.workers import company
from tests.unit.workers.test_artifacts import AGE, age_all, made, pictures
from workers.storage.collection import store_collect
from workers.storage.inspection import FaultKind, store_faults

__all__ = ["bucket", "server"]  # Fixtures.
pytestmark = pytest.mark.django_db
NOBODY = 65534


@pytest.fixture
def root(settings: Any) -> Iterator[Path]:
    """The folder of the store, which others may enter, as those of pytest's folders may not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    settings.STORE_URL = (folder / "store").as_uri()
    yield folder / "store"
    shutil.rmtree(folder)


@contextmanager
def denied(path: Path) -> Iterator[None]:
    """Deny access to a file or folder, to root too."""
    before, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(before)


def place(key: str) -> Path:
    path = store.backend().path(key)
    assert path is not None
    return path


def weights(version: ModelVersion) -> Path:
    return place(file_key(version.manifest["files"][-1]["sha256"]))


def test_a_file_that_may_not_be_read_is_unreadable_and_the_others_are_checked(root: Path) -> None:
    version, other = (
        company.version(company.model(name, "text-classification")) for name in ("one", "two")
    )
    weights(other).chmod(0o644)
    weights(other).write_bytes(bytes(weights(other).stat().st_size))
    with denied(weights(version)):
        found = {fault.kind: fault for fault in store_faults()}
    assert found.keys() == {FaultKind.UNREADABLE, FaultKind.DAMAGED}
    assert found[FaultKind.UNREADABLE].owners == (f"version {version.pk} ({version})",)
    assert "Permission denied" in found[FaultKind.UNREADABLE].detail
    with denied(root), pytest.raises(StoreUnavailable, match="Permission denied"):
        list(store_faults())


@pytest.mark.parametrize("what", ["list", "folder"])
def test_what_may_not_be_listed_or_read_removes_nothing(
    root: Path, tmp_path: Path, what: str
) -> None:
    data, _ = pictures(tmp_path)
    garbage = made(tmp_path, weights="garbage")
    age_all(root)
    before = {entry.key for entry in store.backend().entries()}
    path = place(record_key("media-lists", data.digest, ".tsv"))
    with denied(path if what == "list" else place(file_key(garbage.digest)).parent):
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            store_collect(actor=service_principal("test"), age=AGE, apply=True)
        if what == "list":
            (fault,) = store_faults()
            assert (fault.kind, fault.detail) == (FaultKind.UNREADABLE, "it cannot be read")
    assert {entry.key for entry in store.backend().entries()} == before


def test_objects_that_may_not_be_read_or_listed_are_unreadable_and_stay(bucket: str) -> None:
    version = company.version(company.model("one", "text-classification"))
    closed = file_key(version.manifest["files"][-1]["sha256"])

    def deny(request: Any, **_: Any) -> AWSResponse | None:
        if closed not in request.url and "list-type" not in request.url:
            return None
        said = io.BytesIO(b"<Error><Code>AccessDenied</Code></Error>")
        return AWSResponse("", 403, {}, urllib3.HTTPResponse(said, preload_content=False))

    events = bucket_backend()._client.meta.events
    events.register_first("before-send.s3.GetObject", deny)
    (fault,) = store_faults()
    assert (fault.kind, fault.key) == (FaultKind.UNREADABLE, closed)
    assert "refuses the credentials" in fault.detail
    before = {entry.key for entry in store.backend().entries()}
    events.register_first("before-send.s3.ListObjectsV2", deny)
    with pytest.raises(StoreUnavailable, match="refuses the credentials"):
        store_collect(actor=service_principal("test"), age=AGE, apply=True)
    events.unregister("before-send.s3.ListObjectsV2", deny)
    assert {entry.key for entry in store.backend().entries()} == before


@pytest.mark.django_db(transaction=True)
def test_two_collections_at_the_same_time_remove_and_record_each_object_once(
    root: Path, tmp_path: Path
) -> None:
    for number in range(3):
        made(tmp_path, weights=f"garbage {number}")
    (root / ".incoming" / "left").write_text("half a file")
    age_all(root)
    needless = {entry.key for entry in store.backend().entries()} | {".incoming/left"}
    together = Barrier(2)

    def collect() -> int:
        together.wait()
        try:
            return store_collect(actor=service_principal("test"), age=AGE, apply=True).removed
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        removed = [each.result() for each in [pool.submit(collect) for _ in range(2)]]
    recorded = [key for body in bodies(action="store:collect") for key in body["data"]["keys"]]
    assert sorted(recorded) == sorted(needless)
    assert sum(removed) == len(needless) - 1
    assert not list(store.backend().entries())
