"""Counts of failed sign-ins in Redis, so that every web process sees the same count.

Three counts, each over the same window: failures for one account from one address (guessing one
password), failures from one address over all accounts (trying one password on all of them), and
wrong second factors of one person from anywhere.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import redis
from django.conf import settings

from governance.errors import QuotaExceeded, Unavailable
from governance.keys.networks import address_allowed

MAX_FAILURES = 10
# An office behind one address shares this count, so a success takes back only its own try.
MAX_ADDRESS_FAILURES = 50
MAX_CODE_FAILURES = 10
MAX_NODE_FAILURES = 100
WINDOW_S = 15 * 60


@dataclass(frozen=True, slots=True)
class _Count:
    name: str
    most: int
    refusal: str


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def _count_name(kind: str, *parts: str) -> str:
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"assay:{kind}-failures:{digest[:32]}"


def network_of(address: str) -> str:
    """Return the client's network: the address itself, or the /64 around an IPv6 address.

    Empty when the client's address is unknown, or is that of a trusted proxy that forwarded none:
    one client behind that proxy must not lock out all others.
    """
    if settings.TRUSTED_PROXIES and address_allowed(address, settings.TRUSTED_PROXIES):
        return ""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network(f"{parsed}/64", strict=False))
    return str(parsed)


def _account_count(email: str, address: str) -> _Count:
    refusal = "Too many failed sign-ins for this account"
    return _Count(_count_name("sign-in", email, address), MAX_FAILURES, refusal)


def _address_count(address: str) -> _Count | None:
    network = network_of(address)
    if not network:
        return None
    refusal = "Too many failed sign-ins from your network address"
    return _Count(_count_name("address", network), MAX_ADDRESS_FAILURES, refusal)


def _node_count(address: str) -> _Count | None:
    """Return the count of nodes, apart from people: a broken node must not lock people out."""
    network = network_of(address)
    if not network:
        return None
    refusal = "Too many failed sign-ins of nodes from this network address"
    return _Count(_count_name("node", network), MAX_NODE_FAILURES, refusal)


def _code_count(person_id: int) -> _Count:
    refusal = "Too many wrong codes for this account"
    return _Count(_count_name("second-factor", str(person_id)), MAX_CODE_FAILURES, refusal)


def _refuse_when_over(counts: list[_Count]) -> None:
    """Count this try, and refuse it when too many earlier ones failed.

    Counting before checking keeps parallel guesses from all passing the same check.
    """
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            for count in counts:
                pipe.incr(count.name)
                pipe.expire(count.name, WINDOW_S, nx=True)
                pipe.ttl(count.name)
            answers = pipe.execute()
    except redis.RedisError as error:
        raise Unavailable(
            "Signing in is not possible: Redis, which counts failed attempts, does not answer.",
            hint="Check REDIS_URL and that the server runs.",
            retry_after=5,
        ) from error
    for index, count in enumerate(counts):
        tries, _, left_s = answers[index * 3 : index * 3 + 3]
        if tries > count.most:
            raise QuotaExceeded(
                f"{count.refusal}; try again in {max(1, -(-left_s // 60))} minutes.",
                code="too_many_attempts",
                retry_after=max(1, left_s),
            )


def refuse_when_locked(email: str, address: str) -> None:
    """Count a try to sign in, and refuse it when too many failed.

    Raises:
        QuotaExceeded: more than `MAX_FAILURES` in `WINDOW_S` seconds for this e-mail and address,
            or more than `MAX_ADDRESS_FAILURES` from the address over all accounts.
        Unavailable: Redis does not answer; guessing without a count is not allowed.
    """
    counts = [_account_count(email, address)]
    if (address_count := _address_count(address)) is not None:
        counts.append(address_count)
    _refuse_when_over(counts)


def refuse_address_when_locked(address: str) -> None:
    """Count a try that names no account (a passkey). Raises as `refuse_when_locked`."""
    if (address_count := _address_count(address)) is not None:
        _refuse_when_over([address_count])


def refuse_nodes_when_locked(address: str) -> None:
    """Count a machine that joins or signs in. Raises as `refuse_when_locked`."""
    if (count := _node_count(address)) is not None:
        _refuse_when_over([count])


def forget_node_failure(address: str) -> None:
    """Take back the counted try of a node that signed in."""
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            _give_back(pipe, _node_count(address))
            pipe.execute()
    except redis.RedisError:
        return


def refuse_codes_when_locked(person_id: int) -> None:
    """Count a try of this person's second factor; raises as `refuse_when_locked`.

    The count ignores addresses: an attacker with the password can use any number of them.
    """
    _refuse_when_over([_code_count(person_id)])


def forget_failures(email: str, address: str) -> None:
    """Clear the account's count after a correct password, and take back the address's own try.

    The address's other tries stay counted: knowing one account's password must not win new tries
    on the others. If Redis does not answer, the counts expire by themselves.
    """
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            pipe.delete(_account_count(email, address).name)
            _give_back(pipe, _address_count(address))
            pipe.execute()
    except redis.RedisError:
        return


def forget_address_failure(address: str) -> None:
    """Take back the address's counted try after a correct passkey."""
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            _give_back(pipe, _address_count(address))
            pipe.execute()
    except redis.RedisError:
        return


def forget_codes(person_id: int) -> None:
    """Clear the person's count after a correct second factor."""
    try:
        _client(settings.REDIS_URL).delete(_code_count(person_id).name)
    except redis.RedisError:
        return


def _give_back(pipe: redis.client.Pipeline, count: _Count | None) -> None:
    if count is not None:
        pipe.decr(count.name)
        # If the count expired in between, DECR made a new one, which must expire too.
        pipe.expire(count.name, WINDOW_S, nx=True)
