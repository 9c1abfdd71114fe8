"""*Health* and `assay doctor` tell three states apart: it works, it fails, it is not set up."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from assay.cli.findings import Check, CheckFailed, Finding, NotSetUp, State, run_checks
from assay.cli.optional_checks import OPTIONAL
from governance.audit.checkpoint import key_id
from governance.audit.cosignature import ED25519_COSIGNATURE
from governance.audit.models import AuditKeeper
from governance.audit.streaming.destinations import destinations_from
from governance.audit.streaming.models import AuditStream
from governance.people.models import Person
from governance.reviews.reminders.channels import mail_server_from, webhook_from
from governance.reviews.reminders.models import Channel, ReviewNotice
from tests.proofs import signed_in
from tests.unit.assay.portal_data import tell_story
from tests.unit.governance.exports_support import write
from workers.nodes.models import Node, NodeState

PUBLIC = bytes(range(32))
WITNESS = f"witness.example/one+{key_id('witness.example/one', PUBLIC, ED25519_COSIGNATURE).hex()}"
VKEY = f"{WITNESS}+{base64.b64encode(ED25519_COSIGNATURE + PUBLIC).decode()}"
pytestmark = pytest.mark.django_db


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in run_checks(OPTIONAL)}


def state(name: str) -> State:
    return found()[name].state


def test_nothing_that_is_not_set_up_is_green(settings: Any) -> None:
    every = found()
    assert every.keys() == {check.name for check in OPTIONAL}
    assert {finding.name for finding in every.values() if finding.state != State.OFF} == set()
    assert all(finding.fix and finding.detail for finding in every.values())


def test_a_second_place_of_its_own_works_until_it_fails(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path
    assert state("Second place") == State.WORKS
    now = timezone.now()
    AuditKeeper.objects.create(key=str(tmp_path), kind="place", fault="it is full", tried_at=now)
    assert found()["Second place"].detail == f"{tmp_path}: it is full"
    assert state("Second place") == State.FAILS


def test_a_witness_works_once_it_has_cosigned(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path
    named = [f"{VKEY} https://witness.example"]
    settings.AUDIT_WITNESSES = named
    assert state("Witnesses") == State.WORKS  # Nothing was sealed that it could sign.
    settings.AUDIT_WITNESSES = []
    write(1)
    settings.AUDIT_WITNESSES = named
    finding = found()["Witnesses"]
    assert (finding.state, finding.detail) == (
        State.FAILS,
        "witness.example/one has not received a request yet",
    )
    now = timezone.now()
    AuditKeeper.objects.create(key=WITNESS, kind="witness", size=1, tried_at=now, reached_at=now)
    assert state("Witnesses") == State.WORKS
    AuditKeeper.objects.filter(key=WITNESS).update(fault="it hangs")
    assert state("Witnesses") == State.FAILS
    settings.AUDIT_WITNESSES = ["nonsense"]
    assert state("Witnesses") == State.FAILS


def test_a_stream_fails_with_its_last_error(settings: Any) -> None:
    settings.SIEM_STREAMS = destinations_from(
        '[{"name": "soc", "url": "https://siem.example", "token": "hidden"}]', production=True
    )
    assert state("Event streams") == State.WORKS
    AuditStream.objects.create(
        name="soc", next_sequence=0, failing_since=timezone.now(), last_error="refused"
    )
    finding = found()["Event streams"]
    assert finding.state == State.FAILS
    assert "refused" in finding.detail
    assert "hidden" not in finding.detail


def test_mail_and_webhook_tell_the_last_notice(settings: Any) -> None:
    settings.MAIL_SERVER = mail_server_from("smtps://mail.example", sender="assay@example.org")
    settings.REVIEW_WEBHOOK = webhook_from(
        "https://hooks.example/x", secret="s" * 40, ca_file="", production=True
    )
    assert found()["Mail"].detail == "set up; no notice was sent yet"
    assert state("Review webhook") == State.WORKS
    review = tell_story().review_open
    reminder = review.reminders.create(kind="mentioned")
    notice = ReviewNotice.objects.create(
        reminder=reminder,
        channel=Channel.MAIL,
        person=Person.objects.all()[0],
        attempts=1,
        error="refused",
    )
    assert state("Mail") == State.FAILS
    assert state("Review webhook") == State.WORKS
    ReviewNotice.objects.filter(pk=notice.pk).update(sent_at=timezone.now(), error="")
    assert state("Mail") == State.WORKS


def test_provisioning_and_nodes(settings: Any, person: Callable[..., Person]) -> None:
    ada = person("Ada", "admin")
    settings.SCIM_TOKEN = "t" * 40
    assert found()["Provisioning"].detail == "set up; no one is provisioned yet"
    Person.objects.filter(pk=ada.pk).update(external_id="one")
    assert found()["Provisioning"].detail == "1 people are provisioned"
    node = Node.objects.create(
        name="gpu-1", state=NodeState.ENROLLED, public_key="5" * 64, created_by=ada,
        seen_at=timezone.now() - timedelta(hours=1),
    )  # fmt: skip
    assert state("Nodes") == State.FAILS
    Node.objects.filter(pk=node.pk).update(seen_at=timezone.now())
    assert state("Nodes") == State.WORKS
    Node.objects.filter(pk=node.pk).update(state=NodeState.REVOKED)
    assert state("Nodes") == State.OFF


def test_a_process_is_not_asked_about_settings_that_it_lacks(settings: Any) -> None:
    settings.PROCESS = "worker"
    assert found().keys() == {"Nodes"}
    settings.PROCESS = "controller"
    assert "Provisioning" not in found()
    assert "Event streams" in found()


def works() -> str:
    return "fine"


def fails() -> str:
    raise CheckFailed("broken", "mend it")


def is_off() -> str:
    raise NotSetUp("left out", "set it up")


def test_the_page_shows_three_states(
    person: Callable[..., Person], policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = tuple(Check(one.__name__, one, "") for one in (works, is_off, fails))
    monkeypatch.setattr("assay.cli.doctor.CHECKS", checks)
    page = signed_in(Client(), person("Ada", "admin")).get("/health/checks").content.decode()
    rows = re.findall(r"<li>(.*?)</li>", page, re.DOTALL)
    assert [re.findall(r"<strong>(\w+)</strong>", row) for row in rows] == [
        ["fails"], ["works"], ["is_off"],
    ]  # fmt: skip
    assert ["mark-ok" in row for row in rows] == [False, True, False]
    assert ["mark-bad" in row for row in rows] == [True, False, False]
    assert "Not set up" in rows[2]
    assert "set it up" in rows[2]
    assert " ".join(page.split()).count("1 failed · 1 works · 1 not set up") == 1
