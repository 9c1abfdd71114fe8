"""The second place in a bucket with object lock, on a server that speaks S3."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connection, connections, transaction

from governance.audit import sealer
from governance.audit.alarms import alarms_check
from governance.audit.models import AuditAlarm, AuditCheckpoint, AuditEvent, AuditKeeper
from governance.audit.outside import publishing
from governance.audit.outside.places import PlaceUnavailable, PublishRefused
from governance.audit.outside.publishing import PUBLISHER_LOCK, publish_pending
from governance.audit.outside.second_place import second_place
from governance.audit.sealer import seal_once
from governance.audit.selectors import latest_checkpoint, verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_signer
from governance.audit.tree import tiles
from governance.principals import service_principal

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer  # It takes a second to load.

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(server):
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=server, region_name="us-east-1")


@pytest.fixture
def bucket(s3, server, settings, request):
    """A bucket with object lock, named in the settings."""
    name = f"evidence-{abs(hash(request.node.nodeid))}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    use(settings, server, f"s3://{name}/assay/log")
    return name


def use(settings, server, url):
    settings.AUDIT_PUBLISH_URL = url
    settings.AUDIT_S3_ENDPOINT_URL = server
    settings.AUDIT_S3_REGION = "us-east-1"
    settings.AUDIT_S3_RETENTION_DAYS = 40


def record(count):
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(count)
        )


def versions(s3, bucket, key):
    found = s3.list_object_versions(Bucket=bucket, Prefix=f"assay/log/{key}").get("Versions", [])
    return [one["VersionId"] for one in found if one["Key"] == f"assay/log/{key}"]


def alarms():
    alarms_check()
    return {row.name: row.message for row in AuditAlarm.objects.all()}


@pytest.mark.django_db
def test_full_tiles_and_every_checkpoint_are_locked_and_cannot_be_deleted(s3, bucket):
    assert second_place().faults() == []
    for count in (300, 300, 5):
        record(count)
        assert seal_once() == count
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [
        f"assay/log/{name}"
        for name in (
            "checkpoint",
            "tile/0/000",
            "tile/0/001",
            "tile/0/002.p/88",
            "tile/0/002.p/93",
            "tile/1/000.p/1",
            "tile/1/000.p/2",
        )
    ]
    assert len(versions(s3, bucket, "checkpoint")) == 3
    for key in ("checkpoint", "tile/0/000", "tile/0/001"):
        for version in versions(s3, bucket, key):
            name = {"Bucket": bucket, "Key": f"assay/log/{key}", "VersionId": version}
            there = s3.head_object(**name)
            assert there["ObjectLockMode"] == "COMPLIANCE"
            until = there["ObjectLockRetainUntilDate"]
            assert until > datetime.now(UTC) + timedelta(days=39)
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(**name)
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(**name, BypassGovernanceRetention=True)
    leaves = AuditEvent.objects.order_by("sequence").values_list("leaf_hash", flat=True)
    tile = s3.get_object(Bucket=bucket, Key="assay/log/tile/0/001")["Body"].read()
    assert tile == b"".join(bytes(leaf) for leaf in leaves[256:512])
    assert tiles.read_tile(second_place(), 0, 2, 256) == b"".join(map(bytes, leaves[512:]))
    assert tiles.published_checkpoint(second_place()) == latest_checkpoint().note
    report = verify_live()
    assert (report.ok, report.events) == (True, 605)


def tamper(sql):
    """As the owner of the tables, who can take the guards off."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("auditevent", "auditcheckpoint"):
            cursor.execute(f"ALTER TABLE governance_{table} DISABLE TRIGGER USER")
        cursor.execute(sql)
        for table in ("auditevent", "auditcheckpoint"):
            cursor.execute(f"ALTER TABLE governance_{table} ENABLE TRIGGER USER")


@pytest.mark.django_db
def test_a_row_replaced_with_its_hash_is_named_by_the_tiles_in_the_bucket(s3, bucket):
    record(6)
    seal_once()
    tamper(
        "UPDATE governance_auditevent SET canonical = '{}', leaf_hash = sha256('\\x007b7d')"
        " WHERE sequence = 3"
    )
    report = verify_live()
    assert (report.ok, report.first_bad) == (False, 3)
    assert "the published tile" in report.message


@pytest.mark.django_db
def test_a_deleted_checkpoint_is_hidden_and_is_evidence_still(s3, bucket):
    record(4)
    seal_once()
    note = latest_checkpoint().note
    s3.delete_object(Bucket=bucket, Key="assay/log/checkpoint")
    assert tiles.published_checkpoint(second_place()) == note
    # Another history, signed with the right key, is not published over it.
    root = b"\x07" * 32
    forged = audit_signer().sign(4, root)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_auditcheckpoint DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE governance_auditcheckpoint SET root_hash = %s, note = %s, published_at = NULL",
            [root, forged],
        )
        cursor.execute("ALTER TABLE governance_auditcheckpoint ENABLE TRIGGER USER")
    assert not publish_pending()
    assert tiles.published_checkpoint(second_place()) == note
    assert (
        "the published root over 4 events is not the database's"
        in (alarms()["publishing_contradicted"])
    )


@pytest.mark.django_db
def test_evidence_is_not_overwritten_by_a_history_that_it_contradicts(s3, bucket, settings):
    place = second_place()
    evidence = audit_signer().sign(2, b"\x07" * 32)
    tiles.publish_checkpoint(place, evidence)
    record(3)
    assert seal_once() == 3
    assert tiles.published_checkpoint(place) == evidence
    assert len(versions(s3, bucket, "checkpoint")) == 1
    assert latest_checkpoint().published_at is None
    found = alarms()
    assert "root over 2 events" in found["publishing_contradicted"]
    # That nobody answers now does not make it good again.
    settings.AUDIT_S3_ENDPOINT_URL = closed()
    assert not publish_pending()
    assert "publishing_contradicted" in alarms()


@pytest.mark.django_db
def test_a_full_tile_with_other_hashes_stops_publishing(s3, bucket):
    place = second_place()
    place.keep([("tile/0/001", b"\x07" * tiles.TILE_BYTES)])
    place.keep([("tile/0/001", b"\x07" * tiles.TILE_BYTES)])
    with pytest.raises(PublishRefused):
        place.keep([("tile/0/001", bytes(tiles.TILE_BYTES))])
    assert len(versions(s3, bucket, "tile/0/001")) == 1
    record(600)
    assert seal_once() == 600
    assert tiles.published_checkpoint(place) is None
    assert "tile/0/001 holds other hashes" in alarms()["publishing_contradicted"]


@pytest.mark.django_db
def test_a_bucket_without_lock_is_told_apart_and_gets_no_checkpoint(s3, server, settings):
    s3.create_bucket(Bucket="plain-bucket")
    use(settings, server, "s3://plain-bucket")
    unversioned, unlocked = second_place().faults()
    assert "keeps no versions" in unversioned
    assert "no object lock" in unlocked
    record(1)
    assert seal_once() == 1
    assert tiles.published_checkpoint(second_place()) is None
    assert "ObjectLockConfiguration" in AuditKeeper.objects.get().fault


def test_a_bucket_that_is_not_there_is_named(server, settings):
    use(settings, server, "s3://no-such-bucket/log")
    with pytest.raises(PlaceUnavailable, match=r"s3://no-such-bucket/log.*NoSuchBucket"):
        second_place().faults()


@pytest.mark.parametrize("url", ["https://bucket/log", "s3:///log", "s3://bucket/log?x=1"])
def test_a_place_that_is_none_is_named(settings, url):
    settings.AUDIT_PUBLISH_URL = url
    with pytest.raises(ImproperlyConfigured, match="ASSAY_AUDIT_PUBLISH_URL"):
        second_place()


def test_a_lock_of_no_days_is_refused(server, settings):
    use(settings, server, "s3://some-bucket/log")
    settings.AUDIT_S3_RETENTION_DAYS = 0
    with pytest.raises(ImproperlyConfigured, match="ASSAY_AUDIT_S3_RETENTION_DAYS"):
        second_place()


def closed():
    """An address at which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.django_db
def test_a_bucket_out_of_reach_raises_an_alarm_and_is_caught_up(s3, bucket, server, settings):
    record(2)
    seal_once()
    settings.AUDIT_PUBLISH_ALARM_S = 0
    assert "publishing_behind" not in alarms()
    settings.AUDIT_S3_ENDPOINT_URL = closed()
    for count in (300, 400):
        record(count)
        # One batch, with whatever the alarm added.
        assert seal_once() >= count
    assert AuditCheckpoint.objects.filter(published_at=None).count() == 2
    message = alarms()["publishing_behind"]
    assert f"to be published to s3://{bucket}/assay/log" in message
    assert "Could not connect" in message
    report = verify_live()
    assert not report.ok
    assert "second place cannot be read" in report.message
    assert "In itself it agrees" in report.message

    settings.AUDIT_S3_ENDPOINT_URL = server
    while seal_once():
        pass
    assert not AuditCheckpoint.objects.filter(published_at=None).exists()
    assert "publishing_behind" not in alarms()
    events = AuditEvent.objects.filter(action__startswith="audit:alarm_", outcome="allowed")
    names = events.filter(subject_id="publishing_behind").order_by("id")
    assert list(names.values_list("action", flat=True)) == [
        "audit:alarm_raise",
        "audit:alarm_clear",
    ]
    while seal_once():
        pass
    assert verify_live().ok


@pytest.fixture
def hanging(settings):
    """A bucket that takes requests and answers none; an event that it was asked, and a call that
    starts a publisher.
    """
    asked, released, over = threading.Event(), threading.Event(), threading.Event()

    def hang(listening):
        while not over.is_set():
            try:
                taken, _ = listening.accept()
            except TimeoutError:
                continue
            asked.set()
            released.wait()
            taken.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        use(settings, f"http://127.0.0.1:{listening.getsockname()[1]}", "s3://hanging/log")
        thread = threading.Thread(target=hang, args=(listening,))
        thread.start()
        publishers = []

        def publish():
            publishers.append(threading.Thread(target=seal_and_close))
            publishers[-1].start()
            return publishers[-1]

        try:
            yield asked, publish
        finally:
            released.set()
            for publisher in publishers:
                publisher.join()
            over.set()
            thread.join()


@pytest.mark.django_db(transaction=True)
def test_a_bucket_that_hangs_holds_up_no_sealing(hanging):
    asked, publish = hanging
    record(3)
    publish()
    asked.wait()
    assert latest_checkpoint().tree_size == 3
    record(4)
    assert sealer._seal_batch(100) == 4
    # The other publisher has not ended, and this one leaves the place to it.
    assert lock_is_held()
    assert publish_pending()
    assert latest_checkpoint().published_at is None


@pytest.mark.django_db(transaction=True)
def test_a_publisher_that_is_silent_for_too_long_is_relieved(
    hanging, settings, tmp_path, monkeypatch
):
    asked, publish = hanging
    # On a busy machine, a healthy publisher may be silent longer than the first limits.
    for silence_ms in (200, 2_000, 20_000):
        monkeypatch.setattr(publishing, "LOST_AFTER_MS", silence_ms)
        record(3)
        publisher = publish()
        while publisher.is_alive() and not asked.wait(0.01):
            pass
        if asked.is_set():
            break
    while lock_is_held():
        connection.close()
    monkeypatch.setattr(publishing, "LOST_AFTER_MS", 300_000)
    settings.AUDIT_PUBLISH_URL = str(tmp_path / "published")
    assert publish_pending()
    assert latest_checkpoint().published_at is not None
    assert publisher.is_alive()


def seal_and_close():
    try:
        # PostgreSQL may end the connection meanwhile.
        with suppress(Error):
            seal_once()
    finally:
        connections.close_all()


def lock_is_held():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM governance_namedlock JOIN pg_stat_activity USING (pid)"
            " WHERE name = %s",
            [PUBLISHER_LOCK],
        )
        return bool(cursor.fetchone()[0])
