"""Sealers, PostgreSQL and the second place are killed and taken away while events are recorded."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance.audit.checkpoint import Signer, Verifier
from governance.audit.sealer import SEALER_LOCK
from governance.audit.tree.merkle import Frontier
from governance.audit.tree.tiles import WIDTH, read_tile, split_hashes
from tests.live.audit_processes import ACTION, FragilePostgres, Nursery, end, gone, nursery
from tests.live.celery_worker import ROOT
from tests.services import broker_url
from tests.shipped import DOCKER, Machine
from tests.waiting import wait_until

KILLS = int(os.environ.get("ASSAY_FAULT_KILLS", "100"))
pytestmark = [pytest.mark.live, pytest.mark.sweep, pytest.mark.timeout(120 + 5 * KILLS)]
NAME = "assay.example/audit"
SEEDS = ("01" * 32, "02" * 32)
KEYS = [Signer(NAME, bytes.fromhex(seed)).public_key for seed in SEEDS]


class Installation:
    """The database, the second place, and whoever keeps what is published there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = FragilePostgres(folder / "postgres")
        self.published = folder / "published"
        self.outcomes: list[Path] = []
        self.kept: dict[str, None] = {}  # Every checkpoint seen in the second place, in order.
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def nursery(self, key: int = 0) -> Any:
        """A nursery of processes that sign with the key of that number; the earlier are retired.
        The clock of those with the second key is an hour slow."""
        machine = Machine(
            folder=self.folder / f"machine{key}",
            data=self.folder / "data",
            outside=self.published,
            static=self.folder / "static",
            # All of them as the owner: kills are tried here, not privileges.
            database=lambda user: self.postgres.url("postgres"),
            broker=broker_url,
        )
        if not machine.folder.exists():
            machine.folder.mkdir()
            program = DOCKER / "make-secrets.sh"
            subprocess.run([program, machine.secrets], check=True, capture_output=True)
            signing_key = machine.secrets / "audit_signing_key"
            signing_key.chmod(0o600)
            signing_key.write_text(SEEDS[key])
        given = machine.environment(
            "controller",
            ASSAY_AUDIT_RETIRED_KEYS=",".join(KEYS[:key]),
            ASSAY_AUDIT_LOG_NAME=NAME,
            TEST_CLOCK_BACK_S=str(3600 * key),
        )
        return nursery(self.folder / "log.txt", given)

    def sealer(self, processes: Nursery, *words: object) -> int:
        return processes.start("seal", *words)

    def writer(self, processes: Nursery) -> int:
        path = self.folder / f"writer{len(self.outcomes)}"
        self.outcomes.append(path)
        return processes.start("write", path.name, path)

    def _keep(self) -> None:
        """Somebody outside who keeps each checkpoint that is published."""
        while not self._closed.wait(0.001):
            try:
                self.kept[(self.published / "checkpoint").read_text(encoding="utf-8")] = None
            except OSError:
                continue

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url("postgres")) as connection:
            return connection.execute(sql, values).fetchall()

    def leaves(self) -> list[bytes]:
        found = self.rows("SELECT leaf_hash FROM governance_auditevent ORDER BY sequence")
        return [bytes(leaf) for (leaf,) in found]

    def events(self) -> int:
        return int(self.rows("SELECT count(*) FROM governance_auditevent")[0][0])

    def sealed(self) -> int:
        found = self.rows("SELECT coalesce(max(tree_size), 0) FROM governance_auditcheckpoint")
        return int(found[0][0])

    def unpublished(self) -> int:
        pending = "SELECT count(*) FROM governance_auditcheckpoint WHERE published_at IS NULL"
        return int(self.rows(pending)[0][0])

    def came_to_rest(self) -> bool:
        return self.sealed() == self.events() and not self.unpublished()

    def became(self) -> dict[str, set[str]]:
        """The ids of events by what became of their transaction, as the writers saw it."""
        found: dict[str, set[str]] = {"kept": set(), "undone": set(), "unknown": set()}
        for path in self.outcomes:
            for line in path.read_text().splitlines():
                outcome, *ids = line.split()
                found[outcome].update(ids)
        return found

    def close(self) -> None:
        self._closed.set()
        self._keeper.join()
        self.postgres.start()
        self.postgres.stop()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    # Not in pytest's folder, which another run closes to PostgreSQL's user.
    with tempfile.TemporaryDirectory(prefix="assay-faults-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        made = Installation(folder)
        try:
            with made.nursery() as processes:
                pid = processes.start("migrate")
                # Seconds of work, of which a busy machine makes a minute.
                wait_until(lambda: gone(pid), 300)
            yield made
        finally:
            made.close()


@dataclass
class Crashes:
    """The installation after all of it, at rest, and what was done to it."""

    world: Installation
    done: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def crashed(installation: Installation) -> Crashes:
    """`KILLS` kills at random moments under load. Halfway, the signing key is changed, and the
    sealers' clock goes back an hour; that of one writer is an hour slow all the time.
    """
    draw = random.Random()
    after = Crashes(installation)
    faults = ["sealer"] * (KILLS * 7 // 10) + ["database"] * (KILLS * 2 // 10)
    faults += ["backend"] * (KILLS - len(faults))
    draw.shuffle(faults)
    with installation.nursery() as first, installation.nursery(key=1) as second:
        writers = [installation.writer(processes) for processes in (first, first, second)]
        signing = first
        sealers = [installation.sealer(signing) for _ in range(2)]
        for number, fault in enumerate(faults):
            if number == KILLS // 2:
                signing = second
                for sealer in sealers:
                    end(sealer)
                sealers = [installation.sealer(signing) for _ in range(2)]
            # Each fault meets a log that grows.
            seen = len(installation.kept)
            wait_until(lambda seen=seen: len(installation.kept) > seen)
            time.sleep(draw.uniform(0, 0.3))
            if fault == "sealer":
                chosen = draw.randrange(2)
                os.kill(sealers[chosen], signal.SIGKILL)
                sealers[chosen] = installation.sealer(signing)
            elif fault == "database":
                installation.postgres.kill()
                installation.postgres.start()
            else:
                installation.postgres.kill_a_backend(draw)
                wait_until(installation.postgres.answers)
            after.done[fault] += 1
        for writer in writers:
            end(writer)
        wait_until(installation.came_to_rest)
        for sealer in sealers:
            end(sealer)
    return after


def test_no_event_whose_commit_returned_is_lost_doubled_or_made_up(crashed: Crashes) -> None:
    became = crashed.world.became()
    found = Counter(
        name
        for (name,) in crashed.world.rows(
            "SELECT subject_id FROM governance_auditevent WHERE action = %s", ACTION
        )
    )
    figures = {name: len(ids) for name, ids in became.items()}
    say(f"{dict(crashed.done)}: {figures}, {len(found)} events found")
    assert sum(crashed.done.values()) == KILLS
    assert figures["kept"] > KILLS
    assert min(figures.values()) > 0
    assert became["kept"] - found.keys() == set()
    assert found.keys() & became["undone"] == set()
    assert found.keys() - became["kept"] - became["unknown"] == set()
    assert max(found.values()) == 1


def test_order_is_that_of_recording_whatever_the_clocks_say(crashed: Crashes) -> None:
    events = crashed.world.rows(
        "SELECT subject_id, occurred_at FROM governance_auditevent WHERE action = %s"
        " ORDER BY sequence",
        ACTION,
    )
    places: dict[str, list[int]] = {}
    for name, _ in events:
        writer, _, number = name.partition("-")
        places.setdefault(writer, []).append(int(number))
    assert len(places) == len(crashed.world.outcomes)
    assert all(numbers == sorted(numbers) for numbers in places.values())
    times = [at for _, at in events]
    assert times != sorted(times)
    heads = crashed.world.rows(
        "SELECT tree_size, created_at FROM governance_auditcheckpoint ORDER BY id"
    )
    assert [size for size, _ in heads] == sorted(size for size, _ in heads)
    assert [at for _, at in heads] != sorted(at for _, at in heads)


def test_every_event_has_its_place_and_there_is_no_gap(crashed: Crashes) -> None:
    (row,) = crashed.world.rows(
        "SELECT count(*), count(sequence), count(DISTINCT sequence), min(sequence), max(sequence)"
        " FROM governance_auditevent"
    )
    count = row[0]
    assert row == (count, count, count, 0, count - 1)
    (row,) = crashed.world.rows(
        "SELECT count(*), min(index), max(index) FROM governance_auditsubtree"
    )
    assert row == (count // 256, 0, count // 256 - 1)


def test_every_checkpoint_ever_published_is_a_prefix_of_the_last(crashed: Crashes) -> None:
    world = crashed.world
    leaves = world.leaves()
    heads = [Verifier.from_text(",".join(KEYS)).open(note) for note in world.kept]
    signed = world.rows("SELECT tree_size, root_hash, note FROM governance_auditcheckpoint")
    say(f"{len(heads)} checkpoints kept outside, {len(signed)} signed, {len(leaves)} events")
    assert len(heads) >= KILLS
    # A checkpoint is stored before it is published, and is never removed.
    assert set(world.kept) <= {note for _, _, note in signed}
    assert [head.size for head in heads] == sorted(head.size for head in heads)
    assert max(size for size, _, _ in signed) == heads[-1].size == len(leaves)
    wanted = {size: bytes(root) for size, root, _ in signed}
    tree, done = Frontier(), 0
    for size in sorted(wanted):
        tree.extend(leaves[done:size])
        done = size
        assert tree.root() == wanted[size], size
    assert all(head.root == wanted[head.size] for head in heads)


def test_the_chain_verifies_with_what_was_kept_outside(crashed: Crashes, tmp_path: Path) -> None:
    world = crashed.world
    export = tmp_path / "export.jsonl"
    with world.nursery(key=1) as processes:
        pid = processes.start("export", export)
        wait_until(lambda: gone(pid))
        assert verified(world, processes)
    draw = random.Random(len(world.kept))
    options: list[str] = ["--tiles", str(world.published)]
    chosen = draw.sample(list(world.kept), min(20, len(world.kept)))
    for number, note in enumerate(chosen):
        kept = tmp_path / f"checkpoint{number}"
        kept.write_text(note)
        options += ["--checkpoint", str(kept)]
    good = assay("audit", "verify", str(export), "--key", ",".join(KEYS), *options)
    assert (good.returncode, good.stderr) == (0, "")
    assert f"and {len(chosen)} external cop" in " ".join(good.stdout.split())


def test_no_crash_is_taken_for_a_forgery(crashed: Crashes) -> None:
    log = (crashed.world.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    assert [line for line in log.splitlines() if "CRITICAL" in line] == []
    assert crashed.world.rows("SELECT fault, contradicts FROM governance_auditkeeper") == [
        ("", False)
    ]


def test_what_the_old_key_signed_is_opened_by_it_alone(crashed: Crashes) -> None:
    old, new = (Verifier.from_text(key) for key in KEYS)
    by = ["old" if opens(old, note) else "new" for note in crashed.world.kept]
    assert all(
        opens(new, note) for note, key in zip(crashed.world.kept, by, strict=True) if key == "new"
    )
    # The key was changed once, for good.
    assert by == ["old"] * by.count("old") + ["new"] * by.count("new")
    assert min(by.count("old"), by.count("new")) >= KILLS // 2


def test_of_two_sealers_one_works_and_the_other_takes_over(installation: Installation) -> None:
    with installation.nursery(key=1) as processes:
        writer = installation.writer(processes)
        sealers = [installation.sealer(processes) for _ in range(2)]
        for turn in range(4):
            seen = installation.sealed()
            wait_until(lambda seen=seen: installation.sealed() > seen)
            os.kill(sealers[turn % 2], signal.SIGKILL)
            seen = installation.sealed()
            wait_until(lambda seen=seen: installation.sealed() > seen)
            sealers[turn % 2] = installation.sealer(processes)
        end(writer)
        wait_until(installation.came_to_rest)
        for sealer in sealers:
            end(sealer)
        assert verified(installation, processes)


def test_a_sealer_that_hangs_half_way_is_relieved_and_does_no_harm_when_it_wakes(
    installation: Installation,
) -> None:
    with installation.nursery(key=1) as processes:
        writer = installation.writer(processes)
        hung = installation.sealer(processes)
        wait_until(lambda: stopped_half_way(installation, hung))
        # Its transaction is rolled back, and it wakes only after another sealer has gone on.
        other = installation.sealer(processes)
        seen = installation.sealed()
        wait_until(lambda: installation.sealed() > seen + 100)
        os.kill(hung, signal.SIGCONT)
        seen = installation.sealed()
        wait_until(lambda: installation.sealed() > seen)
        end(writer)
        wait_until(installation.came_to_rest)
        for sealer in (hung, other):
            end(sealer)
        assert verified(installation, processes)


def stopped_half_way(installation: Installation, sealer: int) -> bool:
    """Stop the process as a paused machine does; let it go on unless it stopped while sealing."""
    os.kill(sealer, signal.SIGSTOP)
    time.sleep(0.1)  # By then PostgreSQL has finished its last statement.
    free = "SELECT 1 FROM governance_namedlock WHERE name = %s FOR UPDATE SKIP LOCKED"
    if not installation.rows(free, SEALER_LOCK):
        return True
    os.kill(sealer, signal.SIGCONT)
    return False


@pytest.mark.parametrize("trouble", ["a file in its place", "no room", "not mounted"])
def test_sealing_goes_on_without_the_second_place_which_is_caught_up(
    installation: Installation, trouble: str
) -> None:
    place, aside = installation.published, installation.folder / "aside"
    with installation.nursery(key=1) as processes:
        writer = installation.writer(processes)
        if trouble == "no room":
            # Enough for a checkpoint and a young tile.
            sealer = installation.sealer(processes, 500)
        else:
            sealer = installation.sealer(processes)
            wait_until(lambda: (place / "checkpoint").is_file())
            place.rename(aside)
        if trouble == "a file in its place":
            wait_until(lambda: occupied(place))
        if trouble == "not mounted":
            wait_until(lambda: vanished(place))
        recorded, sealed = installation.events(), installation.sealed()
        wait_until(lambda: installation.events() > recorded + 300)
        wait_until(lambda: installation.sealed() > sealed + 300)
        assert installation.unpublished() > 0
        if trouble == "a file in its place":
            place.unlink()
        if trouble != "no room":
            aside.rename(place)
        if trouble == "no room":
            end(sealer)
            sealer = installation.sealer(processes)
        end(writer)
        wait_until(installation.came_to_rest)
        end(sealer)
        shutil.rmtree(aside, ignore_errors=True)
        assert published_hashes(installation) == installation.leaves()
        assert verified(installation, processes)


def say(figures: str) -> None:
    sys.stdout.write(f"{figures}\n")  # `pytest -rP` shows it.


def occupied(place: Path) -> bool:
    """Put a file where the folder was, unless the sealer was faster and made it anew."""
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.touch(exist_ok=False)
    except OSError:
        return False
    return place.is_file()


def vanished(place: Path) -> bool:
    """True when it stays away: a publisher interrupted half-way may have made it anew."""
    shutil.rmtree(place, ignore_errors=True)
    time.sleep(0.3)
    return not place.exists()


def published_hashes(installation: Installation) -> list[bytes]:
    """Every leaf hash in the tiles of the second place, in order."""
    found: list[bytes] = []
    size = len(installation.leaves())
    for index in range(-(-size // WIDTH)):
        data = read_tile(installation.published, 0, index, WIDTH) or b""
        found += split_hashes(data)
    return found


def verified(installation: Installation, processes: Nursery) -> bool:
    """True when the installation finds its log as it was sealed, with the second place's help."""
    said = installation.folder / "said"
    pid = processes.start("verify", said)
    wait_until(lambda: gone(pid))
    return said.read_text().startswith("VerificationReport(ok=True")


def opens(verifier: Verifier, note: str) -> bool:
    try:
        verifier.open(note)
    except ValueError:
        return False
    return True


def assay(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line on a machine that knows of no installation."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DATABASE_URL", "REDIS_URL")
    }
    return subprocess.run(
        [sys.executable, "-c", "from assay.cli.main import main; main()", *words],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
