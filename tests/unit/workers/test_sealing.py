"""Messages between gateway and worker: genuine ones open, every other one is refused."""

from __future__ import annotations

import base64
import json
import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from django.conf import settings

from tests.unit.workers.sealed import Wire, worker_seals
from workers.sealing import (
    GIVEN_BACK,
    NOT_ADDRESSED,
    GatewaySeals,
    GivenBack,
    NotAddressed,
    ReplyReader,
    ReplySeals,
    WorkerSeals,
    _expanded,
    _unwrapped,
)
from workers.wire import Delta, Done, Event, Failed, InferenceRequest
from workers.wire_keys import Forged, WireKey

DONE = Done("stop", 3, 2)


def request(request_id: str = "req_1", **changes: Any) -> InferenceRequest:
    made = InferenceRequest(
        request_id=request_id,
        deployment_id=4,
        deployment="docs",
        digest="d" * 64,
        reply_stream="assay:reply:1",
        inputs={"prompt": "größer 🜂"},
        deadline=time.time() + 60,
    )
    return replace(made, **changes)


def exchange(wire: Wire, asked: InferenceRequest) -> tuple[ReplySeals, ReplyReader]:
    """Both ends of one request."""
    message, reader = wire.gateway.seal(asked, [wire.worker.public_key])
    return wire.worker.open(travelled(message))[1], reader


def travelled(message: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(message))
    return copy


def entry(seals: ReplySeals, *events: Event) -> dict[bytes, bytes]:
    """The fields of a reply as Redis returns them."""
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in seals.seal(*events).items()
    }


def test_a_request_and_its_replies_come_back_as_they_were_sent() -> None:
    wire = Wire()
    message, reader = wire.gateway.seal(request(), [wire.worker.public_key])
    opened, seals = wire.worker.open(travelled(message))
    assert opened == request(deadline=opened.deadline)
    sent = [Delta("Hello", 1), Delta(" there", 1), DONE]
    assert [reader.open(entry(seals, event)) for event in sent] == [[event] for event in sent]


def test_one_reply_carries_several_events_in_their_order() -> None:
    seals, reader = exchange(Wire(), request())
    assert reader.open(entry(seals, Delta("Hello", 1), DONE)) == [Delta("Hello", 1), DONE]


def test_a_worker_knows_whether_a_request_was_sealed_for_it_alone() -> None:
    wire, other = Wire(), WorkerSeals(Wire().key)
    assert exchange(wire, request())[0].alone
    message, _ = wire.gateway.seal(request("req_2"), [wire.worker.public_key, other.public_key])
    assert not wire.worker.open(travelled(message))[1].alone


def test_inputs_keep_numbers_and_depth_that_json_has_room_for() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):  # As deep as the gateway reads.
        deep = {"a": deep}
    given = {"least": -math.inf, "long": 2**80, "small": 1e-9, "deep": deep, 1: "one"}
    wire = Wire()
    message, _ = wire.gateway.seal(request(inputs=given), [wire.worker.public_key])
    opened, _ = wire.worker.open(travelled(message))
    assert opened.inputs == {str(name): value for name, value in given.items()}


def test_the_broker_sees_neither_prompt_nor_answer() -> None:
    wire = Wire()
    message, _ = wire.gateway.seal(request(), [wire.worker.public_key])
    seals = wire.worker.open(travelled(message))[1]
    body = base64.b64decode(message["body"])
    shown = (
        json.dumps(message).encode() + body + b"".join(entry(seals, Delta("secret", 1)).values())
    )
    assert not any(word.encode() in shown for word in ("prompt", "größer", "secret", "text"))


def _in(message: dict[str, Any], name: str, at: int) -> None:
    data = bytearray(base64.b64decode(message[name]))
    data[at] ^= 1
    message[name] = base64.b64encode(data).decode()


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "its body": lambda m: _in(m, "body", 5),
    "the end of its body": lambda m: m.update(body=m["body"][:-24]),
    "its MAC": lambda m: _in(m["macs"], "", 0),
    "its ID": lambda m: m.update(request_id="req_2"),
    "where the replies go": lambda m: m.update(reply_stream="assay:reply:mallory"),
    "the gateway's key": lambda m: m.update(gateway="00" * 32),
    "a seal": lambda m: m["seals"].update(dict.fromkeys(m["seals"], m["macs"][""])),
    "no seals": lambda m: m.update(seals={}),
    "seals of another shape": lambda m: m.update(seals=[]),
    "no MACs": lambda m: m.pop("macs"),
    "no MAC for it": lambda m: m.update(macs={}),
    "an empty MAC for it": lambda m: m.update(macs={"": None}),
    "no text at all": lambda m: m.update(body=7),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_request_that_was_changed_is_refused(what: str) -> None:
    wire = Wire()
    message = travelled(wire.seal(request()))
    CHANGES[what](message)
    with pytest.raises(Forged):
        wire.worker.open(message)


def test_a_request_from_outside_the_installation_is_refused() -> None:
    """Whoever reaches the broker knows the workers' public keys, and not the wire key."""
    wire = Wire()
    stranger = GatewaySeals(WireKey("the wire key of another installation"))
    message, _ = stranger.seal(request(), [wire.worker.public_key])
    for forged in (message, request().to_message(), {}):
        with pytest.raises(Forged):
            wire.worker.open(travelled(forged))


def test_a_body_is_not_moved_to_another_request() -> None:
    wire = Wire()
    first, second = (travelled(wire.seal(request(name))) for name in ("req_1", "req_2"))
    with pytest.raises(Forged):
        wire.worker.open({**first, "body": second["body"]})
    with pytest.raises(Forged):
        wire.worker.open({**second, "seals": first["seals"], "macs": first["macs"]})


def test_a_request_runs_once_however_often_it_is_delivered() -> None:
    wire = Wire()
    message = travelled(wire.seal(request()))
    wire.worker.open(message)
    with pytest.raises(Forged, match="before"):
        wire.worker.open(message)


def test_requests_are_forgotten_once_nobody_waits_for_them() -> None:
    wire = Wire()
    for number in range(50):
        wire.open(request(f"req_{number}", deadline=time.time() - 1))
    assert len(wire.worker._opened) == 1


def test_requests_that_are_remembered_are_not_copied_for_the_next_one() -> None:
    wire = Wire()
    later = time.time() + 100
    old = [f"old_{number}" for number in range(100_000)]
    wire.worker._opened.update(old)
    wire.worker._expiries.extend((later, name) for name in old)
    wire.open(request("first"))
    tracemalloc.start()
    try:
        wire.open(request("next"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**18, most


def test_a_request_that_is_sealed_for_others_goes_back_unopened() -> None:
    wire, other = Wire(), Wire()
    message, reader = wire.gateway.seal(request(), [other.worker.public_key])
    with pytest.raises(NotAddressed) as refused:
        wire.worker.open(travelled(message))
    assert refused.value.stream == "assay:reply:1"
    fields = {name.encode(): value for name, value in refused.value.fields.items()}
    assert reader.open(fields) == [NOT_ADDRESSED]
    with pytest.raises(Forged):
        wire.gateway.seal(request("req_2"), [])[1].open(fields)
    with pytest.raises(Forged):
        reader.open({**fields, b"bounce": b"0" * 32})


def test_a_request_that_is_given_back_is_not_begun_and_goes_to_another_worker() -> None:
    wire, asked = Wire(), request()
    message, reader = wire.gateway.seal(asked, [wire.worker.public_key])
    unopened = wire.worker.give_back(travelled(message))
    fields = {name.encode(): value for name, value in unopened.fields.items()}
    assert reader.open(fields) == [GIVEN_BACK]
    for call in (wire.worker.open, wire.worker.give_back):
        with pytest.raises(GivenBack):
            call(message)
    # The gateway sends it again, and this worker may read the queue by then.
    again, _ = wire.gateway.seal(asked, [wire.worker.public_key])
    assert wire.worker.open(travelled(again))[0] == asked
    wire = Wire()
    message, _ = wire.gateway.seal(asked, [wire.worker.public_key])
    wire.worker.give_back(message)
    wire.worker.keep(message)
    assert wire.worker.open(travelled(message))[0] == asked
    with pytest.raises(Forged, match="begun"):
        wire.worker.give_back(message)


@pytest.mark.parametrize(
    "change", [{"macs": {"": "AAAA"}}, {"request_id": "another"}, {"macs": {}}, {"macs": 7}]
)
def test_a_request_of_no_gateway_is_not_given_back(change: dict[str, Any]) -> None:
    """A worker signs requests that it gives back."""
    wire = Wire()
    with pytest.raises(Forged):
        wire.worker.give_back({**travelled(wire.seal(request())), **change})


def test_only_a_worker_that_the_request_was_sealed_for_can_answer() -> None:
    """Another worker of the installation has the wire key, and not the request's key."""
    wire, other = Wire(), Wire()
    mine, reader = exchange(wire, request())
    theirs, _ = exchange(other, request())
    with pytest.raises(Forged):
        reader.open(entry(theirs, DONE))
    claimed = {**entry(theirs, DONE), b"by": entry(mine, DONE)[b"by"]}
    with pytest.raises(Forged):
        reader.open(claimed)


def test_plain_replies_as_they_were_before_are_refused() -> None:
    wire = Wire()
    _, reader = exchange(wire, request())
    for fields in ({b"event": b'{"type": "done"}'}, {}, {b"by": b"", b"n": b"0", b"event": b""}):
        with pytest.raises(Forged):
            reader.open({b"id": b"req_1", **fields})


def test_replies_are_neither_repeated_nor_reordered_nor_left_out() -> None:
    wire = Wire()
    for *before, wrong in ([0, 0], [1], [0, 2], [0, 1, 0]):
        seals, reader = exchange(wire, request(f"req_{before}_{wrong}"))
        sent = [entry(seals, Delta(str(number), 1)) for number in range(3)]
        for number in before:
            reader.open(sent[number])
        with pytest.raises(Forged):
            reader.open(sent[wrong])


def test_a_number_does_not_move_a_reply() -> None:
    wire = Wire()
    seals, reader = exchange(wire, request())
    entry(seals, Delta("first", 1))
    second = entry(seals, Delta("second", 1))
    for number in (b"0", b"-1", b"1e3", b"9" * 40):
        with pytest.raises(Forged):
            reader.open({**second, b"n": number})


def test_a_reply_is_not_moved_to_another_request_or_delivery() -> None:
    wire = Wire()
    first, _ = exchange(wire, request("req_1"))
    second, reader = exchange(wire, request("req_2"))
    with pytest.raises(Forged):
        reader.open(entry(first, DONE))
    reader.open(entry(second, Delta("a", 1)))
    with pytest.raises(Forged):
        reader.open(entry(first, DONE))


def test_two_workers_do_not_answer_one_request() -> None:
    wire, other = Wire(), WorkerSeals(Wire().key)
    message, reader = wire.gateway.seal(request(), [wire.worker.public_key, other.public_key])
    _, first = wire.worker.open(travelled(message))
    _, second = other.open(travelled(message))
    reader.open(entry(first, Delta("a", 1)))
    entry(second, Delta("a", 1))
    with pytest.raises(Forged, match="Two workers"):
        reader.open(entry(second, DONE))


@pytest.mark.parametrize(
    "sealed",
    [
        b"[]",
        b"null",
        b"[" * 100_000,
        b'[{"type": {}}]',
        b'[{"type": "delta", "text": "", "tokens": 1, "scores": [[1, 0, []]]}]',
        b'[{"type": "taken"}, 5]',
    ],
)
def test_a_worker_that_seals_what_is_no_event_is_refused(
    monkeypatch: pytest.MonkeyPatch, sealed: bytes
) -> None:
    """One task reads all replies of a gateway; another exception would end it."""
    seals, reader = exchange(Wire(), request())
    monkeypatch.setattr("workers.sealing.encode_events", lambda events: sealed)
    with pytest.raises(Forged):
        reader.open(entry(seals, DONE))


def test_a_worker_that_lost_replies_may_say_that_it_failed() -> None:
    wire = Wire()
    seals, reader = exchange(wire, request())
    reader.open(entry(seals, Delta("a", 1)))
    entry(seals, Delta("lost", 1))
    failure = Failed("unavailable", "Lost.", 503)
    assert reader.open(entry(seals, failure)) == [failure]


def test_only_a_gateway_cancels() -> None:
    wire = Wire()
    notice = wire.key.cancel_message("req_1")
    assert wire.worker.canceled(notice) == "req_1"
    forged = ("req_1", "req_1:" + "0" * 64, notice.replace("req_1", "req_2"), "", ":", "req_1:é")
    for message in forged:
        with pytest.raises(Forged):
            wire.worker.canceled(message)


def test_no_seals_without_a_wire_key() -> None:
    with pytest.raises(ValueError, match="ASSAY_WIRE_KEY"):
        WireKey("")


A, B = "gpu-1.aaaaaaaaaaaaaaaa", "gpu-2.bbbbbbbbbbbbbbbb"


def shared() -> tuple[WorkerSeals, ReplySeals, WorkerSeals, ReplySeals, ReplyReader]:
    """A request that two nodes have opened, and its reader."""
    one, two = worker_seals(A), worker_seals(B)
    gateway = GatewaySeals(Wire().key)
    message, reader = gateway.seal(request(), [one.address, two.address])
    return one, one.open(travelled(message))[1], two, two.open(travelled(message))[1], reader


def test_nodes_answer_on_streams_of_their_own() -> None:
    one, first, two, second, reader = shared()
    assert first.stream == f"assay:reply:{A}/1"
    assert second.stream == f"assay:reply:{B}/1"
    assert reader.holders == {one.address, two.address}
    assert reader.open(entry(first, DONE), A) == [DONE]
    assert reader.holders == {one.address}


def test_a_node_cannot_answer_for_another_node_that_has_the_request() -> None:
    """It knows the request's key and the other's public key, and not what that one shares with the
    gateway."""
    one, two, gateway = worker_seals(A), worker_seals(B), GatewaySeals(Wire().key)
    message, reader = gateway.seal(request(), [one.address, two.address])
    asked, mine = one.open(travelled(message))
    pair = one._pair(message["gateway"])
    key = _unwrapped(pair, base64.b64decode(message["seals"][one.address]), asked.request_id)
    other = bytes.fromhex(two.public_key)
    pretended = ReplySeals(asked, key, pair.replies, other, stream="", alone=False)
    for realm in (A, B):
        with pytest.raises(Forged):
            reader.open(entry(pretended, DONE), realm)
    with pytest.raises(Forged):
        reader.open(entry(mine, DONE), B)


def test_a_node_cannot_make_requests_or_cancellations_for_others() -> None:
    key = Wire().key
    node = WireKey(key.node_secret(A))
    for victim in (worker_seals(), worker_seals(B)):
        forged, _ = GatewaySeals(node).seal(request(), [victim.address])
        with pytest.raises((Forged, NotAddressed)):
            victim.open(travelled(forged))
        with pytest.raises(Forged):
            victim.canceled(node.cancel_message("req_1"))
    assert worker_seals(A).canceled(key.of(A).cancel_message("req_1")) == "req_1"


def test_secrets_of_nodes_differ_from_each_other_and_with_each_enrollment() -> None:
    key = Wire().key
    again = "gpu-1.cccccccccccccccc"
    assert len({key.node_secret(realm) for realm in (A, B, again)} | {settings.WIRE_KEY}) == 4
    assert key.of(A) is key.of(A)
    assert key.of("") is key


def test_a_node_that_the_gateway_does_not_know_yet_sends_a_request_back() -> None:
    new, gateway = worker_seals(A), GatewaySeals(Wire().key)
    message, reader = gateway.seal(request(), [worker_seals(B).address])
    with pytest.raises(NotAddressed) as refused:
        new.open(travelled(message))
    assert refused.value.stream == f"assay:reply:{A}/1"
    fields = {name.encode(): value for name, value in refused.value.fields.items()}
    with pytest.raises(Forged):
        reader.open(fields, B)
    assert reader.open(fields, A) == [NOT_ADDRESSED]


def test_a_node_sends_nothing_back_to_what_is_no_stream() -> None:
    new, gateway = worker_seals(A), GatewaySeals(Wire().key)
    message, _ = gateway.seal(request(), [worker_seals(B).address])
    with pytest.raises(Forged):
        new.open({**travelled(message), "reply_stream": 5})


@pytest.mark.parametrize("key", ["00" * 32, f"01{'00' * 31}", "zz" * 32, "ab"])
def test_a_worker_with_an_unusable_key_takes_no_request_from_the_others(key: str) -> None:
    wire = Wire()
    recipients = [f"{A}/{key}", wire.worker.address, key]
    message, reader = wire.gateway.seal(request(), recipients)
    assert reader.holders == {wire.worker.address}
    assert reader.open(entry(wire.worker.open(travelled(message))[1], DONE)) == [DONE]


def test_keys_expand_as_rfc_5869_says() -> None:
    key, info = bytes(range(32)), b"reply" + bytes(48)
    standard = HKDFExpand(hashes.SHA256(), 32, b"assay wire 1 " + info).derive(key)
    assert _expanded(key, info) == standard
