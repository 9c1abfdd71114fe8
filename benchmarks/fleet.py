"""A fleet of 200 nodes with 2,000 replicas of 10,000 deployments, on the real control plane.

PostgreSQL, Valkey, two web processes and a controller run as in an installation. The nodes are
simulated by a few processes (`benchmarks.fleet_nodes`): they speak the protocol of real ones and
load nothing. Most deployments are scaled to zero; four fifths are adapters on shared bases.

The first figures are of single rounds of placement, in this process. All others are of the running
fleet. A move is an assignment that is added or removed.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import psutil
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.fleet_nodes import ANSWER_S, WORKER
from benchmarks.gateway import Served, process, until_works
from benchmarks.stores import own_stores

if TYPE_CHECKING:
    from workers.deployments.models import Deployment
    from workers.placement.assigning import Placer

NODES, REPLICAS, DEPLOYMENTS = 200, 2_000, 10_000
# Nodes that fall silent together, of each ten.
RACK = 0.1
# Of so many active deployments one has two replicas.
DOUBLED = 10
LOAD_S = 2.0
WAKES = 20
STEADY_S, FLAP_S, FLAPS = 60.0, 20.0, 3
OVERLOAD, OVERLOADED_S = 1.5, 120.0
# Loops of the controller that run at least so often are reported.
OFTEN_S = 15.0
PATIENCE_S = 1800.0


@dataclass(slots=True)
class Report:
    """Rows of the table: name, figure, and the bar that the figure must not exceed."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, figure: str, bar: str = "") -> None:
        self.rows.append((name, figure, bar))
        print(f"  {name}: {figure}", flush=True)  # noqa: T201

    def show(self, title: str) -> None:
        table = Table("what", "figure", "bar", title=title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        Console(width=120).print(table)


def run(*, quick: bool = False) -> None:
    """Start stores and processes, simulate, and print. Django must not be set up yet."""
    scale = 10 if quick else 1
    preload = {"shared_preload_libraries": "pg_stat_statements"}
    with own_stores(postgres_settings=preload, ASSAY_LOG_LEVEL="WARNING"), ExitStack() as stack:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION pg_stat_statements")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-fleet-")))
        Fleet(NODES // scale, REPLICAS // scale, DEPLOYMENTS // scale, folder).run(stack)


class Fleet:
    """The simulation, in the order of its report."""

    def __init__(self, nodes: int, replicas: int, deployments: int, folder: Path) -> None:
        self._nodes = [f"node-{number:03}" for number in range(nodes)]
        self._rack = self._nodes[: max(1, round(nodes * RACK))]
        self._flapping = self._nodes[len(self._rack)]
        self._replicas, self._deployments, self._folder = replicas, deployments, folder
        self._report = Report()
        self._processes: dict[str, Popen[bytes]] = {}

    def run(self, stack: ExitStack) -> None:
        asleep = self._fill()
        url = self._start_web(stack)
        self._start_nodes(stack, url)
        self._place_here()
        command = (sys.executable, "manage.py", "run_controller")
        with measured(self._processes) as start:
            self._processes["controller"] = stack.enter_context(process(*command))
            took = _until(lambda: not _unready(), "all replicas are ready")
        self._report.add(f"all {self._replicas:,} replicas ready after the controller's start",
                         f"{took:.0f} s")  # fmt: skip
        self._report.add("  meanwhile", start.loads())
        time.sleep(15)
        self._steady()
        self._wake(asleep[:WAKES])
        self._overload()
        self._lose_rack()
        self._flap()
        self._slowest_loops()
        self._report.show(
            f"{len(self._nodes)} nodes, {self._replicas:,} replicas, {self._deployments:,} "
            f"deployments; a load takes {LOAD_S:.0f} s"
        )

    def _fill(self) -> list[int]:
        """Make the rows, and return the IDs of deployments that are scaled to zero."""
        from django.db import connection

        from tests.fleets import approve_all, deployments_make
        from workers.deployments.models import Deployment

        active = self._replicas * DOUBLED // (DOUBLED + 1)
        made: list[Deployment] = deployments_make(self._deployments)
        approve_all(made)
        ids = [each.pk for each in made]
        rows = Deployment.objects.all()
        rows.filter(pk__in=ids[:active]).update(replicas_max=4)
        doubled = ids[: active * DOUBLED : DOUBLED][: self._replicas - active]
        rows.filter(pk__in=doubled).update(replicas_min=2, replicas_wanted=2)
        rows.filter(pk__in=ids[active:]).update(replicas_min=0, replicas_max=2, replicas_wanted=0)
        # As autovacuum would soon, without which the first plans are for empty tables.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        return ids[active:]

    def _start_web(self, stack: ExitStack) -> str:
        from assay.local.services import free_port

        port = free_port()
        command = (sys.executable, "-m", "assay.server", "--port", str(port), "--workers=2",
                   "--log-level=warning")  # fmt: skip
        self._processes["web"] = stack.enter_context(process(*command))
        until_works(Served(port, self._processes["web"].pid, "").is_alive, 300)
        return f"http://127.0.0.1:{port}"

    def _start_nodes(self, stack: ExitStack, url: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from governance.people.models import Person
        from workers.deployments.models import WorkerKey
        from workers.nodes.models import Node
        from workers.remote.identity import Identity, identity_write

        maker, rows = Person.objects.order_by("pk")[0], []
        for name in self._nodes:
            identity = Identity(name, Ed25519PrivateKey.generate())
            (self._folder / name).mkdir()
            identity_write(self._folder / name / "key", identity)
            rows.append(Node(name=name, state="enrolled", public_key=identity.public_key,
                             created_by=maker))  # fmt: skip
        Node.objects.bulk_create(rows)
        rest = self._nodes[len(self._rack) + 1 :]
        groups = {"rack": self._rack, "flapping node": [self._flapping],
                  "nodes": rest[::2], "other nodes": rest[1::2]}  # fmt: skip
        for name, nodes in groups.items():
            command = (sys.executable, "-m", "benchmarks.fleet_nodes", url, str(self._folder),
                       *nodes, "--load", str(LOAD_S))  # fmt: skip
            self._processes[name] = stack.enter_context(process(*command))
        took = _until(
            lambda: WorkerKey.objects.count() == len(self._nodes), "all workers are registered"
        )
        self._report.add(f"{len(self._nodes)} workers registered", f"{took:.0f} s")

    def _place_here(self) -> None:
        """Time rounds of placement in this process, before the controller runs."""
        from workers.placement.assigning import Placer

        placer = Placer()
        first = _round(placer)
        self._report.add("one round that places everything", f"{first.text}", "1 s")
        rounds = [_round(placer) for _ in range(5)]
        middle = sorted(rounds, key=lambda each: each.wall_s)[len(rounds) // 2]
        self._report.add("one round without a change", middle.text, "1 s")
        placer.close()

    def _steady(self) -> None:
        with measured(self._processes) as steady:
            time.sleep(STEADY_S)
        self._report.add("moves per minute without a change", f"{steady.moves_per_minute:.1f}", "0")
        self._report.add("  broker", steady.broker())
        self._report.add("  database", steady.database())
        for line in steady.statements(3):
            self._report.add("    of which", line)
        self._report.add("  processor time", steady.processors())

    def _wake(self, asleep: list[int]) -> None:
        """Request deployments that are scaled to zero, as gateways do."""
        from django.conf import settings

        from workers.deployments.models import Replica, ReplicaState
        from workers.placement.models import Placement
        from workers.wire import DEPLOYMENTS_CHANNEL, WANTED_KEY, wake_message

        placed, ready = [], []
        with redis.Redis.from_url(settings.REDIS_URL) as broker:
            for pk in asleep:
                broker.zadd(WANTED_KEY, {str(pk): time.time()})
                broker.publish(DEPLOYMENTS_CHANNEL, wake_message(()))
                assigned = Placement.objects.filter(deployment_id=pk)
                loaded = Replica.objects.filter(deployment_id=pk, state=ReplicaState.READY)
                placed.append(_until(assigned.exists, "it is assigned", 0.01))
                ready.append(placed[-1] + _until(loaded.exists, "it is loaded", 0.02))
        self._report.add(
            f"a deployment that wakes is assigned, slowest of {len(placed)} (median)",
            f"{max(placed):.2f} s ({statistics.median(placed):.2f} s)", "1 s",
        )  # fmt: skip
        self._report.add("  and ready", f"{max(ready):.1f} s ({statistics.median(ready):.1f} s)")

    def _overload(self) -> None:
        """Send one deployment more requests than a replica answers, as gateways do."""
        from django.conf import settings

        from workers.celery_message import inference_message
        from workers.deployments.models import Deployment
        from workers.queue_ages import read_queues
        from workers.wire import InferenceRequest, deployment_queue

        rows = Deployment.objects.filter(replicas_min=1, replicas_max=4, replicas_wanted=1)
        pk, target_s = rows.order_by("pk").values_list("pk", "queue_age_s")[0]
        queue, rate = deployment_queue(pk), OVERLOAD / ANSWER_S
        steps, late_s, oldest_s, wanted, sent = [], 0.0, 0.0, 1, 0
        with redis.Redis.from_url(settings.REDIS_URL) as broker:
            started = before = time.monotonic()
            while (now := time.monotonic()) - started < OVERLOADED_S:
                while sent < (now - started) * rate:
                    request = InferenceRequest(
                        f"r{sent}", pk, "", "", "", {}, {}, False, time.time()
                    )
                    broker.lpush(queue, inference_message(request, {}))
                    sent += 1
                since = read_queues(broker, [pk])[pk].since
                age = 0.0 if since is None else time.time() - since
                oldest_s = max(oldest_s, age)
                late_s += now - before if age > target_s else 0.0
                before, latest = (
                    now,
                    Deployment.objects.values_list("replicas_wanted").get(pk=pk)[0],
                )
                if latest != wanted:
                    wanted = latest
                    steps.append(f"{wanted} after {now - started:.0f} s")
                time.sleep(0.2)
        self._report.add(
            f"replicas under {OVERLOAD} times the load of one", ", ".join(steps) or "1"
        )
        self._report.add(
            f"  requests waited at most (over the target of {target_s} s)",
            f"{oldest_s:.1f} s ({late_s:.0f} s of {OVERLOADED_S:.0f} s)",
        )

    def _lose_rack(self) -> None:
        from workers.placement.models import Placement

        rack = [f"{name}/{WORKER}" for name in self._rack]
        lost = Placement.objects.filter(worker__in=rack)
        count = lost.count()
        with measured(self._processes) as meanwhile:
            os.killpg(self._processes["rack"].pid, signal.SIGKILL)
            started = time.monotonic()
            _until(lambda: not lost.exists(), "the lost replicas are assigned elsewhere")
            assigned = time.monotonic() - started
            _until(lambda: not _unready(), "the lost replicas are replaced")
            replaced = time.monotonic() - started
        self._report.add(
            f"{count} replicas of {len(rack)} silent nodes assigned elsewhere", f"{assigned:.1f} s"
        )
        self._report.add("  and ready", f"{replaced:.1f} s", "60 s")
        self._report.add("  meanwhile", meanwhile.loads())

    def _flap(self) -> None:
        flapping = self._processes["flapping node"].pid
        with measured(self._processes) as meanwhile:
            for _ in range(FLAPS):
                os.killpg(flapping, signal.SIGSTOP)
                try:
                    time.sleep(FLAP_S)
                finally:
                    os.killpg(flapping, signal.SIGCONT)
                time.sleep(FLAP_S)
        self._report.add(
            f"moves per minute with a node that is silent for {FLAP_S:.0f} s of each "
            f"{2 * FLAP_S:.0f} s", f"{meanwhile.moves_per_minute:.1f}",
        )  # fmt: skip

    def _slowest_loops(self) -> None:
        from workers.measurements.measuring import LOOPS
        from workers.measurements.models import Measurement

        loops: dict[str, Any] = {}
        for each in Measurement.objects.filter(name__startswith=LOOPS):
            loops |= each.figures
        often = [each for each in loops.items() if each[1]["every_s"] <= OFTEN_S]
        slowest = sorted(often, key=lambda each: -each[1]["last_s"])[:5]
        named = ", ".join(f"{name} {1000 * each['last_s']:.0f} ms" for name, each in slowest)
        self._report.add("slowest loops of the controller, last round", named)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of placement."""

    wall_s: float
    cpu_s: float
    queries: int
    moves: int

    @property
    def text(self) -> str:
        return (
            f"{1000 * self.wall_s:.0f} ms, {1000 * self.cpu_s:.0f} ms of them here, "
            f"{self.queries} queries, {self.moves} moves"
        )


def _round(placer: Placer) -> Round:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        started, used = time.perf_counter(), time.process_time()
        planned = placer.run()
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    if planned is None:
        raise RuntimeError("Another process placed.")
    return Round(wall, cpu, len(queries), len(planned.moves))


def _unready() -> bool:
    """Return whether a deployment has fewer ready replicas than it wants."""
    from django.db.models import Count, F, Q

    from workers.deployments.models import Deployment, ReplicaState

    ready = Count("replicas", filter=Q(replicas__state=ReplicaState.READY))
    rows = Deployment.objects.filter(replicas_wanted__gt=0).annotate(ready=ready)
    return rows.filter(ready__lt=F("replicas_wanted")).exists()


def _until(holds: Callable[[], bool], what: str, pause_s: float = 0.25) -> float:
    """Wait until `holds`, and return the seconds. Raises RuntimeError after half an hour."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > PATIENCE_S:
            raise RuntimeError(f"{PATIENCE_S:.0f} s passed before {what}.")
        time.sleep(pause_s)
    return time.monotonic() - started


class Load:
    """Load of stores and processes between `begin` and `end`."""

    def __init__(self, processes: dict[str, Popen[bytes]]) -> None:
        from django.conf import settings
        from django.db import connection

        self._processes = processes
        self._broker = redis.Redis.from_url(settings.REDIS_URL)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (own,) = cursor.fetchone()
        self._postgres = psutil.Process(own).ppid()

    def begin(self) -> None:
        self._at, self._before = time.monotonic(), self._read()

    def end(self) -> None:
        after = self._read()
        self.took_s = time.monotonic() - self._at
        self.used = {
            kind: {
                name: value - self._before[kind].get(name, 0.0) for name, value in values.items()
            }
            for kind, values in after.items()
        }
        self._broker.close()

    @property
    def moves_per_minute(self) -> float:
        """Return the assignments that were added or removed."""
        return 60 * self.used["moves"][""] / self.took_s

    def broker(self) -> str:
        most = sorted(self.used["calls"].items(), key=lambda each: -each[1])[:5]
        rates = ", ".join(f"{name} {calls / self.took_s:.0f}" for name, calls in most)
        total = sum(self.used["calls"].values()) / self.took_s
        busy = sum(self.used["usec"].values()) / 1e6 / self.took_s
        return f"{total:.0f} commands/s ({rates}), {1000 * busy:.0f} ms/s"

    def database(self) -> str:
        calls = sum(self.used["statements"].values()) / self.took_s
        spent = sum(self.used["statement_ms"].values()) / self.took_s
        commits = self.used["commits"][""] / self.took_s
        return f"{calls:.0f} statements/s, {spent:.0f} ms/s, {commits:.0f} transactions/s"

    def statements(self, count: int) -> list[str]:
        """Return the statements that took most of the time."""
        most = sorted(self.used["statement_ms"].items(), key=lambda each: -each[1])[:count]
        return [
            f"{self.used['statements'][text] / self.took_s:.0f}/s, {ms / self.took_s:.0f} ms/s: "
            f"{' '.join(text.split())[:70]}"
            for text, ms in most
        ]

    def processors(self) -> str:
        return ", ".join(
            f"{name} {100 * used / self.took_s:.0f} %" for name, used in self.used["cpu"].items()
        )

    def loads(self) -> str:
        return f"broker {self.broker()}; database {self.database()}; {self.processors()}"

    def _read(self) -> dict[str, dict[str, float]]:
        from django.db import connection

        commands: Any = self._broker.info("commandstats")
        named = {name.removeprefix("cmdstat_"): each for name, each in commands.items()}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT query, sum(calls), sum(total_exec_time) FROM pg_stat_statements GROUP BY 1"
            )
            statements = cursor.fetchall()
            cursor.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
            commits = cursor.fetchone()
            cursor.execute(
                "SELECT n_tup_ins + n_tup_del FROM pg_stat_user_tables"
                " WHERE relname = 'workers_placement'"
            )
            moves = cursor.fetchone()
        return {
            "calls": {name: float(each["calls"]) for name, each in named.items()},
            "usec": {name: float(each["usec"]) for name, each in named.items()},
            "statements": {query: float(calls) for query, calls, _ms in statements},
            "statement_ms": {query: float(ms) for query, _calls, ms in statements},
            "commits": {"": float(commits[0])},
            "moves": {"": float(moves[0])},
            "cpu": dict(self._cpu()),
        }

    def _cpu(self) -> Iterator[tuple[str, float]]:
        simulated = 0.0
        for name, each in self._processes.items():
            used = _cpu_s(each.pid)
            if name in ("web", "controller"):
                yield name, used
            else:
                simulated += used
        yield "simulated nodes", simulated
        yield "PostgreSQL", _cpu_s(self._postgres)
        used: Any = self._broker.info("cpu")
        yield "Valkey", used["used_cpu_user"] + used["used_cpu_sys"]


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its children that still run."""
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for each in processes:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


@contextmanager
def measured(processes: dict[str, Popen[bytes]]) -> Iterator[Load]:
    """Measure the load until the end of the block."""
    load = Load(processes)
    load.begin()
    yield load
    load.end()


if __name__ == "__main__":
    run(quick="--quick" in sys.argv)
