"""A small client of the management API, such as a customer might write."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from assay_demo.patience import patient_client, patiently

_CHUNK = 8 * 1024 * 1024
TERMINAL = {"succeeded", "failed", "canceled", "dead"}

ENDED_WITHOUT_RESULT = TERMINAL - {"succeeded"}


class RequestRejected(Exception):
    """A refusal of the API, with its RFC 9457 problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.detail = str(problem.get("detail", problem))
        hint = problem.get("hint")
        super().__init__(f"{status}: {self.detail}" + (f" {hint}" if hint else ""))


class Api:
    """`/api/v1/` with the token of one person or key."""

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = patient_client(f"{base_url}/api/v1/", headers=headers)

    @classmethod
    def sign_in(cls, base_url: str, email: str, password: str, code: str = "") -> Api:
        """Exchange a password, and a code if the account has a factor, for an access token."""
        credentials = {"email": email, "password": password} | ({"code": code} if code else {})
        token = cls(base_url).post("auth/token", **credentials)["token"]
        return cls(base_url, token)

    def get(self, path: str, **params: Any) -> Any:
        return self._answer(self._request("GET", path, again=True, params=params))

    def post(self, path: str, *, idempotency_key: str | None = None, **body: Any) -> Any:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        again = idempotency_key is not None
        return self._answer(self._request("POST", path, again=again, json=body, headers=headers))

    def queue(self, path: str, *, key: str, **body: Any) -> Any:
        """Queue a job once, and again if the job of an earlier run ended without a result."""
        job = self.post(path, idempotency_key=key, **body)
        while self.get(f"jobs/{job['id']}")["state"] in ENDED_WITHOUT_RESULT:
            key = f"demo-after-{job['id']}"
            job = self.post(path, idempotency_key=key, **body)
        return job

    def patch(self, path: str, **body: Any) -> Any:
        return self._answer(self._request("PATCH", path, json=body))

    def put(self, path: str, **body: Any) -> Any:
        return self._answer(self._request("PUT", path, again=True, json=body))

    def upload(self, path: str, *, fields: dict[str, str], files: list[tuple[str, Path]]) -> Any:
        """POST multipart form data, streaming each file from the disk."""
        handles = [(field, (file.name, file.open("rb"))) for field, file in files]
        try:
            return self._answer(self._request("POST", path, data=fields, files=handles))
        finally:
            for _, (_, handle) in handles:
                handle.close()

    def send(self, kind: str, target: str, name: str, file: Path) -> str:
        """Upload a file by tus; return the upload's ID. `name` may contain folders."""
        size = file.stat().st_size
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        fields: dict[str, Any] = {"kind": kind, "target": target, "filename": name, "size": size}
        upload: str = self.post("uploads", **fields, sha256=sha256)["id"]
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest = base64.b64encode(hashlib.sha256(chunk).digest()).decode()
                headers = {
                    "content-type": "application/offset+octet-stream",
                    "tus-resumable": "1.0.0",
                    "upload-checksum": f"sha256 {digest}",
                    "upload-offset": str(stream.tell() - len(chunk)),
                }
                self._answer(
                    self._request("PATCH", f"uploads/{upload}", content=chunk, headers=headers)
                )
        return upload

    def text(self, path: str) -> str:
        return self._get(path).text

    def content(self, path: str) -> bytes:
        return self._get(path).content

    def _get(self, path: str) -> httpx.Response:
        response = self._request("GET", path, again=True)
        if response.is_error:
            self._answer(response)
        return response

    def all(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a list, page by page."""
        page = self.get(path, **params)
        while True:
            yield from page["results"]
            if not page.get("next"):
                return
            page = self._answer(self._request("GET", page["next"], again=True))

    def find(self, path: str, **fields: Any) -> dict[str, Any] | None:
        """Return the first item of a list whose fields equal `fields`, or None."""
        for item in self.all(path):
            if all(item.get(name) == value for name, value in fields.items()):
                return item
        return None

    def watch_job(
        self, job_id: str, on_change: Callable[[dict[str, Any]], None], timeout_s: float = 600
    ) -> dict[str, Any]:
        """Poll a job until it ends; call `on_change` with each new state.

        Raises:
            TimeoutError: the job did not end within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        job: dict[str, Any] = {"state": "not known"}
        while time.monotonic() < deadline:
            job = self.get(f"jobs/{job_id}")
            on_change(job)
            if job["state"] in TERMINAL:
                return job
            time.sleep(0.5)
        raise TimeoutError(
            f"Job {job_id} did not end within {timeout_s:.0f} s; it is {job['state']}."
        )

    def _request(
        self, method: str, path: str, *, again: bool = False, **options: Any
    ) -> httpx.Response:
        return patiently(self._http, method, path, again=again, **options)

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            try:
                problem = response.json()
            except ValueError:
                problem = {"detail": response.text[:500]}
            raise RequestRejected(response.status_code, problem)
        return response.json() if response.content else None
