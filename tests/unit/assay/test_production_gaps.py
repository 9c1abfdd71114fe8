"""The part of `assay doctor` that names what production should have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from redis import Redis

from assay.backups.backup import record_event
from assay.cli import doctor
from assay.cli.findings import CheckFailed, Finding, run_checks
from assay.cli.production import GAPS
from governance.audit.models import AuditEvent
from governance.people.models import Person
from workers.measurements.loops import LoopTimes
from workers.measurements.measuring import loops_measure
from workers.nodes.models import Node, NodeState
from workers.wire import presence_key

pytestmark = pytest.mark.django_db


def gaps() -> dict[str, Finding]:
    return {finding.name: finding for finding in run_checks(GAPS)}


def test_a_new_installation_lacks_everything_and_each_gap_has_its_remedy(redis: Redis) -> None:
    found = gaps()
    # A superuser applied the roles of the tests.
    assert {name for name, gap in found.items() if gap.ok} == {"Database roles"}
    assert all(gap.fix for gap in found.values() if not gap.ok)
    assert "ASSAY_ENV=production" in found["Environment"].fix
    assert found["Last backup"].detail == "never backed up"


def test_an_installation_that_has_everything_has_no_gap(
    redis: Redis, settings: Any, person: Callable[..., Person]
) -> None:
    for name in ("Ada", "Bo"):
        person(name, "admin")
    person("Rita", "reviewer:security")
    record_event("installation:backup", {"backup": "one", "events": 0})
    settings.PRODUCTION = True
    settings.AUDIT_PUBLISH_URL = "s3://log/assay"
    settings.AUDIT_WITNESSES = ["witness"]
    settings.METRICS_TOKEN = "token"
    settings.MAIL_SERVER = object()
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    settings.STORE_GC_DAYS = 30
    times = LoopTimes()
    with times.round("leases", 2.0):
        pass
    loops_measure(times)
    now = timezone.now().timestamp()
    redis.zadd(presence_key(""), {"compute@one": now})
    key = "5" * 64
    node = Node.objects.create(
        name="gpu-1", state=NodeState.ENROLLED, public_key=key, created_by=Person.objects.all()[0]
    )
    redis.zadd(presence_key(node.realm), {"engine@two": now})
    assert [gap for gap in gaps().values() if not gap.ok] == []


def test_a_server_that_no_superuser_has_hardened_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO assay_worker")
    gap = gaps()["Database roles"]
    assert gap.detail.endswith("others, such as pg_advisory_lock(bigint)")
    assert "--show-hardening" in gap.fix


def test_an_owner_that_sees_no_session_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE plain CREATEROLE")
        cursor.execute("GRANT CREATE ON SCHEMA public TO plain")
        cursor.execute("ALTER TABLE governance_namedlock OWNER TO plain")
    assert "neither see nor end sessions" in gaps()["Database roles"].detail


def test_a_server_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_postgresql().startswith("PostgreSQL ")
    monkeypatch.setattr(doctor, "POSTGRESQL_MINIMUM", 99)
    with pytest.raises(CheckFailed, match="too old"):
        doctor.check_postgresql()


def test_one_administrator_who_left_does_not_count(person: Callable[..., Person]) -> None:
    person("Ada", "admin")
    left = person("Bo", "admin")
    left.is_active = False
    left.save(update_fields=["is_active"])
    assert gaps()["People"].detail.startswith("1 of the two administrators")


def test_a_loop_that_fails_is_named() -> None:
    times = LoopTimes()
    with pytest.raises(KeyError), times.round("leases", 2.0):
        raise KeyError
    loops_measure(times)
    assert gaps()["Controller"].detail == "these loops fail: leases"


def test_an_old_backup_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    record_event("installation:backup", {"backup": "one", "events": 0})
    assert gaps()["Last backup"].ok
    later = timezone.now() + timedelta(days=5)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert gaps()["Last backup"].detail == "5 days ago"
    assert AuditEvent.objects.count() == 1


def test_a_process_names_only_what_its_own_settings_show(settings: Any) -> None:
    settings.PROCESS = "controller"
    found = gaps()
    assert found["Metrics"].ok
    assert found["Client addresses"].ok
    assert not found["Unneeded files"].ok
