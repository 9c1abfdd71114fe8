"""Changes of rows that processes keep in memory: none is missed, however transactions commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session as WebSession
from django.db import connection
from django.utils import timezone

from governance.changes import reading
from governance.changes.models import Change, ChangeHorizon
from governance.changes.reading import Changes, Position, changes_since
from governance.changes.services import changes_purge
from governance.keys.models import PlaygroundToken
from governance.people.models import Department, Person, RoleAssignment
from governance.quotas.models import Price
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def session() -> Iterator[Callable[[], Session]]:
    """Open further sessions, each in a transaction of its own."""
    opened: list[Session] = []

    def open_one() -> Session:
        connection.ensure_connection()
        parameters = connection.get_connection_params()
        for name in ("cursor_factory", "context", "pool", "server_side_binding"):
            parameters.pop(name, None)
        opened.append(psycopg.connect(**parameters))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture(autouse=True)
def unused() -> None:
    Department.objects.bulk_create(
        Department(slug=f"unused-{number}", name="Unused") for number in range(10)
    )


RENAME = """
UPDATE governance_department SET slug = %s WHERE id = (
    SELECT id FROM governance_department WHERE slug LIKE 'unused-%%' LIMIT 1 FOR UPDATE SKIP LOCKED)
"""


def change(slug: str, other: Session | None = None) -> None:
    """Change something that is watched: the slug of another department."""
    if other is None:
        with connection.cursor() as cursor:
            cursor.execute(RENAME, [slug])
    else:
        other.execute(RENAME, [slug])


def subjects(changes: Changes) -> set[str]:
    """The new slugs; the former one of each is named, too."""
    return {name for name in changes.of("department") if not name.startswith("unused-")}


def test_a_change_is_returned_once(session: Callable[[], Session]) -> None:
    start = changes_since(None).position
    change("one")
    first = changes_since(start)
    assert subjects(first) == {"one"}
    assert changes_since(first.position).subjects == {}
    # A reader whose reading failed reads the same again.
    assert subjects(changes_since(start)) == {"one"}


def test_a_transaction_that_began_earlier_and_commits_later_is_not_missed(
    session: Callable[[], Session],
) -> None:
    start = changes_since(None).position
    early, late = session(), session()
    change("early", early)
    change("late", late)
    late.commit()
    first = changes_since(start)
    assert subjects(first) == {"late"}
    early.commit()
    second = changes_since(first.position)
    assert subjects(second) == {"early"}
    assert changes_since(second.position).subjects == {}


def test_a_transaction_that_is_rolled_back_changes_nothing(
    session: Callable[[], Session],
) -> None:
    start = changes_since(None).position
    other = session()
    change("never", other)
    other.rollback()
    assert changes_since(start).subjects == {}


def test_while_a_transaction_runs_on_changes_are_returned_once_and_none_is_deleted(
    session: Callable[[], Session],
) -> None:
    position = changes_since(None).position
    endless = session()
    change("endless", endless)
    for name in ("a", "b", "c"):
        change(name)
        changes = changes_since(position)
        assert subjects(changes) == {name}
        position = changes.position
        purge()
    rows = Change.objects.exclude(subject__startswith="unused-")
    assert set(rows.values_list("subject", flat=True)) == {"a", "b", "c"}
    endless.commit()
    assert subjects(changes_since(position)) == {"endless"}


def purge() -> None:
    """Purge as often as in an hour."""
    for _ in range(3):
        ChangeHorizon.objects.update(taken_at=timezone.now() - timedelta(hours=1))
        changes_purge()


def test_a_reader_that_was_away_until_its_changes_were_deleted_notices_it() -> None:
    position = changes_since(None).position
    change("one")
    changes_purge()
    assert subjects(changes_since(position)) == {"one"}

    def purged() -> bool:
        purge()
        return not Change.objects.exists()

    # Transactions of other databases of the server hold rows back, too.
    wait_until(purged)
    changes = changes_since(position)
    assert changes.lost
    assert not changes_since(changes.position).lost


def test_a_row_that_moves_names_where_it_was_and_an_emptied_table_names_everything() -> None:
    position = changes_since(None).position
    change("one")
    assert len(changes_since(position).of("department")) == 2
    position = changes_since(None).position
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE governance_quotalimit CASCADE")
    assert changes_since(position).of("department") == {""}


def test_changes_are_kept_for_ten_minutes_whatever_the_clock_says() -> None:
    position = changes_since(None).position
    changes_purge()
    change("one")
    for _ in range(5):
        changes_purge()
    assert subjects(changes_since(position)) == {"one"}
    # A step of the clock costs a full reading at most.
    ChangeHorizon.objects.update(taken_at=timezone.now() + timedelta(days=365))
    changes_purge()
    changes_purge()
    assert changes_since(position).lost or subjects(changes_since(position)) == {"one"}


@pytest.mark.parametrize(
    "other",
    [
        {"server": "2020-01-01 00:00:00+00"},
        # A server that took over without the last transactions gives their IDs to others.
        {"snapshot": "99999999:99999999:"},
    ],
)
def test_after_a_restart_or_failover_everything_is_read_again(other: dict[str, str]) -> None:
    position = changes_since(None).position
    changes = changes_since(replace(position, **other))
    assert changes.lost
    assert not changes_since(changes.position).lost


def test_changes_in_a_restored_backup_are_neither_returned_nor_kept() -> None:
    position = changes_since(None).position
    future = position.newest + 10**9
    Change.objects.create(kind="department", subject="restored", transaction=future)
    ChangeHorizon.objects.create(deleted=future, next=future, taken_at=timezone.now())
    change("one")
    assert subjects(changes_since(position)) == {"one"}

    def purged() -> bool:
        purge()
        return not Change.objects.filter(transaction=future).exists()

    wait_until(purged)
    assert ChangeHorizon.objects.get().deleted < future


def test_a_flood_of_changes_is_answered_by_reading_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    position = changes_since(None).position
    monkeypatch.setattr(reading, "MOST", 3)
    for _ in range(5):
        Price.objects.update_or_create(deployment="", defaults={"prompt": 1})
        Price.objects.all().delete()
    assert not changes_since(position).lost  # One object, however often it changes.
    for name in ("a", "b", "c", "d"):
        change(name)
    assert changes_since(position).lost


def test_updates_that_change_nothing_are_no_changes() -> None:
    person = Person.objects.create(email="ada@example.org", name="Ada")
    RoleAssignment.objects.create(person=person, role="admin")
    position = changes_since(None).position
    Person.objects.update(last_login=timezone.now(), name="Ada")
    assert changes_since(position).subjects == {}
    Person.objects.update(is_active=False)
    assert changes_since(position).subjects == {"person": frozenset({str(person.pk)})}


def test_the_end_of_a_session_names_its_tokens_and_not_its_key() -> None:
    person = Person.objects.create(email="ada@example.org", name="Ada")
    ends = timezone.now() + timedelta(days=1)
    web = WebSession.objects.create(session_key="old", session_data="", expire_date=ends)
    session = UserSession.objects.create(user=person, session_key="old", ip="127.0.0.1")
    PlaygroundToken.objects.create(
        public_id="token", secret_hmac=b"", pepper_version=1, person=person, session=session,
        session_epoch=1, department=Department.objects.all()[0], deployment="writer",
        expires_at=timezone.now() + timedelta(minutes=5),
    )  # fmt: skip

    def named(change: Callable[[], object]) -> set[str]:
        position = changes_since(None).position
        change()
        return changes_since(position).of("key")

    sessions = WebSession.objects.filter(pk=web.pk)
    assert named(lambda: sessions.update(expire_date=ends + timedelta(days=1))) == set()
    assert named(lambda: sessions.update(expire_date=timezone.now())) == {"token"}
    assert named(sessions.delete) == {"token"}
    rows = UserSession.objects.filter(pk=session.pk)
    assert named(lambda: rows.update(last_seen_at=timezone.now())) == set()
    assert named(lambda: rows.update(session_key="new")) == {"token"}
    assert named(rows.delete) == {"token"}
    assert "old" not in set(Change.objects.values_list("subject", flat=True))


def test_positions_are_read_from_the_text_of_a_snapshot() -> None:
    position = Position("", "10:20:11,15")
    assert (position.oldest, position.newest) == (10, 20)
