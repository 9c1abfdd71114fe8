"""Messages survive the way across the broker unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from governance.usage.records import MOST_REQUEST_DEVICE_MS, MOST_TOKENS, MOST_UNITS
from workers.wire import (
    COUNTS,
    Delta,
    Done,
    Event,
    Failed,
    InferenceRequest,
    decode_events,
    deployment_queue,
    encode_events,
)


@pytest.mark.parametrize(
    "event",
    [
        Delta("größer 🜂\n", 2),
        Done("stop", 7, 9, 12, [[0.5, -1.0]]),
        Failed("not_loaded", "It is not loaded.", 503),
    ],
    ids=["delta", "done", "failed"],
)
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    assert decode_events(encode_events([event, event])) == [event, event]


@pytest.mark.parametrize(
    "data", ["{}", "[]", '[{"type": "other"}]', '[{"type": "delta", "x": 1}]', "no"]
)
def test_what_is_no_event_is_refused(data: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_events(data)


@pytest.mark.parametrize(
    "changes",
    [{"units": -1}, {"units": 0.5}, {"units": "12"}, {"units": True}, {"units": 10**10},
     {"prompt_tokens": -1}, {"completion_tokens": None}, {"device_ms": -5}],
    ids=str,
)  # fmt: skip
def test_a_worker_gives_no_credit_and_charges_no_fractions(changes: dict[str, Any]) -> None:
    [body] = json.loads(encode_events([Done("stop", 1, 2, units=12)]))
    assert decode_events(json.dumps([body])) == [Done("stop", 1, 2, units=12)]
    with pytest.raises(ValueError, match="whole number from 0"):
        decode_events(json.dumps([{**body, **changes}]))
    with pytest.raises(ValueError, match="whole number from 0"):
        decode_events('[{"type": "delta", "text": "x", "tokens": -1}]')


def test_a_worker_can_charge_as_much_as_the_ledger_takes() -> None:
    bounds = {"tokens": MOST_TOKENS, "device_ms": MOST_REQUEST_DEVICE_MS, "units": MOST_UNITS}
    same = dict.fromkeys(("prompt_tokens", "completion_tokens"), MOST_TOKENS)
    assert {**bounds, **same}.items() <= COUNTS.items()


def test_a_request_survives_the_broker_and_unknown_fields_are_refused() -> None:
    request = InferenceRequest(
        request_id="r1",
        deployment_id=4,
        deployment="docs",
        digest="d" * 64,
        reply_stream="replies",
        inputs={"prompt": "hello"},
    )
    message = json.loads(json.dumps(request.to_message()))
    assert InferenceRequest.from_message(message) == request
    with pytest.raises(TypeError):
        InferenceRequest.from_message({**message, "priority": 1})


def test_every_deployment_has_a_queue_of_its_own() -> None:
    assert deployment_queue(4) != deployment_queue(44)
