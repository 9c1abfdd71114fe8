"""Log records carry the ID of their request or job."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from django.http import HttpRequest, HttpResponse
from PIL import Image

from assay.access_log import log_request
from assay.middleware import RequestContextMiddleware
from governance.logs import JsonFormatter, RequestIdFilter
from governance.principals import background, service_principal, serving
from workers.request_logs import about


def line(record: logging.LogRecord) -> dict[str, str]:
    """Return the record as the JSON handler writes it."""
    RequestIdFilter().filter(record)
    text = JsonFormatter("web").format(record)
    assert "\n" not in text
    return json.loads(text)  # type: ignore[no-any-return]


def record(message: str = "Job %s is not claimable", *values: object) -> logging.LogRecord:
    return logging.LogRecord("workers", logging.INFO, __file__, 1, message, values, None)


def test_a_record_is_one_json_object_with_the_id_of_its_request() -> None:
    with serving("req_1", "203.0.113.9"):
        found = line(record("Job %s is not\nclaimable", "7"))
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "INFO",
        "logger": "workers",
        "process": "web",
        "request_id": "req_1",
        "message": "Job 7 is not\nclaimable",
    }


def test_a_lone_surrogate_loses_no_record() -> None:
    text = JsonFormatter("web").format(record("%s", "a\ud800"))
    assert json.loads(text.encode())["message"] == "a\ud800"


def test_a_record_of_a_thread_for_many_requests_names_those_that_it_is_about() -> None:
    made = record("%d replies are lost", 3)
    vars(made).update(about("req_1", "req_2", "req_1"))
    with serving("req_9"):
        assert line(made)["request_id"] == "req_1,req_2"
    made = record("%d replies are lost", 0)
    vars(made).update(about())
    assert line(made)["request_id"] == "-"


def test_the_access_log_has_fields_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_request(
            "POST", "/v1/embeddings", 200, 0.0124, request_id="req_1", outcome="ok", deployment=""
        )
    found = line(caplog.records[-1])
    assert found.items() >= {
        "logger": "assay.access_log", "level": "INFO", "request_id": "req_1", "method": "POST",
        "route": "/v1/embeddings", "status": 200, "duration_ms": 12, "outcome": "ok",
        "message": "POST /v1/embeddings 200 in 12 ms outcome=ok",
    }.items()  # fmt: skip
    assert "deployment" not in found
    with caplog.at_level(logging.WARNING, "assay.access_log"):
        caplog.clear()
        log_request("GET", "/", 200, 0.1)
    assert not caplog.records


def test_a_record_outside_a_request_has_no_id() -> None:
    assert line(record("%s", "ready"))["request_id"] == "-"


def test_background_work_is_named_in_place_of_a_request() -> None:
    with background("job-7", service_principal("controller")):
        assert line(record("%s", "swept"))["request_id"] == "job-7"


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("bytes differ")
    except ValueError:
        broken = record("%s", "broke")
        broken.exc_info = sys.exc_info()
    assert "ValueError: bytes differ" in line(broken)["exception"]


def test_a_record_in_a_view_has_the_id_that_the_response_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(line(record("%s", "viewed"))["request_id"])
        return HttpResponse()

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(line(record)["request_id"])

    recorder = Recorder()
    logging.getLogger("assay.access_log").addHandler(recorder)
    with caplog.at_level(logging.INFO):
        response = RequestContextMiddleware(view)(HttpRequest())
    logging.getLogger("assay.access_log").removeHandler(recorder)
    assert isinstance(response, HttpResponse)
    # In the view, and in the access log.
    assert seen == [response.headers["x-request-id"]] * 2


def test_no_level_logs_what_an_image_says_about_itself(caplog: pytest.LogCaptureFixture) -> None:
    file, about = io.BytesIO(), Image.Exif()
    about[0x010E] = "Patient Doe"  # ImageDescription
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=about)
    with caplog.at_level(logging.DEBUG), Image.open(file) as image:
        assert image.getexif()[0x010E] == "Patient Doe"
        image.load()
    assert "Patient Doe" not in caplog.text


def test_warnings_and_crashes_are_records_too() -> None:
    code = """
import threading, warnings
import django
django.setup()
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="broken")
thread.start()
thread.join()
raise ValueError("the end")
"""
    environment = {**os.environ, "ASSAY_LOG_FORMAT": "json"}
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    found = [json.loads(each) for each in ran.stderr.splitlines()]
    assert [(each["logger"], each["level"]) for each in found[-3:]] == [
        ("py.warnings", "WARNING"),
        ("governance.logs", "CRITICAL"),
        ("governance.logs", "CRITICAL"),
    ]
    assert "ZeroDivisionError" in found[-2]["exception"]
    assert "ValueError: the end" in found[-1]["exception"]
