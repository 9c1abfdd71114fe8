"""Client of the management API, and the stored credential."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from assay.cli.output import CliError

if TYPE_CHECKING:
    import httpx

DEFAULT_SERVER = "http://127.0.0.1:8000"
CODE_PROMPT = "Code of your authenticator app, or a recovery code"
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0


def present(**values: Any) -> dict[str, Any]:
    """Return the values that are set, for the query or body of a request."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


@dataclass(frozen=True)
class Credentials:
    """A server's base URL and a token for it."""

    server: str
    token: str


def credentials_file() -> Path:
    """Return the file in which `assay login` stores the token."""
    return Path.home() / ".config" / "assay" / "credentials.json"


def checked_server(text: str) -> str:
    """Return `text` as a base URL without a trailing slash.

    Raises:
        CliError: it is not an http or https URL.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(
            f"{text!r} is not a server's address.",
            f"Give a URL such as {DEFAULT_SERVER}.",
        )
    return text.strip().rstrip("/")


def save_credentials(credentials: Credentials) -> Path:
    """Replace the credentials file, which only this user may read, in one step."""
    path = credentials_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(credentials), file)
    os.chmod(name, 0o600)
    os.replace(name, path)
    return path


def load_credentials() -> Credentials:
    """Return the credentials of ASSAY_SERVER and ASSAY_TOKEN, or of the file.

    A stored token is sent to its own server only.

    Raises:
        CliError: no token for the server is stored.
    """
    stored = _stored()
    server = os.environ.get("ASSAY_SERVER") or (stored.server if stored else DEFAULT_SERVER)
    server = checked_server(server)
    if token := os.environ.get("ASSAY_TOKEN"):
        return Credentials(server=server, token=token)
    if stored is None:
        raise CliError("You are not signed in.", "Run `assay login`, or set ASSAY_TOKEN.")
    if stored.server != server:
        raise CliError(
            f"The stored token is for {stored.server}, not for {server}.",
            f"Run `assay login --server {server}`, or set ASSAY_TOKEN.",
        )
    return stored


def stored_server() -> str:
    """Return the server of the environment or the file, or the default."""
    stored = _stored()
    return os.environ.get("ASSAY_SERVER") or (stored.server if stored else DEFAULT_SERVER)


def _stored() -> Credentials | None:
    path = credentials_file()
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(server=str(body["server"]), token=str(body["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(
            f"{path} cannot be read: {error}.", "Delete it and run `assay login`."
        ) from error


class Client:
    """Client of one server. Raises `CliError` with the server's sentence for each error."""

    def __init__(
        self,
        server: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        # Imported here: it takes as long as everything else that `--help` imports.
        import httpx

        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.server = server
        self._faults = httpx.HTTPError
        self._http = httpx.Client(
            base_url=f"{server}/api/v1/",
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            transport=transport,
        )

    @classmethod
    def signed_in(cls, timeout_s: float = TIMEOUT_S) -> Client:
        """Return a client with the credentials of the environment or of `assay login`."""
        credentials = load_credentials()
        return cls(credentials.server, credentials.token, timeout_s=timeout_s)

    def get(self, path: str, **params: Any) -> Any:
        """Return the decoded answer to a GET request; parameters without a value are left out."""
        # An empty dictionary would remove the query of `path`.
        return self._json("GET", path, params=present(**params) or None)

    def post(self, path: str, **body: Any) -> Any:
        """Post a JSON object; return the decoded answer."""
        return self._json("POST", path, json=body)

    def put(self, path: str, **body: Any) -> Any:
        """Put a JSON object; return the decoded answer."""
        return self._json("PUT", path, json=body)

    def patch(self, path: str, **body: Any) -> Any:
        """Patch with a JSON object; return the decoded answer."""
        return self._json("PATCH", path, json=body)

    def step_up(self) -> Any:
        """Prompt for a code and send it as the token's second factor; return the answer."""
        code = typer.prompt(CODE_PROMPT)
        return self._json("POST", "auth/step-up", json={"code": code.strip()})

    def append(self, upload: str, offset: int, data: bytes, checksum: str) -> int:
        """Send the next bytes of an upload; return how many the server has now."""
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            "Upload-Checksum": checksum,
            "Tus-Resumable": "1.0.0",
        }
        with self.request("PATCH", f"uploads/{upload}", content=data, headers=headers) as response:
            # An unread answer would close the connection.
            response.read()
            return int(response.headers["Upload-Offset"])

    def all(self, path: str, *, limit: int, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the first `limit` items of a list, page by page."""
        page = self.get(path, **{"page_size": min(limit, 100), **params})
        while True:
            for item in page["results"]:
                if limit <= 0:
                    return
                limit -= 1
                yield item
            if not page["next"] or limit <= 0:
                return
            # Only the path: behind a proxy, the server may know itself by another name.
            address = urlsplit(page["next"])
            page = self.get(f"{self.server}{address.path}?{address.query}")

    def download(self, path: str, target: Path, *, method: str = "GET", **options: Any) -> None:
        """Stream an answer into a file, which appears whole or not at all."""
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file, self.request(method, path, **options) as response:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def request(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Send a request; yield the answer with its body unread.

        When the server requires a fresh second factor, prompt for a code and send it again.
        """
        try:
            with contextlib.ExitStack() as open_answers:

                def send() -> httpx.Response:
                    stream = self._http.stream(method, path, **options)
                    response = open_answers.enter_context(stream)
                    if response.is_error:
                        response.read()
                        raise _refusal(response)
                    return response

                try:
                    response = send()
                except CliError as error:
                    if error.code != "step_up_required" or not sys.stdin.isatty():
                        raise
                    self.step_up()
                    response = send()
                yield response
        except self._faults as error:
            raise CliError(
                f"{self.server} cannot be reached: {error or type(error).__name__}.",
                "Is the server running? Run `assay doctor` on its machine.",
            ) from error

    def _json(self, method: str, path: str, **options: Any) -> Any:
        with self.request(method, path, **options) as response:
            content = response.read()
        try:
            return json.loads(content) if content else None
        except ValueError:
            raise CliError(
                f"{self.server} did not answer like an Assay server.",
                "Check the address: `assay login --server URL`.",
            ) from None


def _refusal(response: httpx.Response) -> CliError:
    try:
        problem = response.json()
        detail, hint = str(problem["detail"]), str(problem.get("hint") or "")
        code = str(problem.get("code") or "")
        field_errors = [
            f"{error['field']}: {error['detail']}"
            for error in problem.get("errors") or []
            if error.get("field") and error["detail"] not in detail
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        sentence = f"The server answered {response.status_code} {response.reason_phrase}."
        return CliError(sentence, status=response.status_code)
    if response.status_code == HTTPStatus.UNAUTHORIZED and not hint:
        hint = "Run `assay login`."
    return CliError(detail, " ".join([*field_errors, hint]).strip(), code, response.status_code)
