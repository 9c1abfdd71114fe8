"""A scrape of a real gateway: its series, and those that rules and dashboard ask for."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from assay.gateway.monitoring import tallies
from assay.gateway.monitoring.exposition import OTHER
from tests.promql import check, expressions
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.metrics_support import (
    GPU,
    OPENMETRICS,
    WORKER,
    Scrape,
    ask,
    furnish,
    phases,
    settled,
)
from tests.waiting import PATIENCE_S, wait_until
from workers import queue_ages, tracing
from workers.celery_message import inference_message
from workers.deployments.models import Deployment, DeploymentState
from workers.measurements import queues
from workers.measurements.models import Measurement
from workers.measurements.queues import queues_measure
from workers.wire import InferenceRequest, deployment_queue

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
MINUTES = timedelta(minutes=2)
CHAT = {"deployment": "writer", "endpoint": "/v1/chat/completions"}
TIMES = {
    "assay_gateway_request_queue_time_seconds": 0.02,
    "assay_gateway_request_prefill_time_seconds": 0.3,
    "assay_gateway_request_decode_time_seconds": 0.04,
}


def total(scrape: Scrape, name: str, **labels: str) -> float:
    return scrape.value(name, **CHAT, **labels)


def missing(url: str) -> list[str]:
    """Return the faults of expressions whose metrics or labels a scrape does not show."""
    labels, faults = Scrape(url).labels, []
    for expression in expressions():
        try:
            check(expression, labels)
        except AssertionError as fault:
            faults.append(str(fault))
    return faults


def test_rules_and_dashboard_name_only_what_a_scrape_shows(stage: Stage, settings: Any) -> None:
    furnish(stage, settings)
    # Requests are counted a second after their answers.
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not missing(stage.url), timeout_s=30)
    assert missing(stage.url) == []


def test_a_scrape_says_where_the_time_of_a_request_went(stage: Stage) -> None:
    stage.deployment("writer", behavior=phases)
    stage.notify()
    token = stage.key()
    before = Scrape(stage.url)
    requests = before.value("assay_gateway_requests_total")
    assert ask(stage, token, stream=True).status_code == 200
    assert ask(stage, token).status_code == 200
    assert ask(stage, token, "fail").status_code == 500
    after = settled(stage.url, int(requests) + 3)

    def more(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("assay_gateway_requests_total", outcome="ok", code="200") == 2
    assert more("assay_gateway_requests_total", outcome="failed", code="500") == 1
    assert more("assay_gateway_request_duration_seconds_count") == 3
    for name, seconds in TIMES.items():
        assert more(f"{name}_count") == 2
        assert more(f"{name}_sum") == pytest.approx(2 * seconds)
    # Only the streamed answer has these: one first token, and a gap before each other one.
    assert more("assay_gateway_time_to_first_token_seconds_count") == 1
    assert more("assay_gateway_inter_token_latency_seconds_count") == 2
    for kind, count in (("prompt", 10), ("completion", 6)):
        settled_tokens = {"deployment": "writer", "kind": kind}
        name = "assay_gateway_tokens_total"
        assert after.value(name, **settled_tokens) - before.value(name, **settled_tokens) == count


def test_engines_and_gpus_are_shown_by_deployment_and_worker(stage: Stage, settings: Any) -> None:
    furnish(stage, settings)
    Scrape(stage.url)  # From the second scrape on, the nodes are known.
    scrape = Scrape(stage.url)
    # Two workers with the same report, one of them on a node.
    shown = {
        "requests_running": 6.0, "requests_waiting": 4.0, "batch_size": 2.5,
        "kv_cache_usage_ratio": 0.4,
    }  # fmt: skip
    for name, value in shown.items():
        assert scrape.value(f"assay_engine_{name}", deployment="writer") == value
    for worker in (WORKER, f"far/{WORKER}"):
        place = {"worker": worker, "gpu": "0"}
        assert scrape.value("assay_gpu_utilization_ratio", **place) == GPU.used
        assert scrape.value("assay_gpu_memory_used_bytes", **place) == GPU.memory_used_bytes
        assert scrape.value("assay_gpu_power_watts", **place) == GPU.watts


def test_the_series_of_a_deployment_end_with_it(stage: Stage) -> None:
    made = stage.deployment("shortlived", behavior=phases)
    body = {"model": "shortlived", "messages": [{"role": "user", "content": "Hello?"}]}
    before = Scrape(stage.url).value("assay_gateway_requests_total")
    assert stage.post("/v1/chat/completions", stage.key(), json=body).status_code == 200
    assert "shortlived" in settled(stage.url, int(before) + 1).text
    Deployment.objects.filter(pk=made.pk).update(state=DeploymentState.STOPPED)
    stage.notify()
    assert "shortlived" not in Scrape(stage.url).text


def test_a_name_that_a_caller_makes_up_is_no_label(stage: Stage) -> None:
    token = stage.key()
    body = {"model": "made-up-by-a-caller", "messages": [{"role": "user", "content": "Hello?"}]}
    before = Scrape(stage.url).value("assay_gateway_requests_total")
    assert stage.post("/v1/chat/completions", token, json=body).status_code == 404
    assert stage.post("/v1/made-up-by-a-caller", token, json=body).status_code == 404
    assert "made-up" not in settled(stage.url, int(before) + 2).text


def test_the_number_of_deployments_with_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "DEPLOYMENTS_MAX", 2)
    monkeypatch.setattr(tallies.Tally, "_write_in", lambda self, seconds: None)
    tally = tallies.Tally()
    names = ["a", "b", "c", "d", "", "a"]
    labels = [tally.series(name, "/v1/embeddings")._labels[0] for name in names]
    assert labels == ["a", "b", OTHER, OTHER, "", "a"]


def test_the_age_of_a_queue_is_that_of_its_oldest_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_ages, "_TOGETHER", 1)  # as with hundreds of deployments
    waiting = stage.deployment("waiting", behavior=None)
    stage.deployment("empty", behavior=None)
    now = time.time()
    for number, age in enumerate((90.0, 5.0)):
        request = InferenceRequest(
            f"req_{number}", waiting.pk, waiting.name, "d" * 64, "assay:reply:1", {},
            enqueued_at=now - age, deadline=now + 60,
        )  # fmt: skip
        message = inference_message(request, {"body": "x" * 5000})
        stage.redis.lpush(deployment_queue(waiting.pk), message)
    queues_measure()
    scrape = Scrape(stage.url)
    name = "assay_queue_oldest_age_seconds"
    assert 90 <= scrape.value(name, queue="waiting") < 90 + PATIENCE_S
    assert {one.labels["queue"] for one in scrape.samples if one.name == name} == {
        "waiting",
        "empty",
    }
    assert scrape.value(name, queue="empty") == 0
    # Without a controller the figure would stand still.
    Measurement.objects.filter(name=queues.QUEUES).update(measured_at=timezone.now() - MINUTES)
    assert name not in Scrape(stage.url).labels


@pytest.fixture
def traced() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing.start("tests", exporter=exporter)
    yield exporter
    tracing.stop()


def test_a_bucket_names_the_trace_of_a_request_in_it(stage: Stage, traced: Any) -> None:
    stage.deployment("writer", behavior=phases)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    before = Scrape(stage.url).value("assay_gateway_requests_total")
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
    token = stage.key()
    assert stage.post("/v1/chat/completions", token, json=body, headers=headers).status_code == 200
    settled(stage.url, int(before) + 1)
    scrape = Scrape(stage.url, accept=OPENMETRICS)
    assert scrape.content_type.startswith("application/openmetrics-text")
    found = {
        sample.name: sample.exemplar
        for sample in scrape.samples
        if sample.exemplar and sample.exemplar.labels == {"trace_id": trace}
    }
    assert found.keys() == {
        f"assay_gateway_{name}_seconds_bucket"
        for name in (
            "request_duration", "request_queue_time", "request_prefill_time",
            "request_decode_time", "time_to_first_token",
        )
    }  # fmt: skip
    assert found["assay_gateway_request_prefill_time_seconds_bucket"].value == 0.3
    # Prometheus' older format has no exemplars.
    assert trace not in Scrape(stage.url).text
