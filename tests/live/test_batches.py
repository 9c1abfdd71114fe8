"""A gateway ends in the middle of a batch: another one finishes it, and each line is once."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
from django.conf import settings
from django.utils import timezone

from assay.gateway.batches import runner as batch_runner
from governance.quotas.models import Price
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from registry.batches.models import Batch, BatchLine
from tests.live.web_process import web
from tests.unit.assay.batch_support import create, ended, line, results
from tests.unit.assay.gateway_support import Stage, say_hello, stage
from tests.waiting import PATIENCE_S
from workers.wire import InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.live
LINES = 20


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_gateway_that_ends_loses_no_line_and_bills_none_twice(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    hold, held = threading.Event(), threading.Event()

    def answer(request: InferenceRequest, reply: Any) -> None:
        # The first six are answered; what follows is in flight when the gateway is killed.
        number = stage.responders[0].requests.index(request) + 1
        if number > 6 and not hold.is_set():
            if number >= 10:
                held.set()
            return
        say_hello(request, reply)

    monkeypatch.setattr(batch_runner, "AT_ONCE", 0)
    stage.deployment(behavior=answer)
    Price.objects.create(deployment="writer", prompt=10**6, completion=2 * 10**6)
    token = stage.key()
    with web(tmp_path, ASSAY_DATA_DIR=str(settings.DATA_DIR)) as (url, server):
        client = openai.OpenAI(api_key=token, base_url=f"{url}/v1", max_retries=0)
        made = create(client, [line(f"q{number}", f"q{number}") for number in range(LINES)])
        assert held.wait(PATIENCE_S)
        server.send_signal(how)
        server.wait(PATIENCE_S)
    finished = set(BatchLine.objects.filter(state="done").values_list("custom_id", flat=True))
    assert len(finished) == 6
    hold.set()
    if how == signal.SIGKILL:
        Batch.objects.update(lease_until=timezone.now())
    assert not Batch.objects.filter(lease_until__gt=timezone.now()).exists()
    monkeypatch.undo()
    done: Any = ended(stage.client(token), made.id)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (LINES, LINES, 0)
    found = results(stage.client(token), done.output_file_id)
    assert sorted(found) == sorted(f"q{number}" for number in range(LINES))
    asked = Counter(
        request.inputs["messages"][0]["content"] for request in stage.responders[0].requests
    )
    assert {asked[name] for name in finished} == {1}
    collect_once(stage.redis, consumer="tests")
    answered = [each["response"]["request_id"] for each in found.values()]
    billed = UsageRecord.objects.filter(cost_micro__gt=0).values_list("request_id", flat=True)
    assert sorted(billed) == sorted(answered)
