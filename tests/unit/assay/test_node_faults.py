"""A node whose network is slow, or whose processes stand still: bounded, told, and continued."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.manifests import Manifest
from registry.storage import cache, pace
from registry.storage.backend import file_key
from registry.storage.cache import Cache
from tests.unit.assay.node_support import client_of
from tests.unit.assay.test_node_serving import EngineNode, deployed, node
from workers.deployments import reconciler
from workers.deployments.models import Replica
from workers.placement.models import Placement
from workers.remote import identity
from workers.remote.client import ControlPlaneAway

__all__ = ["node"]

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def of_weights(request: httpx.Request, answer: httpx.Response) -> bool:
    """Return whether the answer has bytes of the adapter's weights."""
    is_file = "/files/" in request.url.path and request.method == "GET"
    return is_file and answer.status_code < 300 and len(answer.content) >= 1000


class Pieces(httpx.SyncByteStream):
    """An answer in pieces of 100 bytes; with `most`, the connection breaks after so many bytes."""

    def __init__(self, content: bytes, most: int | None = None) -> None:
        self._content, self._most = content, most

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), 100):
            if start == self._most:
                raise httpx.ReadTimeout("stalls")
            time.sleep(0.001)
            yield self._content[start : start + 100]


def in_pieces(
    request: httpx.Request, answer: httpx.Response, most: int | None = None
) -> httpx.Response:
    stream = Pieces(answer.content, most)
    return httpx.Response(
        answer.status_code, headers=answer.headers, stream=stream, request=request
    )


def test_a_slow_download_says_how_far_it_is_and_keeps_what_it_has(
    node: EngineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "TOLD_S", 0.0)
    deployed(b"x" * 3000)
    messages: list[str] = []

    def drip(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        messages.extend(Replica.objects.values_list("message", flat=True))
        return in_pieces(request, answer, 1000) if of_weights(request, answer) else answer

    node.transport.spoil = drip
    node.reconcile()
    assert Replica.objects.get().state == "ready"
    told = [each for each in messages if each.startswith("Fetching files. 2.0 kB of 3.0 kB")]
    assert "have arrived, at" in told[0]


def test_a_download_that_would_take_days_is_given_up_and_goes_on_later(
    node: EngineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "JUDGED_S", 0.0)
    monkeypatch.setattr(pace, "LONGEST_S", 0.0)
    deployed(b"x" * 3000)
    ranges: list[str] = []

    def drip(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if not of_weights(request, answer):
            return answer
        ranges.append(request.headers.get("range", ""))
        return in_pieces(request, answer)

    node.transport.spoil = drip
    node.reconcile()
    replica = Replica.objects.get()
    assert (replica.state, replica.failures) == ("failed", 1)
    assert "The store is too slow" in replica.message
    assert "of 3.0 kB of file" in replica.message
    monkeypatch.setattr(pace, "LONGEST_S", 1e9)
    later = time.monotonic() + 10
    monkeypatch.setattr(reconciler.time, "monotonic", lambda: later)
    node.reconcile()
    assert Replica.objects.get().state == "ready"
    assert ranges == ["", "bytes=100-"]


def test_a_load_ends_when_its_deployment_is_stopped_meanwhile(
    node: EngineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "TOLD_S", 0.0)
    deployment = deployed(b"x" * 3000)

    def stop(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if not of_weights(request, answer):
            return answer
        Placement.objects.all().delete()
        return in_pieces(request, answer)

    node.transport.spoil = stop
    node.reconcile()
    assert node.host.loaded() == {}
    assert Replica.objects.get(deployment=deployment).state == "stopped"


def test_a_process_that_stands_still_holds_up_no_other_for_long(
    node: EngineNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_STUCK_S", 0.0)
    monkeypatch.setattr(identity, "LOCK_PATIENCE_S", 0.0)
    deployment = deployed()
    sha256 = next(
        file.sha256
        for file in Manifest.from_json(deployment.release.version.manifest).files
        if file.path == "weights.bin"
    )
    held = Cache(tmp_path / "cache", 10**9)
    with held._partial(file_key(sha256)):
        node.reconcile()
    assert "has stalled" in Replica.objects.get().message
    other = client_of(tmp_path, node.transport)
    (tmp_path / "key.session").unlink()
    with identity.SessionFile(tmp_path / "key").locked(), pytest.raises(ControlPlaneAway):
        other.keep()
