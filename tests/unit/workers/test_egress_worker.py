"""The parts of an egress worker: what it offers, its engines, and its calls for intakes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from governance.credentials.sealing import public_key_of, seal, secret_context
from governance.errors import WrongState
from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import ProbeResult
from tests.unit.workers import company
from tests.unit.workers.provider import Answers, Provider, Received, described, replies
from tests.unit.workers.test_hosted_versions import deployed, gpt
from tests.waiting import PATIENCE_S, wait_until
from workers.celery_tasks import egress
from workers.celery_tasks.egress import EgressWorker
from workers.celery_tasks.engines import offered_engines
from workers.celery_tasks.hosting import EngineHost
from workers.control.protocol import EngineControl, ProbeOrder, SealedCredential
from workers.deployments.plans import load_plan
from workers.engines.architectures import UnsupportedModel
from workers.engines.protocol import EngineRequest
from workers.wire import Done

KEY = b"\x11" * 32
ANSWER = {
    "model": "test-1",
    "choices": [{"message": {"content": "ready"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}


class Plane:
    """A control plane with one provider to call, and one credential."""

    def __init__(self, *orders: ProbeOrder) -> None:
        self.orders = list(orders)
        self.reports: list[tuple[int, ProbeResult]] = []
        self.reported = threading.Event()
        self.intakes: list[int] = []
        self.stated: list[tuple[int, str, str]] = []
        self.outage = False

    def probes(self, *, worker: str) -> list[ProbeOrder]:
        orders, self.orders = self.orders, []
        return orders

    def probe_report(self, *, worker: str, intake_id: int, result: ProbeResult) -> None:
        self.reports.append((intake_id, result))
        self.reported.set()

    def credential(
        self,
        *,
        worker: str,
        deployment_id: int,
        name: str,
        host: str,
        intake_id: int = 0,
        job_id: str = "",
    ) -> SealedCredential:
        self.intakes.append(intake_id)
        context = secret_context(
            department="clinical", name=name, kind="header", hosts=[host], version=1
        )
        secret = b'{"header":"authorization","value":"Bearer sk-1"}'
        sealed = seal(secret, public=public_key_of(KEY), context=context)
        return SealedCredential(1, "clinical", name, "header", (host,), 1, sealed)

    def model_stated(
        self, *, worker: str, deployment_id: int, model: str, fingerprint: str
    ) -> None:
        self.stated.append((deployment_id, model, fingerprint))
        if self.outage:
            raise OSError("The control plane is away.")

    def drop_broken(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    started = Provider(replies(ANSWER))
    yield started
    started.close()


@pytest.fixture
def configured(settings: Any) -> None:
    settings.EGRESS = True
    settings.EGRESS_INTERNAL_HOSTS = ["localhost"]
    settings.EGRESS_KEYS = [KEY.hex()]


def worker_of(plane: Plane) -> EgressWorker:
    return EgressWorker(cast(EngineControl, plane), worker="egress@a")


def test_an_egress_worker_offers_hosted_models_alone_and_no_other_offers_them(
    settings: Any,
) -> None:
    settings.EGRESS = True
    assert offered_engines() == ["hosted"]
    settings.EGRESS = False
    assert "hosted" not in offered_engines()


def test_a_provider_is_called_for_an_intake_with_the_credential_of_its_department(
    provider: Provider, configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "PROBES_S", 0.01)
    description = described(provider.origin, credential="provider")
    plane = Plane(ProbeOrder(7, description))
    worker = worker_of(plane)
    worker.start()
    try:
        assert plane.reported.wait(PATIENCE_S)
    finally:
        worker.close()
    ((intake, result),) = plane.reports
    assert (intake, result.reached, result.model) == (7, True, "test-1")
    assert plane.intakes == [7]
    assert {each.headers["authorization"] for each in provider.received} == {"Bearer sk-1"}


def test_intakes_are_probed_at_once_and_one_refused_report_ends_no_other(
    configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict(Plane):
        def probe_report(self, *, worker: str, intake_id: int, result: ProbeResult) -> None:
            if intake_id == 7:
                raise WrongState("The order is over.")
            super().probe_report(worker=worker, intake_id=intake_id, result=result)

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        while len(server.received) < 2:
            await asyncio.sleep(0.01)
        await replies(ANSWER)(received, writer)

    monkeypatch.setattr(egress, "PROBES_S", 0.01)
    server = Provider(behave)
    orders = [ProbeOrder(number, described(server.origin)) for number in (7, 8)]
    plane = Strict(*orders)
    worker = worker_of(plane)
    worker.start()
    try:
        assert plane.reported.wait(PATIENCE_S)
    finally:
        worker.close()
        server.close()
    ((intake, result),) = plane.reports
    assert (intake, result.reached) == (8, True)


def test_without_a_key_the_call_says_so(
    provider: Provider, configured: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "PROBES_S", 0.01)
    settings.EGRESS_KEYS = []
    description = described(provider.origin, credential="provider")
    plane = Plane(ProbeOrder(7, description))
    worker = worker_of(plane)
    worker.start()
    try:
        assert plane.reported.wait(PATIENCE_S)
    finally:
        worker.close()
    assert "ASSAY_EGRESS_KEY" in plane.reports[0][1].error
    assert provider.received == []


@pytest.mark.django_db
def test_each_deployment_has_its_own_engine_for_one_description(
    provider: Provider, configured: None
) -> None:
    company.developer()
    version = gpt(base_url=f"{provider.origin}/v1", model="test-1", credential="provider")
    plans = [load_plan(deployed(version, name)) for name in ("one", "two")]
    plane = Plane()
    worker = worker_of(plane)
    host = EngineHost(hosted=worker.engine)
    try:
        assert [host.load(plan) for plan in plans] == [version.digest] * 2
        engines = [host.find(plan.deployment_id) for plan in plans]
        assert len({id(each.engine) for each in engines if each is not None}) == 2
        answers = Answers()
        inputs = GenerationInputs(messages=[ChatMessage(role="user", content="Hello")])
        assert engines[0] is not None
        request = EngineRequest("req_1", inputs, SamplingOptions(), stream=False)
        engines[0].engine.submit(request, answers)
        assert isinstance(answers.end, Done)
        assert provider.received[0].headers["authorization"] == "Bearer sk-1"
        host.unload(plans[0].deployment_id)
        assert host.find(plans[1].deployment_id) is not None
    finally:
        host.close()
        worker.close()


@pytest.mark.django_db
def test_a_process_that_calls_no_providers_loads_no_hosted_model(provider: Provider) -> None:
    company.developer()
    plan = load_plan(deployed(gpt(base_url=f"{provider.origin}/v1")))
    host = EngineHost()
    try:
        with pytest.raises(UnsupportedModel, match="Only egress workers call providers"):
            host.load(plan)
    finally:
        host.close()


def test_names_in_answers_are_reported_once_and_again_after_an_outage(
    configured: None, tmp_path: Path
) -> None:
    answer = {**ANSWER, "model": "test-2\x00", "system_fingerprint": "fp_2"}
    server = Provider(replies(answer))
    (tmp_path / "hosted.json").write_bytes(described(server.origin).canonical())
    plane = Plane()
    worker = worker_of(plane)
    worker.start()
    engine = worker.engine(tmp_path, 5)
    numbers = count()

    def ask() -> None:
        answers = Answers()
        inputs = GenerationInputs(messages=[ChatMessage(role="user", content="Hello")])
        name = f"req_{next(numbers)}"
        engine.submit(EngineRequest(name, inputs, SamplingOptions(), stream=False), answers)
        assert answers.failed.code == "provider_differs"

    try:
        plane.outage = True
        ask()
        wait_until(lambda: plane.stated)
        plane.outage = False
        # The worker sends no second report before it knows that the first one failed.
        wait_until(lambda: ask() or len(plane.stated) == 2)
        ask()
    finally:
        engine.close()
        worker.close()
        server.close()
    assert plane.stated == [(5, "test-2�", "fp_2")] * 2


def test_the_engine_is_made_from_the_file_alone(
    provider: Provider, configured: None, tmp_path: Path
) -> None:
    description = described(provider.origin)
    (tmp_path / "hosted.json").write_bytes(description.canonical())
    worker = worker_of(Plane())
    try:
        engine = worker.engine(tmp_path, 1)
        assert engine.description == description
        engine.close()
    finally:
        worker.close()
