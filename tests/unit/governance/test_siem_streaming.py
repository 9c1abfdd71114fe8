"""Streams to receivers that break in every way: every event arrives, and in order."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from assay.gateway.monitoring.exposition import READINGS
from assay.gateway.monitoring.probes import measure_log
from governance.audit.alarms import ALARMS, siem_behind
from governance.audit.streaming import https, streamer, syslog
from governance.audit.streaming.destinations import destinations_from
from governance.audit.streaming.models import AuditStream
from governance.audit.streaming.selectors import stream_states
from governance.audit.streaming.streamer import Streamer, run
from tests.unit.governance.siem_support import (
    Certificates,
    Collector,
    SyslogReceiver,
    make_certificates,
    running,
    sealed,
    sequences,
)
from tests.waiting import wait_until
from workers.controller import Controller

pytestmark = pytest.mark.sweep

DEATHS = 30


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["http", "https", "syslog+tcp", "syslog+tls"])
def receiver(request: Any, certificates: Certificates) -> Iterator[Collector | SyslogReceiver]:
    context = certificates.serving() if request.param in {"https", "syslog+tls"} else None
    kind = Collector if request.param.startswith("http") else SyslogReceiver
    with running(kind(context)) as made:
        yield made


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running(Collector()) as made:
        yield made


def stream(url: str, certificates: Certificates | None = None, **more: Any) -> Streamer:
    given = {"name": "soc", "url": url, **more}
    if certificates is not None and url.startswith(("https", "syslog+tls")):
        given["ca_file"] = str(certificates.authority)
    (destination,) = destinations_from(json.dumps([given]), production=False)
    return Streamer(destination)


def arrived(receiver: Collector | SyslogReceiver) -> list[bytes]:
    return receiver.lines if isinstance(receiver, Collector) else receiver.messages


def cursor() -> int:
    return AuditStream.objects.get(name="soc").next_sequence


@pytest.mark.django_db
def test_every_event_arrives_once_and_in_order_when_nothing_breaks(
    receiver: Collector | SyslogReceiver, certificates: Certificates
) -> None:
    sealed(1100)
    one = stream(receiver.url, certificates)
    waits = [one.step() for _ in range(4)]
    one.close()
    assert waits == [0.0, 0.0, streamer.IDLE_S, streamer.IDLE_S]
    found = arrived(receiver)
    assert sequences(found) == list(range(1100))
    assert len(found) == 1100
    row = AuditStream.objects.get(name="soc")
    assert (row.next_sequence, row.failing_since, row.last_error, row.reduced) == (
        1100,
        None,
        "",
        0,
    )
    assert row.sent_at is not None


@pytest.mark.sweep
@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(2))
def test_a_receiver_that_dies_at_random_points_gets_every_event_in_order(
    receiver: Collector | SyslogReceiver,
    certificates: Certificates,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streamer, "BATCH_EVENTS", 60)
    chance = random.Random(seed)
    deaths = 0
    fits = ["drop", "half", "mute", 500, 503, (429, {"Retry-After": "7"}), (302, {"Location": "/"})]

    def misbehave() -> Any:
        nonlocal deaths
        if deaths >= DEATHS or chance.random() < 0.3:
            return 200 if isinstance(receiver, Collector) else None
        deaths += 1
        # A batch is about 60 kB.
        return chance.choice(fits) if isinstance(receiver, Collector) else chance.randrange(70_000)

    if isinstance(receiver, Collector):
        receiver.answer = misbehave
    else:
        receiver.patience = misbehave
    total, rounds = 0, 0
    one = stream(receiver.url, certificates)
    reached = 0
    while deaths < DEATHS or cursor() < total:
        if chance.random() < 0.2:
            # The process restarts.
            one.close()
            one = stream(receiver.url, certificates)
        if total < 1000 and chance.random() < 0.5:
            more = chance.randrange(1, 120)
            sealed(more)
            total += more
        one.step()
        # The receiver has accepted all events before the cursor.
        assert cursor() >= reached
        reached = cursor()
        assert sequences(arrived(receiver))[:reached] == list(range(reached))
        rounds += 1
        assert rounds < 600
        if not total:
            sealed(50)
            total = 50
        elif deaths < DEATHS and reached == total:
            sealed(60)
            total += 60
    one.close()
    assert sequences(arrived(receiver)) == list(range(total))
    assert deaths == DEATHS


@pytest.mark.django_db
def test_a_restarted_stream_goes_on_at_its_cursor(collector: Collector) -> None:
    sealed(10)
    stream(collector.url).step()
    sealed(5)
    again = stream(collector.url)
    again.step()
    assert sequences(collector.lines) == list(range(15))
    assert len(collector.lines) == 15


@pytest.mark.django_db
def test_a_new_destination_begins_at_the_start_or_now(collector: Collector) -> None:
    sealed(10)
    late = stream(collector.url, **{"from": "now"})
    late.step()
    assert collector.lines == []
    sealed(2)
    late.step()
    assert sequences(collector.lines) == [10, 11]
    other = stream(collector.url, name="other")
    other.step()
    assert sequences(collector.lines) == [10, 11, *range(10)]


@pytest.mark.django_db
def test_a_failure_is_kept_in_words_without_secrets_and_waits_ever_longer(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(3)
    one = stream(f"{collector.url}?key=hidden", token="hidden")
    for status, said in [
        (500, "answers 500."),
        (401, "does not accept the token"),
        ((307, {"Location": "http://127.0.0.1:1/"}), "redirects, which is not followed"),
    ]:
        collector.answer = lambda status=status: status
        one.step()
        row = AuditStream.objects.get(name="soc")
        assert said in row.last_error
        assert row.failing_since is not None
        assert "hidden" not in row.last_error + caplog.text
        assert row.next_sequence == 0
    since = row.failing_since
    waits = [one.step() for _ in range(8)]
    assert waits[-1] >= streamer.BACKOFF_LONGEST_S / 2
    assert all(wait <= streamer.BACKOFF_LONGEST_S for wait in waits)
    assert AuditStream.objects.get(name="soc").failing_since == since
    collector.answer = lambda: (429, {"Retry-After": "200"})
    assert one.step() == 200
    collector.answer = lambda: (503, {"Retry-After": "99999999"})
    assert one.step() == https.RETRY_AFTER_MAX_S
    collector.answer = lambda: 200
    assert one.step() == streamer.IDLE_S
    row = AuditStream.objects.get(name="soc")
    assert (row.next_sequence, row.failing_since, row.last_error) == (3, None, "")
    collector.answer = lambda: 500
    sealed(1)
    assert one.step() <= streamer.BACKOFF_FIRST_S


@pytest.mark.django_db
def test_a_receiver_that_never_answers_is_given_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "ANSWER_S", 0.2)
    sealed(1)
    collector.answer = lambda: "hang"
    stream(collector.url).step()
    assert "did not answer in time" in AuditStream.objects.get(name="soc").last_error


@pytest.mark.django_db
def test_a_syslog_receiver_that_reads_nothing_or_dies_early_has_not_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"syslog+tcp://127.0.0.1:{listener.getsockname()[1]}"
        # Its system takes the bytes, and nobody reads them.
        with monkeypatch.context() as brief:
            brief.setattr(syslog, "ANSWER_S", 0.3)
            stream(url).step()
        assert "did not answer in time" in AuditStream.objects.get(name="soc").last_error
        listener.accept()[0].close()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        stream(url).step()
        thread.join()
    row = AuditStream.objects.get(name="soc")
    assert row.last_error.endswith(("connection early.", "reset by peer.", "broken pipe."))
    assert row.next_sequence == 0
    stream(url).step()
    assert "connection refused" in AuditStream.objects.get(name="soc").last_error


@pytest.mark.django_db
@pytest.mark.parametrize("kind", [Collector, SyslogReceiver])
def test_a_certificate_that_nobody_vouches_for_gets_nothing(
    kind: Any, certificates: Certificates
) -> None:
    sealed(1)
    with running(kind(certificates.serving())) as receiver:
        one = stream(receiver.url)
        one.step()
        assert "certificate is not trusted" in AuditStream.objects.get(name="soc").last_error
        elsewhere = stream(receiver.url.replace("localhost", "127.0.0.2"), certificates)
        elsewhere.step()
        assert AuditStream.objects.get(name="soc").failing_since is not None
        assert arrived(receiver) == []
        missing = stream(receiver.url, ca_file="/no/such/file")
        missing.step()
        assert "certificate file" in AuditStream.objects.get(name="soc").last_error


@pytest.mark.django_db
@pytest.mark.parametrize("kind", [Collector, SyslogReceiver])
def test_a_receiver_that_asks_who_sends_is_shown_a_certificate(
    kind: Any, certificates: Certificates
) -> None:
    sealed(2)
    with running(kind(certificates.serving(ask=True))) as receiver:
        stream(receiver.url, certificates).step()
        assert AuditStream.objects.get(name="soc").failing_since is not None
        assert arrived(receiver) == []
        stream(receiver.url, certificates, certificate_file=str(certificates.client)).step()
        assert sequences(arrived(receiver)) == [0, 1]


@pytest.mark.django_db
def test_a_collector_gets_its_token_and_compressed_lines(
    collector: Collector, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    one = stream(collector.url, token_file=str(file), auth="splunk", gzip=True)
    sealed(1)
    one.step()
    file.write_text("second\n")
    sealed(1)
    one.step()
    assert [post["Authorization"] for post in collector.posts] == ["Splunk first", "Splunk second"]
    assert collector.posts[0]["Content-Encoding"] == "gzip"
    assert sequences([json.dumps(json.loads(line)["event"]).encode() for line in collector.lines])
    file.unlink()
    sealed(1)
    one.step()
    assert "file" in AuditStream.objects.get(name="soc").last_error


@pytest.mark.django_db
def test_an_event_that_the_receiver_refuses_is_told_of_and_does_not_hold_up_the_rest(
    collector: Collector,
) -> None:
    sealed(40)
    poisonous = {7, 8, 33}

    def judged(lines: list[bytes]) -> int:
        events = [json.loads(line) for line in lines]
        bad = [
            event
            for event in events
            if event["metadata"]["sequence"] in poisonous
            and event["metadata"]["event_code"] != "audit:refused"
        ]
        return 400 if bad else 200

    collector.answer = lambda: judged
    stream(collector.url).step()
    assert sequences(collector.lines) == list(range(40))
    told = {
        event["metadata"]["sequence"]
        for event in map(json.loads, collector.lines)
        if event["metadata"]["event_code"] == "audit:refused"
    }
    assert told == poisonous
    row = AuditStream.objects.get(name="soc")
    assert (row.next_sequence, row.reduced, row.last_error) == (40, 3, "")


@pytest.mark.django_db
def test_a_receiver_that_refuses_everything_loses_nothing(collector: Collector) -> None:
    sealed(20)
    collector.answer = lambda: 400
    one = stream(collector.url)
    one.step()
    row = AuditStream.objects.get(name="soc")
    assert (row.next_sequence, row.reduced) == (0, 0)
    assert "refuses the events" in row.last_error
    collector.answer = lambda: 200
    one.step()
    assert sequences(collector.lines) == list(range(20))


@pytest.mark.django_db
def test_a_batch_is_bounded_in_bytes(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(20)
    monkeypatch.setattr(streamer, "BATCH_BYTES", 3000)
    one = stream(collector.url)
    while not AuditStream.objects.filter(next_sequence=20):
        one.step()
    assert sequences(collector.lines) == list(range(20))
    assert max(int(post["Content-Length"]) for post in collector.posts) <= 3000


@pytest.mark.django_db
def test_a_batch_costs_the_same_number_of_queries_whatever_is_in_it(collector: Collector) -> None:
    one = stream(collector.url)
    counts = []
    for number in (1, 300):
        sealed(number)
        one.step()
        sealed(number)
        with CaptureQueriesContext(connection) as captured:
            one.step()
        counts.append(len(captured))
    # Queries: the target; the lock, which outlives its transaction; the cursor, the events, the
    # moved cursor, the released lock.
    assert counts == [10, 10]


@pytest.mark.django_db
def test_a_cursor_never_goes_back() -> None:
    row = AuditStream.objects.create(name="soc", next_sequence=5)
    row.next_sequence = 4
    with pytest.raises(DatabaseError, match="never goes back"), transaction.atomic():
        row.save()


@pytest.mark.django_db(transaction=True)
def test_who_was_overtaken_moves_no_cursor(collector: Collector) -> None:
    sealed(5)

    def overtaken(_lines: list[bytes]) -> int:
        AuditStream.objects.filter(name="soc").update(next_sequence=3)
        connection.close()
        return 200

    collector.answer = lambda: overtaken
    one = stream(collector.url)
    assert one.step() == streamer.IDLE_S
    assert cursor() == 3
    collector.answer = lambda: 200
    one.step()
    assert cursor() == 5
    assert len(collector.lines) == 7


@pytest.mark.django_db
def test_how_far_behind_a_stream_is_can_be_seen(settings: Any, collector: Collector) -> None:
    given = [
        {"name": "soc", "url": collector.url},
        {"name": "late", "url": "syslog+tls://log.example", "format": "cef", "from": "now"},
        {"name": "unborn", "url": "https://siem.example/hidden", "personal_data": True},
    ]
    settings.SIEM_STREAMS = destinations_from(json.dumps(given), production=False)
    sealed(4)
    one = stream(collector.url)
    one.step()
    sealed(3)
    with CaptureQueriesContext(connection) as captured:
        soc, late, unborn = stream_states()
    assert len(captured) == 3
    assert (soc.state, soc.next_sequence, soc.lag_events) == ("behind", 4, 3)
    assert soc.lag_s > 0
    assert (late.state, late.lag_events, late.lag_s) == ("waiting", 0, 0)
    assert (unborn.state, unborn.lag_events) == ("waiting", 7)
    assert unborn.lag_s > soc.lag_s
    assert unborn.address == "https://siem.example:443"
    one.step()
    assert [stream_states()[0].state, stream_states()[0].lag_s] == ["streaming", 0]
    collector.answer = lambda: 500
    sealed(1)
    one.step()
    (soc, *_) = stream_states()
    assert (soc.state, soc.lag_events) == ("failing", 1)
    settings.SIEM_STREAMS = ()
    assert stream_states() == []


@pytest.mark.sweep
@pytest.mark.django_db(transaction=True)
def test_two_streamers_at_once_leave_no_gap(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer, "IDLE_S", 0.001)
    monkeypatch.setattr(streamer, "BATCH_EVENTS", 20)
    monkeypatch.setattr(streamer, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(streamer, "BACKOFF_LONGEST_S", 0.01)
    chance = random.Random(5)
    collector.answer = lambda: chance.choice([200, 200, 200, 500, "drop", "mute"])
    (destination,) = destinations_from(
        json.dumps([{"name": "soc", "url": collector.url}]), production=False
    )
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(destination, stop)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            sealed(50)
        wait_until(AuditStream.objects.filter(next_sequence=500).exists)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert cursor() == 500
    assert sequences(collector.lines) == list(range(500))


@pytest.mark.sweep
@pytest.mark.django_db(transaction=True)
def test_a_database_that_goes_away_in_the_middle_is_waited_for(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer, "PAUSE_AFTER_ERROR_S", 0.01)
    monkeypatch.setattr(streamer, "BATCH_EVENTS", 10)
    sealed(100)
    connection.close()
    deaths = iter(range(5))

    def struck(_lines: list[bytes]) -> int:
        if next(deaths, None) is not None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            connection.close()
        return 200

    collector.answer = lambda: struck
    (destination,) = destinations_from(
        json.dumps([{"name": "soc", "url": collector.url}]), production=False
    )
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(destination, stop))
    thread.start()
    try:
        wait_until(lambda: len(sequences(list(collector.lines))) == 100)
    finally:
        stop.set()
        thread.join()
    assert sequences(collector.lines) == list(range(100))
    # Those whose cursor could not be kept came again.
    assert len(collector.lines) == 150


@pytest.mark.sweep
@pytest.mark.django_db(transaction=True)
def test_the_controller_streams_and_an_alarm_tells_of_who_is_behind(
    redis: object, settings: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer, "IDLE_S", 0.01)
    given = [
        {"name": "soc", "url": collector.url},
        {"name": "away", "url": "syslog+tcp://127.0.0.1:1"},
    ]
    settings.SIEM_STREAMS = destinations_from(json.dumps(given), production=False)
    settings.SIEM_ALARM_S = 0
    sealed(30)
    running_controller = Controller()
    running_controller.start()
    try:
        wait_until(AuditStream.objects.filter(name="soc", next_sequence__gte=30).exists)
        wait_until(AuditStream.objects.filter(name="away", failing_since__isnull=False).exists)
    finally:
        running_controller.close()
    assert sequences(collector.lines)[:30] == list(range(30))
    # The controller may have recorded more events meanwhile.
    behind = re.search(r"away is (\d+) events", siem_behind())
    assert behind is not None
    assert int(behind[1]) >= 30
    assert "connection refused" in siem_behind()
    assert any(alarm.check is siem_behind for alarm in ALARMS)
    settings.SIEM_ALARM_S = 3600
    assert siem_behind() == ""
    async_to_sync(measure_log)()
    for unit, least in (("events", 30), ("seconds", 0)):
        lag = READINGS.get_sample_value(f"assay_audit_stream_lag_{unit}", {"stream": "away"})
        assert lag is not None
        assert lag >= least
