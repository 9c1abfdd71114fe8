"""The page and the endpoint of streams: who sees them, what they say, what they never say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.streaming.destinations import destinations_from
from governance.audit.streaming.models import AuditStream
from governance.people.models import Person
from tests.unit.assay.api_support import Api
from tests.unit.assay.test_portal_pages import inline_in
from tests.unit.governance.siem_support import sealed

PAGES = ("/audit/streams", "/audit/streams/rows")


def destinations(number: int) -> Any:
    given: list[dict[str, Any]] = [
        {"name": "soc", "url": "https://siem.example/hidden?key=hidden", "token": "hidden"},
        {"name": "archive", "url": "syslog+tcp://log.example", "format": "cef"},
        *({"name": f"more-{n}", "url": f"https://m{n}.example"} for n in range(6)),
    ]
    given[1]["personal_data"] = True
    return destinations_from(json.dumps(given[:number]), production=True)


@pytest.fixture
def begun(settings: Any, tmp_path: Any, policy: object) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    settings.SIEM_STREAMS = destinations(2)
    # Beside what putting the policy in force recorded.
    sealed(9 - AuditEvent.objects.count())
    now = timezone.now()
    AuditStream.objects.create(name="soc", next_sequence=9, sent_at=now)
    AuditStream.objects.create(
        name="archive", next_sequence=4, failing_since=now, last_error="It <b>fails</b>.", reduced=2
    )


def signed_in(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def test_auditors_see_where_each_stream_is_and_no_secrets(
    begun: None, person: Callable[..., Person]
) -> None:
    asha = person("Asha", "auditor")
    answer = Api(asha).get("audit/streams")
    assert answer.status_code == 200
    soc, archive = answer.body
    assert (soc["state"], soc["next_sequence"], soc["lag_events"]) == ("streaming", 9, 0)
    assert soc["address"] == "https://siem.example:443"
    assert (archive["state"], archive["lag_events"], archive["reduced"]) == ("failing", 5, 2)
    assert archive["lag_s"] > 0
    texts = [answer.content.decode()]
    for address in PAGES:
        page = signed_in(asha).get(address)
        assert page.status_code == 200
        texts.append(" ".join(page.content.decode().split()))
        assert inline_in(texts[-1]) == []
        for said in (
            "Up to date", "syslog+tcp://log.example:601", "not encrypted", "5 events behind",
            "people by ID", "with names and addresses", "It &lt;b&gt;fails&lt;/b&gt;.",
            "2 events could only be sent as number and hash", "Accepted all events before 9",
            'hx-trigger="every 5s"',
        ):  # fmt: skip
            assert said in texts[-1], (address, said)
    assert "hidden?" not in "".join(texts)
    assert "key=hidden" not in "".join(texts)


def test_streams_are_for_those_who_see_the_whole_log(
    begun: None, person: Callable[..., Person]
) -> None:
    for name, roles, allowed in [
        ("Ada", ("admin",), True),
        ("Omar", ("operator",), True),
        ("Enzo", ("lead@engineering",), False),
        ("Devi", ("developer@engineering",), False),
        ("Carla", ("reviewer:compliance",), False),
    ]:
        somebody = person(name, *roles)
        api = Api(somebody).get("audit/streams").status_code
        pages = [signed_in(somebody).get(address).status_code for address in PAGES]
        for status in (api, *pages):
            assert (status == 200) is allowed, name
            assert status in {200, 403, 404}
    assert Client().get(PAGES[0]).status_code == 302


def test_nothing_configured_says_what_to_do(
    policy: object, person: Callable[..., Person], settings: Any
) -> None:
    settings.SIEM_STREAMS = ()
    asha = person("Asha", "auditor")
    assert Api(asha).get("audit/streams").body == []
    page = signed_in(asha).get(PAGES[0]).content.decode()
    assert "ASSAY_SIEM_STREAMS" in page
    assert "every 5s" not in page
    settings.SIEM_STREAMS = destinations(1)
    assert "Not started" in signed_in(asha).get(PAGES[0]).content.decode()


def test_more_streams_cost_no_more_queries(
    begun: None, person: Callable[..., Person], settings: Any
) -> None:
    asha = person("Asha", "auditor")
    api, client = Api(asha), signed_in(asha)
    api.get("audit/streams")
    client.get(PAGES[0])
    counts = []
    for number in (1, 8):
        settings.SIEM_STREAMS = destinations(number)
        taken = []
        for ask in (
            lambda: api.get("audit/streams"),
            *(lambda address=address: client.get(address) for address in PAGES),
        ):
            with CaptureQueriesContext(connection) as captured:
                assert ask().status_code == 200
            taken.append(len(captured))
        counts.append(taken)
    assert counts[0] == counts[1]
