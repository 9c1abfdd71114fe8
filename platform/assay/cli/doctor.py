"""`assay doctor`: check the services that this installation needs."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.findings import Check, CheckFailed, Finding, NotSetUp, State, run_checks
from assay.cli.local import local_stores
from assay.cli.optional_checks import OPTIONAL
from assay.cli.output import Answer, CliError, console, json_option, table
from assay.cli.production import GAPS

POSTGRESQL_MINIMUM = 16
MINIMUM_FREE_BYTES = 5 * 1024**3
DATA_FOLDERS = ("artifacts", "quarantine", "media", "files", "work")
SEALING_LAG_S = 30
MARKS = {State.WORKS: ("✓", "green"), State.FAILS: ("✗", "red"), State.OFF: ("–", "dim")}


def check_postgresql() -> str:
    """Verify that the database answers and is new enough."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'),"
            " current_setting('server_version_num')::int / 10000"
        )
        version, major = cursor.fetchone() or ("?", 0)
    if major < POSTGRESQL_MINIMUM:
        raise CheckFailed(
            f"PostgreSQL {version} is too old",
            f"Upgrade it to version {POSTGRESQL_MINIMUM} or newer.",
        )
    return f"PostgreSQL {version}"


def check_migrations() -> str:
    """Verify that every migration is applied."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from assay.database_roles.apply import is_unfinished

    with connection.cursor() as cursor:
        if is_unfinished(cursor):
            raise CheckFailed(
                "a restoration into this database has not ended",
                "Run `assay backup restore` again.",
            )
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        names = ", ".join(f"{m.app_label}.{m.name}" for m, _ in pending[:3])
        raise CheckFailed(
            f"{len(pending)} migrations are not applied: {names}", "Run `assay manage migrate`."
        )
    return "all applied"


def check_redis() -> str:
    """Verify that the broker answers."""
    import redis
    from django.conf import settings

    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3)
    try:
        server = client.info("server")
    finally:
        client.close()
    version = server.get("valkey_version") or server.get("redis_version")
    return f"version {version}"


def check_mlflow() -> str:
    """Verify that MLflow answers."""
    import ssl

    import httpx
    from django.conf import settings

    address = settings.MLFLOW_TRACKING_URI.rstrip("/")
    context = ssl.create_default_context(cafile=settings.MLFLOW_SERVER_CERTIFICATE or None)
    if settings.MLFLOW_CLIENT_CERTIFICATE:
        context.load_cert_chain(settings.MLFLOW_CLIENT_CERTIFICATE)
    answer = httpx.get(f"{address}/health", timeout=5, verify=context)
    if answer.status_code != 200:
        raise CheckFailed(
            f"{address}/health answers {answer.status_code}",
            "Start MLflow, or correct MLFLOW_TRACKING_URI.",
        )
    return address


def check_policy() -> str:
    """Verify that policies are in force and name every action; others are denied to everyone."""
    from governance.policy.models import PolicyState, PolicyVersion
    from governance.policy.selectors import actions_without_rule
    from governance.reviews.policies.models import ReviewPolicy

    active = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
    if active is None:
        raise CheckFailed(
            "no policy is active, so everything is denied", "Run `assay manage bootstrap`."
        )
    reviews = ReviewPolicy.objects.filter(state=PolicyState.ACTIVE).count()
    if not reviews:
        raise CheckFailed(
            "no review policy is in force, so no version can be released",
            "Run `assay manage bootstrap`.",
        )
    if missing := actions_without_rule():
        raise CheckFailed(
            f"no rule of policy {active.number} names {', '.join(missing)}, so they are denied",
            "Permit or forbid them in a new policy; see docs/how-to/upgrade.md.",
        )
    return f"version {active.number}, {reviews} review policies"


def check_signing_key() -> str:
    """Verify that the audit log's public keys are configured."""
    from governance.audit.signing import audit_public_keys

    return audit_public_keys().partition(",")[0]


def check_sealing() -> str:
    """Verify that the controller seals new audit events."""
    from governance.audit.selectors import sealing_lag_s

    lag = sealing_lag_s()
    if lag > SEALING_LAG_S:
        raise CheckFailed(
            f"an audit event has waited {lag:.0f} s to be sealed",
            "Start the controller: `assay manage run_controller`.",
        )
    return f"no event waits longer than {SEALING_LAG_S} s"


def check_controllers() -> str:
    """Verify that all controllers report, and that one of them leads."""
    from workers.leadership.selectors import controllers_read

    controllers = controllers_read()
    silent = f"; silent: {', '.join(controllers.silent)}" if controllers.silent else ""
    if fault := controllers.fault:
        raise CheckFailed(
            f"{fault}{silent}",
            "Start the missing one: `assay manage run_controller`. ASSAY_CONTROLLERS is the number "
            "that should run.",
        )
    return f"{len(controllers.reporting)} report; {controllers.leader} leads{silent}"


def check_disk() -> str:
    """Verify that the data folders are writable and have free space."""
    from django.conf import settings

    folder = Path(settings.DATA_DIR)
    # Installations mount these into a read-only data folder.
    mounted = (folder / name for name in DATA_FOLDERS)
    above = next(part for part in (folder, *folder.parents) if part.exists())
    places = [place for place in mounted if place.is_dir()] or [above]
    for place in places:
        if not os.access(place, os.W_OK):
            raise CheckFailed(
                f"{place} cannot be written", "Correct its owner, or set ASSAY_DATA_DIR."
            )
    free, fullest = min((shutil.disk_usage(place).free, place) for place in places)
    if free < MINIMUM_FREE_BYTES:
        raise CheckFailed(
            f"{free / 1024**3:.1f} GiB are free under {fullest}",
            f"Make {MINIMUM_FREE_BYTES / 1024**3:.0f} GiB free, or move ASSAY_DATA_DIR.",
        )
    return f"{free / 1024**3:.0f} GiB free under {folder}"


def check_store() -> str:
    """Verify that the artifact store answers."""
    from django.core.exceptions import ImproperlyConfigured

    from governance.errors import DomainError
    from registry.storage import store

    try:
        backend = store.backend()
        backend.check()
    except DomainError as error:
        raise CheckFailed(error.message, error.hint) from error
    except ImproperlyConfigured as error:
        raise CheckFailed(str(error), "Correct ASSAY_STORE_URL.") from error
    return backend.url


def check_workers() -> str:
    """Verify that at least one worker reported recently."""
    import redis
    from django.conf import settings

    from workers.nodes.selectors import node_realms
    from workers.presence import PATIENCE_S, workers_present

    alive = workers_present(
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3), node_realms()
    )
    if not alive:
        raise CheckFailed(
            f"no worker reported in the last {PATIENCE_S:.0f} s",
            "Start one: `python -m celery -A workers.app worker -I workers.celery_tasks.jobs "
            "-Q compute -P threads -c 1`.",
        )
    return ", ".join(alive)


def check_engines() -> str:
    """Verify that the kernel confines engines; otherwise only Assay's own are offered here."""
    from django.conf import settings

    from registry.sandbox import landlock

    if landlock.abi() >= landlock.LEAST_ABI:
        return "confined by Landlock, on this machine"
    if settings.ENGINE_SERVER_UNCONFINED:
        raise CheckFailed(
            landlock.MISSING,
            "Run engine workers on Linux 6.2 or newer, or unset ASSAY_ENGINE_SERVER_UNCONFINED.",
        )
    raise NotSetUp(
        f"this machine cannot confine engines, so only Assay's own are offered. {landlock.MISSING}",
        "Run engine workers on Linux 6.2 or newer.",
    )


def check_readers() -> str:
    """Return how far the kernel confines processes that read uploads and files of requests."""
    from registry.sandbox.readers import unconfined

    missing = unconfined()
    return f"not confined on this machine. {missing}" if missing else "confined, on this machine"


def check_tasks() -> str:
    """Verify that every installed task can be used."""
    from registry.catalog import TASKS, refused_entries

    if refused := refused_entries():
        sentences = (f"{each.entry.name} of {each.entry.place}: {each.reason}" for each in refused)
        raise CheckFailed(
            f"unusable: {'; '.join(sentences)}",
            "Correct or uninstall these packages (`assay task check NAME`), then restart.",
        )
    return ", ".join(sorted(TASKS))


def check_task_code() -> str:
    """Verify that all processes run the same task packages."""
    from registry.catalog import codes_here
    from workers.deployments.software import code_differences

    if differing := code_differences():
        raise CheckFailed(
            " ".join(map(str, differing[:5])),
            "Install the same packages everywhere, then restart every process.",
        )
    # A distribution may provide several tasks.
    packages = dict.fromkeys(each["packages"] for each in codes_here().values())
    return ", ".join(packages) or "Assay's own tasks"


def check_answers() -> str:
    """Verify that live releases give the approved answers with the workers' software."""
    from registry.releases.equivalence.selectors import changed_in_words
    from workers.deployments.software import live_checks_changed

    if changed := live_checks_changed():
        raise CheckFailed(
            " ".join(map(changed_in_words, changed[:5])),
            "Install the software that the dossier names, or submit a new evaluation and release.",
        )
    return "live releases give the approved answers"


CHECKS: tuple[Check, ...] = (
    Check("PostgreSQL", check_postgresql, "Start PostgreSQL, or correct DATABASE_URL."),
    Check("Migrations", check_migrations, "Fix PostgreSQL first."),
    Check("Redis or Valkey", check_redis, "Start it, or correct REDIS_URL."),
    Check("MLflow", check_mlflow, "Start MLflow, or correct MLFLOW_TRACKING_URI."),
    Check("Policy", check_policy, "Run `assay manage migrate` and `assay manage bootstrap`."),
    Check(
        "Signing key",
        check_signing_key,
        "Set ASSAY_AUDIT_SIGNING_KEY of the controller and ASSAY_AUDIT_PUBLIC_KEY of web.",
    ),
    Check("Controllers", check_controllers, "Fix PostgreSQL first."),
    Check("Audit sealing", check_sealing, "Fix PostgreSQL first."),
    Check("Artifact store", check_store, "Correct ASSAY_STORE_URL, or the network path to it."),
    Check("Disk", check_disk, "Set ASSAY_DATA_DIR to a writable folder."),
    # Only the broker's user of web, which migrate has too, may read them.
    Check("Workers", check_workers, "Fix Redis or Valkey first.", ("web", "migrate")),
    Check("Engines", check_engines, "Reinstall Assay."),
    Check("File readers", check_readers, "Reinstall Assay."),
    Check("Tasks", check_tasks, "Reinstall Assay."),
    Check("Code of tasks", check_task_code, "Fix PostgreSQL first."),
    Check("Answers", check_answers, "Fix PostgreSQL first."),
    *OPTIONAL,
)


def examine() -> list[Finding]:
    """Run every check of the services."""
    return run_checks(CHECKS)


def set_up_django() -> None:
    """Load Django.

    Raises:
        CliError: a setting is missing or wrong.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    import django
    from django.core.exceptions import ImproperlyConfigured

    try:
        django.setup()
    except ImproperlyConfigured as error:
        raise CliError(f"The settings are invalid: {error}") from error
    # This import needs Django's settings.
    from assay.gateway.paths import keep_paths

    keep_paths()


@json_option
def doctor(
    production: Annotated[
        bool, typer.Option("--production", help="Exit with 1 on gaps for production, too.")
    ] = False,
) -> Answer:
    """Check the services that this installation needs, and list gaps for production."""
    with local_stores():
        set_up_django()
        findings = examine()
        gaps = run_checks(GAPS)
    failed, missing = ([each.name for each in part if not each.ok] for part in (findings, gaps))
    fault = None
    if failed:
        fault = CliError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")
    elif missing and production:
        fault = CliError(
            f"{len(missing)} of {len(gaps)} production checks failed: {', '.join(missing)}."
        )

    def show() -> None:
        _show(findings)
        console.print("\nFor production:")
        _show(gaps)
        if fault is None:
            console.print("Every service works." if missing else "All checks passed.")

    parts = {"services": findings, "production": gaps}
    data = {name: [asdict(each) for each in part] for name, part in parts.items()}
    return Answer(data, show, fault)


def _words(finding: Finding) -> str:
    if finding.state == State.WORKS:
        return finding.detail
    prefix = "not set up: " if finding.state == State.OFF else ""
    return f"{prefix}{finding.detail}\n→ {finding.fix}"


def _show(findings: list[Finding]) -> None:
    from rich.text import Text

    table(
        ("", "check", "result"),
        (
            (
                Text(*MARKS[finding.state]),
                finding.name,
                _words(finding),
            )
            for finding in findings
        ),
        empty="",
    )
