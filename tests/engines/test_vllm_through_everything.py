"""A base and two adapters on one vLLM, through a real gateway, broker and engine worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from governance.usage.models import UsageRecord
from registry.manifests import build_manifest
from registry.storage import store
from registry.versions.models import ModelVersion
from tests.engines.conftest import VLLM_PYTHON
from tests.live.celery_worker import (
    ENGINE_WORKER,
    controller,
    descendants,
    worker,
)
from tests.live.test_serving_faults import key
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.recording import ask
from tests.unit.workers.releases import release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create
from workers.engines.servers.process import memory_of

pytestmark = [pytest.mark.engines, pytest.mark.torch, pytest.mark.django_db(transaction=True)]
PROMPT = "The capital of France is"
TOKENS = 16
SERVER = b"vllm.entrypoints.openai.api_server"
LEASE_S = "3600"


def version(name: str, files: Path, *, base: ModelVersion | None = None) -> ModelVersion:
    """A trusted version with these files in the store."""
    manifest = build_manifest(files, base_digest=base.digest if base else None)
    store.adopt(files, manifest)
    model = company.model(name, "text-generation")
    return ModelVersion.objects.create(
        model=model,
        number=1,
        kind="adapter" if base else "base",
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        license="Apache-2.0",
        created_by=model.created_by,
    )


class Served:
    """The processes that serve the versions, and a client with a key."""

    def __init__(
        self, base: Path, adapters: dict[str, Path], folder: Path, stack: ExitStack
    ) -> None:
        actor = company.developer()
        below = version("plain", base)
        versions = {"plain": below}
        for name in ("a", "b"):
            versions[name] = version(f"adapter-{name}", adapters[name], base=below)
        for name, each in versions.items():
            approved = release(each, name=f"vllm-{name}", engine="vllm")
            deployment_create(actor=actor, release_id=approved.pk)
        settings = {"ASSAY_SERVING_LEASE_S": LEASE_S, "ASSAY_VLLM_PYTHON": VLLM_PYTHON}
        stack.enter_context(controller(folder / "controller.log", **settings))
        self.worker = stack.enter_context(worker(folder / "engine.log", *ENGINE_WORKER, **settings))
        url, _ = stack.enter_context(web(folder, **settings))
        headers = {"authorization": f"Bearer {key()}"}
        self.client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=120))
        wait_until(self.all_serve)
        wait_until(lambda: self.ask("b", max_tokens=1).status_code == 200)

    def all_serve(self) -> bool:
        return set(Deployment.objects.values_list("state", flat=True)) == {DeploymentState.SERVING}

    def ask(self, name: str, **options: Any) -> httpx.Response:
        body = {"model": f"vllm-{name}", "prompt": PROMPT, "temperature": 0, **options}
        return self.client.post("/v1/completions", json=body)

    def stream(self, name: str, **options: Any) -> Any:
        """An answer that is streamed; a context manager."""
        body = {"model": f"vllm-{name}", "prompt": PROMPT, "stream": True, **options}
        return self.client.stream("POST", "/v1/completions", json=body)

    def servers(self) -> list[int]:
        """The processes of vLLM that the worker has started."""
        started = descendants(self.worker.pid)
        return [pid for pid in started if SERVER in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def served(
    redis: Redis, base: Path, adapters: dict[str, Path], tmp_path: Path, settings: Any
) -> Iterator[Served]:
    settings.SERVING_LEASE_S = int(LEASE_S)
    with ExitStack() as stack:
        yield Served(base, adapters, tmp_path, stack)


def test_each_release_is_answered_by_its_own_adapter_billed_canceled_and_served_again(
    served: Served, base: Path, adapters: dict[str, Path]
) -> None:
    # Base and adapters share one server, and answer as our own engine does with the same files.
    answers = {name: served.ask(name, max_tokens=TOKENS).json() for name in ("plain", "a", "b")}
    texts = [answer["choices"][0]["text"] for answer in answers.values()]
    assert texts == greedy_texts(base, adapters)
    assert len(set(texts)) == 3
    used = UsageRecord.objects.filter(completion_tokens=TOKENS, outcome="ok")
    wait_until(lambda: used.count() == 3)
    assert set(used.values_list("deployment", flat=True)) == {"vllm-plain", "vllm-a", "vllm-b"}

    # A caller who leaves ends the work, and pays for what was made until then.
    with served.stream("a", max_tokens=400, logit_bias={"0": -100, "2": -100}) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: {"))
    wait_until(lambda: UsageRecord.objects.filter(outcome="canceled").exists())
    canceled = UsageRecord.objects.get(outcome="canceled")
    assert 0 < canceled.completion_tokens < 400

    # A server that dies with its launcher is started again, with the base and both adapters.
    killed = served.servers()
    groups = {os.getpgid(pid) for pid in killed}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: served.ask("b", max_tokens=1).status_code != 200)
    wait_until(lambda: served.ask("b", max_tokens=1).status_code == 200)
    wait_until(lambda: served.ask("plain", max_tokens=1).status_code == 200)
    again = served.ask("b", max_tokens=TOKENS).json()
    assert again["choices"][0]["text"] == texts[2]
    assert not any(map(memory_of, groups))


def greedy_texts(base: Path, adapters: dict[str, Path]) -> list[str]:
    """Our own engine's answers, without adapter and with each."""
    from workers.engines.generation import GenerationEngine

    own = GenerationEngine(base, architectures=("LlamaForCausalLM",), threads=1, dtype="float32")
    for name in ("a", "b"):
        own.add_adapter(name, adapters[name])
    names = [None, "a", "b"]
    found = ask(own, [PROMPT] * 3, adapters=names, max_tokens=TOKENS, temperature=0.0)
    own.close()
    return [each.text for each in found]
