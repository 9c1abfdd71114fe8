"""Workers take what gateways and Celery send, and nothing else."""

from __future__ import annotations

import base64
import bz2
import json
import zlib
from typing import Any

import pytest
import redis as redis_module
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.test_celery_message import SEALED, a_request
from workers.app import app
from workers.celery_message import inference_message
from workers.envelopes import LONGEST, ForeignMessage, argument_of, read_message
from workers.wire import INFERENCE_TASK, JOB_QUEUE, JOB_TASK

JOB = "3f1c2c7e-0000-4000-8000-000000000000"


def job_message(redis: redis_module.Redis) -> bytes:
    app.send_task(JOB_TASK, args=[JOB], queue=JOB_QUEUE, retry=False)
    found: Any = redis.rpop(JOB_QUEUE)
    return bytes(found)


def body(*parts: Any) -> str:
    return base64.b64encode(json.dumps(parts).encode()).decode()


EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
GOOD = json.loads(inference_message(a_request(1), SEALED))


def test_what_is_sent_is_taken(redis: redis_module.Redis) -> None:
    request = read_message("deployment.1", inference_message(a_request(1), SEALED))
    assert argument_of(request) == SEALED
    job = read_message(JOB_QUEUE, job_message(redis))
    assert argument_of(job) == JOB
    # Sending left nothing else on the broker.
    assert redis.keys("*") == []


def test_a_message_gets_a_tag_of_this_process() -> None:
    data = inference_message(a_request(1), SEALED)
    tags = {read_message("deployment.1", data)["properties"]["delivery_tag"] for _ in range(2)}
    assert len(tags | {json.loads(data)["properties"]["delivery_tag"]}) == 3


def changed(*path: str, to: Any) -> bytes:
    message = json.loads(json.dumps(GOOD))
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return json.dumps(message).encode()


def without(*path: str) -> bytes:
    message = json.loads(json.dumps(GOOD))
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(message).encode()


CALLBACK = {"task": INFERENCE_TASK, "args": [], "kwargs": {}, "options": {}}
OTHERS: dict[str, bytes] = {
    "a byte": b"x",
    "nothing": b"",
    "NUL": b"\0" * 10,
    "half a character": b'"\xff"',
    "a number": b"1",
    "a list": b"[]",
    "null": b"null",
    "no member": b"{}",
    "not a number": b'{"body": NaN}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "too large": b'"' + b"x" * LONGEST + b'"',
    "compressed": zlib.compress(json.dumps(GOOD).encode()),
    "no body": without("body"),
    "no properties": without("properties"),
    "no headers": without("headers"),
    "one more part": changed("more", to=1),
    "properties that are none": changed("properties", to=7),
    "headers that are none": changed("headers", to=[]),
    "another encoding": changed("content-encoding", to="utf-16"),
    "a pickle": changed("content-type", to="application/x-python-serialize"),
    "a body that is none": changed("body", to={"a": 1}),
    "a body not in Base64": changed("body", to="é"),
    "a body of no JSON": changed("body", to=base64.b64encode(b"{").decode()),
    "a bomb": changed("body", to=base64.b64encode(bz2.compress(b"0" * 2**24)).decode()),
    "a named bomb": changed("headers", "compression", to="application/x-bz2"),
    "a header too many": changed("headers", "x", to="y"),
    "a header too few": without("headers", "timelimit"),
    "a large header": changed("headers", "origin", to="x" * 100_000),
    "a task that is none": changed("headers", "task", to=["x"]),
    "another task": changed("headers", "task", to=JOB_TASK),
    "an ID that is none": changed("headers", "id", to={}),
    "an empty ID": changed("headers", "id", to=""),
    "later": changed("headers", "eta", to="2999-01-01T00:00:00+00:00"),
    "a time that is none": changed("headers", "expires", to="tomorrow"),
    "a time in digits of another script": changed(
        "headers", "expires", to="٢٠٢٦-01-01T00:00:00+00:00"
    ),
    "a limit": changed("headers", "timelimit", to=[1, 1]),
    "a retry": changed("headers", "retries", to=1),
    "a retry that is false": changed("headers", "retries", to=False),
    "a group": changed("headers", "group", to="g"),
    "a stamp": changed("headers", "stamps", to={"a": ["b"]}),
    "a nest": changed("headers", "replaced_task_nesting", to=10**9),
    "another call": changed("body", to=body([SEALED], {}, {**EMBED, "chain": [CALLBACK]})),
    "a callback": changed("body", to=body([SEALED], {}, {**EMBED, "callbacks": [CALLBACK]})),
    "named arguments": changed("body", to=body([SEALED], {"a": 1}, EMBED)),
    "two arguments": changed("body", to=body([SEALED, SEALED], {}, EMBED)),
    "no argument": changed("body", to=body([], {}, EMBED)),
    "a text": changed("body", to=body(["x"], {}, EMBED)),
    "two parts": changed("body", to=body([SEALED], {})),
}


@pytest.mark.parametrize("what", OTHERS)
def test_nothing_else_is_taken(what: str) -> None:
    with pytest.raises(ForeignMessage):
        read_message("deployment.1", OTHERS[what])


@pytest.mark.parametrize("name", ["x", "", 7, None, f"{JOB}\0", ["x"]])
def test_a_message_that_names_no_job_is_not_taken(redis: redis_module.Redis, name: Any) -> None:
    message = json.loads(job_message(redis))
    message["body"] = body([name], {}, EMBED)
    with pytest.raises(ForeignMessage):
        read_message(JOB_QUEUE, json.dumps(message).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PLACES = [
    *((name,) for name in GOOD),
    *(("headers", name) for name in GOOD["headers"]),
    *(("properties", name) for name in GOOD["properties"]),
]


def shape(part: dict[str, Any]) -> dict[str, type]:
    varied = ("expires", "ignore_result")
    return {name: type(each) for name, each in part.items() if name not in varied}


@given(st.binary(max_size=64))
def test_no_bytes_break_the_check(data: bytes) -> None:
    with pytest.raises(ForeignMessage):
        read_message("compute", data)


@given(st.sampled_from(PLACES), JSON)
def test_no_value_in_any_place_breaks_the_check_or_reaches_kombu(
    place: tuple[str, ...], value: Any
) -> None:
    """A message that is taken has the genuine form in all that kombu and Celery look at."""
    try:
        taken = read_message("deployment.1", changed(*place, to=value))
    except ForeignMessage:
        return
    genuine = read_message("deployment.1", inference_message(a_request(1), SEALED))
    assert shape(taken["headers"]) == shape(genuine["headers"])
    assert shape(taken["properties"]) == shape(genuine["properties"])
    assert taken["properties"]["delivery_info"] == genuine["properties"]["delivery_info"]
