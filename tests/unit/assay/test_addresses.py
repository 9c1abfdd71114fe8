"""Address of a request: the peer, or the statement of trusted proxies."""

from __future__ import annotations

import pytest

from assay.addresses import forwarded_address

PROXY = ["10.0.0.1", "10.1.0.0/16", "nonsense"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.9", "198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.9, nobody"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.1.0.1, 10.1.0.2"], "10.1.0.1"),
        ("::ffff:10.0.0.1", ["2001:DB8::1"], "2001:db8::1"),
        ("", ["198.51.100.1"], ""),
        ("a.socket", ["198.51.100.1"], "a.socket"),
    ],
)
def test_what_a_client_puts_in_front_is_never_believed(
    peer: str, forwarded: list[str], found: str
) -> None:
    assert forwarded_address(peer, forwarded, PROXY) == found


def test_without_trusted_proxies_the_header_says_nothing() -> None:
    assert forwarded_address("127.0.0.1", ["198.51.100.1"], []) == "127.0.0.1"
