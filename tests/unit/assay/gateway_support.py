"""A real gateway under uvicorn, real stores, and a responder that stands in for the engine worker.

The responder reads the Celery queue through kombu and answers over the reply stream with
`workers.wire`, as `workers.celery_tasks.inference` does; only the model is missing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from queue import Empty
from typing import Any

import httpx
import openai
import pytest
import redis as redis_module
import uvicorn
from django.conf import settings
from django.urls import resolve
from django.utils import timezone

from assay.asgi import Application
from assay.gateway import runtime
from assay.gateway.access import admission, refresher
from assay.gateway.run import execution
from governance.keys.models import ApiKey
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.people.models import Department, Person
from governance.policy.services import policy_bootstrap
from governance.quotas.models import QuotaLimit
from governance.quotas.reconcile import quotas_reconcile
from governance.reviews.policies.shipping import review_policies_bootstrap
from governance.usage.records import USAGE_STREAM, UsageEntry
from registry.releases.models import Release, ReleaseState
from registry.versions.models import Model, ModelVersion, VersionKind
from tests.approvals import approve, give_dossier
from tests.unit.workers.sealed import worker_seals
from tests.waiting import PATIENCE_S, wait_until
from workers.app import app
from workers.deployments.models import (
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    ServingLease,
)
from workers.deployments.worker_keys import worker_key_register
from workers.nodes.models import Node, NodeState
from workers.sealing import NotAddressed, ReplySeals, WorkerSeals
from workers.wire import (
    SNAPSHOT_CHANNEL,
    Delta,
    Done,
    Event,
    InferenceRequest,
    alive_key,
    cancel_channel,
    deployment_queue,
    replica_queue,
)
from workers.wire_keys import WireKey

DIGEST = "d" * 64
Reply = Callable[[Event], None]
Behavior = Callable[[InferenceRequest, Reply], None]


def say_hello(request: InferenceRequest, reply: Reply) -> None:
    """Two pieces of text, three tokens."""
    reply(Delta("Hello", 1))
    reply(Delta(" there", 2))
    reply(Done("stop", prompt_tokens=5, completion_tokens=3, queue_ms=1))


def lasting_heartbeat() -> datetime:
    """Return the time of a heartbeat that outlasts every test, since responders send no more."""
    return timezone.now() + timedelta(hours=1)


class Responder:
    """Reads one deployment's queue and its own until it is stopped; notes what is canceled."""

    def __init__(self, deployment_id: int, behavior: Behavior, realm: str = "") -> None:
        self.requests: list[InferenceRequest] = []
        self.canceled: list[str] = []
        self.bounced = 0
        self.queue = deployment_queue(deployment_id)
        self._realm = realm
        self.seals = worker_seals(realm)
        self._behavior = behavior
        self._client = redis_module.Redis.from_url(os.environ["REDIS_URL"])
        self.live()
        self._stop = threading.Event()
        self._notices = self._client.pubsub(ignore_subscribe_messages=True)
        self._notices.subscribe(cancel_channel(realm))
        own = replica_queue(self.queue, self.seals.address)
        self._threads = [
            *(
                threading.Thread(target=self._consume, args=(queue,), daemon=True)
                for queue in (self.queue, own)
            ),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def restart(self) -> None:
        """Have a new key, as a new process does, that no gateway knows of yet."""
        self.seals = worker_seals(self._realm)
        self.live()

    def live(self) -> None:
        """Show a sign of life, which does not run out."""
        self._client.set(alive_key(self.seals.address), "1")

    def die(self) -> None:
        """Show none any more, as after kill -9."""
        self._client.delete(alive_key(self.seals.address))

    def _consume(self, name: str) -> None:
        with app.connection() as connection, connection.SimpleQueue(name) as queue:
            while not self._stop.is_set():
                try:
                    message = queue.get(timeout=0.1)
                except Empty:
                    continue
                message.ack()
                try:
                    request, seals = self.seals.open(message.payload[0][0])
                except NotAddressed as error:
                    self._client.xadd(error.stream, error.fields)
                    self.bounced += 1
                    continue
                self.requests.append(request)
                threading.Thread(target=self._run, args=(request, seals)).start()

    def _run(self, request: InferenceRequest, seals: ReplySeals) -> None:
        def reply(event: Event) -> None:
            self._client.xadd(seals.stream, seals.seal(event))

        self._behavior(request, reply)

    def _listen(self) -> None:
        while not self._stop.is_set():
            if (notice := self._notices.get_message(timeout=0.1)) is not None:
                self.canceled.append(notice["data"].decode("latin-1").partition(":")[0])

    def stop(self, *, wait: bool = False) -> None:
        """Stop reading; with `wait`, return when no message of the queue can reach it any more.

        kombu blocks for up to a second. At the end of a test nothing waits for it, because the
        names of queues never come again.
        """
        self._stop.set()
        for reading in self._threads[:-1] if wait else ():
            reading.join(PATIENCE_S)
            assert not reading.is_alive()

    def resume(self) -> None:
        """Read the deployment's queue again after a stop."""
        self._stop.clear()
        threading.Thread(target=self._consume, args=(self.queue,), daemon=True).start()


@dataclass
class Stage:
    """A running gateway, and hands to change the world around it."""

    url: str
    redis: redis_module.Redis
    application: Application
    person: Person
    responders: list[Responder] = field(default_factory=list)

    def department(self, slug: str) -> Department:
        return Department.objects.get_or_create(slug=slug, defaults={"name": slug})[0]

    def key(
        self, department: str | None = "engineering", *, notify: bool = True, **changes: Any
    ) -> str:
        """A new key's token; `department=None` makes a personal access token."""
        public_id, secret = mint()
        owner = {"department": self.department(department)} if department else {}
        ApiKey.objects.create(
            public_id=public_id,
            secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[1]),
            pepper_version=1,
            name="tests",
            **{
                "scopes": ["deployment:invoke"],
                "expires_at": timezone.now() + timedelta(days=1),
                "person": None if department else self.person,
                **owner,
                **changes,
            },
        )
        if notify:
            self.notify()
        return format_token(public_id, secret)

    def deployment(
        self,
        name: str = "writer",
        *,
        task: str = "text-generation",
        departments: tuple[str, ...] = ("engineering",),
        ready: bool = True,
        behavior: Behavior | None = say_hello,
        manifest: dict[str, Any] | None = None,
        target: dict[str, Any] | None = None,
        **release: Any,
    ) -> Deployment:
        """A live deployment, by default with a replica and a responder behind it. With the columns
        of a `target`, it is one of a deployment with this name."""
        owner = self.department(departments[0])
        model, _ = Model.objects.get_or_create(
            name=name, defaults={"department": owner, "task": task, "created_by": self.person}
        )
        number = model.versions.count() + 1
        digest = (
            DIGEST if target is None else hashlib.sha256(f"{name} {number}".encode()).hexdigest()
        )
        version = ModelVersion.objects.create(
            model=model,
            number=number,
            kind=VersionKind.BASE,
            digest=digest,
            manifest=manifest or {},
            size_bytes=1,
            created_by=self.person,
        )
        values = {
            "state": ReleaseState.APPROVED,
            "approved_at": timezone.now(),
            "expires_at": timezone.now() + timedelta(days=1),
            **release,
        }
        approved = Release.objects.create(
            version=version,
            department=owner,
            environment="production",
            deployment_name=name,
            purpose="tests",
            dossier={},
            dossier_digest="0" * 64,
            submitted_by=self.person,
            **values,
        )
        approved.departments.set([self.department(slug) for slug in departments])
        give_dossier(approved)
        if approved.state == ReleaseState.APPROVED:
            approve(approved)
        made = Deployment.objects.create(
            name=name,
            release=approved,
            department=owner,
            state=DeploymentState.SERVING,
            created_by=self.person,
            **(target or {}),
        )
        ServingLease.objects.create(
            deployment=made, servable_until=timezone.now() + timedelta(days=1)
        )
        worker = f"responder-{made.pk}"
        if ready:
            Replica.objects.create(
                deployment=made,
                worker=worker,
                state=ReplicaState.READY,
                loaded_digest=digest,
                heartbeat_at=lasting_heartbeat(),
            )
        if behavior is not None:
            responder = Responder(made.pk, behavior)
            self.responders.append(responder)
            if ready:
                worker_key_register(worker=worker, public_key=responder.seals.public_key)
        elif ready:
            worker_key_register(
                worker=worker, public_key=WorkerSeals(WireKey(settings.WIRE_KEY)).public_key
            )
        self.notify()
        return made

    def respond(self, deployment: Deployment, behavior: Behavior) -> None:
        """Put a responder behind a deployment that has a replica and none behind it."""
        responder = Responder(deployment.pk, behavior)
        self.responders.append(responder)
        worker_key_register(
            worker=f"responder-{deployment.pk}", public_key=responder.seals.public_key
        )
        self.notify()

    def on_node(self, name: str, deployment: Deployment, behavior: Behavior) -> str:
        """Put a node's worker behind a deployment, with a replica; return its realm."""
        node, _ = Node.objects.get_or_create(
            name=name,
            state=NodeState.ENROLLED,
            public_key=hashlib.sha256(name.encode()).hexdigest(),
            created_by=self.person,
        )
        responder = Responder(deployment.pk, behavior, node.realm)
        self.responders.append(responder)
        worker = f"{name}/responder-{deployment.pk}"
        Replica.objects.create(
            deployment=deployment,
            worker=worker,
            state=ReplicaState.READY,
            loaded_digest=DIGEST,
            heartbeat_at=lasting_heartbeat(),
        )
        worker_key_register(worker=worker, public_key=responder.seals.public_key)
        self.notify()
        return node.realm

    def limit(self, kind: str, limit: int, department: str = "engineering", **changes: Any) -> None:
        QuotaLimit.objects.create(
            department=self.department(department), kind=kind, limit=limit, **changes
        )
        quotas_reconcile(repair=True)  # As the controller does when it finds no counters.
        self.notify()

    def notify(self) -> None:
        """Publish, and return once the gateway has read the database again."""
        refresher = self.application.gateway.start().parts.refresher
        # Twice, since one reading may have been under way already.
        for _ in range(2):
            before = refresher.readings
            self.redis.publish(SNAPSHOT_CHANNEL, "")
            wait_until(lambda seen=before: refresher.readings > seen)  # type: ignore[misc]

    def client(self, token: str, *, strict: bool = True) -> openai.OpenAI:
        """The official client. Strict validation refuses two things that OpenAI itself answers: the
        base64 embeddings that the client asks for, and the null finish reasons of a streamed
        completion."""
        return openai.OpenAI(
            api_key=token,
            base_url=f"{self.url}/v1",
            max_retries=0,
            _strict_response_validation=strict,
        )

    def post(self, path: str, token: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", **options.pop("headers", {})}
        return httpx.post(f"{self.url}{path}", headers=headers, timeout=PATIENCE_S, **options)

    def entries(self, count: int = 1) -> list[UsageEntry]:
        """The ledger's entries, once there are `count`."""
        wait_until(lambda: self.redis.xlen(USAGE_STREAM) >= count)
        return [
            UsageEntry.decode(fields[b"entry"]) for _, fields in self.redis.xrange(USAGE_STREAM)
        ]


@pytest.fixture
def stage(
    transactional_db: None, redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """A gateway on a free port, with the default policy and nothing else."""
    # Healthy stores and workers must keep these limits on a busy machine. Tests of a limit set a
    # shorter one.
    monkeypatch.setattr(admission, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(refresher, "_LOOKUP_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(runtime, "_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(execution, "_LAST_WORD_S", PATIENCE_S)
    # Each change would wait up to half a second for the end of the rest after the one before.
    monkeypatch.setattr(refresher, "_REST_MOST_S", 0.0)
    policy_bootstrap()
    review_policies_bootstrap()
    person = Person.objects.create(email="ada@example.org", name="Ada")
    # Imports all views, which takes seconds; a gateway that serves would read nothing meanwhile.
    resolve("/")
    application = Application()
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            port=0,
            log_level="warning",
            timeout_graceful_shutdown=5,
            proxy_headers=False,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    built = Stage(f"http://127.0.0.1:{port}", redis, application, person)
    yield built
    server.should_exit = True
    thread.join()
    for responder in built.responders:
        responder.stop()
