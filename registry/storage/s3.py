"""A bucket of S3, or of a compatible server, as the artifact store.

Large files are uploaded in parts; after an interruption, the next upload resumes with the parts
that exist. A broken download resumes at the byte that it reached. An object appears only after all
of its bytes were hashed.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Never

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from registry.manifests import CHUNK_BYTES, ManifestMismatch
from registry.storage.backend import (
    FILES,
    RECORDS,
    Entry,
    Hashing,
    Source,
    StoreUnavailable,
    check_bytes,
    check_source,
    is_stored,
    source_chunks,
)

logger = logging.getLogger(__name__)
ATTEMPTS = 4
CONNECTIONS = 16
PART_BYTES = 16 * 1024**2
MOST_PARTS = 10_000
# Successive reads without any bytes before a download fails.
READ_TRIES = 5
_CHECK_S = 3.0
_SEEN_S = 30.0
_LONGEST_WAIT_S = 4.0
_MISSING = {"404", "NoSuchKey", "NotFound"}
_CREDENTIALS = {
    "401",
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_NO_RANGE = {"416", "InvalidRange"}
_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}


@dataclass(frozen=True, slots=True)
class S3Options:
    """Address and credentials of the server; boto3 finds credentials if the access key is empty."""

    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    timeout_s: float = 30.0
    access_key: str = ""
    secret_key: str = ""


class _UploadGoneError(Exception):
    """The upload was completed or aborted by another process."""


class S3Backend:
    """Objects below `prefix` of a bucket."""

    def __init__(self, bucket: str, prefix: str, options: S3Options) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._options = options
        # Time at which the bucket was last known to exist.
        self._seen_at = float("-inf")
        self._client = self._connect(options.timeout_s, ATTEMPTS)

    def _connect(self, timeout_s: float, attempts: int) -> Any:
        options = self._options
        # A separate session, because boto3's default session is not thread-safe.
        return boto3.session.Session().client(
            "s3",
            endpoint_url=options.endpoint or None,
            region_name=options.region or None,
            aws_access_key_id=options.access_key or None,
            aws_secret_access_key=options.secret_key or None,
            config=Config(
                connect_timeout=min(5.0, timeout_s),
                read_timeout=timeout_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=CONNECTIONS,
                s3={"addressing_style": "path" if options.path_style else "auto"},
                # Servers other than AWS lack its newer checksums. Uploads have an MD5 instead.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def path(self, key: str) -> Path | None:
        return None

    def find(self, key: str) -> Entry | None:
        try:
            with self._answers():
                head = self._client.head_object(**self._named(key))
        except FileNotFoundError:
            # A missing bucket gives the same answer.
            if time.monotonic() - self._seen_at > _SEEN_S:
                with self._answers(missing="bucket"):
                    self._client.head_bucket(Bucket=self._bucket)
                self._seen_at = time.monotonic()
            return None
        return Entry(key, int(head["ContentLength"]), head["LastModified"])

    def check(self) -> None:
        client = self._connect(min(_CHECK_S, self._options.timeout_s), 1)
        with self._answers(missing="bucket"):
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        client.close()

    def touch(self, key: str) -> None:
        with self._answers():
            self._client.copy(
                self._named(key),
                self._bucket,
                self._prefix + key,
                ExtraArgs={"MetadataDirective": "REPLACE"},
            )

    def write(self, key: str, source: Source) -> Entry | None:
        entry = self.find(key)
        if entry is not None:
            check_source(source)
            if is_stored(self, key, source):
                return entry
        self._write(key, source, _size(source))
        return None

    def _write(self, key: str, source: Source, size: int) -> None:
        if size <= PART_BYTES:
            data = b"".join(source_chunks(source))
            check_bytes(source, len(data), hashlib.sha256(data).hexdigest())
            with self._answers(missing="bucket"):
                self._client.put_object(**self._named(key), Body=data, ContentMD5=_header(data))
        else:
            self._write_parts(key, source, size)

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        position, failed, etag = start, 0, ""
        while True:
            before = position
            try:
                response = self._get(key, position, etag)
                if response is None:
                    return
                end = position + int(response["ContentLength"])
                # Adopting a file may change its ETag, but never its bytes.
                etag = "" if key.startswith(FILES) else response["ETag"]
                for chunk in response["Body"].iter_chunks(CHUNK_BYTES):
                    position += len(chunk)
                    yield chunk
                if position >= end:
                    return
                raise OSError(f"the answer ended {end - position} bytes early")
            except (HTTPError, BotoCoreError, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                failed = 1 if position > before else failed + 1
                if failed >= READ_TRIES:
                    self._refuse(error)
                logger.info("Reading %s goes on at byte %d: %s", key, position, error)
                time.sleep(min(0.1 * 2**failed, _LONGEST_WAIT_S))

    def _get(self, key: str, start: int, etag: str) -> dict[str, Any] | None:
        """Open an object at byte `start`; return None at its end."""
        options = {"IfMatch": etag} if etag else {}
        with self._answers():
            try:
                response: dict[str, Any] = self._client.get_object(
                    **self._named(key), Range=f"bytes={start}-", **options
                )
            except ClientError as error:
                if _code(error) not in _NO_RANGE:
                    raise
                return None
        return response

    def remove(self, key: str) -> None:
        with self._answers():
            self._client.delete_object(**self._named(key))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        pages = self._client.get_paginator("list_objects_v2")
        with self._answers(missing="bucket"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    if key.startswith((FILES, RECORDS)):
                        yield Entry(key, int(item["Size"]), item["LastModified"])

    def remove_unfinished(self, before: datetime, *, apply: bool) -> list[Entry]:
        removed = []
        for upload in self._uploads(""):
            if upload["Initiated"] < before:
                key = upload["Key"].removeprefix(self._prefix)
                removed.append(Entry(key, 0, upload["Initiated"]))
                if apply:
                    self._abort(upload["Key"], upload["UploadId"])
        return removed

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _write_parts(self, key: str, source: Source, size: int) -> None:
        start = source.file.tell()
        try:
            self._send_parts(key, source, size, *self._resume_upload(key))
        except _UploadGoneError:
            # Another process completed or aborted the same upload.
            entry = self.find(key)
            if entry is not None and entry.size == size and is_stored(self, key, source):
                return
            source.file.seek(start)
            try:
                self._send_parts(key, source, size, self._begin_upload(key), {}, True)
            except _UploadGoneError as error:
                self._refuse(error)

    def _send_parts(
        self,
        key: str,
        source: Source,
        size: int,
        upload: str,
        done: Mapping[tuple[int, int, str], str],
        is_new: bool,
    ) -> None:
        """Send the parts that are not `done`, then complete the upload.

        Only an upload that `is_new` is aborted, because other processes may use an earlier one.
        """
        hashing, parts = Hashing(), []
        for number, data in enumerate(_parts(source, max(PART_BYTES, -(-size // MOST_PARTS))), 1):
            hashing.update(data)
            etag = done.get((number, len(data), _md5(data).hexdigest()))
            if etag is None:
                with self._answers(missing="upload"):
                    etag = self._client.upload_part(
                        **self._named(key),
                        UploadId=upload,
                        PartNumber=number,
                        Body=data,
                        ContentMD5=_header(data),
                    )["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        try:
            check_bytes(source, hashing.size, hashing.sha256)
        except ManifestMismatch:
            if is_new:
                self._abort(self._prefix + key, upload)
            raise
        with self._answers(missing="upload"):
            self._client.complete_multipart_upload(
                **self._named(key), UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def _resume_upload(self, key: str) -> tuple[str, dict[tuple[int, int, str], str], bool]:
        """Return an earlier or new upload of the key; the ETags of its parts by number, size and
        MD5; and whether it is new. If a server's ETags are not MD5s, all parts are sent again."""
        uploads = [each for each in self._uploads(key) if each["Key"] == self._prefix + key]
        if not uploads:
            return self._begin_upload(key), {}, True
        upload = str(max(uploads, key=lambda each: each["Initiated"])["UploadId"])
        pages = self._client.get_paginator("list_parts")
        done = {}
        with self._answers(missing="upload"):
            for page in pages.paginate(**self._named(key), UploadId=upload):
                for part in page.get("Parts", ()):
                    etag = str(part["ETag"])
                    done[part["PartNumber"], part["Size"], etag.strip('"')] = etag
        return upload, done, False

    def _begin_upload(self, key: str) -> str:
        with self._answers(missing="bucket"):
            return str(self._client.create_multipart_upload(**self._named(key))["UploadId"])

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads")
        with self._answers(missing="bucket"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                yield from page.get("Uploads", ())

    def _abort(self, full_key: str, upload: str) -> None:
        with suppress(_UploadGoneError), self._answers(missing="upload"):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=full_key, UploadId=upload)

    @contextmanager
    def _answers(self, *, missing: str = "object") -> Iterator[None]:
        """Convert exceptions of boto3 to FileNotFoundError and StoreUnavailable."""
        try:
            yield
        except ClientError as error:
            if _code(error) in _MISSING and missing == "object":
                raise FileNotFoundError(f"{self.url} has no such object") from error
            if missing == "upload" and _code(error) == "NoSuchUpload":
                raise _UploadGoneError("the upload is gone") from error
            self._refuse(error)
        except BotoCoreError as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> Never:
        """Raise StoreUnavailable with a hint for this error."""
        code = _code(error)
        if isinstance(error, NoCredentialsError | PartialCredentialsError) or code in _CREDENTIALS:
            raise StoreUnavailable(
                f"The artifact store {self.url} refuses the credentials: {_first_line(error)}",
                code="store_credentials",
                hint="Correct ASSAY_STORE_ACCESS_KEY_ID and ASSAY_STORE_SECRET_ACCESS_KEY, the AWS "
                "variables, or the permissions of the key.",
                retry_after=60,
            ) from error
        if code in _FULL:
            raise StoreUnavailable(
                f"The artifact store {self.url} is full; nothing was stored.",
                code="store_full",
                hint="Enlarge it, then try again. `assay store gc` finds unneeded files.",
                retry_after=60,
            ) from error
        if code in {"NoSuchBucket", "404"}:
            raise StoreUnavailable(
                f"The artifact store {self.url} has no bucket.",
                code="store_bucket_missing",
                hint="Create or restore the bucket, or correct ASSAY_STORE_URL.",
                retry_after=60,
            ) from error
        raise StoreUnavailable(
            f"The artifact store {self.url} does not answer: {_first_line(error)}",
            hint="Check ASSAY_STORE_S3_ENDPOINT_URL and the network.",
            retry_after=5,
        ) from error


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _md5(data: bytes) -> Any:
    # S3's checksum in transit only; integrity is checked by the SHA-256.
    return hashlib.md5(data, usedforsecurity=False)


def _header(data: bytes) -> str:
    return base64.b64encode(_md5(data).digest()).decode()


def _size(source: Source) -> int:
    if source.size is not None:
        return source.size
    position = source.file.tell()
    size = source.file.seek(0, os.SEEK_END) - position
    source.file.seek(position)
    return size


def _parts(source: Source, size: int) -> Iterator[bytes]:
    """Yield parts of exactly `size` bytes; the last one may have fewer."""
    part = bytearray()
    for chunk in source_chunks(source):
        part += chunk
        while len(part) >= size:
            yield bytes(part[:size])
            del part[:size]
    if part:
        yield bytes(part)
