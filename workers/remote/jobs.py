"""Jobs over HTTP, for supervisors on machines without database and store."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from governance.errors import (
    DomainError,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from registry.manifests import CHUNK_BYTES, FilesUnreadable, Manifest, open_beneath
from registry.storage.cache import Cache
from workers.control.jobs import Cause, Claim, HeartbeatReply, LeaseLost, NoAnswer, Report
from workers.control.messages import many_lines, one_line
from workers.offers.values import Offers, offers_to_json
from workers.remote.client import NodeClient
from workers.remote.files import RemoteFiles, copy_file, copy_version
from workers.run.events import MESSAGE_CHARACTERS
from workers.run.order import OUTPUT, LooseFiles, Order

R = TypeVar("R")
logger = logging.getLogger(__name__)
PART_BYTES = CHUNK_BYTES
# The last lines of a run that are sent, in characters.
LINES_SENT = 40_000
# A part is answered when a bounded step of the file was hashed.
HASHING_S = 60.0
# An earlier request whose answer was lost may still work on the attempt's files.
BUSY = "arrivals_busy"
BUSY_TRIES = 60
BUSY_WAIT_S = 1.0
_OCTETS = {"Content-Type": "application/offset+octet-stream"}
# In one request, whose body is bounded.
_REPORTS = 200


@contextmanager
def _job_errors(claim: Claim) -> Iterator[None]:
    """Raise the errors of `JobControl` in place of those of the request."""
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
    """Implements `workers.control.jobs.Files`: the control plane's files, by way of the cache.

    `root` is a folder of this machine; nothing in it outlives its job.
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
            try:
                copy_version(remote, self._cache, folder.files, inputs / folder.name)
            except DomainError as error:
                if folder.required or isinstance(error, Unavailable):
                    raise
                logger.warning("Input %s is left out: %s", folder.name, error.message)
        for files in order.files:
            self._fetch_loose(remote, files, inputs / files.name)
        for name, manifest in order.checkpoints.items():
            target = self._root / str(order.job) / "checkpoints" / name
            shutil.rmtree(target, ignore_errors=True)
            try:
                copy_version(remote, self._cache, Manifest.from_json(manifest), target)
            except DomainError as error:
                if isinstance(error, Unavailable):
                    raise
                logger.warning("%s is not resumed from: %s", name, error.message)

    def _fetch_loose(self, remote: RemoteFiles, files: LooseFiles, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for sha256 in files.sha256s:
            try:
                copy_file(remote, self._cache, sha256, target / sha256)
            except FilesUnreadable as error:
                if files.required:
                    raise Unavailable(f"The control plane lacks the file {sha256[:12]}.") from error
            except DomainError as error:
                if files.required or isinstance(error, Unavailable):
                    raise
                logger.warning("Input %s is left out: %s", sha256[:12], error.message)

    def leave(self, claim: Claim) -> None:
        """Remove all of the job: what a later attempt needs lies with the control plane."""
        shutil.rmtree(self._root / str(claim.job_id), ignore_errors=True)


class RemoteJobs:
    """Implements `workers.control.jobs.JobControl`. Uploads a run's files before it reports them.

    The server puts the node's name before the worker's, from the session of the request.
    """

    def __init__(self, client: NodeClient, files: NodeFiles) -> None:
        self._client = client
        self._files = files

    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Claim the job that is first in line; None too when this node gets no new work."""
        try:
            # Once: the answer may be lost after the job was claimed, and a second request would
            # claim another one.
            path = f"jobs/{UUID(job_id)}/claim"
            answer = self._client.send("POST", path, tries=1, json={"worker": worker}).json()
        except (WrongState, NotFound) as error:
            logger.warning("Job %s: %s", job_id, error.message)
            return None
        except (Unavailable, QuotaExceeded) as error:
            raise NoAnswer(error.message) from error
        if answer["claim"] is None:
            return None
        found = answer["claim"]
        claim = Claim(**{**found, "job_id": UUID(found["job_id"])})
        return claim, Order.model_validate(answer["order"])

    def tasks_report(self, worker: str, offers: Offers) -> None:
        """Record the tasks that the worker offers."""
        body = {"worker": worker, "role": "compute", "tasks": offers_to_json(offers)}
        try:
            self._client.post("workers/tasks", body)
        except NotFound:
            logger.warning("The control plane is of an earlier release, and records no tasks.")
        except (Unavailable, QuotaExceeded) as error:
            raise NoAnswer(error.message) from error

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        """Renew the lease."""
        with _job_errors(claim):
            try:
                return _reply(
                    self._client.send("POST", _at(claim, "heartbeat"), tries=1, json={}).json()
                )
            except NotFound:
                return HeartbeatReply(alive=False, cancel_requested=False)

    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        """Append to the job's log and curves."""
        with _job_errors(claim):
            reply = HeartbeatReply(alive=True, cancel_requested=False)
            for start in range(0, max(1, len(reports)), _REPORTS):
                part = [_report(each) for each in reports[start : start + _REPORTS]]
                body = {"reports": part, "phase": phase}
                answer = self._client.send("POST", _at(claim, "reports"), tries=1, json=body)
                reply = _reply(answer.json())
            return reply

    def working(self, claim: Claim, *, works: bool) -> None:
        """Return at once: a node's word does not lower what its department pays for."""

    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], there: Collection[str]
    ) -> None:
        """Send a checkpoint's files, then record it. One that the run has removed is not."""
        with _job_errors(claim):
            found = Manifest.from_json(manifest)
            self._send_files(claim, self._files.checkpoints_folder(claim) / name, found)
            body = {"name": name, "manifest": found.to_json(), "there": sorted(there)}
            _retry_busy(lambda: self._client.post(_at(claim, "checkpoints"), body))

    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        """Send the output's files and the result, then deliver."""
        with _job_errors(claim):
            attempt = self._files.attempt_folder(claim)
            if "manifest" in result:
                self._send_files(claim, attempt / OUTPUT, Manifest.from_json(result["manifest"]))
            content = json.dumps(result).encode()
            # Not in the attempt's folder, where a run could have put a link.
            name = f"{attempt.name}.json"
            try:
                (attempt.parent / name).write_bytes(content)
            except OSError as error:
                # Others may free room while the lease holds.
                raise NoAnswer(f"The result cannot be written: {error}.") from error
            sha256 = hashlib.sha256(content).hexdigest()
            self._send_file(claim, attempt.parent, name, sha256, len(content))
            _retry_busy(lambda: self._client.post(_at(claim, "deliver"), {"result": sha256}))

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        """End the attempt without a result."""
        with _job_errors(claim):
            body = {
                "sentence": one_line(sentence, 2_000) or "The attempt failed.",
                "retry": retry,
                "cause": cause.value,
                "lines": many_lines(lines, LINES_SENT),
            }
            self._client.post(_at(claim, "fail"), body)

    def canceled(self, claim: Claim) -> None:
        """Confirm that the run stopped."""
        with _job_errors(claim):
            self._client.post(_at(claim, "canceled"), {})

    def paused(self, claim: Claim) -> None:
        """Confirm that the run stopped after its checkpoint."""
        with _job_errors(claim):
            self._client.post(_at(claim, "paused"), {})

    def close(self) -> None:
        """Return at once: threads share the client."""

    def _send_files(self, claim: Claim, folder: Path, manifest: Manifest) -> None:
        for sha256, file in {file.sha256: file for file in manifest.files}.items():
            self._send_file(claim, folder, file.path, sha256, file.size)

    def _send_file(self, claim: Claim, folder: Path, path: str, sha256: str, size: int) -> None:
        """Send a file from where an earlier try broke off."""
        address = _at(claim, f"arrivals/{sha256}")
        answer = self._client.get(address, size=str(size))
        offset, complete = int(answer["offset"]), bool(answer["complete"])
        with open_beneath(folder, path) as file:
            while not complete:
                file.seek(offset)
                part = file.read(PART_BYTES)
                if not part and offset < size:
                    raise FilesUnreadable(f"{path} has become shorter.", path=path)
                answer = _retry_busy(partial(self._send_part, address, size, offset, part))
                offset, complete = int(answer["offset"]), bool(answer["complete"])

    def _send_part(self, address: str, size: int, offset: int, part: bytes) -> Any:
        try:
            return self._client.send(
                "PATCH",
                address,
                headers=_OCTETS,
                params={"size": str(size), "offset": str(offset)},
                content=part,
                timeout=HASHING_S,
            ).json()
        except WrongState as error:
            if error.code != "offset_mismatch":
                raise
            # The answer to an earlier try was lost.
            return self._client.get(address, size=str(size))


def _retry_busy(request: Callable[[], R]) -> R:
    """Send a request again while another one works on the attempt's files. Raises WrongState."""
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


def _reply(answer: Any) -> HeartbeatReply:
    return HeartbeatReply(
        alive=bool(answer["alive"]),
        cancel_requested=bool(answer["cancel_requested"]),
        # A control plane of the previous release pauses nothing.
        pause_requested=bool(answer.get("pause_requested")),
    )


def _report(report: Report) -> dict[str, Any]:
    return {
        "message": one_line(report.message, MESSAGE_CHARACTERS),
        "step": report.step,
        "total": report.total,
        "values": report.values,
    }
