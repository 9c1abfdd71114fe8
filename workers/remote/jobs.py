"""Jobs over HTTP, for supervisors on machines without database and store."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from governance.errors import (
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from registry.manifests import CHUNK_BYTES, FilesUnreadable, Manifest, open_beneath
from registry.storage.cache import Cache
from workers.control.jobs import (
    Cause,
    CheckpointBody,
    Claim,
    ClaimReply,
    DeliverBody,
    FailBody,
    HeartbeatReply,
    Lease,
    LeaseLost,
    NoAnswer,
    Offset,
    Report,
    Reports,
    UploadQuery,
    skip_optional_input,
)
from workers.control.messages import (
    LINES_MAX,
    Nothing,
    WorkerBody,
    checked_message,
    many_lines,
    one_line,
    read,
)
from workers.control.protocol import tasks_body
from workers.offers.models import WorkerRole
from workers.offers.values import Offers
from workers.remote.client import NodeClient
from workers.remote.files import RemoteFiles, copy_file, copy_version
from workers.run.events import MESSAGE_CHARACTERS
from workers.run.order import OUTPUT, LooseFiles, Order
from workers.run.outcome import SENTENCE_CHARACTERS

R = TypeVar("R")
logger = logging.getLogger(__name__)
PART_BYTES = CHUNK_BYTES
# The server hashes a bounded part of the file before it answers.
HASHING_S = 60.0
# An earlier request whose answer was lost may still work on the attempt's files.
BUSY = "arrivals_busy"
BUSY_TRIES = 60
BUSY_WAIT_S = 1.0
_OCTETS = {"Content-Type": "application/offset+octet-stream"}
# Most reports in one request, because its body is bounded.
_REPORTS = 200


@contextmanager
def _job_errors(claim: Claim) -> Iterator[None]:
    """Translate errors of requests into those of `JobControl`."""
    try:
        yield
    except NotFound as error:
        raise LeaseLost(f"Job {claim.title!r} is no longer held by this node.") from error
    except WrongState as error:
        if error.code == BUSY:
            raise NoAnswer(error.message) from error
        if error.code == LeaseLost.code:
            raise LeaseLost(error.message) from error
        raise
    except (Unavailable, QuotaExceeded, NotAuthenticated, NotPermitted) as error:
        raise NoAnswer(error.message) from error


class NodeFiles:
    """Implements `workers.control.jobs.Files` with files of the control plane, through the cache.

    `root` is a folder of this machine; the files of a job are removed with the job.
    """

    def __init__(self, client: NodeClient, cache: Cache, root: Path) -> None:
        self._client = client
        self._cache = cache
        self._root = root

    def attempt_folder(self, claim: Claim) -> Path:
        return self._root / str(claim.job_id) / str(claim.fence)

    def checkpoints_folder(self, claim: Claim) -> Path:
        return self._root / str(claim.job_id) / "checkpoints"

    def fetch(self, order: Order, inputs: Path) -> None:
        """Fetch the order's files and its recorded checkpoints."""
        remote = RemoteFiles(self._client, f"jobs/{order.job}/attempts/{order.fence}/files/")
        for folder in order.folders:
            with skip_optional_input(folder.name, required=folder.required):
                copy_version(remote, self._cache, folder.files, inputs / folder.name)
        for files in order.files:
            self._fetch_loose(remote, files, inputs / files.name)
        for name, manifest in order.checkpoints.items():
            target = self._root / str(order.job) / "checkpoints" / name
            shutil.rmtree(target, ignore_errors=True)
            with skip_optional_input(name, required=False):
                copy_version(remote, self._cache, Manifest.from_json(manifest), target)

    def _fetch_loose(self, remote: RemoteFiles, files: LooseFiles, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for sha256 in files.sha256s:
            try:
                with skip_optional_input(sha256[:12], required=files.required):
                    copy_file(remote, self._cache, sha256, target / sha256)
            except FilesUnreadable as error:
                raise Unavailable(f"The control plane lacks the file {sha256[:12]}.") from error

    def leave(self, claim: Claim) -> None:
        """Remove all files of the job: the control plane has those that a later attempt needs."""
        shutil.rmtree(self._root / str(claim.job_id), ignore_errors=True)


class RemoteJobs:
    """Implements `workers.control.jobs.JobControl`. Uploads a run's files before it reports them.

    The server prefixes the worker's name with the node's name, which it knows from the session.
    """

    def __init__(self, client: NodeClient, files: NodeFiles) -> None:
        self._client = client
        self._files = files

    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Claim the first job in line; return None if there is none or this node gets no work."""
        try:
            # One try: the answer may be lost after the claim, and a second request would claim
            # another job.
            path, body = f"jobs/{UUID(job_id)}/claim", checked_message(WorkerBody, worker=worker)
            taken = self._client.post(path, body, ClaimReply, tries=1)
        except (WrongState, NotFound) as error:
            logger.warning("Job %s: %s", job_id, error.message)
            return None
        except (Unavailable, QuotaExceeded) as error:
            raise NoAnswer(error.message) from error
        return None if taken.claim is None or taken.order is None else (taken.claim, taken.order)

    def tasks_report(self, worker: str, offers: Offers) -> None:
        try:
            self._client.tell("workers/tasks", tasks_body(worker, WorkerRole.COMPUTE, offers))
        except (Unavailable, QuotaExceeded) as error:
            raise NoAnswer(error.message) from error

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        with _job_errors(claim):
            try:
                return self._client.post(_at(claim, "heartbeat"), Nothing(), Lease, tries=1).root
            except NotFound:
                return HeartbeatReply(alive=False, cancel_requested=False)

    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        with _job_errors(claim):
            reply = HeartbeatReply(alive=True, cancel_requested=False)
            lines = [
                replace(each, message=one_line(each.message, MESSAGE_CHARACTERS))
                for each in reports
            ]
            for start in range(0, max(1, len(lines)), _REPORTS):
                body = checked_message(
                    Reports, reports=lines[start : start + _REPORTS], phase=phase
                )
                reply = self._client.post(_at(claim, "reports"), body, Lease, tries=1).root
            return reply

    def working(self, claim: Claim, *, works: bool) -> None:
        """Do nothing: a node must not be able to lower the device time that is charged."""

    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
    ) -> None:
        """Send a checkpoint's files, then record it; skip a checkpoint that the run removed."""
        with _job_errors(claim):
            body = checked_message(
                CheckpointBody, name=name, manifest=manifest, there=sorted(remaining)
            )
            self._send_files(claim, self._files.checkpoints_folder(claim) / name, body.manifest)
            _retry_busy(lambda: self._client.tell(_at(claim, "checkpoints"), body))

    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        """Send the files of the output and the result, then deliver the job."""
        with _job_errors(claim):
            attempt = self._files.attempt_folder(claim)
            if "manifest" in result:
                self._send_files(claim, attempt / OUTPUT, Manifest.from_json(result["manifest"]))
            content = json.dumps(result).encode()
            # Not in the attempt's folder, where a run could have placed a link.
            name = f"{attempt.name}.json"
            try:
                (attempt.parent / name).write_bytes(content)
            except OSError as error:
                # Other jobs may free disk space while the lease holds.
                raise NoAnswer(f"The result cannot be written: {error}.") from error
            sha256 = hashlib.sha256(content).hexdigest()
            self._send_file(claim, attempt.parent, name, sha256, len(content))
            body = DeliverBody(result=sha256)
            _retry_busy(lambda: self._client.tell(_at(claim, "deliver"), body))

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        with _job_errors(claim):
            body = checked_message(
                FailBody,
                sentence=one_line(sentence, SENTENCE_CHARACTERS) or "The attempt failed.",
                retry=retry,
                cause=cause,
                lines=many_lines(lines, LINES_MAX),
            )
            self._client.tell(_at(claim, "fail"), body)

    def canceled(self, claim: Claim) -> None:
        with _job_errors(claim):
            self._client.tell(_at(claim, "canceled"), Nothing())

    def paused(self, claim: Claim) -> None:
        with _job_errors(claim):
            self._client.tell(_at(claim, "paused"), Nothing())

    def close(self) -> None:
        """Do nothing: threads share the client."""

    def _send_files(self, claim: Claim, folder: Path, manifest: Manifest) -> None:
        for sha256, file in {file.sha256: file for file in manifest.files}.items():
            self._send_file(claim, folder, file.path, sha256, file.size)

    def _send_file(self, claim: Claim, folder: Path, path: str, sha256: str, size: int) -> None:
        """Send a file, starting where an earlier try stopped."""
        address = _at(claim, f"arrivals/{sha256}")
        arrived = self._client.get(address, Offset, UploadQuery(size=size))
        with open_beneath(folder, path) as file:
            while not arrived.complete:
                file.seek(arrived.offset)
                part = file.read(PART_BYTES)
                if not part and arrived.offset < size:
                    raise FilesUnreadable(f"{path} has become shorter.", path=path)
                query = UploadQuery(size=size, offset=arrived.offset)
                arrived = _retry_busy(partial(self._send_part, address, query, part))

    def _send_part(self, address: str, query: UploadQuery, part: bytes) -> Offset:
        try:
            answer = self._client.send(
                "PATCH",
                address,
                headers=_OCTETS,
                params=query.model_dump(),
                content=part,
                timeout=HASHING_S,
            )
        except WrongState as error:
            if error.code != "offset_mismatch":
                raise
            # The answer to an earlier try was lost.
            return self._client.get(address, Offset, UploadQuery(size=query.size))
        return read(Offset, answer.content, extra="ignore")


def _retry_busy(request: Callable[[], R]) -> R:
    """Repeat a request while another one works on the attempt's files. Raises WrongState."""
    for _ in range(BUSY_TRIES):
        try:
            return request()
        except WrongState as error:
            if error.code != BUSY:
                raise
        time.sleep(BUSY_WAIT_S)
    return request()


def _at(claim: Claim, rest: str) -> str:
    return f"jobs/{claim.job_id}/attempts/{claim.fence}/{rest}"
