"""The way out: hosts and addresses that may be reached, TLS, and the proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp.resolver
import pytest

from tests.unit.governance.siem_support import make_certificates
from tests.unit.workers.provider import (
    Provider,
    Received,
    calling,
    described,
    head,
    replies,
)
from tests.waiting import PATIENCE_S
from workers.egress.addresses import AddressRefused, check_address, is_address
from workers.egress.connections import EgressRules, ProviderFailed
from workers.egress.loop import EgressLoop
from workers.egress.probing import probe

HERE = frozenset({"localhost"})
ANSWER = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "::1", "100.64.0.1", "fd00::1",
        "::ffff:10.1.2.3", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1",
        "198.18.0.1", "192.0.2.1", "fec0::1", "::ffff:0:10.1.2.3",
    ],
)  # fmt: skip
def test_an_internal_address_is_refused_unless_its_host_is_permitted(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address(address, internal=False)
    check_address(address, internal=True)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1",
        "0.0.0.0", "::",  # noqa: S104
        "255.255.255.255", "240.0.0.1", "100.100.100.200", "168.63.129.16",
        "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
        "no address",
    ],
)  # fmt: skip
def test_metadata_and_what_is_no_server_are_always_refused(address: str) -> None:
    for internal in (False, True):
        with pytest.raises(AddressRefused):
            check_address(address, internal=internal)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_a_public_address_is_reached(address: str) -> None:
    check_address(address, internal=False)


@pytest.mark.parametrize(
    ("host", "literal"),
    [
        ("1.2.3.4", True),
        ("127.1", True),
        ("2130706433", True),
        ("::1", True),
        ("a.b.example", False),
    ],
)
def test_addresses_are_told_from_names(host: str, literal: bool) -> None:
    assert is_address(host) is literal


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001"])
def test_a_host_that_resolves_to_this_machine_is_refused(tmp_path: Path, host: str) -> None:
    tls = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.server)
    provider = Provider(replies(ANSWER), context)
    loop = EgressLoop(EgressRules(ca_file=str(tls.authority)))
    try:
        route = loop.egress.route(f"https://{host}:{provider.port}/v1")
        sent = route.send("POST", "/x", headers={}, first_byte_s=PATIENCE_S)
        with pytest.raises(ProviderFailed) as refusal:
            loop.run(sent).result(PATIENCE_S)
        assert (refusal.value.code, refusal.value.status) == ("egress_refused", 503)
        assert provider.connections == 0
    finally:
        loop.close()
        provider.close()


def test_a_name_that_resolves_anew_to_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["192.0.2.1", "127.0.0.1", "10.0.0.1", "169.254.169.254"])

    async def resolve(self: Any, host: str, port: int = 0, family: Any = None) -> list[Any]:
        return [
            {
                "hostname": host,
                "host": next(answers),
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr("workers.egress.connections.DNS_CACHE_S", 0)
    loop = EgressLoop(EgressRules())
    try:
        route = loop.egress.route("https://provider.example/v1")
        for _ in range(4):
            sent = route.send("POST", "/x", headers={}, first_byte_s=PATIENCE_S)
            with pytest.raises(ProviderFailed) as refusal:
                loop.run(sent).result(PATIENCE_S)
            assert refusal.value.code == "egress_refused"
        assert next(answers, None) is None
    finally:
        loop.close()


def test_the_time_to_connect_is_that_of_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = aiohttp.resolver.ThreadedResolver.resolve

    async def slowly(self: Any, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.05)
        return await resolve(self, *arguments, **options)

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", slowly)
    with calling(tmp_path, replies(ANSWER)) as (caller, provider):
        first, second = (caller.ask(stream=False).done for _ in range(2))
        assert provider.connections == 1
    assert first.connect_ms >= 50
    assert second.connect_ms < 50


def test_plain_http_is_only_for_permitted_internal_hosts() -> None:
    loop = EgressLoop(EgressRules(internal_hosts=HERE))
    try:
        loop.egress.route("http://localhost:8000/v1")
        with pytest.raises(ProviderFailed, match="https only"):
            loop.egress.route("http://provider.example/v1")
    finally:
        loop.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_is_checked_by_the_added_authority(tmp_path: Path, trusted: bool) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)
    rules = EgressRules(internal_hosts=HERE, ca_file=str(made.authority) if trusted else "")
    with calling(tmp_path, replies(ANSWER), rules=rules, tls=context) as (caller, provider):
        answers = caller.ask(stream=False)
        if trusted:
            assert answers.done.finish_reason == "stop"
        else:
            assert (answers.failed.code, answers.failed.status) == ("provider_unreachable", 502)
            assert provider.received == []


def test_a_host_that_does_not_listen_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with calling(tmp_path, replies(ANSWER)) as (caller, _):
        route = caller.loop.egress.route(f"http://localhost:{port}/v1")
        sent = route.send("POST", "/x", headers={}, first_byte_s=PATIENCE_S)
        with pytest.raises(ProviderFailed) as refusal:
            caller.loop.run(sent).result(PATIENCE_S)
        assert refusal.value.code == "provider_unreachable"


def test_cookies_and_proxies_of_the_environment_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    behave = replies(ANSWER, "Content-Type: application/json", "Set-Cookie: a=b; Path=/")
    with calling(tmp_path, behave) as (caller, provider):
        for _ in range(2):
            assert caller.ask(stream=False).done
        assert all("cookie" not in each.headers for each in provider.received)


def test_a_head_that_is_too_long_is_a_failure(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: text/event-stream", "X-Big: " + "x" * 1_000_000))

    with calling(tmp_path, behave) as (caller, _):
        assert caller.ask().failed.code == "provider_failed"


def test_a_proxy_gets_requests_to_public_hosts_alone(tmp_path: Path) -> None:
    proxy = Provider(replies(b"", status="403 Forbidden"))
    rules = EgressRules(internal_hosts=HERE, proxy=proxy.origin)
    try:
        with calling(tmp_path, replies(ANSWER), rules=rules) as (caller, _):
            assert caller.ask(stream=False).done
            assert proxy.received == []
            egress = caller.loop.egress

            def failed(url: str) -> ProviderFailed:
                sent = egress.route(url).send("POST", "/x", headers={}, first_byte_s=PATIENCE_S)
                with pytest.raises(ProviderFailed) as refusal:
                    caller.loop.run(sent).result(PATIENCE_S)
                return refusal.value

            assert failed("https://127.0.0.1/v1").code == "egress_refused"
            assert failed("https://ip6-localhost.invalid/v1").code != "egress_refused"
            assert [each.path for each in proxy.received] == ["ip6-localhost.invalid:443"]
    finally:
        proxy.close()


MODELS = {"data": [{"id": "test-1"}, {"id": "test-2"}]}


def probing(listed: Any, answer: Any = ANSWER) -> Any:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        body = listed if received.path.endswith("/models") else answer
        status = "404 Not Found" if body is None else "200 OK"
        await replies(body or {}, status=status)(received, writer)

    return behave


@pytest.mark.parametrize(
    ("listed", "names"),
    [(MODELS, True), ({"data": []}, False), (None, None), ({"models": "?"}, None), ([], None)],
)
def test_a_probe_sends_a_fixed_text_and_reads_the_list(
    tmp_path: Path, listed: Any, names: bool | None
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1}
    answer = {**ANSWER, "model": "test-1", "system_fingerprint": "fp_1", "usage": usage}
    with calling(tmp_path, probing(listed, answer)) as (caller, provider):
        result = caller.loop.run(
            probe(caller.loop.egress, described(provider.origin), None)
        ).result(PATIENCE_S)
        assert (result.reached, result.listed, result.error) == (True, names, "")
        assert (result.model, result.fingerprint) == ("test-1", "fp_1")
        assert (result.prompt_tokens, result.completion_tokens) == (9, 1)
        (request, _) = provider.received
        assert request.json["messages"][0]["content"] == "Answer with the word ready."


def test_a_probe_says_why_a_provider_was_not_reached(tmp_path: Path) -> None:
    behave = replies({"error": {"message": "no"}}, status="401 Unauthorized")
    with calling(tmp_path, behave) as (caller, provider):
        result = caller.loop.run(
            probe(caller.loop.egress, described(provider.origin), None)
        ).result(PATIENCE_S)
        assert not result.reached
        assert "credential" in result.error
