"""Media of requests reach a node by HTTP, and only those of what is placed on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, QuotaExceeded, TooLarge
from registry.media.store import MediaReference, media_open, media_put
from tests.unit.assay.node_support import DjangoTransport, client_of, node_made, place
from tests.unit.registry.media_files import picture
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Replica
from workers.deployments.services import deployment_create
from workers.placement.models import Placement
from workers.remote.control import RemoteMedia

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
PNG = picture()


class Stage:
    """A node with one of two deployments."""

    def __init__(self, folder: Path) -> None:
        node_made(folder)
        self.transport = DjangoTransport()
        self.media = RemoteMedia(client_of(folder, self.transport))
        self.own, self.theirs = (self._deployed(name) for name in ("docs", "notes"))
        place(self.own, "gpu-1/engine@a")
        place(self.theirs, "gpu-2/engine@a")

    def _deployed(self, name: str) -> int:
        made = release(adapter(name.encode()), name)
        return deployment_create(actor=company.developer(), release_id=made.pk).pk


@pytest.fixture
def stage(tmp_path: Path, settings: Any, redis: Any) -> Stage:
    settings.DATA_DIR = tmp_path / "data"
    return Stage(tmp_path)


def put(deployment_id: int, data: bytes = PNG) -> MediaReference:
    return media_put(data, content_type="image/png", deployment_id=deployment_id)


def test_a_node_reads_the_media_of_requests_to_what_is_placed_on_it(stage: Stage) -> None:
    assert stage.media.read(stage.own, put(stage.own)).getvalue() == PNG


def test_a_node_cannot_read_media_of_other_deployments(stage: Stage) -> None:
    foreign = put(stage.theirs)
    for claimed in (stage.theirs, stage.own):
        with pytest.raises(NotFound):
            stage.media.read(claimed, foreign)
    Placement.objects.filter(deployment_id=stage.own).delete()
    with pytest.raises(NotFound):
        stage.media.read(stage.own, put(stage.own))


def test_a_worker_that_lets_go_of_a_deployment_still_answers_its_last_requests(
    stage: Stage,
) -> None:
    Placement.objects.filter(deployment_id=stage.own).delete()
    Replica.objects.create(
        deployment_id=stage.own,
        worker="gpu-1/engine@a",
        state="stopped",
        heartbeat_at=timezone.now(),
    )
    assert stage.media.read(stage.own, put(stage.own)).getvalue() == PNG


def test_a_guessed_name_another_digest_and_a_removed_file_are_not_found(stage: Stage) -> None:
    reference = put(stage.own)
    changes = (
        {"media": "0" * 32},
        {"media": reference.media[:-1] + ("0" if reference.media[-1] != "0" else "1")},
        {"sha256": "0" * 64},
        {"size": reference.size + 1},
    )
    for change in changes:
        wrong = MediaReference(**{**reference.to_json(), **change})  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            stage.media.read(stage.own, wrong)
    reference.path.unlink()
    with pytest.raises(NotFound):
        stage.media.read(stage.own, reference)


def test_other_bytes_than_the_reference_names_are_refused_on_the_node(stage: Stage) -> None:
    reference = put(stage.own)

    def spoiled(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        return httpx.Response(200, content=b"x" * reference.size, request=request)

    stage.media.read(stage.own, reference)
    stage.transport.spoil = spoiled
    with pytest.raises(NotFound, match="not the one that the reference names"):
        stage.media.read(stage.own, reference)


def test_a_file_that_a_runner_made_reaches_the_gateway(stage: Stage) -> None:
    reference = stage.media.write(stage.own, PNG, "image/png")
    assert media_open(reference).read() == PNG
    assert reference.is_of(stage.own)


def test_a_node_sends_no_media_for_others_of_no_other_kind_and_not_without_end(
    stage: Stage, settings: Any
) -> None:
    with pytest.raises(NotFound):
        stage.media.write(stage.theirs, PNG, "image/png")
    with pytest.raises(InvalidInput):
        stage.media.write(stage.own, b"<html>", "image/png")
    with pytest.raises(InvalidInput):
        stage.media.write(stage.own, PNG, "text/html")
    settings.MEDIA_STORE_BYTES = 4 * (len(PNG) + 10)
    stage.media.write(stage.own, PNG, "image/png")
    with pytest.raises(QuotaExceeded):
        stage.media._client.send(
            "POST",
            f"deployments/{stage.own}/media",
            tries=1,
            params={"content_type": "image/png"},
            headers={"Content-Type": "application/offset+octet-stream"},
            content=PNG,
        )


def test_a_media_file_is_bounded_by_the_limit_of_media_alone(stage: Stage, settings: Any) -> None:
    settings.UPLOAD_CHUNK_BYTES = 10
    assert stage.media.write(stage.own, PNG, "image/png").size == len(PNG)
    settings.MEDIA_MAX_BYTES = 10
    with pytest.raises(TooLarge):
        stage.media.write(stage.own, PNG, "image/png")
