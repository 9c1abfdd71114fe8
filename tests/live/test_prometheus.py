"""Prometheus scrapes real web processes, and evaluates every shipped rule and panel.

Debian's package `prometheus` has it. Without it, rules and panels are only compared with a scrape
(`tests/unit/assay/test_metrics_scrape.py`).
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from assay.local.programs import stop_process_group
from assay.local.services import free_port
from tests.live.web_process import shipped_options, web
from tests.promql import PANELS, RULE_FILES, VARIABLES
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.metrics_support import OPENMETRICS, Scrape, ask, furnish
from tests.waiting import wait_until
from workers.measurements.queues import queues_measure

__all__ = ["stage"]

pytestmark = pytest.mark.live
TOKEN = "a token of Prometheus, of forty characters"
PROMETHEUS = shutil.which("prometheus") or ""
# Expressions that show a series only while an alarm is raised, or with a SIEM.
QUIET = {
    "max by (alarm) (assay_audit_alarm) > 0",
    "max by (stream) (assay_audit_stream_lag_seconds)",
}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Prometheus with the shipped rules, scraping each second; its address."""
    rules = []
    for file in RULE_FILES:
        # Evaluated each second, too.
        rules.append(folder / file.name)
        rules[-1].write_text(file.read_text().replace("interval: 30s", "interval: 1s"))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(each) for each in rules],
        "scrape_configs": [
            {
                "job_name": "assay",
                "authorization": {"credentials": TOKEN},
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}", "--enable-feature=exemplar-storage",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_process_group(process)


def api(url: str, path: str, **parameters: str) -> Any:
    """The data of an answer of Prometheus; None before it is ready."""
    try:
        answer = httpx.get(f"{url}/api/v1/{path}", params=parameters, timeout=60)
    except httpx.TransportError:
        return None
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # It loads its data.
        return None
    body = answer.json()
    assert body["status"] == "success", (parameters, body)
    return body["data"]


def evaluated(url: str) -> bool:
    """Return whether every rule has been evaluated; fail if one of them could not be."""
    groups = (api(url, "rules") or {"groups": []})["groups"]
    for group in groups:
        assert not [rule["lastError"] for rule in group["rules"] if rule.get("lastError")]
    health = {rule["health"] for group in groups for rule in group["rules"]}
    return len(groups) == len(RULE_FILES) and health == {"ok"}


def empty_panels(url: str) -> list[str]:
    """Return the expressions of panels that show nothing, but should."""
    queues_measure()  # As the controller does every 15 s.
    empty = []
    for panel in PANELS:
        for target in panel["targets"]:
            query = target["expr"]
            for variable in VARIABLES:
                query = query.replace(f"${variable['name']}", variable["allValue"])
            if query not in QUIET and not api(url, "query", query=query)["result"]:
                empty.append(query)
    return empty


@pytest.mark.skipif(
    not PROMETHEUS, reason="RULES AND PANELS ARE NOT EVALUATED: apt-get install prometheus"
)
def test_prometheus_evaluates_every_rule_and_panel(
    stage: Stage, tmp_path: Path, settings: Any
) -> None:
    furnish(stage, settings)
    token = stage.key()
    with web(tmp_path, *shipped_options(), ASSAY_METRICS_TOKEN=TOKEN) as (url, _):
        here = Stage(url, stage.redis, stage.application, stage.person)
        with prometheus(tmp_path, url.removeprefix("http://")) as address:

            def answered() -> bool:
                # Prometheus computes rates from increases between two of its scrapes.
                ask(here, token, stream=True)
                ask(here, token, "fail")
                found = api(address, "query", query="assay:slo_bad:ratio_rate1h") or {"result": []}
                slos = {each["metric"]["slo"] for each in found["result"]}
                return slos >= {"availability", "first_token", "queue", "sealing", "controller"}

            wait_until(answered)
            wait_until(lambda: evaluated(address))
            wait_until(lambda: not empty_panels(address))
            named = api(address, "query", query='{__name__=~"vllm:.*|gen_ai_.*"}')["result"]
            assert {
                "vllm:kv_cache_usage_perc",
                "gen_ai_server_time_to_first_token_seconds_bucket",
            } <= {each["metric"]["__name__"] for each in named}
            targets = api(address, "targets")["activeTargets"]
            assert [each["lastError"] for each in targets] == [""]


def test_exemplars_of_all_processes_are_in_every_scrape(stage: Stage, tmp_path: Path) -> None:
    stage.deployment("writer")
    token = stage.key()
    given = {
        "ASSAY_METRICS_TOKEN": TOKEN,
        "TMPDIR": str(tmp_path),
        # The client's `traceparent` decides, and the receiver takes none.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    with web(tmp_path, *shipped_options(), **given) as (url, _):
        here = Stage(url, stage.redis, stage.application, stage.person)
        body = {"model": "writer", "messages": [{"role": "user", "content": "Hello?"}]}
        numbers = itertools.count(1)

        def files() -> list[Path]:
            headers = {"traceparent": f"00-{next(numbers):032x}-b7ad6b7169203331-01"}
            answer = here.post("/v1/chat/completions", token, json=body, headers=headers)
            assert answer.status_code == 200
            return sorted(tmp_path.glob("assay-metrics-*/exemplars_*.json"))

        wait_until(lambda: len(files()) == 2)

        def newest() -> set[str]:
            found: dict[tuple[str, ...], tuple[float, str]] = {}
            for file in tmp_path.glob("assay-metrics-*/exemplars_*.json"):
                for place, (trace, _, at) in json.loads(file.read_text()):
                    found[tuple(place)] = max(found.get(tuple(place), (0.0, "")), (at, trace))
            return {trace for _, trace in found.values()}

        def shown() -> set[str]:
            samples = Scrape(url, TOKEN, OPENMETRICS).samples
            return {one.exemplar.labels["trace_id"] for one in samples if one.exemplar}

        # Both processes write their last ones first.
        last = f"{next(numbers) - 1:032x}"
        wait_until(lambda: last in newest())
        assert [shown() for _ in range(10)] == [newest()] * 10
