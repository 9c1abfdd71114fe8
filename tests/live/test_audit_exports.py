"""A controller that is killed in the middle of an export: the next one makes it, whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.exports.models import AuditExport, ExportFormat, ExportState
from governance.audit.exports.run import exports_tidy
from governance.audit.exports.services import audit_export_request, export_file, exports_folder
from governance.principals import Principal
from tests.live.celery_worker import kill, started
from tests.unit.governance.exports_support import checked, write_many
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.sweep, pytest.mark.django_db(transaction=True)]

ROWS = 12_000
# So slow that a kill finds it in the middle.
MAKER = """
import logging, sys, threading, time
sys.path[:0] = [".", "platform"]
import django
django.setup()
from governance.audit.exports import run as exports_run
renew = exports_run._renew
exports_run._renew = lambda *given, **progress: (time.sleep(0.02), renew(*given, **progress))
print("makes exports", flush=True)
exports_run.run(threading.Event())
"""


@contextmanager
def maker(log: Path) -> Iterator[Any]:
    with started("controller", log, b"makes exports", "-c", MAKER) as process:
        yield process


@pytest.mark.parametrize("kind", ExportFormat)
def test_an_export_whose_makers_are_killed_is_made_by_the_third(
    actor: Callable[..., Principal],
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    monkeypatch.setenv("ASSAY_DATA_DIR", str(settings.DATA_DIR))
    auditor = actor("Asha", "auditor")
    write_many(ROWS)
    export = audit_export_request(actor=auditor, filters={"action": "model:train"}, format=kind)

    for number, part in enumerate(("rows", "packed" if kind == ExportFormat.CSV else "rows")):
        log = tmp_path / f"maker{number}.log"
        with maker(log) as process:
            wait_until(lambda part=part: AuditExport.objects.filter(**{f"{part}__gt": 0}).exists())
            kill(process)
        export.refresh_from_db()
        assert export.state == ExportState.RUNNING
        assert export.fence == number + 1
        assert list(exports_folder().iterdir())
        AuditExport.objects.update(lease_until=timezone.now(), rows=0, packed=0)

    with maker(tmp_path / "last.log"):
        wait_until(lambda: not AuditExport.objects.get().is_live)
    export.refresh_from_db()
    assert export.state == ExportState.DONE, export.error
    report = checked(export_file(export))
    assert report.ok, report.message
    assert report.events == export.rows == ROWS
    exports_tidy()
    assert [path.name for path in exports_folder().iterdir()] == [export_file(export).name]
    assert timezone.now() < (export.expires_at or timezone.now()) <= timezone.now() + timedelta(1)
