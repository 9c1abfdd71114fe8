"""A place in a bucket with locked objects, on S3 or a compatible store.

Full tiles and every version of the checkpoint are written under Object Lock in compliance mode:
until the end of their retention, not even the account's root user can delete or change them.
Deleting the checkpoint only hides it; then its newest version is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from governance.audit.outside.places import CHECKPOINT, PlaceUnavailable, PublishRefused

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
ATTEMPTS = 2
WRITERS = 8
# A tile has 8 KiB, a signed note at most 64.
MAX_OBJECT_BYTES = 128 * 1024
MISSING = {"NoSuchKey", "404"}


class Bucket:
    """Objects below `prefix` of a bucket; boto3 finds the credentials."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint: str, region: str, retention_days: int
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retention = timedelta(days=retention_days)
        # boto3's default session is not thread-safe.
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=region or None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=WRITERS,
            ),
        )

    @property
    def name(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, path: str) -> bytes | None:
        with self._answering():
            try:
                return self._get(path)
            except ClientError as error:
                if _code(error) not in MISSING:
                    raise
            hidden = self._hidden(path)
            return None if hidden is None else self._get(path, VersionId=hidden)

    def names(self, path: str) -> list[str]:
        with self._answering():
            return [key.rsplit("/", 1)[-1] for key in self._keys(path)]

    def keep(self, files: Sequence[tuple[str, bytes]]) -> None:
        if not files:
            return
        with self._answering(), ThreadPoolExecutor(WRITERS) as writers:
            writes = [writers.submit(self._keep, *file) for file in files]
            try:
                for write in writes:
                    write.result()
            except BaseException:
                # Otherwise each queued write would also run into its time limit.
                writers.shutdown(wait=False, cancel_futures=True)
                raise

    def put(self, path: str, data: bytes) -> None:
        with self._answering():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=data)

    def put_checkpoint(self, data: bytes) -> None:
        with self._answering():
            self._put_locked(CHECKPOINT, data)

    def drop(self, path: str) -> None:
        with self._answering():
            keys = [{"Key": key} for key in self._keys(path)]
            # Publishing does not need permission to delete: the remaining files are small.
            with suppress(ClientError):
                if keys:
                    self._client.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
                    )

    def faults(self) -> list[str]:
        """Return faults in the bucket's settings. Raise PlaceUnavailable if it does not answer."""
        faults = []
        with self._answering():
            versioning = self._client.get_bucket_versioning(Bucket=self._bucket)
            if versioning.get("Status") != "Enabled":
                faults.append(
                    f"The bucket {self._bucket} keeps no versions: anyone with write access can "
                    "overwrite the checkpoint. Enable versioning, with object lock."
                )
            if not self._has_lock():
                faults.append(
                    f"The bucket {self._bucket} has no object lock, so nothing is published to "
                    "it. Create one with object lock enabled, or enable it on this one."
                )
        return faults

    def _has_lock(self) -> bool:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) == "ObjectLockConfigurationNotFoundError":
                return False
            raise
        return bool(answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled")

    def _keep(self, path: str, data: bytes) -> None:
        try:
            self._put_locked(path, data, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) not in {"PreconditionFailed", "412"}:
                raise
            if self._get(path) != data:
                raise PublishRefused(
                    f"{self.name}/{path} holds other hashes than the database does."
                ) from None

    def _put_locked(self, path: str, data: bytes, **condition: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + path,
            Body=data,
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=datetime.now(UTC) + self._retention,
            **condition,
        )

    def _get(self, path: str, **version: str) -> bytes:
        answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path, **version)
        with answer["Body"] as body:
            data = bytes(body.read(MAX_OBJECT_BYTES + 1))
        if len(data) > MAX_OBJECT_BYTES:
            raise PlaceUnavailable(f"{self.name}/{path} is larger than anything published there.")
        return data

    def _hidden(self, path: str) -> str | None:
        """Return the newest version of a deleted object, or None if it never existed."""
        key = self._prefix + path
        answer = self._client.list_object_versions(Bucket=self._bucket, Prefix=key, MaxKeys=100)
        versions = (v["VersionId"] for v in answer.get("Versions", ()) if v["Key"] == key)
        return next(versions, None)

    def _keys(self, path: str) -> list[str]:
        """Return the keys directly in a folder: at most 255 partial tiles, so one page (1,000)."""
        answer = self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=f"{self._prefix}{path}/", Delimiter="/"
        )
        return [entry["Key"] for entry in answer.get("Contents", ())]

    @contextmanager
    def _answering(self) -> Any:
        """Convert boto3's errors to PlaceUnavailable."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise PlaceUnavailable(f"{self.name}: {error}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
