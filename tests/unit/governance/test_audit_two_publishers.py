from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from governance.audit.models import AuditCheckpoint, AuditKeeper
from governance.audit.outside.publishing import publish_pending
from governance.audit.sealer import seal_once
from governance.audit.services import Subject, audit_record
from governance.principals import service_principal

pytestmark = pytest.mark.django_db(transaction=True)


def record() -> None:
    with transaction.atomic():
        audit_record(
            actor=service_principal("t"), action="model:create", subject=Subject("model", "1", "m")
        )


def test_a_publisher_that_another_overtook_does_not_take_it_for_a_forger(
    settings: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    record()
    overtaken = []

    def overtake(execute: Any, sql: str, *rest: Any) -> Any:
        """Between looking for what is to be published and being the one who publishes."""
        if "governance_namedlock" in sql and "publisher" in str(rest) and not overtaken:
            overtaken.append(sql)
            other = threading.Thread(target=other_publisher)
            other.start()
            other.join()
        return execute(sql, *rest)

    # This one knows the first event's head, the other publishes the second's.
    with connection.execute_wrapper(overtake):
        seal_once()
    assert overtaken
    assert publish_pending()
    assert not AuditCheckpoint.objects.filter(published_at=None).exists()
    assert "contradict" not in caplog.text
    assert not AuditKeeper.objects.filter(contradicts=True).exists()


def other_publisher() -> None:
    try:
        record()
        seal_once()
    finally:
        connection.close()
