"""Values that are hard to keep or to compute with, in addresses, queries and bodies of the
gateway's own paths: refused, or kept as they are, and no fault of ours.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from governance.bounds import NOT_ON_A_LINE
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


def form(*parts: str, boundary: str = "x", end: str = "--x--\r\n") -> bytes:
    text = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return (text + end).encode("utf-8", "surrogatepass")


def part(head: str, content: str = "a", *more: str) -> str:
    lines = (f"Content-Disposition: form-data; {head}", *more)
    return "\r\n".join((*lines, "", content))


PURPOSE, FILE = part('name="purpose"', "batch"), part('name="file"; filename="a.jsonl"', "{}")
FORMS: dict[str, tuple[bytes, str]] = {
    "good": (form(PURPOSE, FILE), "x"),
    "NUL in a file's name": (form(PURPOSE, part('name="file"; filename="a\0b"')), "x"),
    "NUL, escaped": (form(PURPOSE, part("name=file; filename*=utf-8''a%00b")), "x"),
    "a surrogate": (form(PURPOSE, part('name="file"; filename="\ud800"')), "x"),
    "a surrogate, escaped": (form(PURPOSE, part("name=file; filename*=utf-8''%ed%a0%80")), "x"),
    "a folder": (form(PURPOSE, part('name="file"; filename="../../etc/passwd"')), "x"),
    "a line in a name": (form(PURPOSE, part("name=file; filename*=utf-8''a%0d%0aX:%20y")), "x"),
    "a long name": (form(PURPOSE, part(f'name="file"; filename="{"a" * 3000}"')), "x"),
    "a name of another script": (form(PURPOSE, part('name="file"; filename="نامه\u200cها"')), "x"),
    "an override of direction": (form(PURPOSE, part('name="file"; filename="\u202egnp.exe"')), "x"),
    "a code of a terminal": (form(PURPOSE, part("name=file; filename*=utf-8''%1b[31ma")), "x"),
    "no name": (form(PURPOSE, part('name="file"; filename=""')), "x"),
    "no purpose": (form(FILE), "x"),
    "two purposes": (form(PURPOSE, PURPOSE, FILE), "x"),
    "a purpose of NUL": (form(part('name="purpose"', "a\0"), FILE), "x"),
    "a purpose that is a file": (form(part('name="purpose"; filename="a"', "batch"), FILE), "x"),
    "two files": (form(PURPOSE, FILE, FILE), "x"),
    "seconds that are too many": (
        form(PURPOSE, FILE, part('name="expires_after[anchor]"', "created_at"),
             part('name="expires_after[seconds]"', "9" * 5000)), "x",
    ),
    "seconds of another script": (
        form(PURPOSE, FILE, part('name="expires_after[anchor]"', "created_at"),
             part('name="expires_after[seconds]"', "٣٦٠٠")), "x",
    ),
    "many parts": (form(PURPOSE, *[part(f'name="a{n}"') for n in range(200)], FILE), "x"),
    "a form in a form": (
        form(PURPOSE, part('name="file"; filename="a"', form(FILE, boundary="y").decode(),
                           "Content-Type: multipart/mixed; boundary=y")), "x",
    ),
    "base64": (form(PURPOSE, part('name="file"; filename="a"', "====",
                                  "Content-Transfer-Encoding: base64")), "x"),
    "a preamble": (b"a" * 100_000 + b"\r\n" + form(PURPOSE, FILE), "x"),
    "an epilogue": (form(PURPOSE, FILE) + b"b" * 100_000, "x"),
    "no end": (form(PURPOSE, FILE, end=""), "x"),
    "no line ends": (form(PURPOSE, FILE).replace(b"\r\n", b"\n"), "x"),
    "an empty body": (b"", "x"),
    "an empty boundary": (form(PURPOSE, FILE), '""'),
    "a long boundary": (form(PURPOSE, FILE), "x" * 900),
    "a boundary of spaces": (form(PURPOSE, FILE), '"  "'),
    "another boundary": (form(PURPOSE, FILE), "y"),
    "two boundaries": (form(PURPOSE, FILE), "x; boundary=y"),
    "another charset": (form(PURPOSE, FILE), "x; charset=utf-7"),
}  # fmt: skip
# A surrogate is replaced.
TAKEN = {
    "good", "an epilogue", "a form in a form", "base64", "a folder", "a surrogate",
    "a surrogate, escaped", "a name of another script",
}  # fmt: skip


def test_a_form_that_is_hard_to_read_is_stored_or_refused(
    stage: Stage, settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    token = stage.key()
    statuses = {}
    for name, (content, boundary) in FORMS.items():
        kind = f"multipart/form-data; boundary={boundary}"
        answer = stage.post("/v1/files", token, content=content, headers={"content-type": kind})
        statuses[name] = answer.status_code
        if answer.status_code == 200:
            assert not NOT_ON_A_LINE.search(answer.json()["filename"])
            assert stage.post(f"/v1/files/{answer.json()['id']}", token).status_code == 405
    assert {name for name, status in statuses.items() if status >= 500} == set()
    assert {name for name, status in statuses.items() if status == 200} == TAKEN
    stored = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(stored) == list(statuses.values()).count(200), "what was refused is kept"
