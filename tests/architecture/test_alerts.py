"""Alerts on objectives fire when a budget burns, and only then: `promtool` computes them.

Debian's package `promtool` has it. Without it, `test_monitoring` only parses the rules.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

RULES = Path(__file__).resolve().parents[2] / "docker" / "prometheus"
PROMTOOL = shutil.which("promtool") or ""
pytestmark = pytest.mark.skipif(
    not PROMTOOL, reason="RULES ARE PARSED BUT NOT EVALUATED: apt-get install promtool"
)
FAST, SLOW = "AssaySloBurnsFast", "AssaySloBurnsSlowly"
LABELS = re.compile(r"Labels:\{(.*?)\}\n")
# Steps of 30 s in two hours, and in 30.
HOURS, DAY = 2 * 120, 30 * 120


def requests(deployment: str, code: int, values: str) -> dict[str, str]:
    name = f'assay_gateway_requests_total{{deployment="{deployment}", code="{code}"}}'
    return {"series": name, "values": values}


def gauge(series: str, values: str) -> dict[str, str]:
    return {"series": series, "values": values}


def firing(tmp_path: Path, at: str, *series: dict[str, str], alerts: Sequence[str]) -> set[str]:
    """Return those of the alerts that fire at a time, with objective and deployment or queue.

    promtool reports the alerts that a test does not expect, so this expects none.
    """
    tests = [
        {
            "interval": "30s",
            "input_series": [*series],
            "alert_rule_test": [
                {"eval_time": at, "alertname": alert, "exp_alerts": []} for alert in alerts
            ],
        }
    ]
    files = [str(RULES / f"assay-{name}.rules.yaml") for name in ("slo", "serving")]
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": files, "evaluation_interval": "30s", "tests": tests})
    )
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    report = done.stdout + done.stderr
    assert (done.returncode == 0) == ("FAILED" not in report), report
    found = set()
    for text in LABELS.findall(report):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        shown = [labels.get(name, "") for name in ("alertname", "slo", "deployment", "queue")]
        found.add(" ".join(filter(None, shown)))
    return found


def test_prometheus_accepts_every_rule() -> None:
    files = sorted(RULES.glob("*.rules.yaml"))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", "--lint-fatal", *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_failing_requests_of_one_deployment_raise_an_alert_for_it_alone(tmp_path: Path) -> None:
    series = [
        requests("writer", 200, f"0+98x{HOURS}"),
        requests("writer", 503, f"0+2x{HOURS}"),
        requests("reader", 200, f"0+98x{HOURS}"),
        # The callers' own mistakes are not failures.
        requests("reader", 400, f"0+90x{HOURS}"),
    ]
    assert firing(tmp_path, "70m", *series, alerts=[FAST, SLOW]) == {
        f"{FAST} availability writer",
        f"{SLOW} availability writer",
    }


def test_the_fast_alert_ends_soon_after_the_failures(tmp_path: Path) -> None:
    series = [
        requests("writer", 200, f"0+80x{HOURS}"),
        requests("writer", 503, f"0+20x120 2400+0x{HOURS}"),
    ]
    assert firing(tmp_path, "55m", *series, alerts=[FAST]) == {f"{FAST} availability writer"}
    # The half hour of the pair for six hours is without failures.
    assert firing(tmp_path, "100m", *series, alerts=[FAST]) == set()


def test_a_slow_burn_raises_only_the_slow_alert(tmp_path: Path) -> None:
    series = [requests("writer", 200, f"0+996x{DAY}"), requests("writer", 500, f"0+4x{DAY}")]
    assert firing(tmp_path, "29h", *series, alerts=[FAST, SLOW]) == {f"{SLOW} availability writer"}


def test_one_failure_of_a_deployment_with_hardly_any_requests_raises_nothing(
    tmp_path: Path,
) -> None:
    series = [requests("writer", 200, f"0+1x20 20+0x{HOURS}"), requests("writer", 500, "0x5 1x40")]
    assert firing(tmp_path, "10m", *series, alerts=[FAST, SLOW]) == set()


def test_slow_first_tokens_and_long_waits_raise_alerts(tmp_path: Path) -> None:
    first = "assay_gateway_time_to_first_token_seconds"
    queue = "assay_gateway_request_queue_time_seconds"
    all_of_them, some = f"0+100x{HOURS}", f"0+70x{HOURS}"
    series = [
        gauge(f'{first}_count{{deployment="writer"}}', all_of_them),
        gauge(f'{first}_bucket{{deployment="writer", le="2.5"}}', some),
        gauge(f'{queue}_count{{deployment="reader"}}', all_of_them),
        gauge(f'{queue}_bucket{{deployment="reader", le="1.0"}}', some),
        gauge(f'{queue}_count{{deployment="writer"}}', all_of_them),
        gauge(f'{queue}_bucket{{deployment="writer", le="1.0"}}', all_of_them),
    ]
    assert firing(tmp_path, "70m", *series, alerts=[FAST]) == {
        f"{FAST} first_token writer",
        f"{FAST} queue reader",
    }


@pytest.mark.parametrize(
    ("slo", "metric", "late"),
    [
        ("sealing", "assay_audit_sealing_lag_seconds", 31),
        ("controller", "assay_controller_report_age_seconds", 31),
        ("backup", "assay_backup_age_seconds", 27 * 3600),
    ],
)
def test_what_should_never_be_late_raises_an_alert_within_minutes(
    tmp_path: Path, slo: str, metric: str, late: int
) -> None:
    late_after_an_hour = gauge(metric, f"1+0x119 {late}+0x{HOURS}")
    assert firing(tmp_path, "59m", late_after_an_hour, alerts=[FAST, SLOW]) == set()
    assert firing(tmp_path, "75m", late_after_an_hour, alerts=[FAST]) == {f"{FAST} {slo}"}


def test_an_old_queue_and_a_full_cache_are_told(tmp_path: Path) -> None:
    series = [
        gauge('assay_queue_oldest_age_seconds{queue="writer"}', "40+0x40"),
        gauge('assay_queue_oldest_age_seconds{queue="reader"}', "4+0x40"),
        gauge('assay_engine_kv_cache_usage_ratio{deployment="writer"}', "0.99+0x40"),
    ]
    alerts = ["AssayQueueOld", "AssayCacheFull"]
    assert firing(tmp_path, "12m", *series, alerts=alerts) == {
        "AssayQueueOld writer",
        "AssayCacheFull writer",
    }


def test_a_provider_that_answers_as_another_model_raises_an_alert_by_deployment(
    tmp_path: Path,
) -> None:
    series = [
        gauge('assay_provider_differs{deployment="assistant"}', f"0x10 2x{HOURS}"),
        gauge('assay_provider_differs{deployment="writer"}', f"0x{HOURS}"),
    ]
    alert = ["AssayProviderDiffers"]
    assert firing(tmp_path, "4m", *series, alerts=alert) == set()
    assert firing(tmp_path, "6m", *series, alerts=alert) == {"AssayProviderDiffers assistant"}
