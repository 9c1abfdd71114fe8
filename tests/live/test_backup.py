"""A backup brings an installation back on another database and store, or says why it does not.

Every command runs with the environment that the installation ships for it.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from assay.local.services import Postgres
from governance.audit.checkpoint import Signer
from governance.audit.tree.merkle import leaf_hash, tree_root
from governance.audit.tree.tiles import publish_checkpoint, publish_tree
from tests.live.installation import Installation, server
from tests.shipped import LAYOUTS
from tests.unit.governance.witness_server import WitnessServer
from tests.waiting import wait_until

__all__ = ["server"]

pytestmark = pytest.mark.live

DJANGO = "import django; django.setup()\n"
# A version with files, and a key of an application.
FILL = f"""{DJANGO}
from datetime import timedelta
from django.utils import timezone
from governance.keys.services import access_token_create, key_create
from governance.people.links import BOOTSTRAP, password_link_create
from governance.people.models import Department, Person
from tests.proofs import fresh_proof
from tests.unit.workers import company
from workers.nodes.services import node_enroll
company.version(company.model("writer", "text-generation"))
key_create(
    actor=company.person("lena", "lead", "clinical"), name="app", scopes=["deployment:invoke"],
    department=Department.objects.get(), expires_at=timezone.now() + timedelta(days=9),
)
# Credentials for one use, which may have been used after the backup.
lena = Person.objects.get(email="lena@example.org")
password_link_create(actor=BOOTSTRAP, person_id=lena.pk)
access_token_create(person=lena, name="cli", proof=fresh_proof())
node_enroll(actor=company.person("ada", "admin"), name="gpu-1")
"""
SPENT = (
    "SELECT count(*) FROM governance_onetimelink WHERE used_at IS NULL AND revoked_at IS NULL",
    "SELECT count(*) FROM workers_nodetoken WHERE used_at IS NULL AND revoked_at IS NULL",
    "SELECT count(*) FROM governance_apikey WHERE proved_at IS NOT NULL",
)
REVOKE = f"""{DJANGO}
from governance.keys.models import ApiKey
from governance.keys.services import key_revoke
from tests.unit.workers import company
key = ApiKey.objects.get(name="app")
key_revoke(actor=company.person("lena", "lead", "clinical"), key_id=key.pk)
"""
IN_FORCE = "SELECT revoked_at IS NULL FROM governance_apikey WHERE name = 'app'"
EVENTS = "SELECT count(*) FROM governance_auditevent"
LAST_BACKUP = "SELECT figures->>'name' FROM workers_measurement WHERE name = 'backup'"
LAST_EVENT = """
SELECT convert_from(canonical, 'UTF8')::json ->> 'data' FROM governance_auditevent
WHERE action = 'installation:restore'
"""
# Ends itself when a step begins, or once pg_restore works.
KILLED = f"""{DJANGO}
import os, signal, sys, threading, time
from pathlib import Path
import psycopg
from django.db import connection
from assay.backups.restore import restore
def end(): os.kill(os.getpid(), signal.SIGKILL)
def watch():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        while not other.execute("SELECT 1 FROM pg_stat_activity WHERE state <> 'idle' AND "
                                "application_name = 'assay backup'").fetchone():
            time.sleep(0.002)
    end()
def step(name):
    print(name, flush=True)
    if name == STEP: end()
    if name == "Restore the database" and STEP == "within pg_restore":
        threading.Thread(target=watch, daemon=True).start()
restore(Path(BACKUP), step=step, accept_lost_events=99)
"""  # noqa: S608 (the program has no input)
NEWER = f"""{DJANGO}
from dataclasses import asdict, replace
from pathlib import Path
import json
from assay.backups.backup import mac_of, read
file = Path(BACKUP) / "backup.json"
record = replace(read(file.parent), postgresql=99)
file.unlink()
file.write_text(json.dumps(asdict(replace(record, mac=mac_of(record)))))
"""
CONNECTED = f"""{DJANGO}
import time
from django.db import connection
connection.ensure_connection()
print("connected", flush=True)
time.sleep(99)
"""
# A version, its files and its event in one transaction, over and over.
WRITING = f"""{DJANGO}
from itertools import count
from django.db import transaction
from governance.audit.services import Subject, audit_record
from governance.principals import service_principal
from tests.unit.workers import company
for number in count():
    name = f"made-while-{{number}}"
    with transaction.atomic():
        company.version(company.model(name, "text-generation"))
        audit_record(actor=service_principal("writer"), action="model:create",
                     subject=Subject("model", str(number), name))
    print(name, flush=True)
"""
STEPS = (
    "Copy the files",
    "Clear the database",
    "Restore the database",
    "within pg_restore",
    "Migrate the database",
    "End sessions and serving",
    "Verify the audit log",
    "Look for missing files",
    "Give the processes their privileges",
)


@dataclass(frozen=True)
class Source:
    """An installation with two backups, between which a key was revoked. Everything is published.

    `rows` are those of the second backup; `past` is the second place as it was at the first one.
    """

    here: Installation
    first: Path
    second: Path
    rows: dict[str, int]
    past: Path

    def lost(self, backup: Path) -> str:
        """Return how many events a backup lacks besides its own. The controller of a busy machine
        records alarms, too."""
        record = json.loads((backup / "backup.json").read_text())
        return str(self.here.published() - int(record["events"]) - 1)


@pytest.fixture(scope="module")
def source(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    here = Installation(root, server, "source")
    here.migrate()
    here.done("python", FILL)
    here.publish()
    shutil.copytree(here.outside, root / "past")
    first = backed_up(here)
    here.done("python", REVOKE)
    assert here.value(IN_FORCE) is False
    here.publish()
    second = backed_up(here)
    rows = here.rows()
    here.publish()
    return Source(here, first, second, rows, root / "past")


def backed_up(here: Installation, folder: str = "backups") -> Path:
    """Make a backup and return its folder."""
    backups = here.folder.parent / folder
    before = set(backups.glob("*Z"))
    # Backups are named by the second.
    wait_until(lambda: here.run("assay", "backup", "make", str(backups)).returncode == 0)
    (made,) = set(backups.glob("*Z")) - before
    # The metric of the last backup's age.
    assert here.value(LAST_BACKUP) == made.name
    return made


@pytest.fixture
def make(server: Postgres, source: Source, tmp_path: Path) -> Callable[..., Installation]:
    """Makes an installation with an empty database, and a copy of the source's second place."""

    def installation(layout: str = "systemd") -> Installation:
        outside = tmp_path / "outside"
        if not outside.exists():
            shutil.copytree(source.here.outside, outside)
        name = f"restored_{uuid4().hex[:8]}"
        return Installation(
            tmp_path, server, name, layout=layout, secrets_of=source.here, outside=outside
        )

    return installation


def restoring(backup: Path, *options: str) -> tuple[str, ...]:
    return ("assay", "backup", "restore", str(backup), *options)


def newest(source: Source) -> tuple[str, ...]:
    """Restore the second backup, after which nothing happened but its own event."""
    return restoring(source.second, "--accept-lost-events", source.lost(source.second))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_revocation_after_the_backup_is_not_undone_unasked(
    source: Source, make: Callable[..., Installation], layout: str
) -> None:
    there = make(layout)
    lost = source.lost(source.first)
    # The revocation, and the record of the second backup.
    assert int(lost) >= 2
    assert f"{lost} events that this backup lacks" in there.refused(*restoring(source.first))
    too_few = str(int(lost) - 1)
    assert "lacks" in there.refused(*restoring(source.first, "--accept-lost-events", too_few))
    assert there.tables() == []
    said = there.done(*restoring(source.first, "--accept-lost-events", lost))
    assert f"{lost} events after the backup are lost" in said
    assert there.value(IN_FORCE) is True
    assert json.loads(str(there.value(LAST_EVENT)))["lost_events"] == int(lost)
    backed_up(source.here.shipped_as(layout), f"backups-{layout}")


def test_after_a_loss_the_log_goes_on_under_another_name(
    source: Source, make: Callable[..., Installation], tmp_path: Path
) -> None:
    """As docs/explanation/audit-log.md says."""
    there = make()
    there.done(*restoring(source.first, "--accept-lost-events", source.lost(source.first)))
    old = (there.secrets / "audit_public_key").read_text().strip()
    given = {
        "ASSAY_AUDIT_PUBLISH_DIR": str(tmp_path / "second"),
        "ASSAY_AUDIT_LOG_NAME": "assay.example/audit-2",
        "ASSAY_AUDIT_RETIRED_KEYS": old,
    }
    with there.controller(**given):
        wait_until((tmp_path / "second" / "checkpoint").exists)
    ok = f"{DJANGO}from governance.audit.selectors import verify_live\nprint(verify_live().message)"
    said = there.done("python", ok, process="controller", **given)
    assert "match the signed checkpoint" in said
    without = {**given, "ASSAY_AUDIT_RETIRED_KEYS": ""}
    unknown = there.done("python", ok, process="controller", **without)
    assert "of the log assay.example/audit, of which no key is known" in unknown
    new = tmp_path / "new-key"
    new.write_text(there.done("manage", "audit_public_key", process="controller", **given))
    given["ASSAY_AUDIT_PUBLIC_KEY_FILE"] = str(new)
    backups = tmp_path / "later"
    there.done("assay", "backup", "make", str(backups), **given)
    (backup,) = backups.glob("*Z")
    make().done(*restoring(backup), **given)


def test_an_installation_comes_back_from_its_newest_backup_without_a_loss(
    source: Source, make: Callable[..., Installation]
) -> None:
    modes = [folder.stat().st_mode & 0o777 for folder in (source.second, source.second.parent)]
    assert modes == [0o700, 0o700]
    there = make()
    said = there.done(*newest(source))
    assert "match the signed checkpoint" in said
    assert f"Compared with the second place {there.outside}" in said
    # Both have one more event: of the backup, of the restoration.
    assert there.rows() == source.rows
    assert there.value(IN_FORCE) is False
    assert [source.here.value(query) for query in SPENT] == [1, 1, 1]
    assert [there.value(query) for query in SPENT] == [0, 0, 0]
    there.done("assay", "store", "fsck", process="controller")
    assert "never writes over" in there.refused(*newest(source))
    # Its processes may use it.
    with there.controller():
        wait_until(lambda: there.value(f"{EVENTS} WHERE sequence IS NULL") == 0)


@pytest.mark.long
def test_a_restoration_that_is_killed_at_any_step_is_repeated(
    source: Source, make: Callable[..., Installation]
) -> None:
    there = make()
    code = KILLED.replace("BACKUP", repr(str(source.second)))
    for step in STEPS:
        killed = there.run("python", code.replace("STEP", repr(step)))
        assert killed.returncode == -signal.SIGKILL, (step, killed.stdout)
        if step in STEPS[:2]:
            assert there.tables() == []
            continue
        for command in (("manage", "apply_database_roles"), ("assay", "backup", "make", "/none")):
            assert "has not ended" in there.refused(*command), step
        with there.connect() as connection:
            allowed = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind = 'r' AND has_table_privilege('assay_web', oid, 'SELECT')"
            )
            assert allowed.fetchall() == [], step
    there.done(*newest(source))
    assert there.rows() == source.rows
    there.done("manage", "apply_database_roles")


def test_a_log_that_is_not_the_signed_one_is_no_installation_and_another_backup_is(
    server: Postgres, source: Source, make: Callable[..., Installation], tmp_path: Path
) -> None:
    # The owner of the database can rewrite it, but cannot sign.
    forged = Installation(
        tmp_path, server, "forged", like=source.here, secrets_of=source.here,
        outside=source.here.outside,
    )  # fmt: skip
    shutil.copytree(source.here.data, forged.data, dirs_exist_ok=True)
    with forged.connect() as connection:
        connection.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
        connection.execute(
            "UPDATE governance_auditevent SET subject_name = 'another' WHERE sequence = 2"
        )
        connection.execute("ALTER TABLE governance_auditevent ENABLE TRIGGER USER")
    bad = backed_up(forged)
    there = make()
    said = there.refused(*restoring(bad))
    assert "The restored audit log is not the one that was signed: Row 2 was changed" in said
    assert "has not ended" in there.refused("manage", "apply_database_roles")
    there.done(*newest(source))


def test_without_a_second_place_the_operator_says_so_and_the_log_keeps_it(
    source: Source, make: Callable[..., Installation]
) -> None:
    there = make()
    without = restoring(source.first, "--i-have-no-second-place")
    # It is no way around a place that there is.
    assert "There is a second place" in there.refused(*without)
    note = there.outside / "checkpoint"
    note.unlink()
    note.symlink_to("/proc/self/mem")
    assert "cannot be read" in there.refused(*without)
    note.unlink()
    said = there.refused(*restoring(source.first))
    assert "has no checkpoint, so that it is not known what was revoked" in said
    assert there.tables() == []
    assert "Not compared with a second place" in there.done(*without)
    assert json.loads(str(there.value(LAST_EVENT)))["second_place"] == ""


def test_a_second_place_of_another_history_or_of_the_past_stops_a_restoration(
    source: Source, make: Callable[..., Installation]
) -> None:
    there = make()
    seed = bytes.fromhex((there.secrets / "audit_signing_key").read_text().strip())
    signer = Signer("assay.example/audit", seed)
    size = int(json.loads((source.first / "backup.json").read_text())["events"])

    def place(size: int, sign: Signer = signer) -> None:
        leaves = [leaf_hash(f"another {number}".encode()) for number in range(size)]
        shutil.rmtree(there.outside)
        there.outside.mkdir()
        publish_tree(
            there.outside, size=size, published=0, leaves=lambda a, b: b"".join(leaves[a:b])
        )
        publish_checkpoint(there.outside, sign.sign(size, tree_root(leaves)))

    def refused(folder: Path) -> str:
        said = there.refused(*restoring(folder, "--accept-lost-events", "999"))
        assert there.tables() == []
        return said

    for forked in (size, size + 2, size + 300):
        place(forked)
        assert "contradict each other" in refused(source.first)
    place(size + 2, sign=Signer("assay.example/audit", b"x" * 32))
    assert "carries no valid signature" in refused(source.first)
    (there.outside / "checkpoint").write_bytes(b"x" * 200_000)
    assert "is not a signed note" in refused(source.first)
    shutil.rmtree(there.outside)
    shutil.copytree(source.past, there.outside)
    assert "it was reset, or is another place" in refused(source.second)
    # The publisher was behind when this one was made; tiles alone do not hide that.
    shutil.rmtree(there.outside / "tile")
    there.done(*restoring(source.first))


def test_a_witness_remembers_what_a_second_place_that_was_reset_has_lost(
    source: Source, make: Callable[..., Installation]
) -> None:
    log = (source.here.secrets / "audit_public_key").read_text().strip()
    there = make()
    with (
        WitnessServer("witness.example/one", log) as good,
        WitnessServer("witness.example/two", how="hangs") as bad,
        WitnessServer("witness.example/three", how="floods") as worse,
        WitnessServer("witness.example/four", how="a huge size") as liar,
        WitnessServer("witness.example/five", how="redirects") as elsewhere,
    ):
        good.answer("old 0\n\n" + (source.here.outside / "checkpoint").read_text())
        # To what it was at the first backup, which then seems to lack nothing.
        shutil.rmtree(there.outside)
        shutil.copytree(source.past, there.outside)
        named = (good, bad, worse, liar, elsewhere)
        given = {"ASSAY_AUDIT_WITNESSES": ",".join(one.setting for one in named)}
        said = there.refused(*restoring(source.first), **given)
        # And the record of the backup, since the place has no tile of it.
        lost = str(int(source.lost(source.first)) + 1)
        assert f"{lost} events that this backup lacks" in said
        shutil.rmtree(there.outside)
        said = there.refused(*restoring(source.first, "--i-have-no-second-place"), **given)
        assert f"{lost} events that this backup lacks" in said
        assert there.tables() == []
        shutil.copytree(source.past, there.outside)
        said = there.done(*restoring(source.first, "--accept-lost-events", lost), **given)
        assert "Not compared with a witness: witness.example/two did not answer within 5 s" in said
        assert "witness.example/three answered with more than" in said


def test_a_backup_that_was_changed_or_mixed_with_another_one_is_not_restored(
    source: Source, make: Callable[..., Installation], tmp_path: Path
) -> None:
    shutil.copytree(source.second.parent, tmp_path / "backups")
    first, second = (tmp_path / "backups" / one.name for one in (source.first, source.second))
    there = make()

    def refused(folder: Path = second) -> str:
        said = there.refused(*restoring(folder, "--accept-lost-events", "9"))
        assert there.tables() == []
        return said

    record = second / "backup.json"
    good = json.loads(record.read_text())
    older = json.loads((first / "backup.json").read_text())
    # The last is an older backup that claims to be newer, so that nothing seems lost.
    for change in ({"events": 999}, {"published": 0, "events": 0, "checkpoint": ""}, older):
        record.unlink(missing_ok=True)
        record.write_text(json.dumps({**good, **change, "mac": good["mac"]}))
        assert "its MAC does not match" in refused()
    record.write_text(json.dumps(older))
    assert "database.dump is damaged" in refused()
    record.write_text("{}")
    assert "is not a backup that this release can read" in refused()
    record.write_text(json.dumps(good))
    stored = next(each for each in (tmp_path / "backups" / "store").rglob("*") if each.is_file())
    kept = stored.rename(tmp_path / "kept")
    assert "and the backup covers" in refused()
    stored.write_bytes(b"x" * kept.stat().st_size)
    assert "files of the backup are damaged" in refused()
    kept.replace(stored)
    (second / "database.dump").unlink()
    assert "database.dump is damaged" in refused()
    there.done(*restoring(first, "--accept-lost-events", "9"))


def test_what_is_missing_is_said_before_anything_is_changed(
    source: Source, make: Callable[..., Installation], tmp_path: Path
) -> None:
    there = make()
    command = newest(source)
    other = tmp_path / "other"
    for text, sentence in (
        ("", "The audit log could not be verified after the restoration"),
        (Signer("assay.example/audit", b"y" * 32).public_key, "checkpoint cannot be verified"),
        (Signer("other.example/audit", b"y" * 32).public_key, "could not be verified after"),
    ):
        other.write_text(text)
        assert sentence in there.refused(*command, ASSAY_AUDIT_PUBLIC_KEY_FILE=str(other))
    other.write_text("another pepper " * 5)
    assert "ASSAY_KEY_PEPPER" in there.refused(*command, ASSAY_KEY_PEPPER_FILE=str(other))
    shutil.copytree(source.second.parent, tmp_path / "backups")
    newer = tmp_path / "backups" / source.second.name
    there.done("python", NEWER.replace("BACKUP", repr(str(newer))))
    assert "The backup is of PostgreSQL 99, and this server is" in there.refused(
        *restoring(newer, "--accept-lost-events", "99")
    )
    with there.connect() as connection:
        connection.execute(f"GRANT CONNECT ON DATABASE {there.folder.name} TO assay_controller")
    log = there.folder / "other.log"
    with there.started("python", CONNECTED, process="controller", log=log.name):
        wait_until(lambda: "connected" in log.read_text())
        said = there.refused(*command)
    assert "Processes are connected to this database, as assay_controller" in said
    with there.connect() as another:
        another.execute("SET application_name = 'assay restore'")
        assert "Another restoration into this database runs" in there.refused(*command)
    assert there.tables() == []
    # One into another database does not count.
    with source.here.connect() as elsewhere:
        elsewhere.execute("SET application_name = 'assay restore'")
        there.done(*command)


def test_a_backup_that_is_made_while_others_write_is_of_one_moment(
    server: Postgres, source: Source, make: Callable[..., Installation], tmp_path: Path
) -> None:
    here = Installation(
        tmp_path / "busy", server, "busy", like=source.here, secrets_of=source.here,
        outside=shutil.copytree(source.here.outside, tmp_path / "outside"),
    )  # fmt: skip
    shutil.copytree(source.here.data, here.data, dirs_exist_ok=True)
    log = here.folder / "writer.log"
    with here.controller(), here.started("python", WRITING, process="backup", log=log.name):
        wait_until(lambda: log.read_text().count("\n") > 20)
        backup = backed_up(here)
        written = log.read_text().count("\n")
        wait_until(lambda: log.read_text().count("\n") > written)
    here.publish()
    there = make()
    there.done(*restoring(backup, "--accept-lost-events", "99999"))
    made = there.value("SELECT count(*) FROM registry_model WHERE name LIKE 'made-while-%'")
    assert isinstance(made, int)
    assert made >= 20
    assert there.value(f"{EVENTS} WHERE subject_name LIKE 'made-while-%'") == made
    there.done("assay", "store", "fsck", process="controller")
