"""A compute worker on a node runs a job by the HTTP API alone, and reaches nothing else by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from governance.people.models import Person
from registry.intake.models import Intake
from registry.manifests import Manifest, ManifestFile, build_manifest
from registry.storage import store
from registry.storage.cache import Cache
from tests.unit.assay.node_support import DjangoTransport, client_of, node_made
from tests.unit.registry.objects import safetensors
from tests.unit.workers import company
from workers.control.jobs import Cause, Claim, LeaseLost, NoAnswer, Report
from workers.jobs import hashing, workspace
from workers.jobs.arrivals import arrivals_locked
from workers.jobs.finishing import job_finish
from workers.jobs.leases import job_claim
from workers.jobs.line import job_waits
from workers.jobs.models import AttemptLog, Job, JobKind, JobState
from workers.jobs.pausing import job_pause
from workers.nodes.models import Node, NodeState
from workers.nodes.services import node_revoke
from workers.offers.values import TaskOffer
from workers.remote import client as remote_client
from workers.remote import jobs as remote_jobs
from workers.remote.jobs import NodeFiles, RemoteJobs
from workers.run.order import Order
from workers.run.outcome import UNREQUESTED

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
WORKER = "compute@a"
DELIVERED = {
    "config.json": b'{"architectures": ["BertModel"]}',
    "model.safetensors": safetensors(),
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def intake_job() -> Job:
    """A queued job that checks a delivery."""
    model = company.model("bert", "embeddings")
    intake = Intake.objects.create(
        model=model,
        source="a supplier",
        license="MIT",
        files=[
            {"name": name, "size": len(content), "sha256": sha256(content)}
            for name, content in DELIVERED.items()
        ],
        submitted_by=model.created_by,
    )
    folder = store.quarantine_folder(intake.pk)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in DELIVERED.items():
        (folder / name).write_bytes(content)
    job = Job.objects.create(
        kind=JobKind.INTAKE,
        department=model.department,
        created_by=model.created_by,
        title="Check",
        spec={"intake": intake.pk, "task": "embeddings"},
        dispatches=1,
    )
    Intake.objects.filter(pk=intake.pk).update(job_id=job.pk, state="checking")
    return job


class ComputeNode:
    """The compute worker of a node: everything of it but Celery and the run's process."""

    def __init__(self, folder: Path) -> None:
        self.transport = DjangoTransport()
        self.client = client_of(folder, self.transport)
        cache = Cache(folder / "cache", 10**9)
        self.files = NodeFiles(self.client, cache, folder / "work")
        self.jobs = RemoteJobs(self.client, self.files)

    def claimed(self, job: Job) -> tuple[Claim, Order]:
        taken = self.jobs.claim(str(job.pk), WORKER)
        assert taken is not None
        return taken


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ComputeNode:
    monkeypatch.setattr(remote_client, "WAIT_FIRST_S", 0.001)
    node_made(tmp_path)
    return ComputeNode(tmp_path)


def output(node: ComputeNode, claim: Claim) -> dict[str, Any]:
    """Write what a run would write; return its result."""
    folder = node.files.attempt_folder(claim) / "output"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(DELIVERED["config.json"])
    (folder / "sub" / "weights.bin").write_bytes(b"weights" * 300_000)
    (folder / "empty.txt").touch()
    return {
        "findings": [{"check": "names", "passed": True, "detail": "all"}],
        "code": [],
        "converted": {},
        "manifest": build_manifest(folder).to_json(),
    }


def test_a_job_is_claimed_reported_and_delivered_without_a_shared_folder(
    node: ComputeNode,
) -> None:
    job = intake_job()
    claim, order = node.claimed(job)
    assert (claim.worker, claim.fence) == (f"gpu-1/{WORKER}", 1)
    inputs = node.files.attempt_folder(claim) / "inputs"
    node.files.fetch(order, inputs)
    for name, content in DELIVERED.items():
        assert (inputs / "delivery" / name).read_bytes() == content
    assert node.jobs.heartbeat(claim).alive
    node.jobs.report(claim, [Report("on\nit", 1, 2, {"loss": 1.5})], "checking")
    node.jobs.deliver(claim, output(node, claim))
    job.refresh_from_db()
    assert job.state == JobState.FINISHING
    assert job.progress["phase"] == "registering"
    assert [(event.message, event.data) for event in job.events.all()] == [("on it", {"loss": 1.5})]
    kept = workspace.output_folder(job.pk, 1)
    assert (kept / "sub" / "weights.bin").read_bytes() == b"weights" * 300_000
    assert not (workspace.attempt_folder(job.pk, 1) / "arrived").exists()
    node.files.leave(claim)
    assert not node.files.attempt_folder(claim).exists()
    assert job_finish(job.pk) == JobState.SUCCEEDED


def test_a_transfer_goes_on_where_it_broke_off_and_bytes_are_hashed_on_arrival(
    node: ComputeNode,
) -> None:
    claim, _ = node.claimed(intake_job())
    result = output(node, claim)
    broken: list[str] = []

    def lose(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        # The part has arrived, its answer has not.
        if request.method == "PATCH" and len(broken) < 2:
            broken.append(str(request.url))
            raise httpx.ReadTimeout("lost")
        return answer

    node.transport.spoil = lose
    node.jobs.deliver(claim, result)
    assert len(broken) == 2
    assert Job.objects.get().state == JobState.FINISHING


def test_links_that_a_run_left_are_not_followed(node: ComputeNode, tmp_path: Path) -> None:
    claim, _ = node.claimed(intake_job())
    result = output(node, claim)
    attempt, own = node.files.attempt_folder(claim), tmp_path / "own"
    own.write_bytes(DELIVERED["config.json"])
    (attempt / "delivered.json").symlink_to(own)
    config = attempt / "output" / "config.json"
    config.unlink()
    config.symlink_to(own)
    with pytest.raises(OSError, match="symbolic links"):
        node.jobs.deliver(claim, result)
    config.unlink()
    config.write_bytes(DELIVERED["config.json"])
    node.jobs.deliver(claim, result)
    assert own.read_bytes() == DELIVERED["config.json"]


def test_a_checkpoint_arrives_is_recorded_and_reaches_the_next_node(
    node: ComputeNode, tmp_path: Path
) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    for step in (1, 2):
        folder = node.files.checkpoints_folder(claim) / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "state.bin").write_bytes(b"state %d" % step)
        manifest = build_manifest(folder).to_json()
        node.jobs.checkpoint(claim, folder.name, manifest, [folder.name])
    job.refresh_from_db()
    assert set(job.checkpoints) == {"checkpoint-2"}
    assert [each.name for each in workspace.checkpoints_folder(job.pk).iterdir()] == [
        "checkpoint-2"
    ]
    node.jobs.fail(claim, "broke\x1b[0m", retry=True)
    Job.objects.update(dispatch_after="2020-01-01T00:00:00Z")
    other = tmp_path / "other"
    other.mkdir()
    node_made(other, "gpu-2")
    heir = ComputeNode(other)
    claim, order = heir.claimed(job)
    heir.files.fetch(order, heir.files.attempt_folder(claim) / "inputs")
    copied = heir.files.checkpoints_folder(claim) / "checkpoint-2" / "state.bin"
    assert copied.read_bytes() == b"state 2"


def test_a_node_reaches_no_job_of_another_node_and_no_file_outside_its_order(
    node: ComputeNode, tmp_path: Path
) -> None:
    job, own = intake_job(), intake_job()
    assert job_claim(job_id=job.pk, worker="gpu-2/compute@b") is not None
    claim, _ = node.claimed(own)
    secret = sha256(b"of another department")
    session = {"authorization": f"Bearer {node.client.session().token}"}
    caller = Client(headers=session)
    theirs = f"/node/v1/jobs/{job.pk}/attempts/1"
    for path in ("heartbeat", "canceled"):
        assert caller.post(f"{theirs}/{path}", {}, "application/json").status_code == 404
    body = json.dumps({"sentence": "x", "retry": True})
    assert caller.post(f"{theirs}/fail", body, "application/json").status_code == 404
    known = sha256(DELIVERED["config.json"])
    assert caller.get(f"{theirs}/files/{known}").status_code == 404
    mine = f"/node/v1/jobs/{own.pk}/attempts/{claim.fence}"
    assert caller.get(f"{mine}/files/{known}").status_code == 200
    assert caller.get(f"{mine}/files/{secret}").status_code == 404
    assert caller.get(f"/node/v1/jobs/{own.pk}/attempts/2/files/{known}").status_code == 404
    assert node.jobs.claim(str(job.pk), WORKER) is None
    assert Job.objects.get(pk=job.pk).state == JobState.RUNNING


def test_a_link_or_another_size_in_place_of_a_file_is_not_followed(
    node: ComputeNode, tmp_path: Path
) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    content = DELIVERED["config.json"]
    address = f"/node/v1/jobs/{job.pk}/attempts/{claim.fence}/files/{sha256(content)}"
    delivered = store.quarantine_folder(job.spec["intake"]) / "config.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(content)
    delivered.unlink()
    delivered.symlink_to(elsewhere)
    assert caller.get(address).status_code == 404
    delivered.unlink()
    delivered.write_bytes(content + b"more")
    assert caller.get(address).status_code == 404
    delivered.write_bytes(content)
    assert b"".join(caller.get(address).streaming_content) == content  # type: ignore[attr-defined]


def patched(caller: Client, address: str, content: bytes, size: int, offset: int = 0) -> Any:
    return caller.generic(
        "PATCH", f"{address}?size={size}&offset={offset}", content,
        content_type="application/offset+octet-stream",
    )  # fmt: skip


def test_uploads_are_bounded_in_bytes_and_refused_with_other_bytes(
    node: ComputeNode, settings: Any
) -> None:
    claim, _ = node.claimed(intake_job())
    settings.JOB_OUTPUT_MAX_BYTES = 100
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    base = f"/node/v1/jobs/{claim.job_id}/attempts/{claim.fence}/arrivals"
    address = f"{base}/{sha256(b'right')}"
    assert patched(caller, address, b"wrong", 5).json()["code"] == "digest_mismatch"
    assert patched(caller, address, b"ht", 5, 3).json()["code"] == "offset_mismatch"
    assert patched(caller, address, b"more than it", 5).status_code == 400
    assert patched(caller, address, b"right", 5).json() == {"offset": 5, "complete": True}
    assert patched(caller, f"{base}/{'0' * 64}", b"x", 96).status_code == 413
    assert patched(caller, f"{base}/{'0' * 64}", b"x", 10**30).status_code == 400


def test_a_node_claims_few_jobs_at_once_and_only_for_messages(
    node: ComputeNode, settings: Any
) -> None:
    settings.NODE_JOBS_AT_ONCE = 2
    jobs = [intake_job() for _ in range(3)]
    assert node.jobs.claim(str(uuid4()), WORKER) is None
    Job.objects.update(dispatches=0)
    assert node.jobs.claim(str(jobs[0].pk), WORKER) is None
    Job.objects.update(dispatches=1)
    held = [node.claimed(job)[0] for job in jobs[:2]]
    assert node.jobs.claim(str(jobs[2].pk), "compute@b") is None
    assert [job.state for job in Job.objects.order_by("created_at")] == [
        JobState.RUNNING, JobState.RUNNING, JobState.QUEUED,
    ]  # fmt: skip
    node.jobs.canceled(held[0])
    assert node.jobs.claim(str(jobs[2].pk), WORKER) is not None


def test_a_node_is_told_to_pause_a_job_and_confirms_it(node: ComputeNode) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    assert not node.jobs.heartbeat(claim).pause_requested
    job_pause(actor=company.developer(), job_id=job.pk)
    assert node.jobs.heartbeat(claim).pause_requested
    assert node.jobs.report(claim, [], "").pause_requested
    node.jobs.paused(claim)
    job.refresh_from_db()
    assert (job.state, job.worker, job.tries) == (JobState.PAUSED, "", 0)
    with pytest.raises(LeaseLost):
        node.jobs.paused(claim)


def test_a_node_claims_jobs_of_the_tasks_alone_that_it_reported(node: ComputeNode) -> None:
    job = intake_job()
    lacking = {"embeddings": TaskOffer("acme-embeddings 2.1", lacks="runner: It raised OSError.")}
    node.jobs.tasks_report(WORKER, lacking)
    assert node.jobs.claim(str(job.pk), WORKER) is None
    assert f"gpu-1/{WORKER} lacks it: runner: It raised OSError." in job_waits(job)
    node.jobs.tasks_report(WORKER, {"embeddings": TaskOffer("acme-embeddings 2.2")})
    assert node.claimed(job)[0].attempt == 1


def test_a_node_sends_the_last_lines_of_an_attempt_that_failed(node: ComputeNode) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    lines = "step 1\nTraceback (most recent call last):\n\x00KeyError"
    node.jobs.fail(claim, "Its recipe is wrong.", retry=False, cause=Cause.CODE, lines=lines)
    kept = AttemptLog.objects.get(job=job, attempt=1).lines
    assert kept.splitlines()[:2] == lines.splitlines()[:2]
    assert kept.endswith("KeyError")


def test_a_node_that_rules_out_a_retry_spends_an_attempt(node: ComputeNode, settings: Any) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    job = intake_job()
    for state in (JobState.QUEUED, JobState.FAILED):
        Job.objects.update(dispatch_after="2020-01-01T00:00:00Z")
        claim, _ = node.claimed(job)
        node.jobs.fail(claim, "It cannot succeed.", retry=False)
        job.refresh_from_db()
        assert job.state == state


def test_a_node_that_stops_a_job_without_a_request_spends_an_attempt(node: ComputeNode) -> None:
    for stop in (node.jobs.canceled, node.jobs.paused):
        job = intake_job()
        stop(node.claimed(job)[0])
        job.refresh_from_db()
        assert (job.state, job.tries) == (JobState.QUEUED, 1)
        assert job.error == UNREQUESTED


def test_the_last_attempt_is_another_machines_as_long_as_one_works(
    node: ComputeNode, settings: Any
) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    other = intake_job()
    assert job_claim(job_id=other.pk, worker="gpu-2/compute@b") is not None
    job = intake_job()
    claim, _ = node.claimed(job)
    node.jobs.fail(claim, "It broke.", retry=True)
    Job.objects.filter(pk=job.pk).update(dispatch_after="2020-01-01T00:00:00Z")
    assert node.jobs.claim(str(job.pk), WORKER) is None
    Job.objects.filter(pk=other.pk).update(worker="gpu-1/compute@z")
    assert node.claimed(job)[0].attempt == 2


@pytest.mark.parametrize(
    ("memory_gib", "hours"), [(64, 0), (4, 2)], ids=["fits no other one", "waited for long"]
)
def test_the_last_attempt_waits_for_no_machine_that_does_not_take_it(
    node: ComputeNode, settings: Any, memory_gib: int, hours: int
) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    small = {"devices": [], "memory_bytes": 8 * 1024**3}
    Node.objects.create(
        name="gpu-2", state=NodeState.ENROLLED, public_key="0" * 64, facts=small,
        created_by=Person.objects.first(),
    )  # fmt: skip
    other = intake_job()
    assert job_claim(job_id=other.pk, worker="gpu-2/compute@b") is not None
    job = intake_job()
    claim, _ = node.claimed(job)
    node.jobs.fail(claim, "It broke.", retry=True)
    waits = Job.objects.filter(pk=job.pk)
    waits.update(dispatch_after="2020-01-01T00:00:00Z", spec={**job.spec, "resources": {}})
    assert node.jobs.claim(str(job.pk), WORKER) is None
    since = timezone.now() - timedelta(hours=hours)
    resources = {"memory_gib": memory_gib}
    waits.update(queued_at=since, spec={**job.spec, "resources": resources})
    assert node.claimed(job)[0].attempt == 2


def test_the_control_plane_leaves_a_job_to_the_node_that_has_the_devices(
    node: ComputeNode, settings: Any
) -> None:
    job = intake_job()
    Job.objects.update(spec={**job.spec, "resources": {"devices": 8}})
    device = {"name": "gpu", "memory_bytes": 1, "memory_used_bytes": 0, "used": None}
    facts = {"devices": [device] * 8, "memory_bytes": 64 * 1024**3}
    Node.objects.update(facts=facts, seen_at=timezone.now())
    assert job_claim(job_id=job.pk, worker="w1") is None
    Node.objects.update(state=NodeState.CORDONED)
    with transaction.atomic():
        assert job_claim(job_id=job.pk, worker="w1") is not None
        transaction.set_rollback(True)
    Node.objects.update(state=NodeState.ENROLLED)
    assert node.claimed(job)[0].attempt == 1


def test_a_claim_whose_answer_is_lost_is_not_repeated(node: ComputeNode) -> None:
    job, other = intake_job(), intake_job()

    def lose(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.url.path.endswith("/claim"):
            raise httpx.ReadTimeout("lost")
        return answer

    node.transport.spoil = lose
    with pytest.raises(NoAnswer):
        node.jobs.claim(str(job.pk), WORKER)
    other.refresh_from_db()
    assert other.state == JobState.QUEUED


def test_files_of_an_order_are_those_of_the_claim(node: ComputeNode) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    Intake.objects.update(files=[])
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    known = sha256(DELIVERED["config.json"])
    assert caller.get(f"{upload_base(claim)}/files/{known}").status_code == 200


def upload_base(claim: Claim) -> str:
    return f"/node/v1/jobs/{claim.job_id}/attempts/{claim.fence}"


def test_checkpoints_that_were_recorded_count_with_what_an_attempt_may_send(
    node: ComputeNode, settings: Any
) -> None:
    claim, _ = node.claimed(intake_job())
    settings.JOB_OUTPUT_MAX_BYTES = 100
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    base = upload_base(claim)
    for step, status in ((1, 200), (2, 413)):
        content = b"%d" % step * 60
        address = f"{base}/arrivals/{sha256(content)}"
        assert patched(caller, address, content, 60).status_code == status
        name = f"checkpoint-{step}"
        found = Manifest(files=(ManifestFile("state.bin", 60, sha256(content)),)).to_json()
        body = {"name": name, "manifest": found, "there": ["checkpoint-1", name]}
        recorded = caller.post(f"{base}/checkpoints", json.dumps(body), "application/json")
        assert recorded.status_code == (204 if status == 200 else 400)
    body["there"], body["name"] = ["checkpoint-3"], "checkpoint-3"
    assert patched(caller, f"{base}/arrivals/{sha256(b'x' * 40)}", b"x" * 40, 40).status_code == 200
    body["manifest"] = Manifest(files=(ManifestFile("a", 40, sha256(b"x" * 40)),)).to_json()
    recorded = caller.post(f"{base}/checkpoints", json.dumps(body), "application/json")
    assert recorded.status_code == 204
    # The first checkpoint is gone, and no longer counts.
    assert patched(caller, f"{base}/arrivals/{sha256(b'y' * 60)}", b"y" * 60, 60).status_code == 200


def test_a_second_request_for_an_attempts_files_does_not_wait_for_the_first(
    node: ComputeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_jobs, "BUSY_WAIT_S", 0)
    claim, _ = node.claimed(intake_job())
    result = output(node, claim)
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    address = f"{upload_base(claim)}/arrivals/{sha256(b'right')}"
    with arrivals_locked(claim):
        assert patched(caller, address, b"right", 5).json()["code"] == "arrivals_busy"
        with pytest.raises(NoAnswer):
            node.jobs.deliver(claim, result)
    assert patched(caller, address, b"right", 5).json() == {"offset": 5, "complete": True}
    node.jobs.deliver(claim, result)


def test_parts_that_several_processes_took_are_hashed_in_steps(
    node: ComputeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "STEP_BYTES", 2)
    claim, _ = node.claimed(intake_job())
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    address = f"{upload_base(claim)}/arrivals/{sha256(b'rightly')}"
    assert patched(caller, address, b"righ", 7).json() == {"offset": 4, "complete": False}
    hashing._hashings.clear()
    assert patched(caller, address, b"tly", 7, 4).json() == {"offset": 7, "complete": False}
    for complete in (False, False, True):
        assert patched(caller, address, b"", 7, 7).json() == {"offset": 7, "complete": complete}


def test_a_hash_of_removed_bytes_is_not_continued(node: ComputeNode) -> None:
    claim, _ = node.claimed(intake_job())
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    address = f"{upload_base(claim)}/arrivals/{sha256(b'right')}"
    patched(caller, address, b"rig", 5)
    remembered = dict(hashing._hashings)
    # Another process takes the end, finds other bytes, and takes other ones from the start.
    hashing._hashings.clear()
    assert patched(caller, address, b"!!", 5, 3).json()["code"] == "digest_mismatch"
    patched(caller, address, b"WRO", 5)
    hashing._hashings.clear()
    hashing._hashings.update(remembered)
    assert patched(caller, address, b"ht", 5, 3).json()["code"] == "digest_mismatch"


Break = Callable[[dict[str, Any]], None]


def away(result: dict[str, Any]) -> None:
    result["manifest"]["files"].append({"path": "never-sent", "size": 1, "sha256": "1" * 64})


def extra(result: dict[str, Any]) -> None:
    result["version"] = 7


@pytest.mark.parametrize("spoil", [away, extra])
def test_a_result_that_is_malformed_or_whose_files_are_missing_is_refused(
    node: ComputeNode, spoil: Break
) -> None:
    claim, _ = node.claimed(intake_job())
    result = output(node, claim)
    for file in build_manifest(node.files.attempt_folder(claim) / "output").files:
        folder = node.files.attempt_folder(claim) / "output"
        node.jobs._send_file(claim, folder, file.path, file.sha256, file.size)
    spoil(result)
    path = node.files.attempt_folder(claim) / "result"
    content = json.dumps(result).encode()
    path.write_bytes(content)
    node.jobs._send_file(claim, path.parent, path.name, sha256(content), len(content))
    caller = Client(headers={"authorization": f"Bearer {node.client.session().token}"})
    answer = caller.post(
        f"/node/v1/jobs/{claim.job_id}/attempts/{claim.fence}/deliver",
        {"result": sha256(content)},
        "application/json",
    )
    assert answer.status_code == 400
    assert Job.objects.get().state == JobState.RUNNING


def test_a_node_that_gets_nothing_new_claims_nothing_and_a_revoked_one_is_not_answered(
    node: ComputeNode,
) -> None:
    job, waiting = intake_job(), intake_job()
    claim, _ = node.claimed(job)
    Node.objects.update(state=NodeState.CORDONED)
    assert node.jobs.claim(str(waiting.pk), WORKER) is None
    assert node.jobs.heartbeat(claim).alive
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1", reason="Sold")
    with pytest.raises(NoAnswer):
        node.jobs.heartbeat(claim)
    waiting.refresh_from_db()
    assert waiting.state == JobState.QUEUED


def test_a_lease_that_another_worker_has_taken_is_told_as_lost(node: ComputeNode) -> None:
    job = intake_job()
    claim, _ = node.claimed(job)
    Job.objects.update(lease_until="2020-01-01T00:00:00Z")
    assert job_claim(job_id=job.pk, worker="w2") is not None
    assert not node.jobs.heartbeat(claim).alive
    with pytest.raises(LeaseLost):
        node.jobs.report(claim, [], "training")
