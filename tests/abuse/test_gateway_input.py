"""Values that are hard to keep or to compute with, in addresses, queries and bodies of the
gateway's own paths: refused, or kept as they are, and no fault of ours.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.unit.assay.gateway_support import Stage, stage

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
HARD_NAMES = (
    "%00", "a%00b", "%ff", "%ed%a0%80", "%e2%80%ae", "%0a", "%7f", "..%2f..", "%25", "'", "\\",
    "9" * 400, "-1", "0x10", "%c2%b2", "%d9%a3", "1e999999", "NaN", "a" * 4000, "%f0%9f%98%80",
    "%ef%b7%ba" * 100,
)  # fmt: skip
PATHS = (
    "/v1/models/{}", "/v1/files/{}", "/v1/files/file-{}", "/v1/files/file-{}/content",
    "/v1/batches/{}", "/v1/batches/batch_{}", "/v1/responses/resp_{}",
    "/v1/responses/resp_{}/input_items", "/v1/chat/completions/{}",
    "/v1/chat/completions/chatcmpl-{}", "/v1/chat/completions/chatcmpl-{}/messages",
    "/v1/vector_stores/{}", "/v1/vector_stores/vs_{}",
    "/v1/tasks/{}/writer", "/v1/tasks/text-generation/{}", "/v2/models/{}/infer",
)  # fmt: skip
LISTS = ("/v1/files", "/v1/batches", "/v1/chat/completions", "/v1/vector_stores", "/v1/models")
PARAMETERS = ("after", "limit", "order", "purpose", "model", "metadata[a]", "metadata[{}]", "{}")
HARD_VALUES = (
    '"\\ud800"', '"a\\u0000b"', '"\\u202e"', "1e999999", "-1e999999", "9" * 5000, "-0", "1e400",
    "0.1e-999999", "NaN", "Infinity", "null", "true", "[]", "{}", '""', '"\\ufdfa"', "[[[[]]]]",
    '{"a":' * 200 + "1" + "}" * 200, '{"a":1,"a":2}', '{"__proto__":1}', '["\\ud800"]',
    '{"\\ud800":"a"}', '{"a\\u0000":"a"}', '{"a":"\\ud800"}', '{"a":"b\\u0000"}',
    "9223372036854775808", "18446744073709551616", "-9223372036854775809", "2147483648",
)  # fmt: skip
SAID = '[{"role":"user","content":"Hi"}]'
# Of each body, the fields that a text of JSON takes the place of.
BODIES: dict[str, dict[str, str]] = {
    "/v1/chat/completions": {
        "model": '"writer"', "messages": SAID, "max_tokens": "5", "temperature": "1", "seed": "1",
        "top_p": "1", "stop": '"a"', "user": '"a"', "metadata": '{"a":"b"}', "logit_bias": "{}",
        "store": "true", "response_format": '{"type":"text"}', "tools": "[]", "n": "1",
    },
    "/v1/responses": {
        "model": '"writer"', "input": '"Hi"', "max_output_tokens": "5", "metadata": '{"a":"b"}',
        "previous_response_id": '"resp_1"', "instructions": '"a"', "store": "true", "user": '"a"',
    },
    "/v1/messages": {
        "model": '"writer"', "messages": SAID, "max_tokens": "5", "system": '"a"',
        "stop_sequences": '["a"]', "temperature": "1", "metadata": '{"user_id":"a"}',
    },
    "/v1/completions": {"model": '"writer"', "prompt": '"Hi"', "max_tokens": "5", "suffix": '"a"'},
    "/v1/embeddings": {"model": '"writer"', "input": '"Hi"', "dimensions": "1", "user": '"a"'},
    "/v1/batches": {
        "input_file_id": '"file-1"', "endpoint": '"/v1/chat/completions"',
        "completion_window": '"24h"', "metadata": '{"a":"b"}',
    },
    "/v1/feedback": {
        "request_id": '"req_1"', "rating": '"up"', "reason": '"a"', "comment": '"a"',
        "correction": '"a"',
    },
    "/v1/vector_stores/vs_1/search": {
        "query": '"a"', "max_num_results": "1", "filters": "{}", "ranking_options": "{}",
    },
    "/v1/chat/completions/chatcmpl-1": {"metadata": '{"a":"b"}'},
}  # fmt: skip


def test_no_value_is_a_fault_of_ours(stage: Stage) -> None:
    stage.deployment()
    headers = {"authorization": f"Bearer {stage.key()}"}
    faults: list[str] = []
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=stage.url, headers=headers, timeout=60) as client:

        def send(method: str, path: str, what: str = "", **more: Any) -> None:
            answer = client.request(method, path, **more)
            statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                faults.append(f"{answer.status_code} {method} {path[:90]} {what[:90]}")

        for path in PATHS:
            for name in HARD_NAMES:
                for method in ("GET", "POST", "DELETE"):
                    body: Any = {"json": {"inputs": "a"}} if method == "POST" else {}
                    send(method, path.format(name), **body)
        for path in LISTS:
            for parameter in PARAMETERS:
                for name in HARD_NAMES:
                    send("GET", f"{path}?{parameter.format(name)}={name}")
        for value in HARD_VALUES:
            said = '[{"role":"user","content":' + value + "}]"
            text = '{"model":"writer","store":true,"max_tokens":5,"messages":' + said + "}"
            given = {"content-type": "application/json"}
            send("POST", "/v1/chat/completions", f"content={value}", content=text, headers=given)
        for path, fields in BODIES.items():
            for field in fields:
                for value in HARD_VALUES:
                    members = {**fields, field: value}
                    text = ",".join(f"{json.dumps(key)}:{given}" for key, given in members.items())
                    given = {"content-type": "application/json"}
                    send("POST", path, f"{field}={value}", content="{" + text + "}", headers=given)
    assert faults == []
    assert statuses[200] > 50
    assert statuses[404] > 200
    assert statuses[400] > 500
