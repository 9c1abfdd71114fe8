"""Checks of `assay doctor` for optional parts of an installation."""

from __future__ import annotations

from assay.cli.findings import Check, CheckFailed, NotSetUp

PING_TIMEOUT_S = 2.0
PUBLISH_LAG_S = 120
START = "Start the controller: `assay manage run_controller`. If it runs, read its log."


def check_second_place() -> str:
    """Verify that checkpoints can be published, and that published ones are unchanged."""
    from pathlib import Path

    from django.conf import settings

    from governance.audit.models import AuditKeeper
    from governance.audit.outside.places import Folder
    from governance.audit.outside.second_place import second_place
    from governance.audit.selectors import publish_lag_s

    place = second_place()
    # Installations give the web process a folder that it can only read.
    if not (settings.PROCESS == "web" and isinstance(place, Folder)) and (faults := place.faults()):
        raise CheckFailed(
            " ".join(faults),
            "See docs/explanation/audit-log.md; or correct ASSAY_AUDIT_PUBLISH_URL.",
        )
    keeper = AuditKeeper.objects.filter(key=place.name).first()
    if keeper is not None and keeper.fault:
        raise CheckFailed(f"{place.name}: {keeper.fault}", "See docs/explanation/audit-log.md.")
    lag = publish_lag_s()
    if lag > PUBLISH_LAG_S:
        raise CheckFailed(
            f"a checkpoint has waited {lag:.0f} s to be published to {place.name}", START
        )
    if not settings.AUDIT_PUBLISH_URL and place.name == str(
        Path(settings.DATA_DIR) / "transparency"
    ):
        raise NotSetUp(
            f"checkpoints go to {place.name}, in the data folder itself",
            "Name another machine's folder in ASSAY_AUDIT_PUBLISH_DIR, or a bucket in "
            "ASSAY_AUDIT_PUBLISH_URL.",
        )
    return place.name


def check_witnesses() -> str:
    """Verify that each configured witness cosigns."""
    from governance.audit.models import AuditKeeper
    from governance.audit.outside.witnessing import witness_endpoints
    from governance.audit.selectors import latest_checkpoint

    endpoints = witness_endpoints()
    if not endpoints:
        raise NotSetUp(
            "no witness cosigns the audit log", "Name witnesses in ASSAY_AUDIT_WITNESSES."
        )
    keepers = AuditKeeper.objects.in_bulk([str(each.witness) for each in endpoints])
    for each in endpoints:
        keeper = keepers.get(str(each.witness))
        if keeper is not None and keeper.fault:
            raise CheckFailed(
                f"{each.witness.name}: {keeper.fault}",
                "Make it reachable, and give it the log's key.",
            )
        if keeper is None and latest_checkpoint() is not None:
            raise CheckFailed(f"{each.witness.name} has not received a request yet", START)
    return ", ".join(each.witness.name for each in endpoints)


def check_streams() -> str:
    """Verify that each SIEM accepts audit events."""
    from django.conf import settings

    from governance.audit.streaming.selectors import stream_states

    streams = stream_states()
    if not streams:
        raise NotSetUp(
            "audit events are not streamed to a SIEM",
            "Set ASSAY_SIEM_STREAMS; see docs/how-to/stream-to-a-siem.md.",
        )
    for stream in streams:
        if stream.state == "failing" or stream.lag_s > settings.SIEM_ALARM_S:
            raise CheckFailed(
                f"{stream.name} at {stream.address}: {stream.last_error or 'events wait'} "
                f"({stream.lag_events:,} behind)",
                "Make it reachable; the stream then continues.",
            )
    return ", ".join(f"{stream.name} at {stream.address}" for stream in streams)


def check_mail() -> str:
    """Verify that the mail server accepts messages."""
    from django.conf import settings

    from governance.reviews.reminders.models import Channel

    if settings.MAIL_SERVER is None:
        raise NotSetUp("no mail is sent", "Set ASSAY_EMAIL_URL.")
    return _sent(Channel.MAIL, "Correct ASSAY_EMAIL_URL, or the network path to it.")


def check_webhook() -> str:
    """Verify that the receiver of reminders accepts them."""
    from django.conf import settings

    from governance.reviews.reminders.models import Channel

    if settings.REVIEW_WEBHOOK is None:
        raise NotSetUp("reminders are not posted to a webhook", "Set ASSAY_REVIEW_WEBHOOK_URL.")
    return _sent(Channel.WEBHOOK, "Correct ASSAY_REVIEW_WEBHOOK_URL, or the network path to it.")


def _sent(channel: str, fix: str) -> str:
    from governance.reviews.reminders.models import ReviewNotice

    notices = ReviewNotice.objects.filter(channel=channel, attempts__gt=0)
    newest = notices.order_by("-pk").first()
    if newest is None:
        return "set up; no notice was sent yet"
    if newest.sent_at is None and newest.error:
        raise CheckFailed(f"the last notice was not accepted: {newest.error}", fix)
    return "the last notice was accepted"


def check_single_sign_on() -> str:
    """Verify that the identity provider answers, with the configured issuer."""
    import httpx
    from django.conf import settings

    if not settings.OIDC_ISSUER:
        raise NotSetUp("people sign in with passwords and passkeys", "Set ASSAY_OIDC_ISSUER.")
    address = f"{settings.OIDC_ISSUER}/.well-known/openid-configuration"
    answer = httpx.get(address, timeout=PING_TIMEOUT_S)
    issuer = str(answer.raise_for_status().json()["issuer"])
    if issuer.rstrip("/") != settings.OIDC_ISSUER:
        raise CheckFailed(f"{address} has the issuer {issuer}", f"Set ASSAY_OIDC_ISSUER={issuer}.")
    return issuer


def check_provisioning() -> str:
    """Verify that an identity provider may provision people."""
    from django.conf import settings

    from governance.people.models import Person

    if not settings.SCIM_TOKEN:
        raise NotSetUp(
            "people are not provisioned by an identity provider",
            "Set ASSAY_SCIM_TOKEN; see docs/how-to/provisioning.md.",
        )
    people = Person.objects.exclude(external_id="").count()
    return f"{people:,} people are provisioned" if people else "set up; no one is provisioned yet"


def check_nodes() -> str:
    """Verify that each node reports."""
    from django.utils import timezone

    from workers.nodes.fleet import SILENCE
    from workers.nodes.models import Node
    from workers.nodes.states import WORKING

    nodes = list(Node.objects.filter(state__in=WORKING).order_by("name"))
    if not nodes:
        raise NotSetUp(
            "no nodes: workers run only on the machine of the control plane",
            "See docs/how-to/add-a-node.md.",
        )
    since = timezone.now() - SILENCE
    silent = [node.name for node in nodes if node.seen_at is None or node.seen_at < since]
    if silent:
        raise CheckFailed(
            f"no report for {SILENCE.seconds} s: {', '.join(silent)}",
            "Check the machine, or revoke it under Operations → Nodes.",
        )
    return ", ".join(node.name for node in nodes)


WEB, CONTROL = ("web",), ("web", "controller")
OPTIONAL: tuple[Check, ...] = (
    Check(
        "Second place",
        check_second_place,
        "Correct ASSAY_AUDIT_PUBLISH_URL, or the network path to it.",
        (*CONTROL, "migrate"),
    ),
    Check("Witnesses", check_witnesses, "Correct ASSAY_AUDIT_WITNESSES.", CONTROL),
    Check("Event streams", check_streams, "Correct ASSAY_SIEM_STREAMS.", CONTROL),
    Check("Mail", check_mail, "Correct ASSAY_EMAIL_URL.", CONTROL),
    Check("Review webhook", check_webhook, "Correct ASSAY_REVIEW_WEBHOOK_URL.", CONTROL),
    Check(
        "Single sign-on",
        check_single_sign_on,
        "Correct ASSAY_OIDC_ISSUER, or the network path to it.",
        WEB,
    ),
    Check("Provisioning", check_provisioning, "Fix PostgreSQL first.", WEB),
    Check("Nodes", check_nodes, "Fix PostgreSQL first."),
)
