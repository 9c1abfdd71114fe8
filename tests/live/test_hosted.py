"""Hosted models through a real gateway and a real egress worker. The providers are llama.cpp's own
server, and a server that never ends its answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from assay.local.services import free_port
from assay_demo.data.materials import fetch
from governance.audit.models import AuditEvent
from governance.credentials.models import Credential
from governance.credentials.sealing import fingerprint, public_key_of, seal, secret_context
from governance.credentials.secrets import HeaderSecret
from governance.people.models import Person
from governance.usage.models import UsageRecord
from tests.live.celery_worker import ENGINE_WORKER, QUIET, controller, started
from tests.live.preloaded import Process
from tests.live.test_llama_cpp import content, events
from tests.live.test_serving_faults import key
from tests.live.web_process import web
from tests.shipped import EGRESS_KEY
from tests.unit.registry.hosted_world import GENERATE, hosted_version
from tests.unit.workers import company
from tests.unit.workers.provider import STREAM, Provider, Received, chunk
from tests.unit.workers.provider import event as sent_event
from tests.unit.workers.releases import release
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
LEASE = {"ASSAY_SERVING_LEASE_S": "3600"}
SECRET = "sk-provider-7f3a91"
QUESTION = [{"role": "user", "content": "Name a city."}]
STREAMS = 200
SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.api_keys, params.model_alias = [sys.argv[3]], {"smollm2"}
params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048, 2, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.ui, params.offline, params.verbosity = False, True, 1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def credential(secret: str) -> Credential:
    """A credential of the department, sealed as the web process seals it."""
    entered = HeaderSecret(value=SecretStr(secret))
    public = public_key_of(EGRESS_KEY)
    made = Credential(
        department=company.department("clinical"),
        name="provider",
        kind="header",
        hosts=["localhost"],
        version=1,
        sealed_to=fingerprint(public),
        created_by=Person.objects.earliest("pk"),
    )
    context = secret_context(
        department="clinical", name=made.name, kind=made.kind, hosts=made.hosts, version=1
    )
    made.sealed = seal(entered.sealable(), public=public, context=context)
    made.save()
    return made


class Hosted:
    """The processes that serve a provider's model, and a client with a key."""

    def __init__(self, origin: str, folder: Path, stack: ExitStack, **description: Any) -> None:
        actor = company.developer()
        credential(f"Bearer {SECRET}")
        version = hosted_version(
            company.model("gpt", GENERATE),
            Person.objects.earliest("pk"),
            base_url=f"{origin}/v1",
            credential="provider",
            **description,
        )
        approved = release(version, name="assistant", engine="hosted")
        self.deployment = deployment_create(actor=actor, release_id=approved.pk)
        stack.enter_context(controller(folder / "controller.log", **LEASE))
        self.log = folder / "egress.log"
        self.stack = stack
        self.worker = self.start()
        url, _ = stack.enter_context(web(folder, **LEASE))
        self.url, self.headers = url, {"authorization": f"Bearer {key()}"}
        self.client = stack.enter_context(
            httpx.Client(base_url=url, headers=self.headers, timeout=PATIENCE_S)
        )
        wait_until(lambda: self.state() == DeploymentState.SERVING)

    def start(self) -> Process:
        command = ("-m", "celery", "--quiet", "-A", "workers.app", "worker", *QUIET)
        arguments = (*command, "-n", "egress@%h", *ENGINE_WORKER)
        internal = {"ASSAY_EGRESS_INTERNAL_HOSTS": "localhost"}
        return self.stack.enter_context(
            started("egress", self.log, b" ready.", *arguments, **LEASE, **internal)
        )

    def state(self) -> str:
        return Deployment.objects.get(pk=self.deployment.pk).state

    def ask(self, path: str = CHAT, **body: Any) -> httpx.Response:
        return self.client.post(path, json={"model": "assistant", "messages": QUESTION, **body})


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Iterator[str]:
    """Return the address of llama.cpp's own server."""
    port = free_port()
    model = fetch(names=["smollm2"])["smollm2"]
    with (tmp_path / "provider.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(model), str(port), SECRET], stdout=log, stderr=log
        )
    origin = f"http://localhost:{port}"
    try:
        wait_until(lambda: ready(origin) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "provider.log").read_text()
        yield origin
    finally:
        process.kill()
        process.wait()


def ready(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_llama_cpps_own_server_is_a_provider(
    redis: Redis, llama_cpp: str, tmp_path: Path, settings: Any
) -> None:
    settings.SERVING_LEASE_S = 3600
    with ExitStack() as stack:
        hosted = Hosted(llama_cpp, tmp_path, stack, model="smollm2")
        whole = hosted.ask(max_tokens=12, temperature=0)
        assert whole.status_code == 200, (whole.text, hosted.log.read_text())
        body = whole.json()
        text = body["choices"][0]["message"]["content"]
        assert text
        assert 0 < body["usage"]["completion_tokens"] <= 12
        request = {"model": "assistant", "messages": QUESTION, "max_tokens": 12, "temperature": 0}
        stated = {"stream": True, "stream_options": {"include_usage": True}}
        with hosted.client.stream("POST", CHAT, json=request | stated) as answer:
            pieces = list(events(answer))
        assert "".join(map(content, pieces)) == text
        assert pieces[-1]["usage"] == body["usage"]
        message = hosted.ask(MESSAGES, max_tokens=12, temperature=0).json()
        assert message["content"][0]["text"] == text
        assert message["usage"]["output_tokens"] == body["usage"]["completion_tokens"]
        refused = hosted.ask(seed=7)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            400,
            "unsupported_parameter",
        )
        charged = UsageRecord.objects.filter(
            completion_tokens=body["usage"]["completion_tokens"],
            prompt_tokens=body["usage"]["prompt_tokens"],
        )
        wait_until(lambda: charged.count() == 3)
        assert AuditEvent.objects.filter(action="credential:use").count() == 1
        assert SECRET not in hosted.log.read_text()
        assert "torch" not in loaded_libraries(hosted.worker.pid)
        sys.stdout.write(f"\negress worker: {pss(hosted.worker.pid) // 1024} MiB (PSS)\n")


def loaded_libraries(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def pss(pid: int) -> int:
    """The proportional set size of a process, in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not state it")


def test_a_killed_egress_worker_ends_its_streams_with_an_error(
    redis: Redis, tmp_path: Path, settings: Any
) -> None:
    settings.SERVING_LEASE_S = 3600

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        assert received.headers["authorization"] == f"Bearer {SECRET}"
        choice = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}
        writer.write(STREAM + chunk(sent_event({"choices": [choice]})))
        await asyncio.sleep(PATIENCE_S)

    provider = Provider(behave)
    try:
        with ExitStack() as stack:
            hosted = Hosted(provider.origin, tmp_path, stack)
            before = pss(hosted.worker.pid)
            lines = asyncio.run(streams(hosted, before))
            assert len(lines) == STREAMS
            assert all("error" in json.loads(line.removeprefix("data: ")) for line in lines)
            hosted.start()
            wait_until(lambda: hosted.state() == DeploymentState.SERVING)
    finally:
        provider.close()


async def streams(hosted: Hosted, before: int) -> list[str]:
    """Open streams and kill the worker; return the last event of each stream."""
    body = {"model": "assistant", "messages": QUESTION, "stream": True}
    begun = asyncio.Semaphore(0)

    async def one(session: aiohttp.ClientSession) -> str:
        last = ""
        async with session.post(f"{hosted.url}{CHAT}", json=body) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    last = line.decode()
                    if "Hello" in last:
                        begun.release()
        return last

    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        headers=hosted.headers, timeout=timeout, connector=connector
    ) as session:
        tasks = [asyncio.create_task(one(session)) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            await begun.acquire()
        after = await asyncio.to_thread(pss, hosted.worker.pid)
        sys.stdout.write(
            f"\n{STREAMS} open streams: {(after - before) / STREAMS:.0f} KiB each (PSS)\n"
        )
        os.killpg(hosted.worker.pid, signal.SIGKILL)
        return list(await asyncio.gather(*tasks))
