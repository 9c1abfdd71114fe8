"""A GGUF kept as delivered, through a real gateway and a real engine worker with llama.cpp."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from assay_demo.data.materials import fetch
from governance.usage.models import UsageRecord
from registry.manifests import build_manifest
from registry.storage import store
from registry.versions.models import ModelVersion
from tests.live.celery_worker import ENGINE_WORKER, controller, descendants, worker
from tests.live.test_serving_faults import key
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.conftest import smollm2
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState, Replica
from workers.deployments.services import deployment_create

__all__ = ["smollm2"]

pytestmark = [pytest.mark.live, pytest.mark.torch, pytest.mark.django_db(transaction=True)]
CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Tell a long story about a lighthouse."}]
# Neither token that ends an answer: its length is `max_tokens`.
ENDLESS = {"logit_bias": {"0": -100, "2": -100}}
LEASE_S = "3600"


def kept(converted: Path, folder: Path) -> ModelVersion:
    """A version as intake makes it of SmolLM2's GGUF when it keeps the file."""
    shutil.copytree(converted, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(fetch(names=["smollm2"])["smollm2"], folder / "model.gguf")
    manifest = build_manifest(folder)
    store.adopt(folder, manifest)
    model = company.model("smol", "text-generation")
    return ModelVersion.objects.create(
        model=model,
        number=1,
        kind="base",
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        license="Apache-2.0",
        created_by=model.created_by,
    )


class Served:
    """The processes that serve the GGUF, and a client with a key."""

    def __init__(self, converted: Path, folder: Path, stack: ExitStack) -> None:
        actor = company.developer()
        approved = release(kept(converted, folder / "kept"), name="teller", engine="llama.cpp")
        self.deployment = deployment_create(actor=actor, release_id=approved.pk)
        other = release(adapter(), name="other", engine="vllm")
        self.other = deployment_create(actor=actor, release_id=other.pk)
        settings = {"ASSAY_SERVING_LEASE_S": LEASE_S, "ASSAY_VLLM_PYTHON": ""}
        stack.enter_context(controller(folder / "controller.log", **settings))
        self.worker = stack.enter_context(worker(folder / "engine.log", *ENGINE_WORKER, **settings))
        url, _ = stack.enter_context(web(folder, **settings))
        headers = {"authorization": f"Bearer {key()}"}
        self.client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))
        wait_until(lambda: self.state() == DeploymentState.SERVING)
        wait_until(lambda: self.ask(max_tokens=1).status_code == 200)

    def state(self) -> str:
        return Deployment.objects.get(pk=self.deployment.pk).state

    def body(self, **options: Any) -> dict[str, Any]:
        return {"model": "teller", "messages": QUESTION, "temperature": 0, **ENDLESS, **options}

    def ask(self, **options: Any) -> httpx.Response:
        return self.client.post(CHAT, json=self.body(**options))

    def stream(self, **options: Any) -> Any:
        """An answer that is streamed, with the tokens that it took; a context manager."""
        body = self.body(stream=True, stream_options={"include_usage": True}, **options)
        return self.client.stream("POST", CHAT, json=body)

    def server(self) -> int:
        """The process of llama.cpp that the worker has started."""
        (found,) = (
            pid for pid in descendants(self.worker.pid) if b"llama_cpp_process" in argv(pid)
        )
        return found


def argv(pid: int) -> bytes:
    """The program of a process, without the launcher that names it as an argument."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[2] if len(words) > 2 else b""


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def content(event: dict[str, Any]) -> str:
    """The text that one event of a streamed answer adds."""
    choices = event.get("choices") or [{"delta": {}}]
    return choices[0]["delta"].get("content") or ""


@pytest.fixture
def served(redis: Redis, smollm2: Path, tmp_path: Path, settings: Any) -> Iterator[Served]:
    settings.SERVING_LEASE_S = int(LEASE_S)
    with ExitStack() as stack:
        yield Served(smollm2, tmp_path, stack)


def test_a_kept_gguf_is_served_billed_canceled_and_served_again_after_its_server_died(
    served: Served,
) -> None:
    # Answers are the same at once and in pieces, and charged by what the engine counted.
    whole = served.ask(max_tokens=12).json()
    assert whole["usage"]["completion_tokens"] == 12
    assert whole["choices"][0]["finish_reason"] == "length"
    with served.stream(max_tokens=12) as answer:
        pieces = list(events(answer))
    assert "".join(map(content, pieces)) == whole["choices"][0]["message"]["content"] != ""
    assert pieces[-1]["usage"] == whole["usage"]
    charged = UsageRecord.objects.filter(completion_tokens=12)
    wait_until(lambda: charged.count() == 2)
    prompt = whole["usage"]["prompt_tokens"]
    assert set(charged.values_list("prompt_tokens", "outcome")) == {(prompt, "ok")}

    # A caller who leaves ends the work, and pays for what was made until then.
    with served.stream(max_tokens=1500) as answer:
        next(event for event in events(answer) if content(event))
    wait_until(lambda: UsageRecord.objects.filter(outcome="canceled").exists())
    canceled = UsageRecord.objects.get(outcome="canceled")
    assert 0 < canceled.completion_tokens < 1500

    # A release for an engine that no worker has waits, and says for what.
    served.other.refresh_from_db()
    assert served.other.state == DeploymentState.PENDING
    assert served.other.message.startswith("No running engine worker offers vLLM.")
    assert not Replica.objects.filter(deployment=served.other).exists()

    # A server that dies fails what runs on it, and comes back.
    before = served.server()
    with served.stream(max_tokens=1500) as answer:
        read = events(answer)
        next(event for event in read if content(event))
        os.kill(before, signal.SIGKILL)
        *_, last = read
    assert last["error"]["code"] == "engine_error"
    assert "server ended" in last["error"]["message"]
    wait_until(lambda: served.ask(max_tokens=2).status_code == 200)
    assert served.server() != before
