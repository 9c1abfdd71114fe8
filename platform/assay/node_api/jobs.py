"""The control plane of a node's compute workers. `workers/remote/jobs.py` is its client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import RANGES, operation
from assay.api.fields import (
    Choice,
    Line,
    Number,
    Paragraphs,
    Several,
    StrictSerializer,
    Truth,
    Whole,
)
from assay.api.parsers import OctetStreamParser, StrictJSONParser
from assay.downloads import BINARY, stored_file, streamed_response
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.joining import TAG
from assay.server.downloads import ungated
from governance.errors import DomainError, InvalidInput, NotFound
from registry import store
from registry.manifests import CHUNK_BYTES, Manifest, ManifestFile, open_beneath
from registry.storage.backend import file_key
from workers.control.jobs import Cause, Claim, Report
from workers.jobs.arrivals import arrival_append, arrival_offset
from workers.jobs.leases import job_canceled, job_heartbeat, job_paused, job_report
from workers.jobs.models import LINES_MAX
from workers.nodes.job_side import (
    node_job,
    node_job_checkpoint,
    node_job_claim,
    node_job_deliver,
    node_job_fail,
    node_job_file,
)
from workers.nodes.models import WORKER_NAME_MAX, Node
from workers.nodes.order_files import JobFile
from workers.run.events import CHECKPOINT_NAME, MAX_CHECKPOINTS, MAX_VALUES, MESSAGE_CHARACTERS
from workers.run.outcome import SENTENCE_CHARACTERS

MAX_REPORTS = 1_000
_BYTES_MAX = 2**53


class JobClaimBody(StrictSerializer):
    """The worker that claims."""

    worker = Line(max_length=WORKER_NAME_MAX)


class JobClaimAnswer(serializers.Serializer[Any]):
    """The claim and its order; both null when the job is not claimable."""

    claim = serializers.JSONField(allow_null=True)
    order = serializers.JSONField(allow_null=True)


class NodeJobClaimView(NodeEndpoint):
    """Claims. The job in the path only woke the worker."""

    @operation(TAG, "Claim the job that is first in line", body=JobClaimBody, answer=JobClaimAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        worker = self.body(JobClaimBody)["worker"]
        taken = node_job_claim(node=self.node, job_id=job_id, worker=worker)
        if taken is None:
            return Response({"claim": None, "order": None})
        claim, order = taken
        return Response({"claim": asdict(claim), "order": order.model_dump(mode="json")})


class _Held(NodeEndpoint):
    """A view of one job that a worker of the node holds."""

    def allow_body(self, job_id: UUID, fence: int, **kwargs: Any) -> None:
        self.claim(job_id, fence)

    def claim(self, job_id: UUID, fence: int) -> Claim:
        return node_job(node=self.node, job_id=job_id, fence=fence)


class HeldAnswer(serializers.Serializer[Any]):
    """The state of a lease: renewed or not, whether a person wants the job to end, and whether the
    run is to write a checkpoint and stop."""

    alive = serializers.BooleanField()
    cancel_requested = serializers.BooleanField()
    pause_requested = serializers.BooleanField()


class EmptyBody(StrictSerializer):
    """No members."""


class NodeJobHeartbeatView(_Held):
    """The lease of a job."""

    @operation(TAG, "Renew a job's lease", body=EmptyBody, answer=HeldAnswer)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        self.body(EmptyBody)
        return self.answer(job_heartbeat(self.claim(job_id, fence)), HeldAnswer)


class Values(serializers.DictField):
    """Finite numbers by name."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping) or len(data) > MAX_VALUES:
            raise ValidationError(f"Not an object of at most {MAX_VALUES} numbers.")
        if not all(isinstance(name, str) and 0 < len(name) <= 80 for name in data):
            raise ValidationError("A name has 1 to 80 characters.")
        return dict(super().to_internal_value(dict(data)))


class ReportBody(StrictSerializer):
    """One line of the log, or one point of the curves."""

    message = Line(max_length=MESSAGE_CHARACTERS, allow_blank=True, default="")
    step = Whole(max_value=2**31 - 1, allow_null=True, default=None)
    total = Whole(max_value=2**31 - 1, allow_null=True, default=None)
    values = Values(child=Number(), default=dict)


class ReportsBody(StrictSerializer):
    """Reports in their order, and what the run does now."""

    reports = Several(child=ReportBody(), max_length=MAX_REPORTS)
    phase = Line(max_length=40, allow_blank=True, default="")


class NodeJobReportsView(_Held):
    """The log and curves of a job."""

    @operation(TAG, "Report on a job", body=ReportsBody, answer=HeldAnswer)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        given = self.body(ReportsBody)
        reports = [
            Report(each["message"], each["step"], each["total"], each["values"])
            for each in given["reports"]
        ]
        claim = self.claim(job_id, fence)
        return self.answer(job_report(claim, reports=reports, phase=given["phase"]), HeldAnswer)


class ManifestObject(serializers.DictField):
    """The manifest of a folder's files."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return Manifest.from_json(data)
        except DomainError as error:
            raise ValidationError(error.message) from None


class CheckpointName(serializers.RegexField):
    """The name of a checkpoint's folder."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(CHECKPOINT_NAME, max_length=40, **kwargs)


class CheckpointBody(StrictSerializer):
    """A checkpoint whose files have arrived, and all checkpoints that the run still has."""

    name = CheckpointName()
    manifest = ManifestObject()
    there = Several(child=CheckpointName(), max_length=MAX_CHECKPOINTS)


class NodeJobCheckpointsView(_Held):
    """Checkpoints of a job."""

    @operation(TAG, "Record a checkpoint", body=CheckpointBody, answer=None, status=204)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        given = self.body(CheckpointBody)
        node_job_checkpoint(claim=self.claim(job_id, fence), **given)
        return Response(status=204)


class DeliverBody(StrictSerializer):
    """The SHA-256 of the result, which has arrived as a file."""

    result = serializers.RegexField("^[0-9a-f]{64}$")


class JobStateAnswer(serializers.Serializer[Any]):
    """The job's state."""

    state = serializers.CharField()


class NodeJobDeliverView(_Held):
    """The result of a job."""

    @operation(TAG, "Deliver a result", body=DeliverBody, answer=JobStateAnswer)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        sha256 = self.body(DeliverBody)["result"]
        claim = self.claim(job_id, fence)
        return Response({"state": node_job_deliver(claim=claim, sha256=sha256)})


class FailBody(StrictSerializer):
    """The reason of a failed attempt; `retry` when another one may help. `lines` are the last that
    its run printed, and its traceback."""

    sentence = Line(max_length=SENTENCE_CHARACTERS)
    retry = Truth()
    cause = Choice(choices=[each.value for each in Cause], default=Cause.WORK.value)
    lines = Paragraphs(max_length=LINES_MAX, allow_blank=True, default="")


class NodeJobFailView(_Held):
    """The failure of an attempt."""

    @operation(TAG, "Fail an attempt", body=FailBody, answer=JobStateAnswer)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        given = self.body(FailBody)
        claim = self.claim(job_id, fence)
        cause = Cause(given.pop("cause"))
        return Response({"state": node_job_fail(claim=claim, cause=cause, **given)})


class NodeJobCanceledView(_Held):
    """The end of a job that a person canceled."""

    @operation(TAG, "Confirm that a job stopped", body=EmptyBody, answer=None, status=204)
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        self.body(EmptyBody)
        job_canceled(self.claim(job_id, fence))
        return Response(status=204)


class NodeJobPausedView(_Held):
    """The end of an attempt that was asked to write a checkpoint and stop."""

    @operation(
        TAG,
        "Confirm that a run stopped after its checkpoint",
        body=EmptyBody,
        answer=JobStateAnswer,
    )
    def post(self, request: Request, job_id: UUID, fence: int) -> Response:
        self.body(EmptyBody)
        return Response({"state": job_paused(self.claim(job_id, fence))})


class NodeJobFileView(_Held):
    """One file of a job's order."""

    @operation(TAG, "Bytes of a file of an order, or of one range", **RANGES)
    def get(self, request: Request, job_id: UUID, fence: int, digest: str) -> HttpResponseBase:
        self.query()
        file = node_job_file(node=self.node, job_id=job_id, fence=fence, sha256=digest)
        if file.folder is not None:
            return _from_folder(request, file, file.folder, self.node)
        found = store.backend().find(file_key(digest))
        if found is None:
            raise NotFound("The file is missing from the artifact store.", code="file_missing")
        stored = ManifestFile(digest[:12], found.size, digest)
        return stored_file(request._request, stored, self.node.name)


def _from_folder(request: Request, file: JobFile, folder: Path, node: Node) -> HttpResponseBase:
    """Return a whole file that is not in the store: of a delivery, or of a checkpoint.

    Other processes write these folders, so no step of the path may be a symbolic link.

    Raises:
        NotFound: it is missing, is not a plain file, or has another size than the order says.
    """
    try:
        with open_beneath(folder, file.path) as opened:
            size = os.fstat(opened.fileno()).st_size
    except OSError:
        size = None
    if size is None or size != file.size:
        raise NotFound("The file is missing.", code="file_missing")
    headers = {"Content-Length": str(size), "ETag": f'"{file.sha256}"'}
    if request.method == "HEAD":
        return Response(status=200, content_type=BINARY, headers=headers)

    def chunks() -> Iterator[bytes]:
        # A file that has grown since would break the answer's framing.
        left = size
        with open_beneath(folder, file.path) as opened:
            while chunk := opened.read(min(CHUNK_BYTES, left)):
                left -= len(chunk)
                yield chunk

    held = {**headers, **ungated(node.name)}
    return streamed_response(request._request, chunks(), BINARY, held)


class UploadQuery(StrictSerializer):
    """The size of the whole file, and the offset of these bytes."""

    size = Line(max_length=16)
    offset = Line(max_length=16, required=False, default="0")


class OffsetAnswer(serializers.Serializer[Any]):
    """The bytes that have arrived; `complete` once they were hashed."""

    offset = serializers.IntegerField()
    complete = serializers.BooleanField()


class NodeJobUploadView(_Held):
    """One file that the run has made."""

    parser_classes = (OctetStreamParser, StrictJSONParser)

    @operation(TAG, "How much of a file has arrived", query=UploadQuery, answer=OffsetAnswer)
    def get(self, request: Request, job_id: UUID, fence: int, digest: str) -> Response:
        size, _ = _numbers(self.query(UploadQuery))
        claim = self.claim(job_id, fence)
        return self.answer(arrival_offset(claim, sha256=digest, size=size), OffsetAnswer)

    @operation(
        TAG,
        "Send the next bytes of a file",
        body={"application/offset+octet-stream": bytes},
        query=UploadQuery,
        answer=OffsetAnswer,
    )
    def patch(self, request: Request, job_id: UUID, fence: int, digest: str) -> Response:
        claim = self.claim(job_id, fence)
        size, offset = _numbers(self.query(UploadQuery))
        # An empty body is not parsed: of an empty file, or to go on with hashing.
        data: Any = request.data or b""
        if not isinstance(data, bytes):
            raise InvalidInput("The bytes of a file are application/offset+octet-stream.")
        here = arrival_append(claim, sha256=digest, size=size, offset=offset, data=data)
        return self.answer(here, OffsetAnswer)


def _numbers(given: Mapping[str, str]) -> tuple[int, int]:
    size, offset = given["size"], given["offset"]
    if not (size.isascii() and size.isdigit() and offset.isascii() and offset.isdigit()):
        raise InvalidInput("Size and offset are whole numbers.")
    if int(size) > _BYTES_MAX:
        raise InvalidInput("The size is too large.")
    return int(size), int(offset)
