"""Every operation of `/node/v1` with wrong types, huge and odd bodies, other nodes' IDs, and ended
sessions: refused with a reason, never a fault of ours.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from registry.manifests import Manifest, ManifestFile
from tests.abuse.database import undone
from tests.abuse.surface import JSON, Operation, body_of, filled, operations
from tests.unit.assay.node_support import client_of, node_made
from tests.unit.assay.test_node_api import FACTS, deployed, weights
from tests.unit.assay.test_node_jobs import DELIVERED, WORKER, intake_job, sha256
from tests.unit.assay.test_node_software import deployed as compared
from tests.unit.assay.test_node_software import stored_bytes
from tests.unit.workers import company
from workers.jobs.leases import job_claim
from workers.nodes.models import NodeSession
from workers.nodes.services import node_revoke

pytestmark = pytest.mark.django_db
OCTETS = "application/offset+octet-stream"
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, 2**63, 10**30, "", " ", "x" * 100_000, "nul\x00byte", "\ud800",
    "\u202e", "line\nbreak", "１２", "١", "../..", "%00", "' OR 1=1 --", [], [[]], [None],
    ["own"] * 999, {}, {"": ""}, {"a": {"b": {"c": [1, None]}}}, {"nul\x00": "nul\x00"}, "NaN",
    "a" * 64, "f" * 128,
)  # fmt: skip
RAW = (
    b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"\x00" * 100, b'{"worker": NaN}',
    b'{"worker": 1e999}', b"[" * 5_000, b'{"a":' * 5_000, b'{"worker": "a", "worker": "b"}',
    b"x" * 3_000_000, b'{"worker": "' + b"y" * 3_000_000 + b'"}',
)  # fmt: skip
PARTS = ("0", "-1", "1" * 30, "1.5", "%00", "..", "%2e%2e", "x" * 300, "%ED%A0%80", "' OR 1=1 --")


class Walk:
    """A node with a deployment and a running job, and right bodies for each operation."""

    def __init__(self, folder: Path) -> None:
        node_made(folder)
        client = client_of(folder)
        client.get("assignments", worker="engine@a", engines="own")
        self.headers = {"authorization": f"Bearer {client.session().token}"}
        self.client = Client(headers=self.headers, raise_request_exception=False)
        image = stored_bytes(b"an image")
        deployment = compared({"hello": "hello"}, files={"image": image}, worker="gpu-1/engine@a")
        self.other = deployed("gpu-2/engine@b", "other")
        self.job, self.other_job = intake_job(), intake_job()
        assert job_claim(job_id=self.job.pk, worker="gpu-2/compute@b") is not None
        answer = self.send("POST", f"/node/v1/jobs/{self.other_job.pk}/claim", {"worker": WORKER})
        claim = answer.json()["claim"]
        arrived = sha256(b"x")
        manifest = Manifest(files=(ManifestFile("a", 1, arrived),)).to_json()
        self.book = {
            "deployments": deployment.pk,
            "files": weights(deployment),
            "jobs": claim["job_id"],
            "attempts": claim["fence"],
            "arrivals": sha256(DELIVERED["config.json"]),
            "media": "0" * 64,
            "references": image,
        }
        capacity = {"memory": 1, "device": "cpu", "devices": 1, "labels": ["a"]}
        device = {"name": "H100", "memory_bytes": 8, "memory_used_bytes": 1, "used": 0.5}
        reports = [{"message": "a", "step": 1, "total": 2, "values": {"loss": 1.0}}]
        self.bodies: dict[str, dict[str, Any]] = {
            "join": {"token": "assay_a", "public_key": "ab" * 32, "facts": FACTS},
            "challenge": {"node": "gpu-1"},
            "session": {"node": "gpu-1", "challenge": "a.b.c", "signature": "ab" * 64},
            "replicas": {
                "worker": "engine@a", "deployment": deployment.pk, "state": "loading",
                "loaded_digest": "", "message": "m", "load_seconds": 1, "failures": 1,
                "retry_in_s": 5,
            },
            "heartbeats": {
                "worker": "engine@a", "engines": ["own"], "facts": {**FACTS, "devices": [device]},
            },
            "stop": {"worker": "engine@a"},
            "keys": {
                "worker": "engine@a", "public_key": "ab" * 32, "engines": ["own"],
                "capacity": capacity,
                "software": {
                    "environments": {"own": {"torch": "3"}},
                    "code": {"mine": {"digest": "ab" * 32, "packages": "mine 1"}},
                },
            },
            "references": {
                "worker": "engine@a", "answers": [{"row": 0, "text": "hello", "results": []}],
            },
            "claim": {"worker": WORKER},
            "reports": {"reports": reports, "phase": "training"},
            "checkpoints": {
                "name": "checkpoint-1", "manifest": manifest, "there": ["checkpoint-1"],
            },
            "deliver": {"result": "0" * 64},
            "fail": {"sentence": "It broke.", "retry": True},
            "heartbeat": {},
            "canceled": {},
        }  # fmt: skip
        # A heartbeat and a checkpoint refer to these.
        self.send("POST", "/node/v1/workers/keys", self.bodies["keys"])
        attempt = f"/node/v1/jobs/{claim['job_id']}/attempts/{claim['fence']}"
        upload = f"{attempt}/arrivals/{arrived}?size=1&offset=0"
        self.send("PATCH", upload, b"x", OCTETS)

    def body(self, operation: Operation) -> dict[str, Any] | None:
        if operation.method != "POST" or operation.media == OCTETS:
            return None
        known = self.bodies.get(operation.path.rpartition("/")[2])
        return body_of(operation, {}) if known is None else known

    def send(self, method: str, path: str, body: Any = None, media: str = JSON) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body)
        return self.client.generic(method, path, content, content_type=media)

    def fault(self, method: str, path: str, body: Any = None, media: str = JSON) -> str:
        """Send it, undo it, and return what is wrong with the answer; empty when nothing is."""
        with undone():
            answer = self.send(method, path, body, media)
        kind = answer.headers.get("Content-Type", "")
        refused = answer.status_code >= 400
        if answer.status_code >= 500 or (refused and kind != "application/problem+json"):
            return f"{method} {path[:80]} {str(body)[:60]!r}: {answer.status_code} {kind}"
        return ""


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path)


# All of them at each place take minutes: places take turns.
_turns = cycle(ODD)
_raw_turns = cycle(RAW)
_part_turns = cycle(PARTS)
AT_ONCE = 3


def some(turns: Iterator[Any]) -> list[Any]:
    return list(islice(turns, AT_ONCE))


def spoiled(value: Any) -> Iterator[Any]:
    """The value with each of its members, at every depth, made odd, or left out."""
    if isinstance(value, dict):
        for name in value:
            yield {other: each for other, each in value.items() if other != name}
            for odd in (*some(_turns), *spoiled(value[name])):
                yield {**copy.deepcopy(value), name: odd}
        yield {**value, "unknown": 1}
    elif isinstance(value, list) and value:
        for odd in (*some(_turns), *spoiled(value[0])):
            yield [odd, *value[1:]]


def test_the_bodies_are_accepted_before_they_are_made_odd(walk: Walk) -> None:
    refused = []
    for operation in operations("/node/"):
        body = walk.body(operation)
        # These need a secret, a signature and a result that no other test here makes.
        if body is None or operation.path.rpartition("/")[2] in {"join", "session", "deliver"}:
            continue
        with undone():
            answer = walk.send(operation.method, filled(operation, walk.book), body)
        if answer.status_code >= 300:
            refused.append(f"{operation}: {answer.content!r}")
    assert refused == []


def test_no_odd_member_of_any_body_is_a_fault(walk: Walk) -> None:
    faults = []
    for operation in operations("/node/"):
        body = walk.body(operation)
        path = filled(operation, walk.book)
        tried = () if body is None else (body, *spoiled(body), *some(_raw_turns), *some(_turns))
        faults.extend(walk.fault(operation.method, path, odd) for odd in tried)
    assert [each for each in faults if each] == []


def test_no_odd_query_part_of_a_path_or_upload_is_a_fault(walk: Walk) -> None:
    faults = []
    for operation in operations("/node/"):
        path, body = filled(operation, walk.book), walk.body(operation)
        media = operation.media or JSON
        for parameter in (*operation.query, "unknown"):
            for odd in (*some(_part_turns), "1," * 9_000):
                query = {
                    "worker": "engine@a",
                    "engines": "own",
                    "size": "1",
                    "content_type": "image/png",
                }
                query[parameter] = odd
                whole = "&".join(f"{name}={value}" for name, value in query.items())
                faults.append(walk.fault(operation.method, f"{path}?{whole}", body, media))
        for collection, _ in operation.places:
            for odd in (*some(_part_turns), str(uuid4())):
                other = filled(operation, {**walk.book, collection: odd})
                faults.append(walk.fault(operation.method, other, body, media))
        if operation.media == OCTETS:
            queries = ("size=5&offset=0", "size=5&offset=" + "9" * 16)
            queries = queries if operation.method == "PATCH" else ("content_type=image/png",)
            for raw in RAW:
                for query, given in product(queries, (OCTETS, JSON, "text/plain")):
                    faults.append(walk.fault(operation.method, f"{path}?{query}", raw, given))
        if operation.method == "GET":
            for given in (
                "bytes=9-",
                "bytes=" + "9" * 40 + "-",
                "bytes=--",
                "x" * 9_000,
                "bytes=0-0",
            ):
                with undone():
                    answer = walk.client.get(path, headers={"range": given})
                faults.append("" if answer.status_code < 500 else f"{path} {given[:20]}")
    assert [each for each in faults if each] == []


def test_ids_of_other_nodes_do_not_exist_and_ended_sessions_open_nothing(walk: Walk) -> None:
    theirs = {
        **walk.book, "deployments": walk.other.pk, "files": weights(walk.other),
        "jobs": walk.job.pk, "attempts": 1,
    }  # fmt: skip
    held = [each for each in operations("/node/") if each.places and "/claim" not in each.path]
    for operation in held:
        path = filled(operation, theirs)
        tail = "?size=1" if "arrivals" in path else ""
        if operation.method == "GET" and path.endswith("/references"):
            tail = "?worker=engine@a"
        if "/media" in path:
            one = "content_type=image/png" if operation.method == "POST" else "size=1"
            tail = f"?{one}" + ("" if operation.method == "POST" else f"&media={'0' * 32}")
        media = operation.media or JSON
        body = b"x" if media == OCTETS else walk.body(operation)
        with undone():
            answer = walk.send(operation.method, path + tail, body, media)
        assert answer.status_code == 404, (str(operation), answer.content)

    def codes() -> set[tuple[int, str]]:
        found = set()
        for operation in operations("/node/"):
            if operation.path.rpartition("/")[2] in {"join", "challenge", "session"}:
                continue
            path = filled(operation, walk.book)
            with undone():
                answer = walk.send(operation.method, path, walk.body(operation))
            found.add((answer.status_code, answer.json()["code"]))
        return found

    NodeSession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert codes() == {(401, "node_session_ended")}
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1")
    assert codes() == {(401, "node_revoked")}
