"""Publishing beside the sealer: in steps, by one process of many, until it is told to stop."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.db import connection, connections, transaction

from governance.audit import sealer
from governance.audit.models import AuditCheckpoint, AuditEvent, AuditKeeper
from governance.audit.outside import publishing
from governance.audit.outside.places import Folder
from governance.audit.outside.publishing import publish_pending
from governance.audit.selectors import latest_checkpoint, publish_lag_s, verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.tree import tiles
from governance.audit.tree.proofs import leaf_hashes
from governance.principals import service_principal

pytestmark = pytest.mark.sweep


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return settings.AUDIT_PUBLISH_DIR


def record(count):
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(count)
        )


def seal(batch):
    """Seals without publishing, as the controller's sealer does."""
    return sealer._seal_batch(batch)


@pytest.mark.django_db
def test_a_backlog_is_published_a_step_at_a_time_and_what_is_done_stays_done(folder, monkeypatch):
    monkeypatch.setattr(publishing, "STEP", 300)
    record(1000)
    assert [seal(200) for _ in range(5)] == [200] * 5
    assert publish_lag_s() > 0
    stop = threading.Event()
    stop.set()
    sizes = []
    while latest_checkpoint().published_at is None:
        assert publish_pending(stop)
        note = tiles.published_checkpoint(folder)
        head = AuditCheckpoint.objects.get(note=note)
        waiting = AuditCheckpoint.objects.filter(published_at=None)
        assert {one.tree_size > head.tree_size for one in waiting} <= {True}
        sizes.append(head.tree_size)
    # A head at every 200: the furthest within a step.
    assert sizes == [200, 400, 600, 800, 1000]
    assert publish_lag_s() == 0
    assert AuditKeeper.objects.get(key=str(folder)).size == 1000
    assert verify_live().ok


@pytest.mark.django_db
def test_a_head_further_than_a_step_is_published_at_once(folder, monkeypatch):
    monkeypatch.setattr(publishing, "STEP", 10)
    record(600)
    seal(600)
    assert publish_pending()
    assert (folder / "tile/0/002.p/88").is_file()
    assert verify_live().ok


@pytest.mark.django_db
def test_what_was_published_and_not_noted_is_noted_and_not_written_again(folder):
    record(5)
    seal(5)
    # As a crash leaves it that comes after the last write.
    tiles.publish_tree(folder, size=5, published=0, leaves=leaf_hashes)
    tiles.publish_checkpoint(folder, latest_checkpoint().note)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert latest_checkpoint().published_at is None
    assert publish_pending()
    assert latest_checkpoint().published_at is not None
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert after == before


@pytest.mark.django_db(transaction=True)
def test_the_controllers_loops_seal_and_publish_side_by_side(folder, settings):
    settings.AUDIT_PUBLISH_INTERVAL_S = 0
    stop = threading.Event()
    loops = [
        threading.Thread(target=loop, args=(stop,))
        for loop in (sealer.run, publishing.run, sealer.run, publishing.run)
    ]
    for thread in loops:
        thread.start()
    try:
        for _ in range(20):
            record(30)
        while (
            AuditEvent.objects.filter(sequence=None).exists()
            or AuditCheckpoint.objects.filter(published_at=None).exists()
        ):
            connection.close()
    finally:
        stop.set()
        for thread in loops:
            thread.join()
    report = verify_live()
    assert (report.ok, report.events) == (True, 600)
    assert tiles.published_checkpoint(folder) == latest_checkpoint().note
    connections.close_all()


@pytest.mark.django_db
def test_a_place_that_is_not_mounted_is_not_taken_for_a_new_one(folder, settings, tmp_path):
    record(5)
    assert seal(5) == 5
    assert publish_pending()
    folder.rename(tmp_path / "away")
    folder.mkdir()
    record(1)
    assert seal(5) == 1
    assert not publish_pending()
    assert list(folder.iterdir()) == []
    assert "Is its storage mounted?" in AuditKeeper.objects.get().fault
    folder.rmdir()
    (tmp_path / "away").rename(folder)
    assert publish_pending()
    # Another place is begun from the first event.
    settings.AUDIT_PUBLISH_DIR = tmp_path / "new"
    record(1)
    assert seal(5) == 1
    assert publish_pending()
    assert verify_live().ok
    assert (tmp_path / "new/tile/0/000.p/7").is_file()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path):
    assert Folder(tmp_path / "new" / "folder").faults() == []
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert "cannot be written" in Folder(file).faults()[0]
    with pytest.raises(OSError, match="file"):
        Folder(file).put("tile/0/000.p/1", b"")
    assert Folder(file).names("tile") == []
