"""`assay doctor`: is everything there that this installation needs, and what fixes it?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.findings import Check, CheckFailed, Finding, NotSetUp, State, run_checks
from assay.cli.optional_checks import OPTIONAL
from assay.cli.output import CliError, console, table
from assay.cli.production import GAPS

POSTGRESQL_LEAST = 16
MINIMUM_FREE_BYTES = 5 * 1024**3
DATA_FOLDERS = ("artifacts", "quarantine", "media", "files", "work")
SEALING_LAG_S = 30
MARKS = {State.WORKS: ("✓", "green"), State.FAILS: ("✗", "red"), State.OFF: ("–", "dim")}


def check_postgresql() -> str:
    """The database answers, and is new enough."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'),"
            " current_setting('server_version_num')::int / 10000"
        )
        version, major = cursor.fetchone() or ("?", 0)
    if major < POSTGRESQL_LEAST:
        raise CheckFailed(
            f"PostgreSQL {version} is too old",
            f"Upgrade it to version {POSTGRESQL_LEAST} or newer.",
        )
    return f"PostgreSQL {version}"


def check_migrations() -> str:
    """Every migration is applied."""
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
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        names = ", ".join(f"{m.app_label}.{m.name}" for m, _ in waiting[:3])
        raise CheckFailed(f"{len(waiting)} are not applied: {names}", "Run `assay manage migrate`.")
    return "all applied"


def check_redis() -> str:
    """The broker answers."""
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
    """MLflow answers."""
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
    """Policies are in force, and name every action; what they leave out is denied to everyone."""
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
            "no review policy is in force, so nothing can be released",
            "Run `assay manage bootstrap`.",
        )
    if missing := actions_without_rule():
        raise CheckFailed(
            f"no rule of policy {active.number} names {', '.join(missing)}, so they are denied",
            "Permit or forbid them in a new policy; see docs/how-to/upgrade.md.",
        )
    return f"version {active.number}, {reviews} review policies"


def check_signing_key() -> str:
    """Signatures of the audit log can be verified."""
    from governance.audit.signing import audit_public_keys

    return audit_public_keys().partition(",")[0]


def check_sealing() -> str:
    """The controller seals what is recorded."""
    from governance.audit.selectors import sealing_lag_s

    lag = sealing_lag_s()
    if lag > SEALING_LAG_S:
        raise CheckFailed(
            f"an audit event has waited {lag:.0f} s to be sealed",
            "Start the controller: `assay manage run_controller`.",
        )
    return f"nothing waits longer than {SEALING_LAG_S} s"


def check_disk() -> str:
    """The folders of data can be written and have room."""
    from django.conf import settings

    folder = Path(settings.DATA_DIR)
    # Installations mount these into a data folder that is read-only.
    mounted = (folder / name for name in DATA_FOLDERS)
    above = next(part for part in (folder, *folder.parents) if part.exists())
    places = [place for place in mounted if place.is_dir()] or [above]
    for place in places:
        if not os.access(place, os.W_OK):
            raise CheckFailed(
                f"{place} cannot be written", "Correct its owner, or set ASSAY_DATA_DIR."
            )
    free, least = min((shutil.disk_usage(place).free, place) for place in places)
    if free < MINIMUM_FREE_BYTES:
        raise CheckFailed(
            f"{free / 1024**3:.1f} GiB are free under {least}",
            f"Free up to {MINIMUM_FREE_BYTES / 1024**3:.0f} GiB, or move ASSAY_DATA_DIR.",
        )
    return f"{free / 1024**3:.0f} GiB free under {folder}"


def check_store() -> str:
    """The artifact store answers."""
    from django.core.exceptions import ImproperlyConfigured

    from governance.errors import DomainError
    from registry import store

    try:
        backend = store.backend()
        backend.check()
    except DomainError as error:
        raise CheckFailed(error.message, error.hint) from error
    except ImproperlyConfigured as error:
        raise CheckFailed(str(error), "Correct ASSAY_STORE_URL.") from error
    return backend.url


def check_workers() -> str:
    """At least one Celery worker gave a sign of life lately."""
    import redis
    from django.conf import settings

    from workers.nodes.selectors import node_realms
    from workers.presence import PATIENCE_S, workers_present

    alive = workers_present(
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3), node_realms()
    )
    if not alive:
        raise CheckFailed(
            f"none gave a sign of life in the last {PATIENCE_S:.0f} s",
            "Start one: `python -m celery -A workers.app worker -I workers.tasks.jobs -Q compute "
            "-P threads -c 1`.",
        )
    return ", ".join(alive)


def check_engines() -> str:
    """The kernel confines engines, or only Assay's own are offered here."""
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
        f"this machine confines no engine: only Assay's own are offered. {landlock.MISSING}",
        "Run engine workers on Linux 6.2 or newer.",
    )


def check_readers() -> str:
    """The kernel confines processes that read uploads and files of requests, or not fully."""
    from registry.sandbox.readers import unconfined

    missing = unconfined()
    return f"not confined on this machine. {missing}" if missing else "confined, on this machine"


def check_tasks() -> str:
    """Every package of a task can be used."""
    from registry.catalog import TASKS, refused_entries

    if refused := refused_entries():
        told = (f"{each.entry.name} of {each.entry.place}: {each.reason}" for each in refused)
        raise CheckFailed(
            f"left out are {'; '.join(told)}",
            "Correct or uninstall these packages (`assay task check NAME`), then restart.",
        )
    return ", ".join(sorted(TASKS))


def check_task_code() -> str:
    """All processes run the same packages of tasks."""
    from registry.catalog.code import codes_here
    from workers.deployments.software import code_differences

    if differing := code_differences():
        raise CheckFailed(
            " ".join(map(str, differing[:5])),
            "Install the same packages everywhere, then start every process again.",
        )
    return ", ".join(each["packages"] for each in codes_here().values()) or "Assay's own tasks"


def check_answers() -> str:
    """What serves answers as it was approved, with the software of the workers."""
    from registry.releases.equivalence.selectors import changed_in_words
    from workers.deployments.software import live_checks_changed

    if changed := live_checks_changed():
        raise CheckFailed(
            " ".join(map(changed_in_words, changed[:5])),
            "Go back to the software of the dossier, or evaluate the version and submit it again.",
        )
    return "no live release differs"


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
    Check("Audit sealing", check_sealing, "Fix PostgreSQL first."),
    Check("Artifact store", check_store, "Correct ASSAY_STORE_URL, or the way to it."),
    Check("Disk", check_disk, "Set ASSAY_DATA_DIR to a folder that can be written."),
    # Signs of life are for the broker's user of web alone, which migrate has too.
    Check("Workers", check_workers, "Fix Redis or Valkey first.", ("web", "migrate")),
    Check("Engines", check_engines, "Reinstall Assay."),
    Check("File readers", check_readers, "Reinstall Assay."),
    Check("Tasks", check_tasks, "Reinstall Assay."),
    Check("Code of tasks", check_task_code, "Fix PostgreSQL first."),
    Check("Answers", check_answers, "Fix PostgreSQL first."),
    *OPTIONAL,
)


def examine() -> list[Finding]:
    """Run every check of the services; none keeps the next from running."""
    return run_checks(CHECKS)


def set_up_django() -> None:
    """Load Django.

    Raises:
        CliError: a setting is missing or wrong; the sentence names it.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    import django
    from django.core.exceptions import ImproperlyConfigured

    try:
        django.setup()
    except ImproperlyConfigured as error:
        raise CliError(f"The settings are not right: {error}") from error
    # Django's settings come first.
    from assay.gateway.paths import keep_paths

    keep_paths()


def doctor(
    production: Annotated[
        bool, typer.Option("--production", help="Fail on gaps for production, too.")
    ] = False,
) -> None:
    """Check every service that this installation needs, then list gaps for production."""
    set_up_django()
    findings = examine()
    _show(findings)
    gaps = run_checks(GAPS)
    console.print("\nFor production:")
    _show(gaps)
    failed, missing = ([each.name for each in found if not each.ok] for found in (findings, gaps))
    if failed:
        raise CliError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")
    if missing and production:
        raise CliError(
            f"{len(missing)} of {len(gaps)} production checks failed: {', '.join(missing)}."
        )
    console.print("Every service works." if missing else "All checks passed.")


def _words(finding: Finding) -> str:
    if finding.state == State.WORKS:
        return finding.detail
    prefix = "not set up: " if finding.state == State.OFF else ""
    return f"{prefix}{finding.detail}\n→ {finding.fix}"


def _show(findings: list[Finding]) -> None:
    from rich.text import Text

    table(
        ("", "check", "found"),
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
