"""Cost of the gateway: CPU per request and added latency, against a bare ASGI echo.

The subject uses everything: key, policy, six quotas on the department, Celery message, reply
stream, settlement, usage entry. The reference reads the same body and writes an answer of the same
size, under uvicorn with default settings. Rounds are interleaved. A *responder* replaces the
engine: a process that reads the deployment's Celery queue and answers every request with one fixed
text, so that only the route is measured.

`--portkey FOLDER`, a folder with `npm install @portkey-ai/gateway`, also measures Portkey's gateway
in the same rounds: without key, quota or log, in front of the echo.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.stores import own_stores
from benchmarks.table import Row, show

if TYPE_CHECKING:
    from workers.sealing import ReplySeals
    from workers.wire import InferenceRequest

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = 400
CONCURRENCY = 8
BODY = json.dumps(
    {
        "model": "bench",
        "messages": [{"role": "user", "content": "Write the one-line docstring. " * 8}],
        "max_tokens": 48,
    }
).encode()
ANSWER = json.dumps({"answer": "x" * 480}).encode()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve the reference application."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json")]
    headers.append((b"content-length", str(len(ANSWER)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def open_requests(
    queue: str, *, block_s: float = 1.0
) -> Iterator[tuple[Any, tuple[InferenceRequest, ReplySeals] | None]]:
    """Read a Celery queue like a worker, until killed. Yields the broker's client with each opened
    request, or with None if no request arrived in time.
    """
    import django
    import redis
    from django.conf import settings

    django.setup()
    from workers.deployments.worker_keys import worker_key_register
    from workers.sealing import WorkerSeals
    from workers.wire import alive_key
    from workers.wire_keys import WireKey

    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    worker = WorkerSeals(WireKey(settings.WIRE_KEY))
    worker_key_register(worker="responder", public_key=worker.public_key)
    client.set(alive_key(worker.public_key), "1")
    while True:
        item: Any = client.brpop([queue], timeout=block_s)
        if item is None:
            yield client, None
            continue
        ((message, *_), _, _) = json.loads(base64.b64decode(json.loads(item[1])["body"]))
        yield client, worker.open(message)


def respond(queue: str) -> None:
    """Answer every message of a Celery queue at once, until killed."""
    from workers.wire import Delta, Done

    delta = Delta("Adds two numbers.", 4)
    done = Done("stop", prompt_tokens=60, completion_tokens=4)
    for client, opened in open_requests(queue):
        if opened is not None:
            request, seals = opened
            entry = seals.seal(delta, done)
            client.xadd(request.reply_stream, entry, maxlen=10_000, approximate=True)


def run(*, quick: bool = False, portkey: str = "") -> tuple[list[Row], list[Row]]:
    """Start separate stores and servers, measure, and stop them. Django must not be set up yet.

    Returns the rows against the echo, and the rows against Portkey.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    with own_stores(PYTHONPATH=paths), ExitStack() as stack:
        token, queue = furnish()
        responder = stack.enter_context(
            process(sys.executable, "-m", "benchmarks.gateway", "respond", queue)
        )
        subject = stack.enter_context(served(token, "assay.server"))
        echoed = ("uvicorn", "benchmarks.gateway:echo", "--no-access-log")
        reference = stack.enter_context(served(token, *echoed))
        subject.behind = {
            "broker": lambda: valkey_cpu_s(os.environ["REDIS_URL"]),
            "responder": lambda: cpu_s(responder.pid),
        }
        others = [reference]
        if portkey:
            others.append(stack.enter_context(_portkey(portkey, reference)))
        against_echo, *against_portkey = _measure(subject, others, rounds=2 if quick else 7)
        return against_echo, against_portkey[0] if against_portkey else []


def furnish() -> tuple[str, str]:
    """Create a department with a key, all quotas and a deployment; return token and queue name."""
    from django.db import connection

    from governance.people.models import Department
    from governance.policy.services import policy_bootstrap

    policy_bootstrap()
    department = Department.objects.create(slug="bench", name="Bench")
    result = _key(department), _deployment(department)
    connection.close()
    return result


def _key(department: Any) -> str:
    from django.conf import settings
    from django.utils import timezone

    from governance.keys.models import ApiKey
    from governance.keys.tokens import format_token, mint, secret_hmac
    from governance.quotas.kinds import KINDS
    from governance.quotas.models import QuotaLimit
    from governance.quotas.reconcile import quotas_reconcile

    for kind in KINDS:
        QuotaLimit.objects.create(department=department, kind=kind, limit=10**9)
    quotas_reconcile(repair=True)
    public_id, secret = mint()
    ApiKey.objects.create(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[1]),
        pepper_version=1,
        name="bench",
        department=department,
        scopes=["deployment:invoke"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    return format_token(public_id, secret)


def _deployment(department: Any) -> str:
    from django.utils import timezone

    from governance.people.models import Person
    from registry.releases.models import Release
    from registry.versions.models import Model, ModelVersion
    from tests.approvals import approve, give_dossier
    from workers.deployments.models import Deployment, Replica, ServingLease
    from workers.wire import deployment_queue

    person = Person.objects.create(email="bench@example.org", name="Bench")
    later = timezone.now() + timedelta(days=1)
    owned = {"department": department, "created_by": person}
    model = Model.objects.create(name="bench", task="text-generation", **owned)
    version = ModelVersion.objects.create(
        model=model, number=1, kind="base", digest="0" * 64, manifest={}, size_bytes=1,
        created_by=person,
    )  # fmt: skip
    release = Release.objects.create(
        version=version, department=department, environment="production", deployment_name="bench",
        purpose="Measure", state="approved", dossier={}, dossier_digest="0" * 64,
        submitted_by=person, approved_at=timezone.now(), expires_at=later,
    )  # fmt: skip
    release.departments.set([department])
    give_dossier(release)
    approve(release)
    deployment = Deployment.objects.create(name="bench", release=release, state="serving", **owned)
    ServingLease.objects.create(deployment=deployment, servable_until=later)
    # No process renews this heartbeat, so it is in the future.
    Replica.objects.create(
        deployment=deployment, worker="responder", state="ready", loaded_digest="0" * 64,
        heartbeat_at=later,
    )  # fmt: skip
    return deployment_queue(deployment.pk)


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block."""
    started = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Served:
    """One application at a port, and the CPU time of its process.

    `behind` has functions that return the CPU time, in seconds, of other processes that serve it.
    """

    def __init__(self, port: int, pid: int, token: str, **headers: str) -> None:
        self.port = port
        self.behind: dict[str, Callable[[], float]] = {}
        self.pid = pid
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._headers |= headers

    def cpu_s(self) -> float:
        """Return user and system time of the server process, in seconds."""
        return cpu_s(self.pid)

    def is_alive(self) -> bool:
        """Return whether the application answers `/healthz`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200

    def send(self, count: int) -> list[float]:
        """Send `count` sequential requests on one connection; return each one's time in ms."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        times = []
        for _ in range(count):
            started = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", BODY, self._headers)
            response = connection.getresponse()
            answer = response.read()
            times.append((time.perf_counter() - started) * 1000)
            if response.status != 200:
                raise RuntimeError(f"Port {self.port} answered {response.status}: {answer!r}")
        connection.close()
        return times


@contextmanager
def served(token: str, *module: str, warm: bool = True) -> Iterator[Served]:
    """Serve an application; with `warm`, wait for the answer to a first request."""
    from assay.local.services import free_port

    port = free_port()
    options = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    with process(sys.executable, "-m", *module, *options) as started:
        subject = Served(port, started.pid, token)
        until_works(lambda: bool(subject.send(1)) if warm else subject.is_alive())
        yield subject


@contextmanager
def _portkey(folder: str, upstream: Served) -> Iterator[Served]:
    """Run Portkey's gateway with default settings in front of `upstream`."""
    from assay.local.services import free_port

    port = free_port()
    script = Path(folder) / "node_modules/@portkey-ai/gateway/build/start-server.js"
    with process("node", str(script), "--headless", f"--port={port}") as started:
        headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream.port}/v1",
        }
        served = Served(port, started.pid, "none", **headers)
        until_works(lambda: bool(served.send(1)))
        yield served


def valkey_cpu_s(url: str) -> float:
    """Return the processor seconds of a Valkey server."""
    import redis

    with redis.Redis.from_url(url) as client:
        usage: Any = client.info("cpu")
    return float(usage["used_cpu_user"] + usage["used_cpu_sys"])


def until_works(works: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until `works` returns True; ignore its exceptions until the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if works():
                return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _measure(subject: Served, others: list[Served], *, rounds: int) -> list[list[Row]]:
    """Measure all in turn; return the subject's rows against each of the others."""
    samples: list[dict[str, list[float]]] = [{} for _ in (subject, *others)]
    for _ in range(rounds):
        for sample, served in zip(samples, (subject, *others), strict=True):
            for name, value in _round(served).items():
                sample.setdefault(name, []).append(value)
    units = {"requests/s": "1/s"}
    ours, *theirs = samples
    return [
        [
            Row.of(name, units.get(name.rpartition(", ")[2], "ms"), values, other.get(name, ()))
            for name, values in ours.items()
        ]
        for other in theirs
    ]


def _round(served: Served) -> dict[str, float]:
    before = served.cpu_s()
    times = served.send(REQUESTS)
    cpu_each = (served.cpu_s() - before) / REQUESTS
    behind = {name: cpu_now() for name, cpu_now in served.behind.items()}
    before, started = served.cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(served.send, [REQUESTS // CONCURRENCY] * CONCURRENCY))
    return {
        "one at a time, median latency": median(times),
        "one at a time, 95th percentile": quantiles(times, n=20)[-1],
        "one at a time, CPU per request": cpu_each * 1000,
        f"{CONCURRENCY} at a time, CPU per request": (served.cpu_s() - before) / REQUESTS * 1000,
        f"{CONCURRENCY} at a time, requests/s": REQUESTS / (time.perf_counter() - started),
        **{
            f"{CONCURRENCY} at a time, CPU of the {name}": (cpu_now() - behind[name])
            / REQUESTS
            * 1000
            for name, cpu_now in served.behind.items()
        },
    }


def main() -> None:
    """Run `python -m benchmarks.gateway [--quick] [--portkey FOLDER]`."""
    if sys.argv[1:2] == ["respond"]:
        respond(sys.argv[2])
        return
    portkey = sys.argv[sys.argv.index("--portkey") + 1] if "--portkey" in sys.argv else ""
    rows, against_portkey = run(quick="--quick" in sys.argv, portkey=portkey)
    show("The gateway's route, everything on", "bare echo", rows)
    if against_portkey:
        show("The same, against Portkey with nothing on", "Portkey", against_portkey)


if __name__ == "__main__":
    main()
