"""Checks of `assay doctor` for production: gaps that an installation runs with, but should not."""

from __future__ import annotations

from datetime import timedelta

from assay.cli.findings import Check, CheckFailed

BACKUP_AGE = timedelta(days=2)
REPORT_AGE = timedelta(minutes=2)
MONITOR = "See docs/how-to/monitor.md."


def check_environment() -> str:
    """Verify that the settings are those of production."""
    from django.conf import settings

    if not settings.PRODUCTION:
        raise CheckFailed(
            "this is a development installation: it accepts development secrets and plain HTTP",
            "Set ASSAY_ENV=production; Assay then names each missing secret.",
        )
    return "production"


def check_people() -> str:
    """Verify that two administrators can grant roles, and that there is a reviewer."""
    from governance.people.models import Person, Role, RoleAssignment

    active = RoleAssignment.objects.filter(
        person__in=Person.objects.filter(is_active=True), department=None
    )
    admins = active.filter(role=Role.ADMIN).values("person").distinct().count()
    reviewers = active.filter(role=Role.REVIEWER).values("person").distinct().count()
    if admins < 2:
        raise CheckFailed(
            f"{admins} of the two administrators that are needed to grant privileged roles",
            "Add a second one; see docs/how-to/recover-accounts.md.",
        )
    if not reviewers:
        raise CheckFailed(
            "no reviewer, so no release can be approved", "Grant the role reviewer under People."
        )
    return f"{admins} administrators, {reviewers} reviewers"


def check_backup() -> str:
    """Verify that the last backup is recent."""
    from django.utils import timezone

    from governance.audit.models import AuditEvent

    newest = AuditEvent.objects.filter(action="installation:backup").order_by("-id").first()
    if newest is None:
        raise CheckFailed(
            "never backed up", "Run `assay backup` daily; see docs/how-to/back-up.md."
        )
    age = timezone.now() - newest.occurred_at
    if age > BACKUP_AGE:
        raise CheckFailed(
            f"{age.days} days ago", "Find out why the daily `assay backup` does not run."
        )
    return f"{newest.occurred_at:%Y-%m-%d %H:%M} UTC"


def check_outside() -> str:
    """Verify that this machine's owner cannot rewrite the published history."""
    from django.conf import settings

    if not settings.AUDIT_PUBLISH_URL:
        raise CheckFailed(
            "checkpoints are published into a folder, which this machine's owner can rewrite",
            "Set ASSAY_AUDIT_PUBLISH_URL to a bucket with object lock.",
        )
    if not settings.AUDIT_WITNESSES:
        raise CheckFailed(
            "no witness cosigns the audit log",
            "Name witnesses of other owners in ASSAY_AUDIT_WITNESSES.",
        )
    return f"a bucket and {len(settings.AUDIT_WITNESSES)} witnesses"


def check_monitoring() -> str:
    """Verify that Prometheus may scrape from another machine."""
    from django.conf import settings

    if not settings.METRICS_TOKEN and settings.PROCESS in {"", "web"}:
        raise CheckFailed(
            "only this machine may read /metrics", f"Set ASSAY_METRICS_TOKEN. {MONITOR}"
        )
    return "set up"


def check_notices() -> str:
    """Verify that reviewers are reminded outside the portal."""
    from django.conf import settings

    if not (settings.MAIL_SERVER or settings.REVIEW_WEBHOOK):
        raise CheckFailed(
            "reviewers are reminded only in the portal",
            "Set ASSAY_EMAIL_URL or ASSAY_REVIEW_WEBHOOK_URL.",
        )
    return "reminders are sent"


def check_addresses() -> str:
    """Verify that limits of sign-in see the addresses of clients."""
    from django.conf import settings

    if not settings.TRUSTED_PROXIES and settings.PROCESS in {"", "web"}:
        raise CheckFailed(
            "all clients have the address of the proxy, so they share its limits",
            "Name the proxy's address in ASSAY_TRUSTED_PROXIES.",
        )
    return "known"


def check_controller() -> str:
    """Verify that a controller reports, and that its loops succeed."""
    from django.utils import timezone

    from workers.measurements.measuring import LOOPS, loops_together
    from workers.measurements.models import Measurement

    since = timezone.now() - REPORT_AGE
    reports = Measurement.objects.filter(name__startswith=LOOPS, measured_at__gte=since)
    loops = loops_together([report.figures for report in reports])
    if not loops:
        raise CheckFailed(
            f"no report in the last {REPORT_AGE.seconds} s",
            "Start the controller: `assay manage run_controller`.",
        )
    if failing := sorted(name for name, figures in loops.items() if figures["failing"]):
        raise CheckFailed(
            f"these loops fail: {', '.join(failing)}", "The controller's log names the causes."
        )
    return f"{len(loops)} loops succeed"


def check_kinds_of_workers() -> str:
    """Verify that a compute worker and an engine worker run."""
    import redis
    from django.conf import settings

    from workers.nodes.selectors import node_realms
    from workers.presence import workers_present

    present = workers_present(
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3), node_realms()
    )
    for kind in ("compute", "engine"):
        if not any(name.rpartition("/")[2].startswith(f"{kind}@") for name in present):
            raise CheckFailed(
                f"no {kind} worker reports",
                f"Start one as docker/entrypoint.sh does, under the name {kind}@%h.",
            )
    return f"{len(present)} workers of both kinds"


def check_garbage() -> str:
    """Verify that unneeded files are removed from the store."""
    from django.conf import settings

    if not settings.STORE_GC_DAYS and settings.PROCESS in {"", "controller"}:
        raise CheckFailed(
            "unneeded files are never removed from the store",
            "Set ASSAY_STORE_GC_DAYS of the controller, such as 30.",
        )
    return "removed automatically"


def check_database_roles() -> str:
    """Verify that no process can keep locks that the controller cannot end."""
    from django.db import connection

    from assay.database_roles.hardening import WORKER, functions_left, owner_sees

    connection.ensure_connection()
    database = connection.connection
    if database.execute("SHOW max_prepared_transactions").fetchone() != ("0",):
        raise CheckFailed(
            "processes can leave prepared transactions, which keep locks without a session",
            "Set max_prepared_transactions = 0 in postgresql.conf, and restart PostgreSQL.",
        )
    if not owner_sees(database):
        raise CheckFailed(
            "the controller can neither see nor end sessions that block others",
            "Run `assay manage apply_database_roles` as the tables' owner, who created the roles.",
        )
    if names := functions_left(database):
        raise CheckFailed(
            f"{WORKER} may call {len(names)} functions that block others, such as {names[0]}",
            "As a superuser, run what `assay manage apply_database_roles --show-hardening` prints.",
        )
    return "workers cannot call functions that block others"


GAPS: tuple[Check, ...] = (
    Check("Environment", check_environment, "Set ASSAY_ENV."),
    Check("Database roles", check_database_roles, "Run `assay manage apply_database_roles`."),
    Check("People", check_people, "Fix PostgreSQL first."),
    Check("Last backup", check_backup, "Fix PostgreSQL first."),
    Check("History outside", check_outside, "Correct ASSAY_AUDIT_PUBLISH_URL."),
    Check("Metrics", check_monitoring, MONITOR),
    Check("Notices", check_notices, "Set ASSAY_EMAIL_URL."),
    Check("Client addresses", check_addresses, "Set ASSAY_TRUSTED_PROXIES."),
    Check("Controller", check_controller, "Fix PostgreSQL first."),
    Check(
        "Kinds of workers",
        check_kinds_of_workers,
        "Fix Redis or Valkey first.",
        ("web", "migrate"),
    ),
    Check("Unneeded files", check_garbage, "Set ASSAY_STORE_GC_DAYS."),
)
