"""Database setup of every test, and people in roles, in a few words: `person("Ada",
"lead@clinical", "reviewer:security")`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import authlib.deprecate  # noqa: F401 (it asks for its warnings; pytest's filters must come after)
import httpx
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import post_save
from django.test import TransactionTestCase
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from assay.database_roles.apply import apply_to_database
from governance.audit.refusals import refusal_counts_reset
from governance.people.models import Department, Person, RoleAssignment
from governance.policy.models import PolicyVersion
from governance.policy.services import policy_bootstrap
from governance.principals import Principal
from governance.reviews.policies.shipping import review_policies_bootstrap
from tests.database_roles import play_processes
from tests.durations import longest_first
from tests.people import find_or_make, make_person
from tests.proofs import proven
from tests.schema import TEMPLATE
from tests.speed import collect_garbage_less, share_middleware
from tests.waiting import PATIENCE_S
from tests.worlds import pytest_runtest_call, pytest_runtest_setup

__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]  # Hooks.

# A machine that does other things at the same time is no fault of a test's.
hypothesis_settings.register_profile(
    "assay", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("assay")

# Answers of a busy machine may take longer than the 5 seconds that httpx waits by default. All of
# its functions share this object.
vars(httpx._config.DEFAULT_TIMEOUT_CONFIG).update(vars(httpx.Timeout(PATIENCE_S)))

# Deletes what a test committed. TRUNCATE would make new files for every table and index, and take
# longer than most tests. The audit log refuses deletion, and has no way around it that an attacker
# could use too; so the tables' owner takes the guards off, as only an owner can.
EMPTY = """
DO $$
DECLARE
    kept text[] := ARRAY['django_migrations', 'django_content_type', 'auth_permission'];
    emptied record;
    guard record;
    holds_rows boolean;
BEGIN
    -- No foreign keys and no ordinary triggers while everything goes.
    PERFORM set_config('session_replication_role', 'replica', true);
    FOR emptied IN
        SELECT oid, oid::regclass AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> ALL (kept)
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', emptied.name) INTO holds_rows;
        CONTINUE WHEN NOT holds_rows;
        FOR guard IN
            SELECT tgname FROM pg_trigger WHERE tgrelid = emptied.oid AND tgenabled = 'A'
        LOOP
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', emptied.name, guard.tgname);
        END LOOP;
        EXECUTE format('DELETE FROM %s', emptied.name);
        FOR guard IN
            SELECT tgname FROM pg_trigger WHERE tgrelid = emptied.oid AND tgenabled = 'D'
        LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', emptied.name, guard.tgname);
        END LOOP;
    END LOOP;
END $$
"""

play_processes()
share_middleware()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of a whole gateway first, which mostly wait: one parallel process has them, and the
    others keep the cores busy. Where pytest-django puts them, all processes would wait at the end.
    The longest of the others follow.
    """
    longest_first(items)
    items.sort(key=lambda item: "stage" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """All modules are imported."""
    collect_garbage_less()


def _empty_the_database(self: TransactionTestCase) -> None:
    with connection.cursor() as cursor:
        cursor.execute(EMPTY)


@pytest.fixture(scope="session", autouse=True)
def _tests_may_empty_the_audit_log() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", _empty_the_database)
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Copy the database that was migrated once, where the tests started the server."""
    if "ASSAY_TEST_POSTGRES" in os.environ:
        connection.settings_dict["TEST"].update(TEMPLATE=TEMPLATE, MIGRATE=False)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Any:
    """As pytest-django's, with the database roles of the processes. Threads of servers that tests
    started may still hold connections when the database is to be dropped; they are ended first."""
    with django_db_blocker.unblock():
        if "ASSAY_TEST_POSTGRES" not in os.environ:
            call_command("apply_database_roles", stdout=io.StringIO())
        else:
            connection.ensure_connection()
            apply_to_database(connection.connection)
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(scope="session", autouse=True)
def _everyone_has_been_here_for_long() -> Any:
    """Accounts and roles are older than the time that a new reviewer waits before voting. Tests of
    that time say how old they are."""

    def backdate(sender: Any, instance: Any, created: bool, **_: Any) -> None:
        if created:
            before = timezone.now() - timedelta(days=60)
            sender.objects.filter(pk=instance.pk).update(created_at=before)

    for model in (Person, RoleAssignment):
        post_save.connect(backdate, sender=model, weak=False)
    yield
    for model in (Person, RoleAssignment):
        post_save.disconnect(backdate, sender=model)


@pytest.fixture(scope="session", autouse=True)
def _no_alarm_about_seals() -> Any:
    """Raise the age at which an unsealed event raises an alarm.

    No process seals the events of tests, so pages would show the alarm, with one more query, after
    ten seconds. Tests of the alarm set its bound themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "AUDIT_SEALING_ALARM_S", 3600)
        yield


@pytest.fixture(autouse=True)
def _refusals_of_other_tests_do_not_count() -> None:
    refusal_counts_reset()


@pytest.fixture
def policy(db: None) -> PolicyVersion:
    """The default policy, active, and the review policies that come with it."""
    review_policies_bootstrap()
    return policy_bootstrap()


@pytest.fixture
def department(db: None) -> Callable[[str], Department]:
    """Finds or makes a department by its slug."""
    return find_or_make


@pytest.fixture
def person(db: None) -> Callable[..., Person]:
    """Makes a person in roles: `admin`, `reviewer:security`, `lead@clinical`."""
    return make_person


@pytest.fixture
def actor(policy: PolicyVersion, person: Callable[..., Person]) -> Callable[..., Principal]:
    """As `person`, as an actor under the default policy who has just proved who they are."""

    def make(name: str, *roles: str) -> Principal:
        return proven(person(name, *roles))

    return make
