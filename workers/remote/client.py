"""Send a node's requests to the control plane: sign in, retry, and raise its errors.

A session that another process of this machine renewed is read again from its file. A session that
another machine replaced is not signed in again: two machines with one key would otherwise end each
other's sessions forever.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    TooLarge,
    Unavailable,
    WrongState,
)
from registry.manifests import FilesUnreadable, ManifestMismatch
from workers.clock import CLOCK
from workers.control.messages import (
    Challenge,
    ChallengeBody,
    M,
    Message,
    NodeSessionAnswer,
    SessionBody,
    read,
    signed_text,
)
from workers.remote.identity import Identity, Session, SessionFile, identity_read

logger = logging.getLogger(__name__)
# No answer may block a loop for longer than a lease.
TIMEOUT = httpx.Timeout(10, connect=5)
# Of requests of one try, which are repeated soon, while the control plane is away: a worker has to
# serve again soon after it returns. Every second one waits for a control plane that is slow.
AWAY_TIMEOUTS = (httpx.Timeout(3, connect=2), httpx.Timeout(10, connect=2))
TRIES = 3
WAIT_FIRST_S = 0.25
WAIT_LONGEST_S = 15.0
# A session is renewed after this fraction of its lifetime.
RENEW_AT = 0.6
# Longest lifetime of a session in seconds.
LONGEST_S = 3600.0
CURRENT = "session/current"
REPLACED = "node_session_replaced"
_ENDED = {"node_session_ended", "node_session_invalid", REPLACED}
_JSON = {"Content-Type": "application/json"}
_LOCAL = {"127.0.0.1", "::1", "localhost"}
_KINDS: dict[int, type[DomainError]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: NotPermitted,
    404: NotFound,
    409: WrongState,
    413: TooLarge,
    429: QuotaExceeded,
}


class ControlPlaneAway(Unavailable):
    """The control plane cannot be reached, or does not answer in time (503)."""

    code = "control_plane_away"
    title = "Control plane away"


class NodeClient:
    """Client of one process of a node. Its methods may be called from several threads."""

    def __init__(
        self, url: str, key_file: Path, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """
        Raises:
            InvalidInput: the URL or the key file is not usable.
        """
        self._identity: Identity = identity_read(key_file)
        self._file = SessionFile(key_file)
        self._http = httpx.Client(
            base_url=f"{checked_url(url)}/node/v1/", timeout=TIMEOUT, transport=transport
        )
        self._lock = threading.Lock()
        self._session: Session | None = None
        # True once a request of this process was answered under the current session.
        self._worked = False
        self._replaced: NotAuthenticated | None = None
        self._away = False
        self._away_timeouts = cycle(AWAY_TIMEOUTS)

    @property
    def node(self) -> str:
        """The node's name."""
        return self._identity.node

    def get(self, path: str, answer: type[M], query: Message | None = None, **options: Any) -> M:
        """Return the answer to a GET. Raises the errors of `send`, or InvalidInput if malformed."""
        params = {} if query is None else query.model_dump()
        response = self.send("GET", path, params=params, **options)
        return read(answer, response.content, extra="ignore")

    def post(self, path: str, body: Message, answer: type[M], **options: Any) -> M:
        """Return the answer to a POST. Raises the errors of `get`."""
        return read(answer, self.tell(path, body, **options).content, extra="ignore")

    def tell(self, path: str, body: Message, **options: Any) -> httpx.Response:
        """Send a POST whose answer does not matter. Raises the errors of `send`."""
        content = body.model_dump_json(exclude_unset=True)
        return self.send("POST", path, content=content, headers=_JSON, **options)

    def send(
        self,
        method: str,
        path: str,
        *,
        tries: int = TRIES,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request that may be repeated, and read its answer.

        Raises:
            ControlPlaneAway: the control plane does not answer.
            DomainError: the control plane refuses the request, with its code and message.
        """

        def once(token: str) -> httpx.Response:
            signed = {**(headers or {}), **_bearer(token)}
            if self._away and tries == 1:
                options["timeout"] = next(self._away_timeouts)
            answer = self._http.request(method, path, headers=signed, **options)
            if method == "HEAD" and answer.status_code >= 400:
                # The answer to HEAD has no body with the reason.
                with self._http.stream("GET", path, headers=signed, **options) as problem:
                    if problem.status_code >= 400:
                        problem.read()
                        return problem
            return answer

        return self._tried(once, tries)

    @contextmanager
    def stream(self, path: str, *, start: int = 0) -> Iterator[httpx.Response]:
        """Open a file at an offset, without reading its bytes. Raises the errors of `send`."""

        def once(token: str) -> httpx.Response:
            headers = {**_bearer(token), **({"Range": f"bytes={start}-"} if start else {})}
            request = self._http.build_request("GET", path, headers=headers)
            return self._http.send(request, stream=True)

        answer = self._tried(once, 1)
        try:
            yield answer
        finally:
            answer.close()

    def session(self) -> Session:
        """Return the machine's session, or the last one while the control plane is unreachable.

        Raises:
            DomainError: there is no session, or another machine has replaced it.
        """
        try:
            return self._current()
        except ControlPlaneAway:
            if self._session is None:
                raise
            return self._session

    def keep(self) -> None:
        """Renew the session if due; detect its replacement. Raises the errors of `send`."""
        self.send("GET", CURRENT, tries=1)

    def close(self) -> None:
        self._http.close()

    def _tried(self, once: Any, tries: int) -> httpx.Response:
        failed = 0
        while True:
            try:
                answer = self._signed_in(once)
            except (QuotaExceeded, Unavailable) as error:
                failed += 1
                if failed >= tries:
                    raise
                time.sleep(min(error.retry_after or WAIT_FIRST_S * 2**failed, WAIT_LONGEST_S))
            else:
                self._worked = True
                return answer

    def _signed_in(self, once: Any) -> httpx.Response:
        session = self._current()
        try:
            return self._checked(once, session.token)
        except NotAuthenticated as error:
            if error.code not in _ENDED:
                raise
            session = self._sign_in(session, error)
        return self._checked(once, session.token)

    def _current(self) -> Session:
        """Return the session, renewed if due. Raises the errors of `send`."""
        if self._replaced is not None and self._file.read() in (None, self._session):
            raise self._replaced
        with self._lock:
            session = self._session = self._session or self._file.read()
        if session is None:
            return self._sign_in(None, None)
        left = session.renew_at - time.time()
        # `left` is larger than a lifetime if this machine's clock was set back.
        if 0 < left < LONGEST_S:
            return session
        return self._sign_in(session, self._ended(session))

    def _ended(self, session: Session) -> NotAuthenticated | None:
        """Return the error of a due session that has ended; None if it can still be renewed."""

        def once(token: str) -> httpx.Response:
            return self._http.get(CURRENT, headers=_bearer(token))

        try:
            self._checked(once, session.token)
        except NotAuthenticated as error:
            if error.code not in _ENDED:
                raise
            return error
        self._worked = True
        return None

    def _sign_in(self, session: Session | None, ended: NotAuthenticated | None) -> Session:
        """Use the session that another process of this machine got meanwhile, or sign in."""
        with self._lock, self._session_locked():
            stored = self._file.read()
            if stored is not None and stored != session:
                self._session, self._replaced = stored, None
                return stored
            # A process that has used the replaced session does not sign in again; a new one does.
            if ended is not None and ended.code == REPLACED and self._worked:
                self._replaced = ended
                raise ended
            granted = self._request_session("" if session is None else session.token)
            renew_at = time.time() + RENEW_AT * granted.expires_in_s
            new = Session(renew_at=renew_at, **granted.model_dump(exclude={"expires_in_s"}))
            self._file.write(new)
            self._session, self._replaced = new, None
            return new

    @contextmanager
    def _session_locked(self) -> Iterator[None]:
        try:
            with self._file.locked():
                yield
        except BlockingIOError as error:
            raise ControlPlaneAway(
                "Another process of this machine has stalled while it signs in.",
                hint="End a worker of this node that is stopped or hangs.",
            ) from error

    def _request_session(self, token: str) -> NodeSessionAnswer:
        def post(path: str, body: Message, answer: type[M], bearer: str = "") -> M:
            def once(token: str) -> httpx.Response:
                headers = {**_JSON, **_bearer(token)}
                return self._http.post(path, content=body.model_dump_json(), headers=headers)

            return read(answer, self._checked(once, bearer).content, extra="ignore")

        challenge = post("challenge", ChallengeBody(node=self.node), Challenge).challenge
        signature = self._identity.sign(signed_text(challenge, self.node))
        body = SessionBody(node=self.node, challenge=challenge, signature=signature)
        return post("session", body, NodeSessionAnswer, token)

    def _checked(self, once: Any, token: str) -> httpx.Response:
        began = time.monotonic()
        try:
            answer: httpx.Response = once(token)
            CLOCK.follow(answer.headers.get("Date", ""), sent_at=began)
            if answer.status_code >= 400:
                answer.read()
        except (httpx.TransportError, ssl.SSLError) as error:
            if not self._away:
                logger.warning("The control plane %s is away: %s", self._http.base_url, error)
            self._away = True
            raise ControlPlaneAway(
                f"The control plane {self._http.base_url.host} does not answer: "
                f"{type(error).__name__}: {error}.",
                hint="Check ASSAY_NODE_URL, the network and the web process.",
            ) from error
        if self._away:
            logger.info("The control plane answers again")
            self._away = False
        if answer.status_code >= 400:
            raise refusal(answer)
        return answer


def refusal(answer: httpx.Response) -> DomainError:
    """Return the domain error for a problem answer."""
    try:
        body = answer.json()
        message, code = str(body["detail"])[:1000], str(body["code"])[:60]
        hint = str(body.get("hint", ""))[:500]
    except (ValueError, KeyError, TypeError):
        message, code, hint = f"The control plane answered {answer.status_code}.", "refused", ""
    if code == ManifestMismatch.code:
        return ManifestMismatch(message, path="")
    if code in {FilesUnreadable.code, "file_missing"}:
        return FilesUnreadable(message, path="")
    kind = _KINDS.get(answer.status_code, Unavailable)
    after = answer.headers.get("Retry-After", "")
    return kind(message, code=code, hint=hint, retry_after=int(after) if after.isdigit() else None)


def checked_url(url: str) -> str:
    """Return the base URL of a control plane without a trailing slash.

    Raises:
        InvalidInput: not a URL, or one that would send tokens unencrypted over a network.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(
            f"{url!r} is not the address of a control plane.",
            hint="Set it to a URL such as https://assay.example.",
        )
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise InvalidInput(f"{url} would send the node's tokens unencrypted.", hint="Use https.")
    return url.strip().rstrip("/")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
