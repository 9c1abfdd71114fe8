"""The gateway's snapshot and the controller's tick with 10,000 deployments and 200,000 keys.

A web process runs as always. Keys are revoked, releases withdrawn, quotas changed and deployments
stopped, each by SQL alone, so that no notice tells the gateway; a client asks until the change is
in force. The processor time of the web process is measured while nothing changes but leases and
heartbeats, and with two changes a second. The controller's duties run here, in turn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.gateway import ROOT, Served, cpu_s, served
from benchmarks.stores import own_stores

if TYPE_CHECKING:
    from governance.people.models import Department, Person

DEPLOYMENTS, KEYS, DEPARTMENTS, CHANGES, SECONDS = 10_000, 200_000, 1000, 200, 60
# Copies on one worker, and characters that a dossier has beyond what the rule reads.
PER_WORKER, DOSSIER_CHARACTERS = 100, 10_000
ITEMS = 10
CHAT = "/v1/chat/completions"


def run(options: argparse.Namespace) -> None:
    """Start separate stores, build the stage, measure, and print. Django must not be set up yet."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    with own_stores(PYTHONPATH=paths), served("none", "assay.server", warm=False) as web:
        time.sleep(5)
        before = pss_mb(web.pid)
        started = time.monotonic()
        stage = Stage(options.deployments, options.keys, options.departments)
        say("stage built", time.monotonic() - started, "s")
        started = time.monotonic()
        stage.wait_until_served(web)
        say("web process has read everything after", time.monotonic() - started, "s")
        say("memory of the web process, empty", before, "MB")
        say("memory of the web process, all deployments read", pss_mb(web.pid), "MB")
        duties = Duties()
        with running(stage.beat):
            time.sleep(10)
            say("first round of the controller", duties.measure(), "ms")
        with running(stage.beat), running(duties.run_until):
            time.sleep(10)
            say("web process, nothing changes", stage.cpu_ms_per_s(web, options.seconds), "ms/s")
            with running(stage.change_until):
                per_s = stage.cpu_ms_per_s(web, options.seconds)
            say("web process, two changes a second", per_s, "ms/s")
            stage.measure_changes(web, options.changes)
            duties.say_times()
        stage.use_keys(web, min(options.keys, 5000))
        say("memory of the web process, 5,000 keys used", pss_mb(web.pid), "MB")


def say(name: str, value: float, unit: str) -> None:
    print(f"{name:52}{value:>12,.1f} {unit}", flush=True)  # noqa: T201


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("The kernel does not say how much memory the process has.")


@contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread until the end of the block."""
    from django.db import connection

    stop = threading.Event()

    def run() -> None:
        try:
            work(stop)
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Stage:
    """Rows of a large installation, and ways to change them."""

    def __init__(self, deployments: int, keys: int, departments: int) -> None:
        from governance.people.models import Department, Person
        from governance.policy.services import policy_bootstrap
        from governance.reviews.policies.shipping import review_policies_bootstrap

        policy_bootstrap()
        review_policies_bootstrap()
        self.person = Person.objects.create(email="bench@example.org", name="Bench")
        self.departments = Department.objects.bulk_create(
            Department(slug=f"department-{number}", name=f"Department {number}")
            for number in range(departments)
        )
        _limits(self.departments)
        self.names = _deployments(self.person, self.departments, deployments)
        self.tokens = _keys(self.departments, keys)
        # Changes take from the end, so that each is made once.
        self._left = list(range(deployments))
        self._keys_left = list(range(min(keys, len(self.tokens))))

    def wait_until_served(self, web: Served) -> None:
        """Wait until the web process knows the last deployment and key."""
        deadline = time.monotonic() + 600
        while self.ask(web, self.tokens[-1], self.names[-1]) != "no_ready_replica":
            if time.monotonic() > deadline:
                answer = self.ask(web, self.tokens[-1], self.names[-1])
                raise RuntimeError(f"The web process answers {answer}.")
            time.sleep(0.2)

    def ask(self, web: Served, token: str, name: str) -> str:
        """Send a request for a deployment without replicas; return the code of its error."""
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
        body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hi"}]})
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", CHAT, body, headers)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return str(answer["error"]["code"])

    def beat(self, stop: threading.Event) -> None:
        """Send a heartbeat of each worker every 5 s."""
        from django.utils import timezone

        from workers.deployments.models import Replica

        workers = list(Replica.objects.order_by().values_list("worker", flat=True).distinct())
        while not stop.is_set():
            for worker in workers:
                Replica.objects.filter(worker=worker).update(heartbeat_at=timezone.now())
                if stop.wait(5 / len(workers)):
                    break

    def change_until(self, stop: threading.Event) -> None:
        """Make two changes a second."""
        number = 0
        while not stop.wait(0.5):
            self.change(number)
            number += 1

    def change(self, number: int) -> tuple[str, str, str]:
        """Make the next change, in turn of each kind. Return its kind, and the token and the name
        of the deployment whose requests it ends."""
        from django.utils import timezone

        from governance.keys.models import ApiKey
        from registry.releases.models import Release
        from workers.deployments.models import Deployment

        kind = ("key revoked", "release withdrawn", "deployment stopped")[number % 3]
        place = self._left.pop()
        token, name = self.tokens[self._keys_left.pop()], self.names[place]
        if kind == "key revoked":
            rows: Any = ApiKey.objects.filter(public_id=token.split("_")[1])
            rows.update(revoked_at=timezone.now())
        elif kind == "release withdrawn":
            Release.objects.filter(deployment_name=name).update(state="withdrawn")
        else:
            Deployment.objects.filter(name=name).update(state="stopped", stopped_at=timezone.now())
        return kind, token, name

    def measure_changes(self, web: Served, count: int) -> None:
        """Measure how long changes take to be in force, from the commit on."""
        times: dict[str, list[float]] = {}
        for number in range(count):
            token = self.tokens[self._keys_left[-1]]
            before = self.ask(web, token, self.names[self._left[-1]])
            kind, _, name = self.change(number)
            started = time.monotonic()
            while self.ask(web, token, name) == before:
                time.sleep(0.005)
            times.setdefault(kind, []).append(1000 * (time.monotonic() - started))
        for kind, each in times.items():
            say(f"{kind}: in force after, median of {len(each)}", median(each), "ms")
            say(f"{kind}: 99th percentile", quantiles(each, n=100)[98], "ms")
        every = [time_ms for each in times.values() for time_ms in each]
        say(f"all {len(every)} changes: 99th percentile", quantiles(every, n=100)[98], "ms")

    def cpu_ms_per_s(self, web: Served, seconds: float) -> float:
        """Return the processor time that the web process uses, in ms a second."""
        before, started = cpu_s(web.pid), time.monotonic()
        time.sleep(seconds)
        return 1000 * (cpu_s(web.pid) - before) / (time.monotonic() - started)

    def use_keys(self, web: Served, count: int) -> None:
        """Send a request with each of so many keys."""
        for number in range(count):
            self.ask(web, self.tokens[number], self.names[0])


class Duties:
    """Duties of the controller that run every two seconds, and their times."""

    def __init__(self) -> None:
        from governance.reviews.waivers.services import waivers_expire_due
        from registry.releases.emergency_access.services import emergency_accesses_end_due
        from registry.releases.validity import releases_expire_due, releases_warn_due
        from workers.deployments.judging import Judge
        from workers.deployments.leases import leases_renew
        from workers.deployments.services import deployments_stop_unservable, replicas_expire

        leases, deployments = Judge(), Judge(checks=False)
        self._duties: dict[str, Callable[[], object]] = {
            "leases": lambda: leases_renew(leases),
            "deployments": lambda: deployments_stop_unservable(deployments),
            "replicas": replicas_expire,
            "releases": releases_expire_due,
            "warnings": releases_warn_due,
            "waivers": waivers_expire_due,
            "emergency accesses": emergency_accesses_end_due,
        }
        self._times: dict[str, list[float]] = {name: [] for name in self._duties}

    def run(self) -> None:
        """Do each duty once."""
        for name, duty in self._duties.items():
            started = time.perf_counter()
            duty()
            self._times[name].append(1000 * (time.perf_counter() - started))

    def run_until(self, stop: threading.Event) -> None:
        """Do each duty every 2 s."""
        while not stop.wait(2):
            self.run()

    def measure(self) -> float:
        """Do each duty once, and return the time, in ms; it does not count."""
        started = time.perf_counter()
        self.run()
        self._times = {name: [] for name in self._duties}
        return 1000 * (time.perf_counter() - started)

    def say_times(self) -> None:
        """Print the median of each duty, and of the whole tick."""
        ticks = [sum(times) for times in zip(*self._times.values(), strict=False)]
        for name, times in self._times.items():
            say(f"controller: {name}, median of {len(times)}", median(times), "ms")
        say("controller: whole tick, median", median(ticks), "ms")
        say("controller: whole tick, longest", max(ticks), "ms")


def _limits(departments: list[Department]) -> None:
    from governance.quotas.models import QuotaLimit

    QuotaLimit.objects.bulk_create(
        QuotaLimit(department=department, kind=kind, limit=10**9)
        for department in departments
        for kind in ("requests_per_minute", "tokens_per_day")
    )


def _deployments(person: Person, departments: list[Department], count: int) -> list[str]:
    """Create deployments of approved releases, each loaded by a worker that has no key, so that no
    request is sent to it. Return their names."""
    from django.utils import timezone

    from governance.people.models import Person
    from governance.reviews.models import ChecklistItem, Decision, Review
    from governance.reviews.policies.selectors import review_policy_in_force
    from registry.canonical import json_digest
    from registry.releases.models import Release
    from registry.versions.models import Model, ModelVersion
    from tests.approvals import software_of
    from tests.proofs import vote_proof
    from workers.deployments.models import Deployment, Replica, ServingLease
    from workers.placement.models import Placement

    now = timezone.now()
    later = now + timedelta(days=100)
    task, size = "text-generation", 1000
    models = Model.objects.bulk_create(
        Model(name=f"model-{each.slug}", department=each, task=task, created_by=person)
        for each in departments
    )
    numbers = range(count)
    owners = [departments[number % len(departments)] for number in numbers]
    names = [f"deployment-{number}" for number in numbers]
    digests = [f"{number:064x}" for number in numbers]
    versions = ModelVersion.objects.bulk_create(
        [
            ModelVersion(
                model=models[number % len(models)], number=number // len(models) + 1, kind="base",
                digest=digests[number], manifest={}, size_bytes=10**9, created_by=person,
            )
            for number in numbers
        ],
        size,
    )  # fmt: skip
    rest = {"software": software_of(task), "serving": {"engine": "own", "precision": "stored"}}
    releases = []
    for number, owner in enumerate(owners):
        release = {
            "environment": "production", "deployment_name": names[number],
            "departments": [owner.slug], "visibility": "department",
        }  # fmt: skip
        identity = {"digest": digests[number]}
        dossier = {"identity": identity, "release": release, **rest}
        dossier["text"] = f"{number} ".ljust(DOSSIER_CHARACTERS, "x")
        releases.append(
            Release(
                version=versions[number], department=owner, environment="production",
                deployment_name=names[number], purpose="Measure", state="approved",
                dossier=dossier, dossier_digest=json_digest(dossier), submitted_by=person,
                approved_at=now, expires_at=later,
            )
        )  # fmt: skip
    releases = Release.objects.bulk_create(releases, size)
    users = Release.departments.through
    users.objects.bulk_create(
        [
            users(release=release, department=owner)
            for release, owner in zip(releases, owners, strict=True)
        ],
        size,
    )
    reviewer = Person.objects.create(email="vera@example.org", name="Vera")
    policy, proof = review_policy_in_force("limited"), vote_proof()
    reviews = Review.objects.bulk_create(
        [
            Review(
                subject_type="release", subject_id=str(release.pk), subject_name=str(release),
                department=owner, digest=release.dossier_digest, opened_by=person,
                required_approvals={"compliance": 1}, policy_version=1, review_policy=policy,
                due_at=now,
            )
            for release, owner in zip(releases, owners, strict=True)
        ],
        size,
    )  # fmt: skip
    Decision.objects.bulk_create(
        [
            Decision(
                review=review, submitter=person, person=reviewer, verdict="approve",
                specialty="compliance", reason="Fine.", digest=review.digest, round=1, **proof,
            )
            for review in reviews
        ],
        size,
    )  # fmt: skip
    ChecklistItem.objects.bulk_create(
        [
            ChecklistItem(
                review=review, code=f"item-{item}", title=f"Item {item}", automatic=True,
                state="satisfied", digest=review.digest, checked_at=now,
            )
            for review in reviews
            for item in range(ITEMS)
        ],
        size,
    )  # fmt: skip
    Review.objects.update(state="approved")
    deployments = Deployment.objects.bulk_create(
        [
            Deployment(
                name=names[number], release=releases[number], department=owners[number],
                state="serving", created_by=person,
            )
            for number in numbers
        ],
        size,
    )  # fmt: skip
    ServingLease.objects.bulk_create(
        [
            ServingLease(deployment=each, servable_until=now + timedelta(minutes=10))
            for each in deployments
        ],
        size,
    )
    Replica.objects.bulk_create(
        [
            Replica(
                deployment=deployments[number], worker=f"worker-{number // PER_WORKER}",
                state="ready", loaded_digest=digests[number], heartbeat_at=now,
            )
            for number in numbers
        ],
        size,
    )  # fmt: skip
    Placement.objects.bulk_create(
        [
            Placement(
                deployment=deployments[number], worker=f"worker-{number // PER_WORKER}", since=now
            )
            for number in numbers
        ],
        size,
    )
    return names


def _keys(departments: list[Department], count: int) -> list[str]:
    """Create keys, in turn of each department; return their tokens. The first of each department
    is for its deployments."""
    from django.conf import settings
    from django.db import connection
    from django.utils import timezone

    from governance.keys.tokens import format_token, mint, secret_hmac

    pepper, expires_at = settings.KEY_PEPPERS[1], timezone.now() + timedelta(days=100)
    minted = [mint() for _ in range(count)]
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY governance_apikey (public_id, secret_hmac, pepper_version, name, department_id,"
            " purpose, scopes, allowed_deployments, networks, created_at, expires_at,"
            " revoked_reason, proof_method) FROM STDIN"
        ) as copy,
    ):
        for number, (public_id, secret) in enumerate(minted):
            department = departments[number % len(departments)]
            copy.write_row(
                (
                    public_id, secret_hmac(secret, pepper), 1, f"key {number}", department.pk, "",
                    ["deployment:invoke"], [], [], timezone.now(), expires_at, "", "",
                )
            )  # fmt: skip
    return [format_token(*each) for each in minted]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything")
    parser.add_argument("--deployments", type=int, default=DEPLOYMENTS)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--departments", type=int, default=DEPARTMENTS)
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args(sys.argv[1:])
    if arguments.quick:
        for name in ("deployments", "keys", "departments"):
            setattr(arguments, name, getattr(arguments, name) // 20)
        arguments.changes, arguments.seconds = 30, 10
    run(arguments)
