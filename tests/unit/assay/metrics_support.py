"""An installation in which every metric that rules and dashboard name has a value."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import httpx
from django.utils import timezone
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from governance.audit.streaming.destinations import destinations_from
from tests.unit.assay.gateway_support import Reply, Stage, say_hello
from tests.unit.workers.company import stored
from tests.waiting import wait_until
from workers.database_watch import ENDED
from workers.deployments.software import software_measure
from workers.dropped_messages import DROPPED_MESSAGES
from workers.jobs.models import Job, JobState
from workers.load_reports import GpuLoad, LoadReporter
from workers.measurements.loops import LoopTimes
from workers.measurements.measuring import (
    BACKUP,
    SOFTWARE,
    jobs_measure,
    loops_measure,
    replicas_measure,
    store_measure,
)
from workers.measurements.models import Measurement
from workers.measurements.queues import queues_measure
from workers.nodes.models import Node
from workers.storage.collection import store_collect_due
from workers.wire import Delta, Done, EngineLoad, Failed, InferenceRequest, load_key, presence_key

WORKER = "engine@a"
GPU = GpuLoad(0, 80e9, 40e9, used=0.5, watts=300.0, celsius=60.0)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def phases(request: InferenceRequest, reply: Reply) -> None:
    """Answer in three pieces, with the times of a worker; fail on the prompt `fail`."""
    if "fail" in str(request.inputs):
        reply(Failed("engine_error", "The engine failed.", 500))
        return
    for piece in ("Hello", " there", "."):
        reply(Delta(piece, 1))
    reply(Done("stop", 5, 3, queue_ms=20, prefill_ms=300, decode_ms=40, units=8))


class Scrape:
    """One scrape: the value of each series, and the labels of each name."""

    def __init__(self, url: str, token: str = "", accept: str = "") -> None:
        headers = {"accept": accept, **({"authorization": f"Bearer {token}"} if token else {})}
        answer = httpx.get(f"{url}/metrics", headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        self.text, self.content_type = answer.text, answer.headers["content-type"]
        format_ = openmetrics_parser if "openmetrics" in self.content_type else parser
        self.families = {
            each.name: each for each in format_.text_string_to_metric_families(answer.text)
        }
        self.samples = [one for each in self.families.values() for one in each.samples]
        self.labels: dict[str, set[str]] = {}
        for sample in self.samples:
            self.labels.setdefault(sample.name, set()).update(sample.labels)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series of a name that have these labels; 0 without any."""
        found = [
            one.value
            for one in self.samples
            if one.name == name and labels.items() <= one.labels.items()
        ]
        return sum(found)


def ask(stage: Stage, token: str, prompt: str = "Hello?", **changes: Any) -> httpx.Response:
    body = {"model": "writer", "messages": [{"role": "user", "content": prompt}], **changes}
    return stage.post("/v1/chat/completions", token, json=body)


def furnish(stage: Stage, settings: Any) -> str:
    """Let everything happen that metrics count, through the code that measures it; return a key."""
    settings.SIEM_STREAMS = destinations_from(
        json.dumps([{"name": "away", "url": "syslog+tcp://127.0.0.1:9"}]), production=False
    )
    settings.STORE_GC_DAYS = 30
    # Before there is a version, whose files the store would lack.
    stored({"notes.txt": b"unused"})
    store_measure()
    store_collect_due()
    deployment = stage.deployment("writer", behavior=phases)
    node = Node.objects.get(pk=_node(stage, deployment))
    stage.limit("requests_per_minute", 4)
    stage.limit("tokens_per_day", 1_000_000)
    _workers(stage, deployment.pk, node.realm)
    _figures(stage)
    token = stage.key()
    for streamed in (True, False):
        assert ask(stage, token, stream=streamed).status_code == 200
    assert ask(stage, token, "fail").status_code == 500
    # Once more than the limit, in whichever minute that is.
    wait_until(lambda: ask(stage, token).status_code == 429)
    return token


def _node(stage: Stage, deployment: Any) -> int:
    stage.on_node("far", deployment, say_hello)
    stage.responders.pop().stop(wait=True)  # It shares the queue; the other one answers.
    node = Node.objects.get(name="far")
    Node.objects.filter(pk=node.pk).update(seen_at=timezone.now())
    return node.pk


def _workers(stage: Stage, deployment: int, realm: str) -> None:
    """Let two workers report their loads, as their processes do."""
    loads = {deployment: EngineLoad(running=3, waiting=2, steps=10, rows=25, cache=0.4)}
    for where in ("", realm):
        stage.redis.zadd(presence_key(where), {WORKER: time.time()})
        key = load_key(where, WORKER)
        report = LoadReporter(stage.redis, key, lambda: loads).report()
        report.gpus.append(GPU)
        stage.redis.set(key, report.encode())


def _figures(stage: Stage) -> None:
    """Measure everything as the controller does."""
    now = timezone.now()
    for state, times in (
        (JobState.QUEUED, {}),
        (JobState.SUCCEEDED, {"started_at": now - timedelta(minutes=2), "finished_at": now}),
    ):
        made = Job.objects.create(
            kind="evaluate", state=state, title="Job", spec={},
            department=stage.department("engineering"), created_by_id=stage.person.pk,
        )  # fmt: skip
        Job.objects.filter(pk=made.pk).update(**times)
    times = LoopTimes()
    with times.round("leases", 2.0):
        pass
    loops_measure(times)
    jobs_measure()
    replicas_measure()
    queues_measure()
    software_measure()
    figures = Measurement.objects.get(name=SOFTWARE).figures
    Measurement.keep(SOFTWARE, {
        "code": {"text-generation": 1}, "answers": {"writer": 1}, "stated": {"writer": 1},
    } | {
        name: value for name, value in figures.items() if value
    })  # fmt: skip
    Measurement.keep(BACKUP, {"name": "2026-11-27T174200Z"})
    Measurement.keep(ENDED, {"total": {"assay_web": 1}})
    Measurement.keep(DROPPED_MESSAGES, {"total": 1, "workers": {}})


def settled(url: str, requests: int, token: str = "") -> Scrape:
    """Scrape until so many requests are counted, which happens after their answers are sent."""
    scrapes: list[Scrape] = []

    def counted() -> bool:
        scrapes.append(Scrape(url, token))
        return scrapes[-1].value("assay_gateway_requests_total") >= requests

    wait_until(counted)
    return scrapes[-1]
