"""The store in a bucket: uploads and downloads go on where they broke, and fail with a reason."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from botocore.awsrequest import AWSResponse
from django.core.exceptions import ImproperlyConfigured

from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch, build_manifest
from registry.storage import s3, store
from registry.storage.backend import Source, StoreUnavailable, file_key
from registry.storage.s3 import S3Backend, S3Options
from tests.unit.registry.test_store import syncs

pytestmark = pytest.mark.sweep

PART = 5 * 1024**2
BIG = bytes(range(256)) * (PART // 128)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    from moto.server import ThreadedMotoServer  # It takes a second to load.

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()
    running.stop()


@pytest.fixture
def bucket(server: tuple[str, int], settings: Any, tmp_path: Path) -> str:
    """A new bucket, which the settings name."""
    import boto3

    name = f"store-{uuid4().hex}"
    settings.STORE_S3_ENDPOINT_URL = "http://{}:{}".format(*server)
    settings.STORE_URL = f"s3://{name}/assay"
    settings.STORE_S3_REGION = "us-east-1"
    settings.STORE_S3_PATH_STYLE = True
    settings.STORE_ACCESS_KEY_ID = settings.STORE_SECRET_ACCESS_KEY = "test"
    settings.STORE_CACHE_DIR = str(tmp_path / "cache")
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings.STORE_S3_ENDPOINT_URL,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=name)
    return name


def made(folder: Path, **files: bytes) -> Manifest:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return build_manifest(folder)


def bucket_backend() -> S3Backend:
    backend = store.backend()
    assert isinstance(backend, S3Backend)
    return backend


def calls(backend: S3Backend, operation: str) -> list[Any]:
    """Note each call of an operation from now on."""
    noted: list[Any] = []
    backend._client.meta.events.register(
        f"before-call.s3.{operation}", lambda **about: noted.append(about["params"])
    )
    return noted


def source(data: bytes, **stated: Any) -> Source:
    sha256 = build_sha256(data)
    return Source(io.BytesIO(data), "a", **{"sha256": sha256, "size": len(data), **stated})


def build_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Breaking(io.BytesIO):
    """A file on a disk that fails after so many bytes."""

    left = PART + PART // 2

    def read(self, size: int | None = -1) -> bytes:
        if self.left <= 0:
            raise OSError(5, "Input/output error")
        data = super().read(size)
        self.left -= len(data)
        return data


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART)


def test_a_version_in_a_bucket_is_read_through_a_verified_cache(
    bucket: str, tmp_path: Path, settings: Any
) -> None:
    manifest = made(tmp_path / "made", config=b"{}", weights=BIG, twin=BIG, empty=b"")
    store.adopt(tmp_path / "made", manifest)
    store.adopt(tmp_path / "made", manifest)
    assert store.has_version(manifest.digest)
    stored = {entry.sha256: entry.size for entry in bucket_backend().entries()}
    assert stored == {
        manifest.digest: len(manifest.canonical),
        **{file.sha256: file.size for file in manifest.files},
    }
    store.copy_version(manifest, tmp_path / "copy")
    assert build_manifest(tmp_path / "copy").digest == manifest.digest
    gets = calls(bucket_backend(), "GetObject")
    store.verify_version(manifest)
    assert gets == []
    assert b"".join(bucket_backend().chunks(file_key(build_sha256(b"")))) == b""
    settings.STORE_CACHE_BYTES = 10
    small = made(tmp_path / "small", note=b"one more")
    store.adopt(tmp_path / "small", small)
    store.verify_version(small)
    kept = [file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert kept == [len(b"one more")]


def test_a_fetched_file_is_on_the_disk_before_it_has_its_name(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = file_key(build_sha256(b"x"))
    bucket_backend().write(key, source(b"x"))
    synced = syncs(monkeypatch)
    store.file_open(build_sha256(b"x")).close()
    partial = tmp_path / "cache" / ".partial" / key.replace("/", "-")
    assert synced[0] == (partial, False)
    assert synced[-1] == ((tmp_path / "cache" / key).parent, True)


def test_an_upload_goes_on_with_the_parts_that_it_lacks(bucket: str) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    broken = Breaking(BIG)
    with pytest.raises(FilesUnreadable, match="Input/output error"):
        backend.write(key, Source(broken, "a", build_sha256(BIG), len(BIG)))
    assert backend.find(key) is None
    sent = calls(backend, "UploadPart")
    backend.write(key, source(BIG))
    assert len(sent) == 1
    assert b"".join(backend.chunks(key)) == BIG
    assert list(backend._uploads("")) == []


def test_two_writers_of_one_object_share_an_upload_and_do_not_end_each_others(bucket: str) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    with pytest.raises(FilesUnreadable):
        backend.write(key, Source(Breaking(BIG), "a", build_sha256(BIG), len(BIG)))
    wrong = b"!" + BIG[1:]
    with pytest.raises(ManifestMismatch):
        backend.write(key, Source(io.BytesIO(wrong), "a", build_sha256(BIG), len(BIG)))
    assert len(list(backend._uploads(""))) == 1
    backend.write(key, source(BIG))
    assert b"".join(backend.chunks(key)) == BIG


class Interfering(io.BytesIO):
    """A file whose upload another process ends when all parts are sent."""

    between: Any = None

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == len(BIG) and self.between is not None:
            between, self.between = self.between, None
            between()
        return super().read(size)


@pytest.mark.parametrize("completed", [True, False])
def test_an_upload_that_another_process_ended_is_no_failure(bucket: str, completed: bool) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    file = Interfering(BIG)
    # In the place of the server of the tests, which fails with 500.
    event = "before-send.s3.CompleteMultipartUpload"
    gone = io.BytesIO(b"<Error><Code>NoSuchUpload</Code></Error>")
    answers = [AWSResponse("", 404, {}, urllib3.HTTPResponse(gone, preload_content=False))]

    def end() -> None:
        if completed:
            backend.write(key, source(BIG))
        else:
            assert len(backend.remove_unfinished(datetime.now(UTC), apply=True)) == 1
        backend._client.meta.events.register_first(
            event, lambda **_: answers.pop() if answers else None
        )

    file.between = end
    backend.write(key, Source(file, "a", build_sha256(BIG), len(BIG)))
    assert file.between is None
    assert answers == []
    assert b"".join(backend.chunks(key)) == BIG
    assert list(backend._uploads("")) == []


@pytest.mark.parametrize("size", [10, len(BIG)])
def test_wrong_bytes_never_get_a_name(bucket: str, size: int) -> None:
    backend, key = bucket_backend(), file_key("ab" * 32)
    with pytest.raises(ManifestMismatch):
        backend.write(key, source(BIG[:size], sha256="ab" * 32))
    assert backend.find(key) is None
    assert list(backend.entries()) == []
    assert list(backend._uploads("")) == []


def test_other_bytes_in_the_bucket_are_not_used(bucket: str, tmp_path: Path) -> None:
    manifest = made(tmp_path / "made", config=b"{}")
    store.adopt(tmp_path / "made", manifest)
    backend = bucket_backend()
    key = file_key(manifest.files[0].sha256)
    backend._client.put_object(**backend._named(key), Body=b"[]")
    with pytest.raises(ManifestMismatch, match="other bytes than its name says"):
        store.copy_version(manifest, tmp_path / "copy")
    assert not (tmp_path / "cache" / key).exists()
    store.adopt(tmp_path / "made", manifest)
    store.copy_version(manifest, tmp_path / "copy")
    (tmp_path / "made" / "config").write_bytes(b"[]")
    with pytest.raises(ManifestMismatch):
        store.adopt(tmp_path / "made", manifest)


def test_a_damaged_file_of_the_cache_is_fetched_again_once(bucket: str, tmp_path: Path) -> None:
    manifest = made(tmp_path / "made", config=b"{}", weights=BIG)
    store.adopt(tmp_path / "made", manifest)
    store.copy_version(manifest, tmp_path / "first")
    cached = [tmp_path / "cache" / file_key(file.sha256) for file in manifest.files]
    gets = calls(bucket_backend(), "GetObject")

    def damage() -> None:
        for file in cached:
            file.chmod(0o644)
            file.write_bytes(b"!" + file.read_bytes()[1:] + b"longer")

    damage()
    store.copy_version(manifest, tmp_path / "second")
    assert build_manifest(tmp_path / "second") == manifest
    assert len(gets) == len(cached)
    damage()
    store.verify_version(manifest)
    damage()
    assert store.version_file(manifest, "config") == b"{}"
    damage()
    assert store.file_bytes(manifest.files[0].sha256) == b"{}"
    damage()
    backend = bucket_backend()
    key = file_key(manifest.files[0].sha256)
    backend._client.put_object(**backend._named(key), Body=b"[]")
    gets.clear()
    with pytest.raises(ManifestMismatch, match="other bytes"):
        store.copy_version(manifest, tmp_path / "third")
    assert len(gets) == 1
    assert not (tmp_path / "third").exists()


def test_what_a_process_left_next_to_the_cache_is_removed_after_a_day(
    bucket: str, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / ".incoming"
    for name, age in (("old", 25), ("young", 23)):
        (folder / name).mkdir(parents=True)
        (folder / name / "upload").write_text("half")
        then = time.time() - 3600 * age
        for path in (folder / name, folder / name / "upload"):
            os.utime(path, (then, then))
    with store.incoming() as scratch:
        assert scratch.parent == folder
        assert {path.name for path in folder.iterdir()} == {"young", scratch.name}


def test_an_unfinished_upload_is_removed_when_it_is_old(bucket: str) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    with pytest.raises(FilesUnreadable):
        backend.write(key, Source(Breaking(BIG), "a", build_sha256(BIG), len(BIG)))
    # The server says 2010 of every upload.
    old, now = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC)
    assert backend.remove_unfinished(old, apply=True) == []
    assert len(backend.remove_unfinished(now, apply=False)) == 1
    assert len(backend.remove_unfinished(now, apply=True)) == 1
    assert list(backend._uploads("")) == []


def test_adopting_again_makes_a_file_recent(bucket: str) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(b"x"))
    backend.write(key, source(b"x"))
    before = backend.find(key)
    backend.touch(key)
    after = backend.find(key)
    assert before is not None
    assert after is not None
    assert after.size == before.size
    assert after.modified >= before.modified


class Cutting(threading.Thread):
    """A way to the server that breaks each connection after so many bytes of answer."""

    def __init__(self, server: tuple[str, int], most: int) -> None:
        super().__init__(daemon=True)
        self._server, self._most = server, most
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0

    def run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as inner:
            threading.Thread(target=self._up, args=(client, inner), daemon=True).start()
            left = self._most
            while left > 0 and (data := inner.recv(min(65536, left))):
                client.sendall(data)
                left -= len(data)
            client.shutdown(socket.SHUT_RDWR)

    def _up(self, client: socket.socket, inner: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                inner.sendall(data)
        except OSError:
            return

    def stop(self) -> None:
        self._socket.close()


def test_a_download_goes_on_where_it_broke(
    bucket: str, server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    backend.write(key, source(BIG))
    monkeypatch.setattr(s3, "_LONGEST_WAIT_S", 0.01)
    way = Cutting(server, len(BIG) // 2)
    way.start()
    cut = S3Backend(bucket, "assay", options(way.url))
    assert b"".join(cut.chunks(key)) == BIG
    assert way.connections >= 3
    way.stop()


def test_a_download_goes_on_after_the_file_was_adopted_again(
    bucket: str, server: tuple[str, int]
) -> None:
    backend, key = bucket_backend(), file_key(build_sha256(BIG))
    backend.write(key, source(BIG))
    way = Cutting(server, len(BIG) // 2)
    way.start()
    read = bytearray()
    for chunk in S3Backend(bucket, "assay", options(way.url)).chunks(key):
        if not read:
            before = backend._client.head_object(**backend._named(key))["ETag"]
            backend.touch(key)
            assert backend._client.head_object(**backend._named(key))["ETag"] != before
        read += chunk
    assert read == BIG
    way.stop()


def options(endpoint: str, **other: Any) -> S3Options:
    return S3Options(
        endpoint=endpoint,
        region="us-east-1",
        path_style=True,
        access_key="test",
        secret_key="test",
        **other,
    )


@pytest.fixture
def refusing() -> Iterator[Any]:
    """A server that answers every request with one error of S3."""

    class Handler(BaseHTTPRequestHandler):
        answer = (403, "InvalidAccessKeyId")

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = self.answer
            body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    for verb in ("GET", "PUT", "HEAD"):
        setattr(Handler, f"do_{verb}", Handler._answer)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (403, "InvalidAccessKeyId", "store_credentials"),
        (404, "NoSuchBucket", "store_bucket_missing"),
        (507, "XMinioStorageFull", "store_full"),
        (500, "InternalError", "store_unavailable"),
    ],
)
def test_each_refusal_of_the_server_has_a_reason(
    refusing: Any, status: int, code: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    refusing.RequestHandlerClass.answer = (status, code)
    backend = S3Backend("gone", "", options(f"http://127.0.0.1:{refusing.server_port}"))
    with pytest.raises(StoreUnavailable) as raised, backend._answers(missing="bucket"):
        backend._client.put_object(**backend._named("files/a"), Body=b"")
    assert raised.value.code == refused
    assert raised.value.hint
    assert raised.value.status == 503


def test_a_bucket_that_is_gone_is_not_taken_for_a_missing_file(
    bucket: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_CHECK_S", 30.0)
    settings.STORE_URL = "s3://gone-altogether/assay"
    with pytest.raises(StoreUnavailable) as raised:
        store.has_version("ab" * 32)
    assert raised.value.code == "store_bucket_missing"
    with pytest.raises(StoreUnavailable, match="has no bucket"):
        list(bucket_backend().entries())
    with pytest.raises(StoreUnavailable, match="has no bucket"):
        bucket_backend().check()
    settings.STORE_URL = f"s3://{bucket}/assay"
    bucket_backend().check()


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        backend = S3Backend("a", "", options(endpoint, timeout_s=0.2))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            backend.find(file_key("ab" * 32))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            backend.check()


@pytest.mark.parametrize("url", ["s3://", "http://a/b", "file://host/a", "s3://a/b?c"])
def test_a_url_that_names_no_store_is_refused(url: str, settings: Any) -> None:
    settings.STORE_URL = url
    with pytest.raises(ImproperlyConfigured, match="ASSAY_STORE_URL"):
        store.backend()
