"""Connections to providers: the only module that decides which hosts and addresses may be reached.

A `Route` leads to one base URL, that of a loaded description or of a credential's token endpoint,
so that nothing else can be reached. Redirects are not followed, cookies not kept, proxies of the
environment not used, and answers not decompressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from workers.egress.addresses import AddressRefused, check_address, is_address
from workers.engines.protocol import RequestRefused

# Unused connections are closed after this time, before providers close them (a minute or more).
KEEP_ALIVE_S = 20.0
DNS_CACHE_S = 10
MAX_HEADER = 16_384
MAX_HEADERS = 128
_LONGEST_RETRY_S = 86_400
_SECONDS = re.compile(r"[0-9]{1,15}")
# Maximum time and size between the last event of a stream and the end of its body.
_END_S, _END = 1.0, 65_536
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "Assay"}


class ProviderFailed(RequestRefused):
    """A provider could not be reached, refused the request, or sent a faulty answer.

    Attributes:
        retry_after_s: Seconds after which the provider accepts requests again; 0 if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "provider_failed",
        status: int = 502,
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Settings for connections to providers.

    Attributes:
        internal_hosts: Lowercase names of hosts that may have private addresses and use plain HTTP.
            Connections to them bypass the proxy.
        proxy: URL of an HTTP proxy for all other hosts; empty for none.
        ca_file: Certificates in PEM that are trusted in addition to the system's; empty for none.
        connect_s: Longest time to connect, including name resolution and TLS.
        first_byte_s: Longest time until an answer that is streamed begins.
        idle_s: Longest pause between two complete lines of a stream.
        total_s: Longest exchange; requests have their own, shorter deadlines.
    """

    internal_hosts: frozenset[str] = frozenset()
    proxy: str = ""
    ca_file: str = ""
    connect_s: float = 10.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 3600.0


class Answer:
    """The answer to one request; its head has been read. The caller closes it.

    Attributes:
        connect_s: Time until there was a connection: with name resolution and TLS for a new one,
            next to nothing for one that is reused.
    """

    def __init__(self, response: aiohttp.ClientResponse, host: str, connect_s: float) -> None:
        self._response = response
        self.connect_s = connect_s
        self._host = host
        self._size = 0

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def retry_after_s(self) -> int:
        """Return the seconds of `Retry-After`; 0 if it is missing, a date or absurdly long."""
        value = self._response.headers.get("Retry-After", "")
        return min(int(value), _LONGEST_RETRY_S) if _SECONDS.fullmatch(value) else 0

    @property
    def content_type(self) -> str:
        """Return the media type, such as `text/event-stream`."""
        return self._response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def chunk(self, most: int) -> bytes:
        """Return the next bytes of the body; empty at its end.

        Raises:
            ProviderFailed: the body has more than `most` bytes, or the connection broke.
        """
        with _translated(self._host):
            chunk = await self._response.content.readany()
        self._size += len(chunk)
        if self._size > most:
            raise ProviderFailed(f"{self._host} sent more than {most:,} bytes.")
        return chunk

    async def read(self, most: int) -> bytes:
        """Return the rest of the body. Raises as `chunk`."""
        chunks = []
        while chunk := await self.chunk(most):
            chunks.append(chunk)
        return b"".join(chunks)

    async def finish(self) -> None:
        """Read the body to its end after its last event, so that the connection can be reused."""
        with contextlib.suppress(TimeoutError, ProviderFailed):
            async with asyncio.timeout(_END_S):
                await self.read(self._size + _END)

    def close(self) -> None:
        """End the exchange. The connection is reused only if the answer was read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Route:
    """A connection target: one base URL and the paths below it."""

    def __init__(self, egress: Egress, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._egress = egress
        self._base_url = base_url.rstrip("/")
        self.host = (parts.hostname or "").lower()
        self.internal = self.host in egress.rules.internal_hosts
        if parts.scheme != "https" and not (self.internal and parts.scheme == "http"):
            raise ProviderFailed(
                f"{self.host} may be reached by https only; an administrator can permit plain HTTP "
                "to an internal host with ASSAY_EGRESS_INTERNAL_HOSTS.",
                code="egress_refused",
                status=503,
            )

    def url(self, path: str) -> str:
        """Return the URL of a path, which begins with a slash or is empty."""
        return f"{self._base_url}{path}"

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str],
        first_byte_s: float,
    ) -> Answer:
        """Send a request; return the answer when its head has arrived.

        Raises:
            ProviderFailed: no answer came within `first_byte_s`, the host may not be reached, or
                it answered by a redirect or in a compressed form.
        """
        try:
            async with asyncio.timeout(first_byte_s):
                with _translated(self.host):
                    response, connect_s = await self._egress.request(
                        self, method, self.url(path), body, headers
                    )
        except TimeoutError:
            raise ProviderFailed(
                f"{self.host} did not begin to answer within {first_byte_s:g} seconds.",
                code="provider_timeout",
                status=504,
            ) from None
        fault = ""
        if 300 <= response.status < 400:
            fault = "answered by a redirect, which is never followed"
        elif response.headers.get("Content-Encoding", "identity").lower() != "identity":
            fault = "compressed its answer, which was not requested"
        if fault:
            response.close()
            raise ProviderFailed(f"{self.host} {fault}.")
        return Answer(response, self.host, connect_s)


class Egress:
    """All connections of this process to providers. One event loop uses it.

    Raises:
        OSError: the file with certificates cannot be read.
    """

    def __init__(self, rules: EgressRules) -> None:
        self.rules = rules
        self._tls = ssl.create_default_context()
        if rules.ca_file:
            self._tls.load_verify_locations(rules.ca_file)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def route(self, base_url: str) -> Route:
        """Return the route to a base URL. Raises ProviderFailed if it may not be reached."""
        return Route(self, base_url)

    async def request(
        self, route: Route, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[aiohttp.ClientResponse, float]:
        """Send a request, see `Route.send`; also return the seconds until it had a connection."""
        proxied = bool(self.rules.proxy) and not route.internal
        if proxied:
            await self._check_host(route.host)
        kind = "proxied" if proxied else "internal" if route.internal else "public"
        timing = _Timing()
        _timing.set(timing)
        response = await self._session(kind).request(
            method,
            URL(url, encoded=True),
            data=body or None,
            headers={**headers, **_HEADERS},
            proxy=self.rules.proxy if proxied else None,
            allow_redirects=False,
        )
        return response, timing.connect_s

    async def close(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _session(self, kind: str) -> aiohttp.ClientSession:
        if kind not in self._sessions:
            self._sessions[kind] = aiohttp.ClientSession(
                connector=_TimedConnector(
                    limit=0,
                    ssl=self._tls,
                    ttl_dns_cache=DNS_CACHE_S,
                    keepalive_timeout=KEEP_ALIVE_S,
                    # The last step before a connection; it also sees addresses written in URLs.
                    socket_factory={
                        "public": _public_socket,
                        "internal": _internal_socket,
                        "proxied": None,
                    }[kind],
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
                max_headers=MAX_HEADERS,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=self.rules.connect_s, sock_connect=self.rules.connect_s
                ),
            )
        return self._sessions[kind]

    async def _check_host(self, host: str) -> None:
        """Check the addresses of a host before a proxy resolves its name. Raises AddressRefused.

        A name that does not resolve here is left to the proxy, whose machine may have the only
        resolver.
        """
        try:
            addresses = await asyncio.get_running_loop().getaddrinfo(host, None)
        except OSError:
            if is_address(host):
                raise AddressRefused(f"{host} is not an address") from None
            return
        for *_, address in addresses:
            check_address(str(address[0]), internal=False)


@dataclass(slots=True)
class _Timing:
    """Seconds until the request of a task had a connection."""

    connect_s: float = 0.0


_timing: ContextVar[_Timing] = ContextVar("timing")


class _TimedConnector(aiohttp.TCPConnector):
    """Notes the time of each connection: 2 µs a request, where aiohttp's tracing takes 13."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> Connection:
        began = time.monotonic()
        connection = await super().connect(req, traces, timeout)
        _timing.get().connect_s = time.monotonic() - began
        return connection


def _public_socket(info: Any) -> socket.socket:
    return _socket(info, internal=False)


def _internal_socket(info: Any) -> socket.socket:
    return _socket(info, internal=True)


def _socket(info: Any, *, internal: bool) -> socket.socket:
    family, kind, protocol, _, address = info
    check_address(str(address[0]), internal=internal)
    return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    """Raise errors of the connection as ProviderFailed."""
    try:
        yield
    except AddressRefused as error:
        raise _refused(host, error) from error
    except aiohttp.InvalidURL as error:
        raise _refused(host, AddressRefused("it is not the name of a host")) from error
    except aiohttp.ClientConnectorError as error:
        # Errors of certificates have none.
        reason = getattr(error, "_os_error", error)
        if isinstance(reason, PermissionError):
            raise _refused(host, reason) from error
        raise ProviderFailed(
            f"{host} cannot be reached: {str(reason.args[-1])[:200]}.",
            code="provider_unreachable",
        ) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise ProviderFailed(
            f"{host} cannot be reached: the connection timed out.",
            code="provider_unreachable",
            status=504,
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise ProviderFailed(
            f"{host} broke off or sent a malformed answer ({type(error).__name__})."
        ) from error


def _refused(host: str, error: OSError) -> ProviderFailed:
    return ProviderFailed(
        f"{host} may not be reached: {error.strerror}. An administrator can permit an internal "
        "host with ASSAY_EGRESS_INTERNAL_HOSTS.",
        code="egress_refused",
        status=503,
    )
