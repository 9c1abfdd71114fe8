"""Uploads of several people: whoever may not upload sends nothing, and nobody takes all places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from governance.audit.models import AuditEvent
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.datasets.models import Dataset
from tests.live.hostile_clients import connect, head, heard, holding
from tests.live.web_process import web
from tests.proofs import fresh_proof
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
# Larger than what is taken without asking who sends it, and than what is no upload.
SIZE = 3 * 1024 * 1024
SETTINGS = {"ASSAY_WEB_THREADS": "4", "ASSAY_WEB_QUEUE_WAIT_S": "20"}
FORM = "Content-Type: multipart/form-data; boundary=x"
ROWS = "text\tlabel\n" + "\n".join(
    f"row {n} {'a' * 80}\t{'good' if n % 2 else 'bad'}" for n in range(SIZE // 90)
)


class Company:
    """A web process, a dataset, and tokens of people."""

    def __init__(self, url: str, person: Callable[..., Person]) -> None:
        self.url = url
        self._person = person

    def token(self, name: str, *roles: str) -> str:
        made = access_token_create(person=self._person(name, *roles), name="x", proof=fresh_proof())
        return f"Authorization: Bearer {made[1]}"

    def upload(self, bearer: str, dataset: str = "reviews") -> httpx.Response:
        name, _, value = bearer.partition(": ")
        return httpx.post(
            f"{self.url}/api/v1/datasets/{dataset}/versions",
            files={"file": ("rows.tsv", ROWS.encode())},
            headers={name: value},
            timeout=60,
        )


@pytest.fixture
def company(
    policy: object, redis: object, person: Callable[..., Person], tmp_path: Path
) -> Iterator[Company]:
    dana = person("Dana", "developer@clinical")
    Dataset.objects.create(
        name="reviews", department=dana.role_assignments.get().department,
        task="text-classification", classification="internal", license="MIT", created_by=dana,
    )  # fmt: skip
    with web(tmp_path, **SETTINGS) as (url, _):
        yield Company(url, person)


def opening(path: str, bearer: str, size: int = SIZE) -> bytes:
    return head("POST", path, bearer, FORM, f"Content-Length: {size}")


def test_who_may_not_upload_is_told_before_a_byte_of_the_body(company: Company) -> None:
    theirs = company.token("Theo", "developer@finance")
    mine = company.token("Mia", "developer@clinical")
    viewer = company.token("Vera", "viewer@clinical")
    versions = "/api/v1/datasets/reviews/versions"
    cases = {
        "no such dataset": (opening("/api/v1/datasets/nothing/versions", mine), 404),
        "another department's": (opening(versions, theirs), 404),
        "only to be seen": (opening(versions, viewer), 403),
        "no such upload": (
            head(
                "PATCH", f"/api/v1/uploads/{'0' * 8}-0000-4000-8000-{'0' * 12}", mine,
                "Content-Type: application/offset+octet-stream", "Upload-Offset: 0",
                f"Content-Length: {SIZE}",
            ),
            404,
        ),
        "no such knowledge base": (opening("/api/v1/knowledge-bases/x/documents", mine), 404),
        "intakes by a viewer": (opening("/api/v1/intakes", viewer), 403),
        "a node's, by a person": (opening("/node/v1/deployments/1/media", mine), 401),
        "large forms of nobody": (head("POST", versions, FORM, "Content-Length: 100000"), 401),
        "a form that is only for small ones": (
            head("POST", "/sign-in", FORM, "Content-Length: 100000"),
            413,
        ),
    }  # fmt: skip
    statuses = {}
    for name, (request, _) in cases.items():
        with connect(company.url) as spoken:
            spoken.sendall(request)
            statuses[name] = int(heard(spoken)[9:12])
    assert statuses == {name: expected for name, (_, expected) in cases.items()}
    # A client that sends its body all the same reads the answer, too.
    assert company.upload(mine, "nothing").status_code == 404
    refused = AuditEvent.objects.filter(outcome="denied").count()
    assert refused >= 6, "each attempt is on record, as if the body had been read"


def test_places_are_shared_among_people(company: Company) -> None:
    """All of them trickle, to a dataset that is there and to one that is not."""
    ada, ben = (company.token(name, "developer@clinical") for name in ("Ada", "Ben"))
    slow = {"also": lambda spoken: spoken.send(b"x")}
    with ExitStack() as stack:
        for path in ("reviews", "nothing"):
            request = opening(f"/api/v1/datasets/{path}/versions", ada)
            stack.enter_context(holding(company.url, 40, request, **slow))  # type: ignore[arg-type]
        answers = [company.upload(ben).status_code for _ in range(3)]
    # The same rows again are no new version.
    assert answers == [201, 409, 409]


def test_a_body_that_trickles_ends(company: Company, tmp_path: Path) -> None:
    bearer = company.token("Ada", "developer@clinical")
    with (
        web(tmp_path, **SETTINGS, ASSAY_WEB_BODY_TIMEOUT_S="2") as (url, _),
        connect(url) as spoken,
    ):
        spoken.sendall(opening("/api/v1/datasets/reviews/versions", bearer))
        answer = bytearray()

        def trickles() -> bool:
            spoken.send(b"x")
            spoken.settimeout(0.1)
            with suppress(TimeoutError):
                answer.extend(spoken.recv(4096))
            return bool(answer)

        wait_until(trickles)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
