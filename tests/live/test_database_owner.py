"""An owner of the tables that is no superuser, as installations have it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from assay.database_roles.hardening import STATEMENTS
from assay.local.services import Postgres
from tests.live.test_row_security import owner, postgres, python

__all__ = ["postgres"]

pytestmark = pytest.mark.live


@pytest.mark.long
def test_the_controller_sees_and_ends_sessions_with_and_without_a_superuser(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = owner(postgres, "CREATE ROLE plain LOGIN CREATEROLE")
    assert python(tmp_path, url, "manage.py", "migrate", "--verbosity", "0").returncode == 0
    applied = python(tmp_path, url, "manage.py", "apply_database_roles")
    assert applied.returncode == 0, applied.stderr[-2000:]
    assert "functions that block others" in applied.stdout
    shown = python(tmp_path, url, "manage.py", "apply_database_roles", "--show-hardening")
    assert shown.stdout.strip() == STATEMENTS.strip()
    ends_a_session(postgres)

    with psycopg.connect(postgres.url("plain"), autocommit=True) as superuser:
        superuser.execute(STATEMENTS)
    applied = python(tmp_path, url, "manage.py", "apply_database_roles")
    assert "functions" not in applied.stdout
    ends_a_session(postgres)
    with psycopg.connect(postgres.url("plain", "assay_worker")) as worker:
        assert worker.execute("SHOW temp_file_limit").fetchone() == ("2GB",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("SELECT pg_advisory_lock(1)")


def ends_a_session(postgres: Postgres) -> None:
    with (
        psycopg.connect(postgres.url("plain", "assay_controller"), autocommit=True) as controller,
        psycopg.connect(postgres.url("plain", "assay_worker")) as worker,
    ):
        worker.execute("ALTER ROLE assay_worker SET search_path = nowhere")
        worker.commit()
        restored = controller.execute("SELECT assay_role_settings_restore()").fetchone()
        assert restored == (["assay_worker"],)
        assert controller.execute("SELECT assay_role_settings_restore()").fetchone() == ([],)
        worker.execute("SELECT 1")
        found = controller.execute(
            "SELECT began_at, state, transaction_s >= 0 FROM assay_sessions() WHERE pid = %s",
            [worker.info.backend_pid],
        ).fetchone()
        assert found is not None
        assert found[1:] == ("idle in transaction", True)
        ended = controller.execute(
            "SELECT assay_session_end(%s, %s)", [worker.info.backend_pid, found[0]]
        )
        assert ended.fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError):
            worker.execute("SELECT 1")
